"""The whole training job, through Ray Train."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.console.stop import StopSignal
from jobs.errors import TrainingDiverged
from jobs.stores.store import LocalStore
from jobs.training.driver import TrainSummary, _Run, run_training
from jobs.training.job import TrainJob
from jobs.training.layout import (
    DONE,
    GENERATOR,
    checkpoint_steps,
    evaluation_path,
    generator_steps,
    manifest_path,
    read_done,
    skipped_path,
    snapshot_path,
)
from jobs.training.monitor import TrainSnapshot
from tests.jobs import test_training, test_training_styles
from tests.jobs.test_lease import ELSEWHERE, leave
from tests.jobs.test_training import TINY, begun, curve, photos, setup, table, train
from tests.jobs.test_training_styles import DIRECTIONS, MODEL, styles
from tests.processes import living, spawn

__all__ = ["photos", "styles"]  # the fixtures
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

BATCH_NORM: dict[str, Any] = {
    **TINY,
    "generator_channels": 2,
    "norm": "batch",
    "precision": "float64",
    "pool_size": 3,
}


def plain(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """The curve of one process that is left alone."""
    job = begun(folder, **{**changes, "output": str(folder / "plain"), "resources": {"loader_workers": 0}})
    train(setup(job))
    return curve(job.store)


def plain_styles(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    changes = {**changes, "output": str(folder / "plain"), "resources": {"loader_workers": 0}}
    job = test_training_styles.begun(folder, **changes)
    train(setup(job))
    return curve(job.store)


def equal(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-6)


def done(summary: TrainSummary) -> dict[str, Any]:
    assert summary.error is None, summary.error
    assert summary.done is not None
    assert summary.exit_code == 0
    return dict(summary.done)


@pytest.mark.ray
def test_two_workers_train_as_one(photos: Path, ray_session: str) -> None:
    """With batch norm, image pool and identity loss. A finished training is over at once."""
    expected = plain(photos, model=BATCH_NORM)
    evaluation = {"every": 6, "photos": 6, "layer": "relu1_1"}
    resources = {"address": ray_session, "max_workers": 2, "min_workers": 2, "num_cpus": 0.5}
    job = begun(photos, model=BATCH_NORM, resources=resources, evaluation=evaluation)
    found = done(run_training(job))
    equal(curve(job.store), expected)
    assert found["sha256"] == hashlib.sha256(job.store.read(GENERATOR)).hexdigest()
    assert found["step"] in (6, 12)
    assert found["evaluation"].keys() == {"fid_A2B", "fid_B2A", "kid_A2B", "kid_B2A"}
    assert generator_steps(job.store) == []
    began = time.monotonic()
    assert done(run_training(job)) == found
    assert time.monotonic() - began < 10, "Ray takes longer to begin"


@pytest.mark.slow
def test_a_training_that_diverged_is_not_tried_again(photos: Path, ray_session: str) -> None:
    """Both workers raise it; nobody waits for the other."""
    workers = {"max_workers": 2, "min_workers": 2, "num_cpus": 0.5, "max_failures": -1}
    resources = {"address": ray_session, **workers}
    job = begun(photos, model={**TINY, "learning_rate": 1e30}, resources=resources)
    stop = StopSignal()
    timer = threading.Timer(120, stop.ask)
    timer.daemon = True
    timer.start()
    summary = run_training(job, stop=stop)
    timer.cancel()
    assert isinstance(summary.error, TrainingDiverged)
    assert summary.exit_code == 6
    left = {path.split("/")[0] for path in job.store.find()}
    assert left <= {"job.json", "skipped", manifest_path("a"), manifest_path("b")}


@pytest.mark.slow
def test_failures_that_a_training_got_over_do_not_end_it(photos: Path, ray_session: str) -> None:
    """Two with `max_failures = 1`, and a checkpoint between them: where generators are to be kept, there is a
    folder, until workers failed at it."""
    expected = plain(photos)
    resources = {"address": ray_session, "num_cpus": 0.5, "max_failures": 1}
    job = begun(photos, resources=resources, log={**table(photos)["log"], "keep_every": 5})
    obstacles = [photos / "out" / snapshot_path(step) for step in (5, 10)]
    for obstacle in obstacles:
        obstacle.mkdir(parents=True)
    told: list[int] = []

    def observe(snapshot: TrainSnapshot) -> None:
        for event in snapshot.log_events:
            if event.event == "workers_failed":
                told.append(event.values["step"])
                obstacles.pop(0).rmdir()

    done(run_training(job, observe=observe))
    assert told == [4, 8]
    assert curve(job.store) == expected


def test_notes_and_evaluations_are_read_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver looks every two seconds, and at nothing else meanwhile. It needs no Ray for it."""
    job = begun(photos, evaluation={"every": 6, "layer": "relu1_1"})
    reads: list[str] = []
    told: list[str] = []
    read = LocalStore.read

    def counted(store: LocalStore, path: str) -> bytes:
        reads.append(path)
        return read(store, path)

    def observe(snapshot: TrainSnapshot) -> None:
        told.extend(event.values["url"] for event in snapshot.log_events)

    monkeypatch.setattr(LocalStore, "read", counted)
    run = _Run(job, observe, StopSignal(), None)
    expected = []
    for number in range(3):
        note, evaluation = skipped_path(str(number)), evaluation_path(number)
        job.store.publish(note, json.dumps({"url": note, "error": "no picture"}).encode())
        job.store.publish(evaluation, b'{"fid_A2B": 1.0}')
        expected += [note, evaluation]
        run._look()
        run._look()
    assert reads == expected
    assert told == expected[::2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_workers_train_many_styles_as_one(styles: Path, ray_session: str) -> None:
    """With batch norm, the lazy penalty and identity loss; two workers have other directions each."""
    model = {**MODEL, "norm": "batch", "precision": "float64"}
    expected = plain_styles(styles, model=model)
    evaluation = {"every": 6, "photos": 4, "layer": "relu1_1"}
    resources = {"address": ray_session, "max_workers": 2, "min_workers": 2, "num_cpus": 0.5}
    job = test_training_styles.begun(styles, model=model, resources=resources, evaluation=evaluation)
    found = done(run_training(job))
    equal(curve(job.store), expected)
    assert [row["penalty"] > 0 for row in expected] == [True, False, False] * 4
    assert found["sha256"] == hashlib.sha256(job.store.read(GENERATOR)).hexdigest()
    assert found["evaluation"].keys() == {
        f"{metric}_{name}" for metric in ("fid", "kid") for name in DIRECTIONS if "photo" in name
    }
    assert done(run_training(job)) == found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["photos", "styles"], ids=["two domains", "many styles"])
