"""Workers as child processes of the driver, for one machine and no cluster."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from jobs.ledger.results import Status
from jobs.pools.children import Children
from jobs.pools.gpus import GpuShares, gpu_ids
from jobs.spec import Resources
from jobs.worker.messages import Died, Event, WorkerId, WorkerSetup

__all__ = ["LocalPool"]


class LocalPool(Children):
    """A pool of child processes on this machine, each with a GPU of its own or a share of one, if there are to
    be any. See `Children`."""

    def __init__(self, resources: Resources, setup: WorkerSetup, assets: Mapping[str, bytes]) -> None:
        super().__init__(resources.memory_bytes)
        self._payload, self._slots = pickle.dumps((setup, dict(assets))), setup.slots
        self._gpus = GpuShares(gpu_ids() if setup.num_gpus else ())

    def start(self, worker: WorkerId) -> None:
        self.launch(
            worker,
            self._payload,
            self._slots,
            with_main=b"__main__" in self._payload,
            environment=self._gpus.take(worker),
        )

    def poll(self, timeout_s: float) -> list[Event]:
        events = super().poll(timeout_s)
        for event in events:
            if isinstance(event, Died):
                self._gpus.give_back(event.worker)
        return events

    def count(self, status: Status) -> None:
        """Do nothing: nobody watches."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
