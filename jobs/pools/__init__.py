"""Where workers run. Two implementations of one protocol: `LocalPool` and `RayPool`."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from jobs.ledger.results import Status
from jobs.spec import Resources
from jobs.worker.messages import Cause, Event, Task, WorkerId, WorkerSetup

__all__ = ["Pool", "open_pool"]


class Pool(Protocol):
    """Carries out what the scheduler decides. No call but `poll` and `close` waits; nothing is retried.

    A context manager: entering connects, leaving ends every worker.
    """

    def start(self, worker: WorkerId) -> None:
        """Ask for a worker. `poll` reports it `Ready`, or `Died`; it may take as long as a cluster grows."""
        ...

    def submit(self, worker: WorkerId, task: Task) -> None:
        """Give a ready worker a task. `poll` reports it `Finished` or `Failed`, or the worker `Died`."""
        ...

    def stop(self, worker: WorkerId, cause: Cause) -> None:
        """End a worker at once, whatever it does. `poll` reports it `Died` of `cause`."""
        ...

    def drain(self, worker: WorkerId | None = None) -> None:
        """Tell a worker, or every one, to take no more photographs and finish those in work."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """What has happened since the last call; waits for at most `timeout_s` if nothing has. Busy workers
        report `Progress` about once a second; a worker whose machine is about to be taken away is reported
        `Leaving`, once."""
        ...

    def count(self, status: Status) -> None:
        """Count a result that a photograph got from the driver, for those who watch."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_pool(resources: Resources, setup: WorkerSetup, assets: Mapping[str, bytes]) -> Pool:
    """The pool that `resources` asks for, not yet entered."""
    from jobs.pools.capacity import pool_kind

    if pool_kind(resources) == "ray":
        from jobs.pools.ray import RayPool

        return RayPool(resources, setup, assets)
    from jobs.pools.local import LocalPool

    return LocalPool(resources, setup, assets)
