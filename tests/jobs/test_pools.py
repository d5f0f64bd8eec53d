"""Both pools keep the same contract."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import jobs.pools.children
from jobs.driver.job import Job, create_or_open
from jobs.driver.run import worker_setup
from jobs.errors import WorkersBroken
from jobs.pools import Pool, open_pool
from jobs.pools.children import Children, _Child, _detail
from jobs.pools.local import LocalPool
from jobs.pools.ray import RayPool, _Handle, _own_gpu
from jobs.pools.ray_session import RaySession
from jobs.spec import Resources, job_from_table
from jobs.worker.messages import GPU_LOST, Died, Event, Task, WorkerSetup
from nst.errors import OptionError
from nst.stylizer import Assets, Outcome
from tests.contracts.pool import MakePool, PoolContract
from tests.methods import REGISTRY, Stub


@dataclass(frozen=True, kw_only=True, slots=True)
class Tells(Stub):
    """Cannot be built, and says what its environment is."""

    def build(self, assets: Assets, device: torch.device) -> Callable[..., list[Outcome]]:  # noqa: ARG002
        raise OptionError("environment", os.environ.get("NST_TEST"))


class TestLocalPool(PoolContract):
    @pytest.fixture
    def make_pool(self) -> MakePool:
        return lambda setup: LocalPool(Resources(), setup, {})

    def test_a_worker_has_the_environment_of_now(
        self, make_pool: MakePool, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Though the process that it is forked from may be older."""
        setup = replace(worker_setup(make_job(1)), method=Tells())
        for value in ("first", "second"):
            monkeypatch.setenv("NST_TEST", value)
            with make_pool(setup) as pool:
                pool.start(0)
                assert value in self.wait(pool, Died).detail


class Refused:
    """A process that cannot be forked."""

    def start(self) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens any more")


def test_after_what_workers_are_forked_from_was_killed_the_next_start_begins_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it is still ending it would be asked again, and a job's three starts be over in a moment."""
    ending = subprocess.Popen(["sleep", "0.5"])
    children = Children()
    monkeypatch.setattr(forkserver._forkserver, "_forkserver_pid", ending.pid)
    monkeypatch.setattr(children._context, "Process", lambda **_: Refused())
    children.launch(0, b"", 1)
    assert ending.poll() == 0
    (died,) = children.poll(1.0)
    assert (died.worker, died.cause) == (0, "crash")  # type: ignore[union-attr]
    children.launch(1, b"", 1)
    assert len(children.poll(1.0)) == 1, "it is not waited for, since others have reaped it"


class Stuck:
    """A process that waits for the kernel, and does not end when it is killed."""

    pid = exitcode = None

    def __init__(self, held: bool, ends: list[int], args: tuple[Any, ...]) -> None:
        if held:  # its end of the pipe
            ends.append(os.dup(args[0].fileno()))

    def start(self) -> None:
        pass

    def kill(self) -> None:
        pass

    def join(self, timeout_s: float) -> None:
        assert timeout_s < 1


