"""The stage before a job's shards: a network learns on some photographs, once, whatever dies meanwhile."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from jobs.console.display import Display
from jobs.console.progress import Snapshot, Summary
from jobs.console.stop import StopSignal
from jobs.driver.adapting import Adapting, adapt_rows, adapted_job
from jobs.driver.job import Job, create_or_open, reopen
from jobs.driver.run import run, worker_setup
from jobs.driver.todo import retry_work
from jobs.errors import WorkersBroken
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.adapted import CHECKPOINT, LOADING, PROGRESS, AdaptProgress, read_loading, read_progress
from jobs.ledger.layout import adapted_path
from jobs.ledger.receipts import Ledger
from jobs.spec import job_from_table
from jobs.worker.adapting import Adapter, not_left_out
from jobs.worker.messages import Died, Task
from nst.feed_forward.files import painter_file, read_names
from nst.feed_forward.method import FeedForward
from nst.feed_forward.networks import Painter, PainterConfig
from nst.images.codec import decode_photo, encode_image
from nst.stylizer import Stylized
from tests.conftest import picture
from tests.methods import KILL, REGISTRY

Photos = Callable[..., Path]


def begun(folder: Path, output: str = "out", **method: Any) -> Job:
    table = {
        "photos": "photos",
        "output": output,
        "method": {"kind": "learner", "adapt_steps": 6, "adapt_photos": 3, **method},
        "image": {"format": "png"},
        "resources": {"pool": "local", "max_workers": 1},
    }
    return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)


def again(job: Job) -> Job:
    return reopen(job.store, registry=REGISTRY)


def pictures_of(job: Job) -> dict[str, str]:
    return {path: hashlib.sha256(job.store.read(path)).hexdigest() for path in job.store.find("images")}


def files(job: Job) -> list[str]:
    return list(job.store.find("adapted"))


def test_all_photographs_and_receipts_are_of_one_object(photos: Photos, tmp_path: Path) -> None:
    photos(5)
    job = begun(tmp_path)
    said: list[str] = []
    summary = run(job, observe=lambda snapshot: said.extend(each.text for each in snapshot.log_events))
    assert summary.counts["ok"] == 5
    assert files(job) == [adapted_path(job.fingerprint)]
    data = job.store.read(files(job)[0])
    assert json.loads(data)["steps"] == 6
    assert len(json.loads(data)["photos"]) == 3
    digest = hashlib.sha256(data).hexdigest()
    metas = [Ledger(job.store).receipt(shard)[1] for shard in range(job.manifest.shards)]
    assert {meta["adapted"] for meta in metas} == {digest}
    assert list(verify(job.store)) == []
    assert "the network learns on 3 of the photographs" in said
    assert any("takes minutes, for 5 photographs" in each for each in said)
    assert run(again(job)).counts["ok"] == 5, "there is nothing to do"


def test_which_photographs_depends_on_their_names_alone(photos: Photos, tmp_path: Path) -> None:
    photos(9)
    job = begun(tmp_path)
    chosen = adapt_rows(job.manifest, 4, 0)
    everything = [row for shard in range(job.manifest.shards) for row in job.manifest.shard(shard)]
    ordered = sorted(everything, key=lambda row: hashlib.sha256(f"0/{row.key}".encode()).digest())
    assert list(chosen) == ordered[:4]
    assert adapt_rows(job.manifest, 4, 1) != chosen
    assert set(adapt_rows(job.manifest, 100, 0)) == set(everything)


def test_the_worker_that_learns_is_there(photos: Photos, tmp_path: Path) -> None:
    """While the network learned, for half an hour, it was said that workers are waited for."""
    photos(2)
    job = begun(tmp_path, delay_s=0.5)
    workers: list[int] = []
    with Display(Console(file=io.StringIO(), force_terminal=True)) as display:

        def observe(snapshot: Snapshot) -> None:
            display(snapshot)
            if not files(job):
                workers.append(snapshot.workers)

        run(job, observe=observe)
    assert workers == sorted(workers)
    assert workers[-1] == 1


def slowly(job: Job, until: Callable[[], bool], act: Callable[[StopSignal], None]) -> Summary:
    """Run a job, and do something when something is so."""
    stop = StopSignal()

    def watch() -> None:
        while not until():
            time.sleep(0.02)
        act(stop)

    threading.Thread(target=watch, daemon=True).start()
    return run(job, stop=stop)


@pytest.fixture
def whole(photos: Photos, tmp_path: Path) -> dict[str, str]:
    """The pictures of a job that nothing happened to."""
    photos(5)
    job = begun(tmp_path, "whole")
    run(job)
    return pictures_of(job)


def test_stopped_it_goes_on_from_its_checkpoint(whole: dict[str, str], tmp_path: Path) -> None:
    job = begun(tmp_path, delay_s=0.3, adapt_steps=6)
    summary = slowly(
        job, lambda: read_progress(job.store, job.fingerprint) is not None, lambda stop: stop.ask()
    )
    assert summary.stopped
    assert not list(job.store.find("images"))
    assert job.store.exists(CHECKPOINT)
    progress = job_status(job.store).adapting
    assert progress is not None
    assert 0 < progress.step < 6
    assert progress.steps == 6
    assert "loss" in str(progress)
    assert {fault.problem for fault in verify(job.store)} == {"there is none: 1 photograph unfinished"}
    assert run(again(job)).counts["ok"] == 5
    assert pictures_of(job) == whole
    learned = json.loads(job.store.read(files(job)[0]))
    assert learned["begun_at"] >= progress.step, "not from the start"
    assert job_status(job.store).adapting is None


def test_a_worker_that_dies_is_followed_by_another(whole: dict[str, str], tmp_path: Path) -> None:
    """What happens to one while it learns has nothing to do with photographs."""
    job = begun(tmp_path, dies_at=3)
    summary = run(job)
    assert summary.counts["ok"] == 5
    assert pictures_of(job) == whole
    assert list(verify(job.store)) == []


def test_one_that_cannot_learn_ends_the_job_which_goes_on_later(photos: Photos, tmp_path: Path) -> None:
    photos(2)
    job = begun(tmp_path, dies_at=-1)
    summary = run(job)
    assert isinstance(summary.error, WorkersBroken)
    assert "the network cannot learn: 5 workers died" in str(summary.error)
    assert not list(job.store.find("images"))
    assert summary.unfinished_shards


def test_deaths_that_came_no_further_than_one_before_end_the_job(photos: Photos, tmp_path: Path) -> None:
    """As of those that die of the next checkpoint: all begin at the last one and end at about the same step."""
    photos(2)
    job = begun(tmp_path)
    adapting = Adapting(job, worker_setup(job), lambda _: None, StopSignal(), None)
    started = list[int]()
    pool: Any = SimpleNamespace(start=started.append)

    def die(step: int) -> None:
        progress = AdaptProgress(step=step, steps=99, losses={}, seconds_left=1.0)
        job.store.publish(PROGRESS, progress.to_bytes())
        adapting._died(Died(0, "crash", "SIGKILL"), pool)

    for step in (50, 40, 60, 61, 45, 60, 44):
        die(step)
    with pytest.raises(WorkersBroken, match="5 workers died, at last: SIGKILL"):
        die(47)
    assert started == list(range(1, 8))


def test_a_photograph_that_kills_is_left_out_and_costs_nobody_else(photos: Photos, tmp_path: Path) -> None:
    folder = photos(4)
    picture(7, KILL).save(folder / "poison.jpg")
    job = begun(tmp_path, adapt_photos=5, kills=True)
    summary = run(job)
    assert (summary.counts["ok"], summary.counts["quarantined"]) == (4, 1)
    assert len(json.loads(job.store.read(files(job)[0]))["photos"]) == 4
    assert list(verify(job.store)) == []


def test_photographs_that_are_none_are_rows_of_their_own(photos: Photos, tmp_path: Path) -> None:
    folder = photos(3)
    (folder / "text.jpg").write_text("no picture")
    job = begun(tmp_path, adapt_photos=4)
    summary = run(job)
    assert (summary.counts["ok"], summary.counts["failed"]) == (3, 1)
    assert len(json.loads(job.store.read(files(job)[0]))["photos"]) == 3


def test_with_no_photograph_at_all_it_learns_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "text.jpg").write_text("no picture")
    job = begun(tmp_path)
    assert run(job).counts["failed"] == 1
    assert json.loads(job.store.read(files(job)[0]))["steps"] == 0


def test_each_photograph_is_noted_while_it_is_decoded(photos: Photos, tmp_path: Path) -> None:
    """One that two processes died at is left out; who ends otherwise leaves nothing behind."""
    photos(4)
    job = begun(tmp_path)
    rows = adapt_rows(job.manifest, 4, 0)
    for deaths in range(2):
        left = not_left_out(job.store, rows)
        assert [next(left), next(left)] == list(rows[:2])
        data = job.store.read(LOADING)
        left.close()
        assert read_loading(job.store).key is None
        job.store.publish(LOADING, data)  # as of a process that was killed
        assert read_loading(job.store).ended().deaths == {rows[1].key: deaths + 1}
    assert list(not_left_out(job.store, rows)) == [rows[0], *rows[2:]]
    assert list(not_left_out(job.store, rows)) == [rows[0], *rows[2:]], "nor is it forgotten"


def test_stopped_while_it_loads_it_leaves_nothing_out(photos: Photos, tmp_path: Path) -> None:
    photos(4)
    job = begun(tmp_path)
    adapter = Adapter(replace(worker_setup(job), adapt_rows=adapt_rows(job.manifest, 3, 0)), {})
    for _ in range(3):
        adapter.drain()
        assert not adapter.run(Task(id=0, shard=0)).complete
    assert run(again(job)).counts["ok"] == 4
    assert len(json.loads(job.store.read(files(job)[0]))["photos"]) == 3


@pytest.mark.parametrize(("how", "said"), [("nan", "step 3 are no numbers"), ("raise", "5 workers died")])
def test_what_goes_wrong_ends_the_job_in_a_sentence(
    photos: Photos, tmp_path: Path, how: str, said: str
) -> None:
    photos(2)
    job = begun(tmp_path, goes_wrong=how)
    summary = run(job)
    assert isinstance(summary.error, WorkersBroken)
    assert said in str(summary.error)
    assert not [path for path in files(job) if path.endswith(".safetensors")]


def test_a_checkpoint_of_a_version_that_learned_otherwise_is_told(photos: Photos, tmp_path: Path) -> None:
    photos(2)
    job = begun(tmp_path)
    job.store.publish(CHECKPOINT, b"{}")
    adapter = Adapter(replace(worker_setup(job), adapt_rows=adapt_rows(job.manifest, 3, 0)), {})
    with pytest.raises(WorkersBroken, match=f"{CHECKPOINT} is of a version .* without it"):
        adapter.run(Task(id=0, shard=0))


def test_one_that_hangs_is_ended(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.driver.adapting._TELL_S", 0.1)
    photos(2)
    job = begun(tmp_path, goes_wrong="hang")
    job = replace(job, resources=replace(job.resources, timeout_s=1.0))
    assert run(job).counts["ok"] == 2


def test_of_two_that_learned_the_first_one_counts(photos: Photos, tmp_path: Path) -> None:
    photos(2)
    job = begun(tmp_path)
    adapter = Adapter(replace(worker_setup(job), adapt_rows=adapt_rows(job.manifest, 3, 0)), {})
    assert adapter.run(Task(id=0, shard=0)).complete
    before = job.store.read(adapted_path(job.fingerprint))
    assert adapter.run(Task(id=0, shard=0)).complete, "it finds the weights"
    (job.store.root / adapted_path(job.fingerprint)).write_bytes(b"{}")  # type: ignore[attr-defined]
    assert adapter._learn(Task(id=0, shard=0))
    assert job.store.read(adapted_path(job.fingerprint)) == b"{}" != before


def test_what_a_killed_process_left_is_removed(photos: Photos, tmp_path: Path) -> None:
    """Between the publishing of the weights and the end of the stage."""
    photos(2)
    job = begun(tmp_path)
    adapter = Adapter(replace(worker_setup(job), adapt_rows=adapt_rows(job.manifest, 3, 0)), {})
    assert adapter._learn(Task(id=0, shard=0))
    assert job.store.exists(CHECKPOINT)
    assert job_status(job.store).adapting is None
    run(again(job))
    assert files(job) == [adapted_path(job.fingerprint)]


def test_what_is_done_again_is_of_the_same_weights(photos: Photos, tmp_path: Path) -> None:
    folder = photos(3)
    data = next(folder.glob("*.jpg")).read_bytes()
    (folder / "later.jpg").write_bytes(b"")
    job = begun(tmp_path)
    assert run(job).counts["failed"] == 1
    before = job.store.read(files(job)[0])
    (folder / "later.jpg").write_bytes(data)
    retried = run(again(job), retry_work(again(job)))
    assert retried.counts["ok"] == 4
    assert job.store.read(files(job)[0]) == before
    assert list(verify(job.store)) == []


def test_other_weights_are_found_out(photos: Photos, tmp_path: Path) -> None:
    photos(2)
    job = begun(tmp_path)
    run(job)
    path = Path(job.store.url) / adapted_path(job.fingerprint)
    (path.parent / ("0" * 16 + ".safetensors")).write_bytes(b"")
    assert [fault.problem for fault in verify(job.store)] == ["does not belong to the job"]
    (path.parent / ("0" * 16 + ".safetensors")).unlink()
    path.write_bytes(path.read_bytes() + b" ")
    problems = {fault.problem for fault in verify(job.store)}
    assert problems == {"is of other weights than those that the network has learned"}
    path.unlink()
    assert {fault.problem for fault in verify(job.store)} == problems


def test_the_painter_learns_the_styles_of_a_job(photos: Photos, tmp_path: Path) -> None:
    """Pictures are those that the method makes of the photographs with the weights that came out."""
    photos(3, width=64, height=48)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        (tmp_path / "painter.safetensors").write_bytes(
            painter_file(Painter(PainterConfig(half=4, quarter=4, eighth=4)))
        )
    method = {
        "kind": "feed_forward",
        "weights": str(tmp_path / "painter.safetensors"),
        "style": ["nst:style/swirls", "nst:style/rose"],
        "style_side_px": 48,
        "precision": "float32",
        "teacher": "embedded",
        "adapt_steps": 3,
    }
    job = begun(tmp_path, **method)
    assert run(job).counts["ok"] == 3
    learned = adapted_job(job)
    assert learned is not None
    assert {asset.option for asset in learned.assets} == {"style[0]", "style[1]", "weights"}
    data = job.store.read(files(job)[0])
    assert [each.name for each in read_names(data)] == ["swirls", "rose"]
    stylizer = FeedForward(weights="/w", precision="float32").build({"/w": data}, torch.device("cpu"))
    for path in sorted((tmp_path / "photos").rglob("*.jpg")):
        photo = decode_photo(path.read_bytes())
        (found,) = stylizer([photo.image], [torch.Generator()])
        assert isinstance(found, Stylized)
        key = path.relative_to(tmp_path / "photos").with_suffix("")
        assert job.store.read(f"images/{key}.png") == encode_image(found.image, format="png", exif=photo.exif)
    assert list(verify(job.store)) == []


def test_a_job_that_starts_from_one_pass_goes_on(photos: Photos, tmp_path: Path) -> None:
    """Its network is an option that came later, and is not recorded while it is the one that comes along."""
    photos(1)
    method = {
        "kind": "style_transfer",
        "style": "nst:style/swirls",
        "network": "embedded",
        "steps": 2,
        "coarse_scales": [],
        "init": "feed_forward",
    }
    table = {"photos": "photos", "output": "out", "method": method, "resources": {"pool": "local"}}
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    assert run(job).counts["ok"] == 1
    assert run(again(job)).counts["ok"] == 1
    assert {asset.option for asset in job.assets} == {"style", "weights", "init_weights"}
