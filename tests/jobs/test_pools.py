"""Both pools keep the same contract."""

from __future__ import annotations

import pytest

from jobs.pools import Pool, open_pool
from jobs.pools.local import LocalPool
from jobs.spec import Resources
from jobs.tasks import WorkerSetup
from tests.contracts.pool import MakePool, PoolContract


class TestLocalPool(PoolContract):
    @pytest.fixture
    def make_pool(self) -> MakePool:
        return lambda setup: LocalPool(setup, {})


class TestRayPool(PoolContract):
    @pytest.fixture
    def make_pool(self, ray_session: str) -> MakePool:
        def make(setup: WorkerSetup) -> Pool:
            return open_pool(Resources(pool="ray", address=ray_session), setup, {})

        return make
