"""Who does what next: a pure function of what happened. Events in, actions out; no clock, store or cluster.

A worker's death strikes nobody. The rows that it was at when it died (if that is not known, the first `window`
unfinished ones of each of its tasks) become probes: one row per call, alone on its worker. Only a death there
is a strike against that row; two strikes quarantine it. After the first it waits for a worker on which others
got done, if there is one: what dies at all of them may have a GPU that is broken. A row that exceeds its time
limit alone fails. The rest of the task goes back to the queue.

What waits is in `backlog`, who may be given it in `workers`, and when to despair of workers in `health`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from jobs.driver.actions import (
    Abort,
    Action,
    Conclude,
    Drain,
    GiveUp,
    Inspect,
    Start,
    Stop,
    Strike,
    Submit,
    Work,
)
from jobs.driver.backlog import Backlog
from jobs.driver.health import NOBODYS_FAULT, Health
from jobs.driver.workers import TASKS_PER_WORKER, Workers, WorkerState
from jobs.errors import WorkersBroken
from jobs.worker.messages import Cause, Died, Event, Failed, Finished, Leaving, Progress, Ready, Task, WorkerId
from nst.errors import NstError

__all__ = ["Limits", "Scheduler"]

_STRIKES = 2
_TASK_TRIES = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds within which the scheduler decides."""

    min_workers: int
    """Workers to keep until the end, needed or not."""
    max_workers: int
    window: int
    """Photographs of a task that can be in work at once."""
    timeout_s: float
    """Seconds that a photograph may be in work without an evaluation."""
    start_timeout_s: float
    """Seconds without any worker after which the job ends."""
    batch_size: int = 1
    """Photographs that a method is given at once."""


