"""What workers are given: what there is, where a job leaves it open; more than there is is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import jobs.pools.capacity
from jobs.console.progress import Snapshot
from jobs.driver.job import Job, create_or_open, plan, reopen
from jobs.driver.run import run, worker_setup
from jobs.ledger.job_record import read_job
from jobs.ledger.lease import STANDARD_LEASE, hold
from jobs.pools import open_pool
from jobs.pools.capacity import Capacity, fit, pool_kind, this_machine
from jobs.pools.local import LocalPool
from jobs.spec import Resources, job_from_table
from nst.errors import OptionError
from tests.chaos import InlinePool
from tests.methods import REGISTRY

Photos = Callable[..., Path]
HERE = Capacity(place="this machine", cpus=4, gpus=0, memory_bytes=16 * 2**30)
WITH_GPUS = replace(HERE, gpus=2)
CLUSTER = replace(WITH_GPUS, place="the cluster at h:1", grows=True)
needs_none = pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there are GPUs here")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def begin(folder: Path, **resources: Any) -> Job:
    table = {"photos": "photos", "output": "out", "method": {"kind": "stub"}, "resources": resources}
    return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)


def code(job: Job, **options: Any) -> int:
    """The exit code of a run in this process."""
    return run(job, pool=InlinePool(worker_setup(job)), **options).exit_code


# What is left open


@pytest.mark.parametrize(
    ("resources", "capacity", "gpus", "workers"),
    [
        (Resources(), HERE, 0, 4),
        (Resources(num_cpus=2), HERE, 0, 2),
        (Resources(num_cpus=0.5), HERE, 0, 4),
        (Resources(num_cpus=8), HERE, 0, 1),
        (Resources(min_workers=6), HERE, 0, 6),
        (Resources(memory_gb=5), HERE, 0, 3),
        (Resources(), replace(HERE, memory_bytes=2.5 * 2**30), 0, 2),
        (Resources(), WITH_GPUS, 1, 2),
        (Resources(num_gpus=0.5), WITH_GPUS, 0.5, 4),
        (Resources(num_gpus=0), WITH_GPUS, 0, 4),
        (Resources(), CLUSTER, 1, 2),
        (Resources(num_gpus=0.3), WITH_GPUS, 0.3, 4),
        (Resources(num_gpus=1, max_workers=9), CLUSTER, 1, 9),
        (Resources(), replace(CLUSTER, cpus=0, gpus=0, memory_bytes=0), 0, 1),
        (Resources(max_workers=3), HERE, 0, 3),
    ],
    ids=str,
)
def test_what_is_left_open_is_what_there_is(
    resources: Resources, capacity: Capacity, gpus: float, workers: int
) -> None:
    found = fit(resources, capacity)
    assert (found.resources.num_gpus, found.resources.max_workers) == (gpus, workers)
    assert replace(found.resources, num_gpus=resources.num_gpus, max_workers=resources.max_workers) == resources


@pytest.mark.parametrize(
    ("resources", "capacity", "said"),
    [
        (Resources(max_workers=8), HERE, "8 workers are more than this machine has room for, 4: it has 4 CPUs"),
        (
            Resources(max_workers=4, memory_gb=8),
            HERE,
            "room for, 2: it has 16.0 GiB of memory, of which each .* 8",
        ),
        (
            Resources(num_gpus=1),
            replace(CLUSTER, cpus=0, gpus=0),
            "h:1 has no room for a worker yet, so that there will be 1 at most; max_workers says how many",
        ),
    ],
    ids=str,
)
def test_more_than_there_is_room_for_is_said(resources: Resources, capacity: Capacity, said: str) -> None:
    (note,) = fit(resources, capacity).notes
    assert re.search(said, note), note


def test_a_cluster_that_grows_from_nothing_is_told_what_to_wait_for(
    tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job keeps to the CPUs that it was begun with: its user is to know before the night."""
    photos(2)
    empty = replace(CLUSTER, cpus=0, gpus=0, memory_bytes=0)
    monkeypatch.setattr("jobs.driver.job.room_for", lambda _: empty)
    said = "h:1 has no GPU when the job is begun: its workers compute on CPUs, also later; num_gpus = 1 waits"
    job = begin(tmp_path)
    assert [note for note in job.notes if said in note] == list(read_job(job.store).notes) != []
    assert fit(job.resources, empty).begun == fit(Resources(num_gpus=1), empty).begun == ()
    asked = Resources(num_gpus=1, max_workers=8)
    assert (fit(asked, empty).notes, fit(asked, empty).begun) == ((), ())