def test_two_then_one_then_two_workers(kind: str, request: pytest.FixtureRequest, ray_session: str) -> None:
    """At a small learning rate: at the usual one, training is chaotic, and differences of rounding double with
    every step."""
    home: Path = request.getfixturevalue(kind)
    many = kind == "styles"
    model = {**MODEL, "norm": "batch", "precision": "float64"} if many else BATCH_NORM
    changes: dict[str, Any] = {
        "model": {**model, "learning_rate": 2e-6},
        "schedule": {"n_epochs": 40, "n_epochs_decay": 40},
    }
    begin = test_training_styles.begun if many else test_training.begun
    expected = (plain_styles if many else plain)(home, **changes)
    reached = 0
    for workers, more in ((2, 10), (1, 10), (2, 10_000)):
        resources = {"address": ray_session, "max_workers": workers, "min_workers": workers, "num_cpus": 0.5}
        job = begin(home, resources=resources, **changes)
        stop = StopSignal()
        threading.Thread(target=_ask_after, args=(job, reached + more, stop), daemon=True).start()
        summary = run_training(job, stop=stop)
        assert summary.error is None
        before, reached = reached, max(checkpoint_steps(job.store))
        assert before < reached
        assert (summary.done is None) == summary.stopped == (workers == 1 or before == 0)
    assert reached == 480
    equal(curve(job.store), expected)