@pytest.mark.parametrize("held", [True, False])
def test_a_worker_that_does_not_end_is_not_waited_for(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does not whose GPU fell off its bus: neither its photograph nor the end of the job."""
    ends = list[int]()
    monkeypatch.setattr(jobs.pools.children, "_STUCK_S", 0.1)
    children = Children()
    monkeypatch.setattr(children._context, "Process", lambda args, **_: Stuck(held, ends, args))
    children.launch(0, b"", 1)
    children.launch(1, b"", 1)
    children.stop(0, "time limit")
    found = list[Event]()
    while not any(isinstance(event, Died) and event.worker == 0 for event in found):
        found += children.poll(1.0)
    died = next(event for event in found if isinstance(event, Died) and event.worker == 0)
    assert (died.cause, died.error) == ("time limit", None)
    assert "was killed and does not end" in died.detail
    children.close()
    for end in ends:
        os.close(end)


def test_a_worker_whose_gpu_failed_says_so() -> None:
    process = SimpleNamespace(exitcode=GPU_LOST)
    child = _Child(process, SimpleNamespace(), ())  # type: ignore[arg-type]
    assert _detail(child) == "its GPU failed, and gave the process no more answers (exit code 70)"


@pytest.mark.parametrize(("ids", "visible"), [(["3"], {"CUDA_VISIBLE_DEVICES": "3"}), ([], {})])
def test_workers_of_an_actor_see_its_gpu_also_where_ray_does_not_say_so(
    ids: list[str], visible: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": ids, "TPU": ["1"]})
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    assert _own_gpu() == visible


class Actor:
    """One that is told things and does none of them."""

    def __init__(self) -> None:
        self.told = list[str]()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *_: self.told.append(name))


def test_an_actor_that_does_not_end_its_worker_is_ended_with_it(
    tmp_path: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that stands still: it is told once, and has had long enough when the time is over again."""
    actor, killed = Actor(), list[Actor]()
    monkeypatch.setattr("ray.kill", killed.append)
    table = {"photos": str(photos(1)), "output": "out", "method": {"kind": "stub"}}
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    pool = RayPool(job.resources, worker_setup(job), {})
    pool._handles[0] = _Handle(actor)
    pool.submit(0, Task(id=0, shard=0))
    pool.submit(1, Task(id=1, shard=0))  # which is dead, and who submits has not heard of it yet
    pool.stop(0, "time limit")
    pool.stop(0, "time limit")
    assert (actor.told, killed) == (["submit", "stop"], [])
    pool._handles[0].stopped_at -= 100
    pool.stop(0, "time limit")
    assert (actor.told, killed) == (["submit", "stop"], [actor])


@pytest.mark.ray
class TestRayPool(PoolContract):
    @pytest.fixture
    def make_pool(self, ray_session: str) -> MakePool:
        def make(setup: WorkerSetup) -> Pool:
            return open_pool(Resources(pool="ray", address=ray_session), setup, {})

        return make

    def test_an_actor_where_a_worker_could_not_start_is_not_used_again(
        self, make_pool: MakePool, make_job: Callable[..., Job]
    ) -> None:
        """It may be the machine."""
        with make_pool(worker_setup(make_job(1, broken="exit"))) as pool:
            assert isinstance(pool, RayPool)
            pool.start(0)
            first = pool._handles[0].actor
            self.wait(pool, Died)
            pool.start(1)
            assert pool._handles[1].actor != first


def test_ray_cannot_take_a_signal_from_the_driver() -> None:
    """What Ray's core does while it begins: it leaves SIGTERM without Python's handler, and has the process
    aborted when an alarm goes off."""
    script = """
import ctypes, os, signal, time
from jobs.pools.ray_session import RaySession

libc, asked = ctypes.CDLL(None), []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))

def core() -> None:
    libc.signal(int(signal.SIGTERM), None)  # its default: the end
    libc.alarm(1)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)

session = RaySession(None)
session._in_ray_thread(core)
libc.signal(int(signal.SIGTERM), None)
session._in_ray_thread(lambda: None)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1.5)
assert asked == [1, 1], asked
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, (run.returncode, run.stderr)


@pytest.mark.parametrize(
    "error", [Exception("The current node timed out during startup."), RuntimeError("no"), OSError(28, "full")]
)
def test_a_ray_that_does_not_start_is_an_error_with_advice(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray raises anything, `Exception` itself too."""

    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    said = (
        rf"Ray cannot be started on this machine: .*{error.args[-1]}.*; try again when it is less busy, or so$"
    )
    with pytest.raises(WorkersBroken, match=said), RaySession(None, ", or so"):
        pass


def test_a_program_that_is_connected_is_not_sent_elsewhere(ray_session: str) -> None:
    """Its own cluster's address is fine; another one was taken for it."""
    with RaySession(ray_session), RaySession(None):
        pass
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OptionError, match=f"this program is connected to the cluster at {ray_session}"):
            RaySession(place).__enter__()
