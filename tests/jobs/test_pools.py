"""Both pools keep the same contract."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from jobs.job import Job
from jobs.pools import Pool, open_pool
from jobs.pools.local import LocalPool
from jobs.pools.ray import _cause_of_lack
from jobs.spec import Resources
from jobs.stylize import worker_setup
from jobs.tasks import Died, WorkerSetup
from nst.errors import OptionError
from nst.stylizer import Assets, Outcome
from tests.contracts.pool import MakePool, PoolContract
from tests.methods import Stub

OUT_OF_MEMORY = """2 worker(s) were killed due to the node running low on memory.
Ray killed 2 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Actor(8ab3ea33): job ID=01000000, lease ID=02, task name=A.__init__, \
pid=18784, actual memory used=0.06GB, worker ID=60)
Selected to kill: (Actor(2f179ed3): job ID=01000000, lease ID=00, task name=A.__init__, \
pid=18700, actual memory used=1.47GB, worker ID=58)
]
Top 10 memory users: PID	MEM(GB)	COMMAND
"""
"""Of Ray 2.60, shortened."""


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


class TestRayPool(PoolContract):
    @pytest.fixture
    def make_pool(self, ray_session: str) -> MakePool:
        def make(setup: WorkerSetup) -> Pool:
            return open_pool(Resources(pool="ray", address=ray_session), setup, {})

        return make


def test_only_the_worker_that_took_the_memory_is_to_blame() -> None:
    assert _cause_of_lack(OUT_OF_MEMORY, "2f179ed3") == "crash"
    assert _cause_of_lack(OUT_OF_MEMORY, "8ab3ea33") == "preempted"
    assert _cause_of_lack("Ray says it in other words", "8ab3ea33") == "crash"
