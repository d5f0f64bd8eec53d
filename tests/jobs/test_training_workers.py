"""Workers of a training that cannot be started, and what is said of those that failed. Nothing of it needs a
cluster."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from jobs.console.stop import StopSignal
from jobs.errors import StepFailed, TrainingDiverged, WorkersBroken
from jobs.training import driver, ray_workers
from jobs.training.driver import _due, _Run
from jobs.training.job import reopen_training
from jobs.training.ray_errors import cause_of, may_pass
from jobs.training.ray_workers import has_room, trainer_of
from jobs.training.spec import TrainResources
from nst.errors import OptionError
from tests.jobs.test_training import begun, photos

__all__ = ["photos"]  # the fixture
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

STEP = StepFailed(7, "step 7 fails of RuntimeError: Connection closed by peer; its photographs: a/1.png")
DIED = WorkerHealthCheckFailedError("A worker health check failed.", RuntimeError("killed, for its memory"))
NOT_STARTED = ray.train.ControllerError(WorkerGroupStartupFailedError("a worker did not initialize"))


def failed(*errors: Exception) -> ray.train.WorkerGroupError:
    return ray.train.WorkerGroupError("\n".join(map(str, errors)), dict(enumerate(errors)))


def test_who_misses_a_worker_that_died_is_not_the_cause() -> None:
    """Nor are its photographs."""
    for errors in ((STEP, DIED), (DIED, STEP)):
        cause = cause_of(failed(*errors))
        assert isinstance(cause, WorkersBroken)
        assert str(cause).endswith("WorkerHealthCheckFailedError: killed, for its memory")
    diverged = TrainingDiverged("a loss is nan")
    assert cause_of(failed(STEP, diverged)) is diverged
    assert cause_of(failed(DIED, diverged)) is diverged
    assert cause_of(failed(STEP)) is STEP
    assert cause_of(STEP) is STEP
    assert "before the training did" in str(cause_of(None))


def test_workers_multiply_in_float32_whatever_a_container_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(ray_workers, "train", lambda *_: found.append(torch.get_float32_matmul_precision()))
    monkeypatch.setattr(ray_workers, "get_device", lambda: torch.device("cpu"))
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as containers do with their environment
    try:
        ray_workers._train_worker({"setup": None})
    finally:
        torch.set_float32_matmul_precision(before)
    assert found == ["highest"]


def test_workers_that_cannot_start_are_tried_again_but_not_where_there_is_no_room() -> None:
    assert may_pass(NOT_STARTED)
    assert may_pass(failed(DIED))
    assert not may_pass(RuntimeError("the controller is gone"))
    for error in (WorkerGroupStartupTimeoutError(2), InsufficientClusterResourcesError("no GPU")):
        found = ray.train.ControllerError(error)
        assert not may_pass(found)
        assert str(cause_of(found)).startswith(
            "workers cannot start: for longer than resources.start_timeout_s"
        )


def test_ray_leaves_all_failures_to_the_driver(photos: Path) -> None:
    own = trainer_of(begun(photos), str(photos)).run_config.failure_config
    assert (own.max_failures, own.controller_failure_limit) == (0, 0)


def test_starts_that_fail_are_counted(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Any] = []
    monkeypatch.setattr(driver, "trainer_of", lambda *_: None)
    monkeypatch.setattr(_Run, "_fit", lambda *_: tries.append(None) or NOT_STARTED)
    run = _Run(begun(photos, resources={"max_failures": 2}), lambda _: None, StopSignal(), None)
    summary = run._train(str(photos))
    assert len(tries) == 3
    assert summary is not None
    assert "a worker did not initialize" in str(summary.error)
    assert summary.exit_code == 4


def test_a_cluster_without_room_is_given_up(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not one that had none for a moment."""
    done = threading.Event()
    looks = iter([False, True, *[False] * 1000])
    monkeypatch.setattr(driver, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(driver, "nodes_now", list)
    monkeypatch.setattr(driver, "has_room", lambda *_: next(looks))

    class Waiting:
        def fit(self) -> None:
            done.wait(60)

    job = begun(photos, resources={"start_timeout_s": 1.0, "min_workers": 1, "max_workers": 2})
    error = _Run(job, lambda _: None, StopSignal(), None)._fit(Waiting())  # type: ignore[arg-type]
    done.set()
    assert isinstance(error, WorkersBroken)
    assert next(looks) is False


def test_a_cluster_that_is_gone_is_said_so(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with Ray's own error, and a traceback."""
    done = threading.Event()

    class Waiting:
        def fit(self) -> None:
            done.wait(60)

    def gone() -> None:
        raise RuntimeError("Failed to connect to GCS")

    monkeypatch.setattr(ray, "nodes", gone)
    with pytest.raises(WorkersBroken, match=r"^the Ray cluster does not answer: RuntimeError: Failed"):
        _Run(begun(photos), lambda _: None, StopSignal(), None)._fit(Waiting())  # type: ignore[arg-type]
    done.set()


@pytest.mark.parametrize(
    ("resources", "room"),
    [
        ({}, True),
        ({"num_cpus": 2.0, "min_workers": 3, "max_workers": 3}, True),
        ({"num_cpus": 2.0, "min_workers": 4, "max_workers": 9}, False),
        ({"num_cpus": 5.0}, False),
        ({"num_cpus": 0.1, "min_workers": 70, "max_workers": 70}, True),
        ({"num_gpus": 1}, True),
        ({"num_gpus": 1, "min_workers": 2, "max_workers": 2}, False),
    ],
    ids=str,
)
def test_room_is_counted_by_nodes(resources: dict[str, Any], room: bool) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 3.0, "memory": 1e9}},
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {"memory": 1e9}},
    ]
    assert has_room(TrainResources(**resources), nodes) is room