@pytest.mark.parametrize(
    ("nvidia", "gpus", "visible", "unusable"),
    [
        (True, 0, None, True),
        (True, 0, "0", True),
        (True, 0, "", False),
        (True, 0, "-1", False),
        (True, 1, None, False),
        (False, 0, None, False),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_known(
    nvidia: bool, gpus: int, visible: str | None, unusable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of its driver: a job would compute on CPUs, and never on GPUs again."""
    monkeypatch.setattr(jobs.pools.capacity, "has_nvidia", lambda: nvidia)
    monkeypatch.setattr(jobs.pools.capacity, "_gpu_count", lambda: gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "" if visible is None else visible)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert this_machine().unusable_gpu is unusable


def test_a_job_that_keeps_to_cpus_for_want_of_a_driver_says_so() -> None:
    fitted = fit(Resources(), replace(HERE, unusable_gpu=True))
    assert not fitted.notes
    assert "this machine has a GPU that torch cannot use: the job" in fitted.begun[0]


def test_what_suits_is_not_mentioned() -> None:
    for resources, capacity in (
        (Resources(max_workers=4), HERE),
        (Resources(), HERE),
        (Resources(max_workers=50), CLUSTER),
        (Resources(num_gpus=1), CLUSTER),
        (Resources(num_gpus=0), replace(HERE, unusable_gpu=True)),
        (Resources(num_gpus=0.3), WITH_GPUS),
        (Resources(num_gpus=0), WITH_GPUS),
        (Resources(max_workers=1), WITH_GPUS),
    ):
        assert fit(resources, capacity).notes == ()


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (Resources(num_gpus=1), r"resources\.num_gpus = 1: this machine has 0 GPUs; do without"),
        (Resources(num_gpus=1, pool="local"), r"resources\.num_gpus = 1: this machine has 0 GPUs; do without"),
        (Resources(num_cpus=8, pool="ray"), r"resources\.num_cpus = 8: this machine has 4 CPUs$"),
    ],
    ids=str,
)
def test_more_than_there_is_is_refused(resources: Resources, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        fit(resources, HERE, "do without")
    fit(resources, replace(HERE, grows=True))


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (
            Resources(max_workers=3),
            "max_workers = 3: this machine has 2 GPUs, of which each worker takes 1: room for 2",
        ),
        (Resources(min_workers=3, num_gpus=1), r"min_workers = 3: this machine has 2 GPUs, .*: room for 2"),
        (Resources(max_workers=5, num_gpus=0.5), r"max_workers = 5: .* takes 0\.5: room for 4"),
        (Resources(max_workers=7, num_gpus=0.3), r"max_workers = 7: .* takes 0\.3: room for 6"),
    ],
    ids=str,
)
def test_more_workers_than_gpus_are_refused(resources: Resources, said: str) -> None:
    with pytest.raises(OptionError, match=rf"resources\.{said}$"):
        fit(resources, WITH_GPUS)
    fit(resources, CLUSTER)


def test_a_worker_uses_one_gpu() -> None:
    with pytest.raises(OptionError, match=r"num_gpus = 2: must be at most 1: a worker uses one GPU"):
        Resources(num_gpus=2)


def test_the_pool_is_local_unless_there_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.pools.capacity, "_gpu_count", lambda: 8)
    assert pool_kind(Resources()) == "local"
    assert pool_kind(Resources(address="h:1")) == "ray"
    assert pool_kind(Resources(pool="local", address="h:1")) == "local"
    assert pool_kind(Resources(pool="ray")) == "ray"
    monkeypatch.setenv("RAY_ADDRESS", "h:1")
    assert pool_kind(Resources()) == "ray"


# Jobs


@needs_none
@pytest.mark.parametrize("pool", ["auto", "local", "ray"])
def test_a_job_that_wants_a_gpu_that_is_not_there_writes_nothing(
    tmp_path: Path, photos: Photos, pool: str
) -> None:
    """And the same job without it is begun, in the same folder."""
    photos(2)
    with pytest.raises(OptionError, match="this machine has 0 GPUs; num_gpus = 0 computes on CPUs"):
        begin(tmp_path, num_gpus=1, pool=pool)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    job = begin(tmp_path, num_gpus=0, pool=pool)
    assert job.resources.num_gpus == 0


@needs_none
def test_a_dry_run_says_the_same(tmp_path: Path, photos: Photos) -> None:
    photos(2)
    table = {"photos": "photos", "output": "out", "method": {"kind": "stub"}}
    with pytest.raises(OptionError, match="this machine has 0 GPUs"):
        plan(job_from_table({**table, "resources": {"num_gpus": 1}}, tmp_path, REGISTRY))
    planned = plan(job_from_table({**table, "resources": {"max_workers": 5000}}, tmp_path, REGISTRY))
    assert any("5000 workers are more than this machine has room for" in note for note in planned.notes)


@pytest.mark.parametrize(
    ("count", "cpus", "asked", "said"),
    [
        (
            2,
            9,
            {},
            ["2 photographs will not keep 9 CPUs busy: resources.num_cpus = 4 computes each with 4 of them"],
        ),
        (2, 3, {}, []),
        (1, 8, {"num_cpus": 5}, []),
        (1, 8, {"max_workers": 4}, []),
        (1, 8, {"pool": "ray"}, []),
    ],
)
def test_who_has_fewer_photographs_than_cpus_is_told(
    tmp_path: Path,
    photos: Photos,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    cpus: int,
    asked: dict[str, Any],
    said: list[str],
) -> None:
    """A photograph is computed by one worker, with one CPU by default."""
    photos(count)
    monkeypatch.setattr(jobs.pools.capacity, "cpu_count", lambda: cpus)
    monkeypatch.setattr(jobs.pools.capacity, "total_bytes", lambda: 64 << 30)
    monkeypatch.setattr(jobs.pools.capacity, "_gpu_count", lambda: 0)
    table = {"photos": str(tmp_path / "photos"), "output": str(tmp_path / "out"), "method": {"kind": "stub"}}
    resources = {"pool": "local", **asked}
    planned = plan(job_from_table({**table, "resources": resources}, tmp_path, REGISTRY))
    assert [note for note in planned.notes if "busy" in note] == said
    job = create_or_open(job_from_table({**table, "resources": resources}, tmp_path, REGISTRY), REGISTRY)
    assert [note for note in job.notes if "busy" in note] == said
    assert not any("busy" in note for note in read_job(job.store).notes), "which is of this machine"


def test_the_kind_of_device_is_on_record_and_kept(
    tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left out, it is what there was when the job was begun; the number of workers is found anew."""
    photos(2)
    monkeypatch.setattr(jobs.pools.capacity, "_gpu_count", lambda: 0)
    begin(tmp_path)
    record = json.loads((tmp_path / "out/job.json").read_text())["job"]["resources"]
    assert (record["num_gpus"], record["max_workers"]) == (0, None)
    monkeypatch.setattr(jobs.pools.capacity, "_gpu_count", lambda: 1)
    job = begin(tmp_path)
    assert job.resources.num_gpus == 0
    assert code(job) == 0


@pytest.fixture
def on_a_gpu(tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job that was begun where there was a GPU; now there is none."""
    photos(2)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.pools.capacity, "_gpu_count", lambda: 1)
        job = begin(tmp_path, pool="local")
    monkeypatch.setattr(jobs.pools.capacity, "_gpu_count", lambda: 0)
    assert job.resources.num_gpus == 1
    return job


def test_a_job_of_which_nothing_is_done_may_change_to_cpus(on_a_gpu: Job) -> None:
    """Nobody is stuck: what is refused says what to do, and that works."""
    with pytest.raises(OptionError, match=r"0 GPUs; go on where there are some; or, .*resources\.num_gpus=0"):
        run(on_a_gpu)
    again = reopen(on_a_gpu.store, overrides={"resources": {"num_gpus": 0}}, registry=REGISTRY)
    assert code(again) == 0
    kept = reopen(on_a_gpu.store, registry=REGISTRY)
    assert kept.resources.num_gpus == 0, "the record follows"
    with pytest.raises(
        OptionError, match=r"begun with 0: .*go on with that, or begin the job in another output"
    ):
        reopen(on_a_gpu.store, overrides={"resources": {"num_gpus": 1}}, registry=REGISTRY)


def test_nobody_changes_a_job_that_another_driver_is_at(on_a_gpu: Job) -> None:
    with hold(on_a_gpu.store, STANDARD_LEASE), pytest.raises(OptionError, match="was begun with 1"):
        reopen(on_a_gpu.store, overrides={"resources": {"num_gpus": 0}}, registry=REGISTRY)


def test_a_job_that_is_done_needs_no_room(on_a_gpu: Job) -> None:
    cpus = reopen(on_a_gpu.store, overrides={"resources": {"num_gpus": 0}}, registry=REGISTRY)
    assert code(cpus) == 0
    path = Path(on_a_gpu.store.url, "job.json")
    path.write_text(path.read_text().replace('"num_gpus": 0', '"num_gpus": 1'))
    done = reopen(on_a_gpu.store, registry=REGISTRY)
    assert done.resources.num_gpus == 1
    assert code(done) == 0


def test_too_many_workers_are_said_when_the_job_runs(tmp_path: Path, photos: Photos) -> None:
    photos(1)
    seen: list[Snapshot] = []
    assert code(begin(tmp_path, max_workers=5000), observe=seen.append) == 0
    said = [event.text for snapshot in seen for event in snapshot.log_events if event.event == "note"]
    assert len(said) == 1
    assert said[0].startswith("note: 5000 workers are more than this machine has room for")


def test_one_photograph_starts_no_cluster(tmp_path: Path, photos: Photos) -> None:
    photos(1)
    job = begin(tmp_path)
    assert isinstance(open_pool(job.resources, worker_setup(job), {}), LocalPool)