class Scheduler:
    """Feed it every event; carry out every action it returns, in order.

    Args:
        shard_rows: gives the rows of a shard, as places within the manifest.
    """

    def __init__(self, work: Iterable[Work], shard_rows: Callable[[int], range], limits: Limits) -> None:
        self._limits = limits
        self._backlog = Backlog(work, shard_rows, limits.batch_size)
        self._workers, self._health = Workers(), Health()
        self._inspecting: set[int] = set()  # tasks
        self._strikes: Counter[int] = Counter()  # by row
        self._failures: Counter[int] = Counter()  # of tasks, by row
        self._no_worker_since = 0.0
        self._stopping = False

    @property
    def finished(self) -> bool:
        """Whether nothing is waiting, running, or being inspected."""
        waiting = len(self._backlog) > 0 and not self._stopping
        return not (waiting or self._inspecting or self._workers.any_busy)

    @property
    def ready_workers(self) -> int:
        return self._workers.ready

    def begin(self, now: float) -> list[Action]:
        self._no_worker_since = now
        return self._assign(now)

    def stop(self) -> None:
        """Submit nothing more."""
        self._stopping = True

    def on(self, event: Event, now: float) -> list[Action]:
        """Decide what to do about an event. Events of workers that are gone are ignored."""
        if event.worker not in self._workers:
            return []
        worker = self._workers[event.worker]
        actions: list[Action] = []
        match event:
            case Ready():
                self._workers.set_ready(event.worker, now)
                self._health.started()
            case Progress():
                slowest_s = max((task.slowest_s for task in event.tasks), default=0.0)
                self._workers.set_seen(event.worker, now, slowest_s)
                if any(task.spent.images.get("ok") for task in event.tasks):
                    self._workers.set_proven(event.worker)
                for progress in (each for each in event.tasks if each.task in worker.tasks):
                    self._health.progressed(worker.tasks[progress.task], sum(progress.counts.values()))
            case Finished():
                actions = self._on_finished(event, worker, now)
            case Failed():
                actions = self._on_failed(event)
            case Leaving():
                self._workers.set_leaving(event.worker)
                actions = [Drain(event.worker)] if worker.tasks else self._release(event.worker)
            case Died():
                actions = self._on_died(event, now)
            case _:
                assert_never(event)
        return actions + self._assign(now)

    def inspected(
        self, asked: Inspect, done: Iterable[int], strikes: Mapping[int, int], now: float
    ) -> list[Action]:
        """Decide what to do about a task that ended badly.

        Args:
            done: rows of its shard that have a result.
            strikes: deaths on record, by row.
        """
        task = asked.task
        self._inspecting.remove(task.id)
        unfinished = sorted(set(self._backlog.rows(task)) - set(done))
        self._backlog.open(task.shard, task.generation)
        actions = self._resolve(task, done)
        for row, count in strikes.items():
            self._strikes[row] = max(self._strikes[row], count)
        if unfinished:
            actions += self._judge(asked, unfinished)
        return actions + self._assign(now)

    def tick(self, now: float) -> list[Action]:
        """Decide what to do because time has passed."""
        actions: list[Action] = []
        for worker_id in self._workers.busy():
            worker = self._workers[worker_id]
            waited = worker.slowest_s + (now - worker.seen_at)
            if waited > self._limits.timeout_s:
                actions.append(Stop(worker_id, "time limit"))
                self._workers.set_stopped(worker_id, now)  # and again, if its death is not reported
        if self._workers.ready or self.finished:
            self._no_worker_since = now
        elif now - self._no_worker_since > self._limits.start_timeout_s:
            text = f"no worker became ready within {self._limits.start_timeout_s:g} s"
            actions += self._abort(WorkersBroken(text))
        return actions + self._assign(now)  # a pause may be over

    # What happened

    def _on_finished(self, event: Finished, worker: WorkerState, now: float) -> list[Action]:
        task, report = self._workers.take(event.worker, event.task), event.report
        self._workers.set_seen(event.worker, now)
        if report.spent.images.get("ok"):
            self._workers.set_proven(event.worker)
        self._health.progressed(task, sum(report.counts.values()))
        self._health.ended(task.id)
        actions: list[Action] = []
        if report.complete and not report.sealed:
            actions += self._resolve(task, self._backlog.rows(task))
        elif worker.leaving and not report.complete and not self._stopping:
            actions += self._inspect(task, "preempted", "its worker's machine is taken away")
        return actions + self._release(event.worker)

    def _on_failed(self, event: Failed) -> list[Action]:
        task = self._workers.take(event.worker, event.task)
        self._health.ended(task.id)
        if isinstance(event.error, NstError):  # a store that does not answer, and the like: for everyone
            return self._abort(event.error)
        actions = self._inspect(task, None, f"{type(event.error).__name__}: {event.error}")
        return actions + self._release(event.worker)

    def _on_died(self, event: Died, now: float) -> list[Action]:
        worker = self._workers.remove(event.worker)
        if not worker.ready and isinstance(event.error, NstError):
            return self._abort(event.error)
        broken = self._health.died(event, worker, others=len(self._workers), ready=self._workers.ready, now=now)
        if broken is not None:
            return self._abort(broken)
        actions: list[Action] = []
        for task in worker.tasks.values():
            self._health.ended(task.id)
            rows = self._backlog.rows(task)
            elsewhere = event.rows and not task.probe and set(event.rows).isdisjoint(rows)
            cause: Cause = "stopped" if elsewhere else event.cause
            actions += self._inspect(task, cause, event.detail, event.rows)
        return actions

    def _release(self, worker_id: WorkerId) -> list[Action]:
        """Let go of a worker whose machine is taken away, once it has nothing left to do."""
        worker = self._workers[worker_id]
        if not worker.leaving or worker.tasks:
            return []
        self._workers.remove(worker_id)
        return [Stop(worker_id, "stopped")]

    def _abort(self, error: NstError) -> list[Action]:
        self._stopping = True
        return [Abort(error)]

    def _inspect(
        self, task: Task, cause: Cause | None, detail: str, rows: tuple[int, ...] | None = None
    ) -> list[Action]:
        self._inspecting.add(task.id)
        return [Inspect(task, cause, detail, rows)]

    def _resolve(self, task: Task, rows: Iterable[int]) -> list[Action]:
        """Note that these rows have results; if they were the shard's last, it is to be sealed."""
        seal = self._backlog.resolve(task, rows, by_worker=not self._stopping)
        return [] if seal is None else [seal]

    # Who is to blame

    def _judge(self, asked: Inspect, unfinished: list[int]) -> list[Action]:
        """Decide about the rows that a task left without a result."""
        task, cause = asked.task, asked.cause
        if cause is None:
            return self._failed(task, unfinished, asked.detail)
        elif cause in NOBODYS_FAULT:
            self._backlog.requeue(task, unfinished)
            return []
        elif not task.probe:
            # Those that it was at; if nobody knows, all that it can have been at.
            suspects = [row for row in unfinished if row in (asked.rows or ())]
            suspects = suspects or unfinished[: self._limits.window]
            for row in suspects:
                self._backlog.probe(task, row)
            rest = [row for row in unfinished if row not in suspects]
            if rest:
                self._backlog.requeue(task, rest)
            return []
        elif cause == "time limit":
            text = f"no evaluation or end within {self._limits.timeout_s:g} s, alone on its worker"
            return [Conclude(task, "failed", "TimeLimit", text), *self._resolve(task, unfinished)]
        else:
            (row,) = unfinished
            return self._strike(task, row, asked.detail or cause)

    def _failed(self, task: Task, rows: list[int], detail: str) -> list[Action]:
        """Try a task again whose worker lives, or give its shard up."""
        self._failures.update(rows)
        if max(self._failures[row] for row in rows) >= _TASK_TRIES:
            return [GiveUp(task.shard, detail)]
        self._backlog.requeue(task, rows)
        return []

    def _strike(self, task: Task, row: int, detail: str) -> list[Action]:
        """Count a death on a row alone, and quarantine the row or try it once more."""
        self._strikes[row] += 1
        strike = Strike(task, detail)
        if self._strikes[row] < _STRIKES:
            self._backlog.probe(task, row)
            return [strike]
        text = f"{self._strikes[row]} workers died while they ran it alone (the last: {detail})"
        return [strike, Conclude(task, "quarantined", "WorkerDied", text), *self._resolve(task, [row])]

    # Who does what

    def _assign(self, now: float) -> list[Action]:
        if self._stopping:
            return []
        actions = self._assign_probes(now) if self._backlog.probes else []
        kept = self._kept_for_probes() if self._backlog.probes else None
        # One task for everyone, also those still starting, before anyone gets a second.
        for depth in range(TASKS_PER_WORKER):
            for worker_id in self._workers.free(depth) if self._enough_for(depth) else []:
                if not self._enough_for(depth):
                    break
                if worker_id != kept:
                    actions.append(self._submit(worker_id, self._backlog.pop(self._workers.staying), now))
        return actions + self._resize(now)

    def _assign_probes(self, now: float) -> list[Action]:
        """Give rows that are to run alone to those who have nothing to do."""
        actions: list[Action] = []
        proven = self._workers.proven()
        for worker_id in self._workers.free(0):
            held = self._strikes if proven and worker_id not in proven else ()
            probe = self._backlog.pop_probe(held)
            if probe is not None:
                actions.append(self._submit(worker_id, probe, now))
        return actions

    def _kept_for_probes(self) -> WorkerId | None:
        """Who gets no more tasks, so that it is free soon for a row that waits for one like it."""
        if not self._backlog.has_probe(self._strikes):
            return None
        proven = self._workers.proven()
        return min(proven, key=lambda each: (len(self._workers[each].tasks), each), default=None)

    def _enough_for(self, depth: int) -> bool:
        return self._backlog.enough_for(depth, self._workers.staying)

    def _submit(self, worker_id: WorkerId, task: Task, now: float) -> Submit:
        self._workers.give(worker_id, task, now)
        return Submit(worker_id, task)

    def _resize(self, now: float) -> list[Action]:
        """As many workers as there is work for, between the pool's bounds; the idle ones go at the end."""
        waiting = len(self._backlog)
        wanted = min(self._limits.max_workers, self._workers.staying_busy + waiting)
        actions: list[Action] = []
        if waiting and self._health.may_start(now):
            actions += [Start(self._workers.add()) for _ in range(wanted - self._workers.staying)]
        spare = self._workers.staying - max(wanted, self._limits.min_workers)
        if not waiting and not self._inspecting and spare > 0:
            for worker_id in self._workers.idle()[:spare]:
                self._workers.remove(worker_id)
                actions.append(Stop(worker_id, "stopped"))
        return actions