def test_evaluations_beside_workers_are_two_at_most() -> None:
    """However long they take; where Ray sets CPUs aside, it says how many there are at once."""
    steps = [5, 10, 15, 20, 25]
    assert _due(steps, {5}, {}, {}, 0.0) == [10, 15]
    assert _due(steps, {5}, {10: "task"}, {10: 1}, 0.0) == [15]
    assert _due(steps, {5}, {10: "task", 15: "task"}, {}, 0.0) == []
    assert _due(steps, {5, 10, 15}, {20: "task"}, {20: 2}, 0.0) == [25]
    assert _due(steps, {5}, {15: "task"}, {10: 3, 15: 1, 20: 2}, 1.0) == [20, 25], "10 failed too often"
    assert _due(steps, set(steps), {}, {}, 0.0) == []


@pytest.mark.parametrize(
    ("gpus", "resources", "used"),
    [
        (0, {}, 0),
        (2, {}, 1),
        (2, {"num_gpus": 0}, 0),
        (2, {"min_workers": 2, "max_workers": 2}, 1),
        (1, {"min_workers": 2, "max_workers": 2}, 0),
        (2, {"backend": "nccl"}, 1),
    ],
)
def test_gpus_that_are_left_out_are_those_that_there_are_when_it_is_begun(
    photos: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, resources: dict[str, Any], used: int
) -> None:
    """And it keeps to that."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("jobs.pools.capacity._gpu_count", lambda: gpus)
    job = begun(photos, resources=resources)
    assert json.loads(job.store.read("job.json"))["job"]["resources"]["num_gpus"] == used
    assert job.file.resources.num_gpus == used
    monkeypatch.setattr("jobs.pools.capacity._gpu_count", lambda: 2)
    again = begun(photos, resources=resources)
    assert again.file.resources.num_gpus == reopen_training(job.store).file.resources.num_gpus == used
    with pytest.raises(OptionError, match=rf"num_gpus = {1 - used}: the training was begun with {used}"):
        reopen_training(job.store, overrides={"resources": {"num_gpus": 1 - used, "backend": None}})


def test_who_leaves_gpus_out_is_told_why_there_are_none(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"CPU": 4.0}
    monkeypatch.setattr("jobs.pools.ray_session.cluster_resources", lambda _: there)
    job = begun(photos, resources={"address": "h:1"})
    assert any("the cluster at h:1 has no GPU when the job is begun" in note for note in job.notes)
    there["GPU"] = 1.0
    other = begun(photos, resources={"address": "h:1"}, output=str(photos / "other"))
    assert other.file.resources.num_gpus == 1
    monkeypatch.setattr("jobs.pools.capacity._gpu_count", lambda: 0)
    with pytest.raises(OptionError, match=r"resources\.backend = 'nccl'"):
        begun(photos, resources={"backend": "nccl"}, output=str(photos / "third"))