DRIVER = """
import sys
from jobs.console.json_log import JsonLog
from jobs.ledger.lease import LeaseOptions
from jobs.stores.store import LocalStore
from jobs.training.driver import run_training
from jobs.training.job import reopen_training

job = reopen_training(LocalStore(sys.argv[1]), overrides={})
lease = LeaseOptions(term_s=3.0, settle_s=0.2, wait=True, say=lambda text: None)
summary = run_training(job, lease=lease, observe=JsonLog("one", sys.stdout))
print(summary.error, file=sys.stderr)
sys.exit(summary.exit_code)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_that_was_taken_over_trains_no_further(photos: Path, request: pytest.FixtureRequest) -> None:
    """Neither do its workers. Once the other driver is gone, it goes on as if nothing had been."""
    changes: dict[str, Any] = {
        "schedule": {"n_epochs": 40, "n_epochs_decay": 40},
        "log": {"metrics_every": 2, "checkpoint_every": 10, "samples_every": 0},
    }
    expected = plain(photos, **changes)
    store = begun(photos, **changes).store
    pids: list[int] = []
    request.addfinalizer(lambda: _end(pids))

    def drive() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRIVER, store.url]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        driver = spawn(command, **pipes)
        pids.append(driver.pid)
        return driver

    driver = drive()
    while max(checkpoint_steps(store), default=0) < 20:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    leave(store, replace(ELSEWHERE, term_s=3.0), generation=2)
    stdout, stderr = driver.communicate(timeout=120)
    there = {path: store.read(path) for path in store.find()}
    assert driver.returncode == 4
    assert "another-host" in stderr
    assert DONE not in there
    assert "lease-000002.json" in there
    progress = json.loads(stdout.splitlines()[0])
    assert (progress["event"], progress["steps"]) == ("progress", 480)
    time.sleep(5)
    assert {path: store.read(path) for path in store.find()} == there

    driver = drive()
    _, stderr = driver.communicate(timeout=600)
    assert driver.returncode == 0, stderr
    assert (read_done(store) or {})["step"] == 480
    assert curve(store) == expected


def _ask_after(job: TrainJob, step: int, stop: StopSignal) -> None:
    while max(checkpoint_steps(job.store), default=0) < step:
        time.sleep(0.02)
    stop.ask()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["photos", "styles"], ids=["two domains", "many styles"])
def test_killed_at_many_moments_it_ends_as_if_it_was_not(kind: str, request: pytest.FixtureRequest) -> None:
    """Workers, the controller, and the driver, each by SIGKILL. Not more than what is between two checkpoints
    is done again; in the end the curve is that of a training left alone, and nothing is left over."""
    count = 20
    changes = {
        "schedule": {"n_epochs": 40, "n_epochs_decay": 40},
        "log": {"metrics_every": 2, "checkpoint_every": 10, "samples_every": 0},
    }
    home: Path = request.getfixturevalue(kind)
    begin = test_training_styles.begun if kind == "styles" else test_training.begun
    expected = (plain_styles if kind == "styles" else plain)(home, **changes)
    chosen = random.Random(0)
    folder = home / "out"
    begin(home, **changes)
    kills: dict[str, int] = {"driver": 0, "controller": 0, "worker": 0}
    driver: subprocess.Popen[bytes] | None = None
    drivers: list[int] = []
    request.addfinalizer(lambda: _end(drivers))
    job = begin(home, **changes)
    store = job.store
    for number in range(200):
        if driver is None or driver.poll() is not None:
            driver = _drive(folder)
            drivers.append(driver.pid)
        if sum(kills.values()) == count:
            assert driver.wait(900) == 0
            break
        victim = ("worker", "driver", "controller")[number % 3]
        before = max(checkpoint_steps(store), default=0)
        assert not (folder / DONE).exists(), f"done after {kills}: make it longer"
        _wait_for_a_step(store, driver)
        time.sleep(chosen.random() * 1.0)
        assert max(checkpoint_steps(store), default=0) >= before
        pids = [driver.pid] if victim == "driver" else _named(victim, drivers)
        if not pids:
            continue
        try:
            os.kill(pids[0], signal.SIGKILL)
        except ProcessLookupError:  # one of an earlier driver, which ended by itself
            continue
        kills[victim] += 1
        if victim == "driver":
            driver.wait()
    assert sum(kills.values()) == count, kills
    assert min(kills.values()) >= count // 4, kills
    found = curve(store)
    assert len(found) == len(expected)
    assert found == expected
    left = {path.split("/")[0] for path in store.find()}
    known = {"checkpoints", "metrics", "tensorboard", "samples", "skipped", "job.json", "metrics.parquet"}
    assert left == known | {manifest_path(name) for name in job.manifests} | {GENERATOR, DONE, "report.html"}
    assert len(checkpoint_steps(store)) == 2


def _drive(folder: Path) -> subprocess.Popen[bytes]:
    command = [
        str(Path(sys.executable).with_name("nst")),
        "resume",
        str(folder),
        "--set",
        "resources.max_failures=-1",
    ]
    return spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for_a_step(store: Any, driver: subprocess.Popen[bytes]) -> None:
    """Until workers train: something new is published."""
    newest = len(store.names("metrics")), store.names("checkpoints")
    deadline = time.monotonic() + 600
    while (len(store.names("metrics")), store.names("checkpoints")) == newest and driver.poll() is None:
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.02)


def _end(drivers: list[int]) -> None:
    """Leave nothing running, whatever became of the test."""
    for pid in [pid for leader in drivers for pid in living("session", leader)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _named(what: str, drivers: list[int]) -> list[int]:
    """Ray's processes of this name that the drivers started: it writes what they do into their command lines.
    The last driver's come first. Others may be running trainings, too."""
    name = {"worker": b"RayTrainWorker", "controller": b"TrainController"}[what]
    found = []
    for pid in (pid for leader in reversed(drivers) for pid in living("session", leader)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if line.startswith(b"ray::") and name in line:
                found.append(pid)
    return found
