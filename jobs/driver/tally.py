"""How far a run is, for show: what counts at the end is asked of the store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from jobs.console.log_events import LogEvent
from jobs.console.progress import Snapshot
from jobs.ledger.results import Status, total
from jobs.worker.messages import Task, WorkerId

__all__ = ["RunTally"]


class RunTally:
    """Rows with a result, as last heard, and when what happened first.

    Args:
        rows: how many there are to do.
        before: results that there were before the run, of these rows.
        began: when the run did, by the monotonic clock.
        schedule: sizes relative to the photograph's own, and evaluations that a photograph gets at each.
        batch_size: photographs that a worker computes at once.
    """

    def __init__(
        self,
        rows: int,
        before: Mapping[Status, int],
        began: float,
        schedule: Sequence[tuple[float, int]] = (),
        batch_size: int = 1,
    ) -> None:
        self._rows, self._before = rows, before
        self._seen: Counter[Status] = Counter(before)
        self._running: dict[int, Mapping[Status, int]] = {}  # by task: its part of `_seen`
        self._earlier: Counter[int] = Counter()  # by task: results that it found in the journal
        self._evaluations: dict[WorkerId, int] = {}
        self._schedule, self._batch_size = schedule, batch_size
        self._began = began
        self._first_ready: float | None = None
        self.seconds: dict[str, float] = {}
        """Seconds from the run's start to the first time of each phase."""

    def mark(self, phase: str) -> None:
        """Note when a phase was first reached."""
        self.seconds.setdefault(phase, time.monotonic() - self._began)

    def ready(self) -> None:
        """Note that a worker is ready."""
        self._first_ready = self._first_ready or time.monotonic()
        self.mark("worker")

    def computing(self, worker: WorkerId, evaluations: int) -> None:
        """Count the evaluations that a worker made for what it computes."""
        self._evaluations[worker] = evaluations

    def submitted(self, task: Task) -> None:
        """Count what is heard of `task` from here on."""
        if not task.sealing:  # its rows are counted
            self._running[task.id] = total([])

    def progressed(self, task: int, counts: Mapping[Status, int], made: int | None = None) -> None:
        """Count the results that a running task has by now.

        Args:
            made: how many of them it made itself; None: all. The others were in the journal of a run before:
                taken for its own, they would tell another speed for hours.
        """
        if task not in self._running:  # it is over
            return
        if made is not None:  # which may be a few ahead of `counts`
            self._earlier[task] = max(self._earlier[task], sum(counts.values()) - made)
        self._seen.update(counts)
        self._seen.subtract(self._running[task])
        self._running[task] = counts
        if any(counts.values()):
            self.mark("first_result")

    def finished(self, task: int, counts: Mapping[Status, int], made: int | None = None) -> None:
        """Count the results that a task ended with; see `progressed`."""
        self.progressed(task, counts, made)
        self._running.pop(task, None)

    def corrected(self, task: int, statuses: Iterable[Status]) -> None:
        """Count what a task that ended badly left in the journal, in place of what was heard of it."""
        if task in self._running:
            self._seen.subtract(self._running.pop(task))
            self._seen.update(statuses)

    def concluded(self, status: Status) -> None:
        """Count a row that the driver gave its result."""
        self._seen[status] += 1

    def counts(self) -> Mapping[Status, int]:
        return total([self._seen])

    def snapshot(self, workers: int, log_events: tuple[LogEvent, ...]) -> Snapshot:
        return Snapshot(
            total=self._rows,
            counts=self.counts(),
            already=sum(self._before.values()) + self._earlier.total(),
            workers=workers,
            elapsed_s=0.0 if self._first_ready is None else time.monotonic() - self._first_ready,
            evaluations=sum(self._evaluations.values()),
            evaluations_per_image=sum(number for _, number in self._schedule),
            in_work=sum(self._work(each) for each in self._evaluations.values()),
            log_events=log_events,
        )

    def _work(self, evaluations: int) -> float:
        """Photographs' worth of work in these evaluations of one batch: one costs as many times more as its
        picture has pixels."""
        left, done, whole = evaluations / self._batch_size, 0.0, 0.0
        for scale, number in self._schedule:
            done += scale**2 * min(left, number)
            whole += scale**2 * number
            left -= min(left, number)
        return self._batch_size * done / whole if whole else 0.0
