"""What every pool must do, with real workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from jobs.driver.job import Job, create_or_open
from jobs.driver.run import worker_setup
from jobs.ledger.receipts import Ledger, read_journal
from jobs.pools import Pool
from jobs.spec import job_from_table
from jobs.worker.messages import Died, Event, Failed, Finished, Progress, Ready, Task, WorkerSetup
from tests.methods import HANG, REGISTRY

E = TypeVar("E")
Photos = Callable[..., Path]
MakePool = Callable[[WorkerSetup], Pool]


class PoolContract:
    """Inherit, and provide the fixture `make_pool`."""

    @pytest.fixture
    def make_job(self, tmp_path: Path, photos: Photos) -> Callable[..., Job]:
        def make(count: int, shard_size: int = 2, width: int = 48, **method: Any) -> Job:
            table = {
                "photos": str(photos(count, width=width)),
                "output": "out",
                "method": {"kind": "stub", **method},
                "resources": {"shard_size": shard_size},
            }
            return create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)

        return make

    @pytest.fixture(autouse=True)
    def _backlog(self) -> None:
        self.backlog: list[Event] = []

    def wait(self, pool: Pool, kind: type[E], timeout_s: float = 180) -> E:
        """The next event of a kind; others stay for later."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for place, event in enumerate(self.backlog):
                if isinstance(event, kind):
                    del self.backlog[place]
                    return event
            self.backlog += pool.poll(0.2)
        raise AssertionError(f"no {kind.__name__} within {timeout_s} s; {self.backlog}")

    def test_runs_tasks_one_after_the_other_and_two_at_once(
        self, make_pool: MakePool, make_job: Callable[..., Job]
    ) -> None:
        job = make_job(8, delay_s=0.4)
        with make_pool(worker_setup(job)) as pool:
            pool.start(3)
            ready = self.wait(pool, Ready)
            assert ready.worker == 3
            assert ready.info.pid != os.getpid()
            assert ready.info.seconds["build"] > 0

            pool.submit(3, Task(id=5, shard=0))
            finished = self.wait(pool, Finished)
            assert (finished.worker, finished.task) == (3, 5)
            assert finished.report.counts == {"ok": 2, "failed": 0, "quarantined": 0}
            assert finished.report.sealed
            assert finished.report.spent.images == {"ok": 2}
            assert finished.report.spent.seconds["compute"] >= 0.8
            assert set(finished.report.spent.seconds) == {"load", "compute", "save"}
            assert {result.worker_pid for result in Ledger(job.store).receipt(0)[0]} == {ready.info.pid}

            pool.submit(3, Task(id=6, shard=1, rows=(2,), probe=True, attempts=3))
            report = self.wait(pool, Finished).report
            assert report.complete
            assert not report.sealed
            assert read_journal(job.store, 1, 0).results[2].attempts == 3

            pool.submit(3, Task(id=7, shard=99))  # there is no such shard: the task fails, the worker lives
            failed = self.wait(pool, Failed)
            assert (failed.worker, failed.task) == (3, 7)
            assert str(failed.error)

            self.backlog.clear()
            pool.submit(3, Task(id=8, shard=2))
            pool.submit(3, Task(id=9, shard=3))
            tasks = self.wait(pool, Progress).tasks
            while not any(task.in_flight for task in tasks):  # told before the first photograph was taken
                tasks = self.wait(pool, Progress).tasks
            assert set() < {task.task for task in tasks} <= {8, 9}
            assert all(task.slowest_s < 5 for task in tasks)
            assert {self.wait(pool, Finished).task for _ in range(2)} == {8, 9}
        assert Ledger(job.store).done() == {0, 2, 3}

    def test_a_crash_is_reported_and_spares_the_others(
        self, make_pool: MakePool, make_job: Callable[..., Job]
    ) -> None:
        job = make_job(4, delay_s=1.0)
        with make_pool(worker_setup(job)) as pool:
            pool.start(0)
            pool.start(1)
            pids = {event.worker: event.info.pid for event in (self.wait(pool, Ready), self.wait(pool, Ready))}
            pool.submit(0, Task(id=0, shard=0))
            pool.submit(1, Task(id=1, shard=1))
            time.sleep(0.3)
            os.kill(pids[0], signal.SIGKILL)
            died = self.wait(pool, Died)
            assert (died.worker, died.cause, died.error) == (0, "crash", None)
            assert died.detail
            assert died.rows is not None
            assert 1 <= len(set(died.rows)) <= 2
            assert set(died.rows) <= {0, 1}
            pool.submit(0, Task(id=2, shard=0))  # as who heard of the others first, and not yet of this
            assert self.wait(pool, Finished).worker == 1
            pool.start(2)
            ready = self.wait(pool, Ready)
            assert ready.worker == 2
            assert ready.info.seconds["imports"] < 0.5, "it imported something again, which takes seconds"
            pool.stop(2, "stopped")
            died = self.wait(pool, Died)
            assert (died.worker, died.cause) == (2, "stopped")

    def test_stop_ends_a_worker_that_hangs_and_leaving_ends_all(
        self, make_pool: MakePool, make_job: Callable[..., Job]
    ) -> None:
        job = make_job(1, width=HANG)
        with make_pool(worker_setup(job)) as pool:
            pool.start(0)
            pool.start(1)
            pids = {event.worker: event.info.pid for event in (self.wait(pool, Ready), self.wait(pool, Ready))}
            pool.submit(0, Task(id=0, shard=0))
            while self.wait(pool, Progress).tasks[0].slowest_s < 1.5:
                pass
            pool.stop(0, "time limit")
            died = self.wait(pool, Died)
            assert (died.worker, died.cause) == (0, "time limit")
            pool.submit(1, Task(id=1, shard=0))
            time.sleep(0.5)
        deadline = time.monotonic() + 20
        while any(_runs(pid) for pid in pids.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(_runs(pid) for pid in pids.values())

    def test_a_worker_that_cannot_be_built_says_why(
        self, make_pool: MakePool, make_job: Callable[..., Job]
    ) -> None:
        from nst.errors import OptionError

        job = make_job(1, broken="build")
        with make_pool(worker_setup(job)) as pool:
            pool.start(0)
            died = self.wait(pool, Died)
            assert died.cause == "crash"
            assert isinstance(died.error, OptionError)
            assert "broken = 'build': cannot be built" in str(died.error)

    def test_a_worker_that_dies_while_it_is_built(
        self, make_pool: MakePool, make_job: Callable[..., Job]
    ) -> None:
        job = make_job(1, broken="exit")
        with make_pool(worker_setup(job)) as pool:
            pool.start(0)
            died = self.wait(pool, Died)
            assert (died.cause, died.error) == ("crash", None)

    def test_drain_finishes_what_is_in_work_and_nothing_more(
        self, make_pool: MakePool, make_job: Callable[..., Job]
    ) -> None:
        job = make_job(80, shard_size=80, delay_s=0.1)
        with make_pool(worker_setup(job)) as pool:
            pool.start(0)
            self.wait(pool, Ready)
            pool.submit(0, Task(id=0, shard=0))
            self.wait(pool, Progress)
            pool.drain()
            report = self.wait(pool, Finished).report
        assert not report.complete
        assert not report.sealed
        done = read_journal(job.store, 0, 0).results
        assert 0 < sum(report.counts.values()) == len(done) < 80
        assert sorted(done) == list(range(len(done)))


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
