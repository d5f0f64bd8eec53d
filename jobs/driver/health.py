"""Whether it is the workers that are broken, rather than single photographs or machines: a circuit breaker."""

from __future__ import annotations

import math

from jobs.driver.workers import WorkerState
from jobs.errors import WorkersBroken
from jobs.worker.messages import Died, Task

__all__ = ["NOBODYS_FAULT", "Health"]

NOBODYS_FAULT = ("host lost", "node lost", "preempted", "stopped")
"""Causes of a worker's end that no photograph has to answer for."""

_START_TRIES = 3
_START_PAUSE_S = 60.0
"""Pause after so many starts that failed while others work: it may be one bad machine."""
_DEATHS_IN_A_ROW = 10
_LOSSES_IN_A_ROW = 100


class Health:
    """Counts starts that failed, and deaths and losses since anything got done."""

    def __init__(self) -> None:
        self._results: dict[int, int] = {}  # by running task: results as last reported
        self._deaths = self._losses = 0
        self._died_on: set[tuple[int, ...] | None] = set()  # single photographs
        self._failed_starts = 0
        self._no_start_before = -math.inf

    def may_start(self, now: float) -> bool:
        """Whether to ask for more workers now."""
        return self._failed_starts < _START_TRIES and now >= self._no_start_before

    def started(self) -> None:
        """Note that a worker became ready."""
        self._failed_starts = 0

    def progressed(self, task: Task, results: int) -> None:
        """Note how many results a running task has; if there are more, something got done."""
        if results > self._results.get(task.id, 0) and not task.sealing:  # which does no photograph
            self._deaths = self._losses = 0
            self._died_on.clear()
        self._results[task.id] = results

    def ended(self, task: int) -> None:
        """Note that a task runs no more."""
        self._results.pop(task, None)

    def died(
        self, event: Died, worker: WorkerState, *, others: int, ready: int, now: float
    ) -> WorkersBroken | None:
        """Count a worker's end.

        Args:
            others: workers that are left, or are yet to come.
            ready: how many of these are ready.

        Returns:
            Why no more workers are to be tried, if so.
        """
        if not worker.ready:
            return self._start_failed(event, others, ready, now)
        if not others:  # it could start: so may the next ones
            self._failed_starts, self._no_start_before = 0, now
        if not worker.tasks or event.cause == "stopped":
            return None
        if event.cause == "crash":
            self._deaths += 1
            self._died_on.update(task.rows for task in worker.tasks.values() if task.probe)
            if len(self._died_on) >= _DEATHS_IN_A_ROW:
                return WorkersBroken(
                    f"{self._deaths} workers died one after the other on different photographs, and "
                    f"none got done in between (the last: {event.detail})"
                )
        elif event.cause in NOBODYS_FAULT:
            self._losses += 1
            if self._losses >= _LOSSES_IN_A_ROW:
                return WorkersBroken(
                    f"{self._losses} workers were lost one after the other and no photograph got done in "
                    f"between (the last: {event.cause}, {event.detail})"
                )
        return None

    def _start_failed(self, event: Died, others: int, ready: int, now: float) -> WorkersBroken | None:
        if event.cause == "crash":
            self._failed_starts += 1
            if self._failed_starts >= _START_TRIES and ready:
                self._failed_starts, self._no_start_before = 0, now + _START_PAUSE_S
        if self._failed_starts >= _START_TRIES and not others:
            return WorkersBroken(f"workers cannot start: {event.detail}")
        return None
