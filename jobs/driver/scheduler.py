"""Who does what next: a pure function of what happened. Events in, actions out; no clock, store or cluster.

A worker's death strikes nobody. The rows that it was at when it died (if that is not known, the first `window`
unfinished ones of each of its tasks) go to the probe lane: one row per call, alone on its worker. Only a
death there is a strike against that row; two strikes quarantine it. A row that exceeds its time limit there
fails. The rest of the task goes back to the queue.

Near the end shards are given out in parts, each an eighth of a fair share of what is left (guided
self-scheduling, Polychronopoulos and Kuck 1987), so that nobody waits for the last whole ones. When the last
part of a shard is done, a task over the whole shard finds all its results in the journal and publishes the
receipt.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from jobs.driver.actions import (
    Abort,
    Action,
    Conclude,
    Drain,
    GiveUp,
    Inspect,
    Seal,
    Start,
    Stop,
    Strike,
    Submit,
    Work,
)
from jobs.errors import WorkersBroken
from jobs.worker.messages import Cause, Died, Event, Failed, Finished, Leaving, Progress, Ready, Task, WorkerId
from nst.errors import NstError

__all__ = ["Limits", "Scheduler"]

_STRIKES = 2
_TASK_TRIES = 3
_START_TRIES = 3
_START_PAUSE_S = 60.0
"""After so many starts that failed while others work: it may be one bad machine."""
_DEATHS_IN_A_ROW = 10
_LOSSES_IN_A_ROW = 100
_NOBODYS_FAULT = ("host lost", "node lost", "preempted", "stopped")
_PARTS_PER_WORKER = 8
"""Of what is left, when shards are given out in parts: a worker that has two is not the last one even if it is
three times slower than others."""
_TASKS_PER_WORKER = 2
"""So that the next shard is being loaded while the last one is still in work."""


@dataclass(frozen=True, slots=True)
class Limits:
    min_workers: int
    max_workers: int
    window: int
    timeout_s: float
    start_timeout_s: float
    batch_size: int = 1
    """Photographs that a method is given at once: parts of shards are multiples of it."""


@dataclass(slots=True)
class _Worker:
    ready: bool = False
    leaving: bool = False
    tasks: dict[int, Task] = field(default_factory=dict)
    slowest_s: float = 0.0
    seen_at: float = 0.0

    @property
    def probing(self) -> bool:
        return any(task.probe for task in self.tasks.values())


class Scheduler:
    """Feed it every event; carry out every action it returns, in order.

    Args:
        rows_of: the rows of a shard, as places within the manifest.
    """

    def __init__(self, work: Iterable[Work], rows_of: Callable[[int], range], limits: Limits) -> None:
        self._rows_of, self._limits = rows_of, limits
        self._bulk = deque(work)
        self._rows_waiting = sum(self._size(item) for item in self._bulk)
        self._in_parts: set[int] = set()  # shards that a worker is to seal when all parts are done
        self._probes: deque[Task] = deque()
        self._open: dict[int, set[int]] = {}  # rows without a result, of shards that are done piecewise
        self._generation: dict[int, int] = {}
        self._inspecting: dict[int, Task] = {}
        self._strikes: Counter[int] = Counter()
        self._failures: Counter[int] = Counter()  # of tasks, by row
        self._task_ids, self._worker_ids = itertools.count(), itertools.count()
        self._workers: dict[WorkerId, _Worker] = {}
        # Who may be given a task, by how many they have, who has any, and who is ready: kept, because there are
        # as many events a second as workers, and looking at all workers for each of them is a square.
        self._free: tuple[set[WorkerId], ...] = tuple(set() for _ in range(_TASKS_PER_WORKER))
        self._busy: set[WorkerId] = set()
        self._ready: set[WorkerId] = set()
        self._leaving: set[WorkerId] = set()
        self._done_rows: dict[int, int] = {}  # by running task: results as last reported
        self._deaths = self._losses = 0  # since anything got done
        self._died_on: set[tuple[int, ...] | None] = set()  # single photographs
        self._failed_starts = 0
        self._no_start_before = -math.inf
        self._no_worker_since = 0.0
        self._stopping = False
        for item in self._bulk:
            if item.rows is not None:
                self._open[item.shard] = set(item.rows)
                self._generation[item.shard] = item.generation

    @property
    def finished(self) -> bool:
        """Nothing is waiting, running, or to be looked into."""
        waiting = bool(self._bulk or self._probes) and not self._stopping
        return not (waiting or self._inspecting or self._busy)

    @property
    def ready_workers(self) -> int:
        return len(self._ready)

    def begin(self, now: float) -> list[Action]:
        self._no_worker_since = now
        return self._assign(now)

    def stop(self) -> None:
        """Submit nothing more."""
        self._stopping = True

    def on(self, event: Event, now: float) -> list[Action]:
        """What to do about an event. Events of workers that are gone are ignored."""
        if event.worker not in self._workers:
            return []
        worker = self._workers[event.worker]
        actions: list[Action] = []
        if isinstance(event, Ready):
            worker.ready, worker.seen_at = True, now
            self._file(event.worker)
            self._failed_starts = 0
        elif isinstance(event, Progress):
            worker.seen_at = now
            worker.slowest_s = max((task.slowest_s for task in event.tasks), default=0.0)
            for progress in (each for each in event.tasks if each.task in worker.tasks):
                self._note_progress(worker.tasks[progress.task], sum(progress.counts.values()))
        elif isinstance(event, Finished):
            task = self._take_back(event.worker, event.task)
            worker.seen_at, worker.slowest_s = now, 0.0
            self._note_progress(task, sum(event.report.counts.values()))
            self._done_rows.pop(event.task, None)
            if event.report.complete and not event.report.sealed:
                actions += self._resolve(task, self._rows(task))
            elif worker.leaving and not event.report.complete and not self._stopping:
                actions += self._look_into(task, "preempted", "its worker's machine is taken away")
            actions += self._dismiss(event.worker)
        elif isinstance(event, Failed):
            task = self._take_back(event.worker, event.task)
            self._done_rows.pop(event.task, None)
            if isinstance(event.error, NstError):  # a store that does not answer, and the like: for everyone
                return self._abort(event.error)
            actions += self._look_into(task, None, f"{type(event.error).__name__}: {event.error}")
            actions += self._dismiss(event.worker)
        elif isinstance(event, Leaving):
            worker.leaving = True
            self._file(event.worker)
            actions += [Drain(event.worker)] if worker.tasks else self._dismiss(event.worker)
        else:
            actions += self._bury(event, worker, now)
        return actions + self._assign(now)

    def inspected(
        self, asked: Inspect, done: Iterable[int], strikes: Mapping[int, int], now: float
    ) -> list[Action]:
        """What to do about a task that ended badly, given the rows of its shard that have a result, and the
        deaths on record by row."""
        task, cause, detail = asked.task, asked.cause, asked.detail
        self._inspecting.pop(task.id)
        unfinished = sorted(set(self._rows(task)) - set(done))
        self._open.setdefault(task.shard, set(self._rows_of(task.shard)))
        self._generation[task.shard] = task.generation
        actions = self._resolve(task, done)
        for row, count in strikes.items():
            self._strikes[row] = max(self._strikes[row], count)
        if not unfinished:
            return actions + self._assign(now)
        if cause is None:
            actions += self._failed_again(task, unfinished, detail)
        elif cause in _NOBODYS_FAULT:
            self._requeue(task, unfinished, probe=task.probe)
        elif not task.probe:
            # Those that it was at; if nobody knows, all that it can have been at.
            suspects = [row for row in unfinished if row in (asked.rows or ())]
            suspects = suspects or unfinished[: self._limits.window]
            for row in suspects:
                self._probe(task, row)
            rest = [row for row in unfinished if row not in suspects]
            if rest:
                self._requeue(task, rest, probe=False)
        elif cause == "time limit":
            text = f"not done after {self._limits.timeout_s:g} s, alone on its worker"
            actions.append(Conclude(task, "failed", "TimeLimit", text))
            actions += self._resolve(task, unfinished)
        else:
            (row,) = unfinished
            self._strikes[row] += 1
            actions.append(Strike(task, detail or cause))
            if self._strikes[row] >= _STRIKES:
                text = (
                    f"{self._strikes[row]} workers died while they ran it alone (the last: {detail or cause})"
                )
                actions.append(Conclude(task, "quarantined", "WorkerDied", text))
                actions += self._resolve(task, unfinished)
            else:
                self._probe(task, row)
        return actions + self._assign(now)

    def tick(self, now: float) -> list[Action]:
        """What to do because time has passed."""
        actions: list[Action] = []
        for worker_id in sorted(self._busy):
            worker = self._workers[worker_id]
            waited = worker.slowest_s + (now - worker.seen_at)
            if waited > self._limits.timeout_s:
                actions.append(Stop(worker_id, "time limit"))
                worker.seen_at, worker.slowest_s = now, 0.0  # until its death is reported
        if self.ready_workers or self.finished:
            self._no_worker_since = now
        elif now - self._no_worker_since > self._limits.start_timeout_s:
            text = f"no worker became ready within {self._limits.start_timeout_s:g} s"
            actions += self._abort(WorkersBroken(text))
        return actions + self._assign(now)  # a pause may be over

    # Rows

    def _rows(self, task: Task) -> Iterable[int]:
        return self._rows_of(task.shard) if task.rows is None else task.rows

    def _resolve(self, task: Task, rows: Iterable[int]) -> list[Action]:
        """These rows have results; if they were the shard's last, it is to be sealed."""
        waiting = self._open.get(task.shard)
        if waiting is None:
            return []
        waiting.difference_update(rows)
        if waiting:
            return []
        del self._open[task.shard]
        if task.shard in self._in_parts and not self._stopping:
            self._in_parts.remove(task.shard)
            del self._generation[task.shard]
            self._put_back(Work(task.shard, task.generation, sealing=True))
            return []
        return [Seal(task.shard, self._generation.pop(task.shard, task.generation))]

    def _probe(self, task: Task, row: int) -> None:
        self._probes.append(
            Task(
                id=next(self._task_ids),
                shard=task.shard,
                generation=task.generation,
                rows=(row,),
                probe=True,
                attempts=task.attempts + 1,
            )
        )

    def _requeue(self, task: Task, rows: Iterable[int], *, probe: bool) -> None:
        if probe:
            for row in rows:
                self._probe(task, row)
            return
        self._put_back(Work(task.shard, task.generation, tuple(rows), task.attempts))

    def _failed_again(self, task: Task, rows: list[int], detail: str) -> list[Action]:
        self._failures.update(rows)
        if max(self._failures[row] for row in rows) >= _TASK_TRIES:
            return [GiveUp(task.shard, detail)]
        self._requeue(task, rows, probe=task.probe)
        return []

    # Workers

    def _bury(self, event: Died, worker: _Worker, now: float) -> list[Action]:
        self._forget(event.worker)
        if worker.ready and not self._workers:  # it could start: so may the next ones
            self._failed_starts, self._no_start_before = 0, now
        actions: list[Action] = []
        if not worker.ready:
            if isinstance(event.error, NstError):
                return self._abort(event.error)
            if event.cause == "crash":
                self._failed_starts += 1
                if self._failed_starts >= _START_TRIES and self._ready:
                    self._failed_starts, self._no_start_before = 0, now + _START_PAUSE_S
        elif event.cause == "crash" and worker.tasks:
            self._deaths += 1
            self._died_on.update(task.rows for task in worker.tasks.values() if task.probe)
            if len(self._died_on) >= _DEATHS_IN_A_ROW:
                return self._abort(
                    WorkersBroken(
                        f"{self._deaths} workers died one after the other on different photographs, and "
                        f"none got done in between (the last: {event.detail})"
                    )
                )
        elif event.cause in _NOBODYS_FAULT and event.cause != "stopped" and worker.tasks:
            self._losses += 1
            if self._losses >= _LOSSES_IN_A_ROW:
                return self._abort(
                    WorkersBroken(
                        f"{self._losses} workers were lost one after the other and no photograph got done in "
                        f"between (the last: {event.cause}, {event.detail})"
                    )
                )
        if self._failed_starts >= _START_TRIES and not self._workers:
            return self._abort(WorkersBroken(f"workers cannot start: {event.detail}"))
        for task in worker.tasks.values():
            self._done_rows.pop(task.id, None)
            elsewhere = event.rows and not task.probe and set(event.rows).isdisjoint(self._rows(task))
            cause: Cause = "stopped" if elsewhere else event.cause
            actions += self._look_into(task, cause, event.detail, event.rows)
        return actions

    def _dismiss(self, worker_id: WorkerId) -> list[Action]:
        """Let go of a worker whose machine is taken away, once it has nothing left to do."""
        worker = self._workers[worker_id]
        if not worker.leaving or worker.tasks:
            return []
        self._forget(worker_id)
        return [Stop(worker_id, "stopped")]

    def _abort(self, error: NstError) -> list[Action]:
        self._stopping = True
        return [Abort(error)]

    def _look_into(
        self, task: Task, cause: Cause | None, detail: str, rows: tuple[int, ...] | None = None
    ) -> list[Action]:
        self._inspecting[task.id] = task
        return [Inspect(task, cause, detail, rows)]

    def _note_progress(self, task: Task, done: int) -> None:
        if done > self._done_rows.get(task.id, 0) and not task.sealing:  # which does no photograph
            self._deaths = self._losses = 0
            self._died_on.clear()
        self._done_rows[task.id] = done

    def _assign(self, now: float) -> list[Action]:
        if self._stopping:
            return []
        actions: list[Action] = []
        idle = sorted(self._free[0]) if self._probes else []
        for worker_id in idle[: len(self._probes)]:
            actions.append(self._submit(worker_id, self._probes.popleft(), now))
        # One task for everyone, also those still starting, before anyone gets a second.
        for depth, free in enumerate(self._free):
            for worker_id in sorted(free) if self._enough_for(depth) else []:
                if not self._enough_for(depth):
                    break
                actions.append(self._submit(worker_id, self._task(self._next_work()), now))
        return actions + self._resize(now)

    def _enough_for(self, depth: int) -> bool:
        """Whether a worker that has `depth` tasks may have one more."""
        tasks = max(len(self._bulk), self._rows_waiting // self._limits.batch_size)
        return bool(self._bulk) and (depth == 0 or tasks >= self._staying)

    def _next_work(self) -> Work:
        """A shard; near the end, a part of one."""
        item = self._bulk.popleft()
        self._rows_waiting -= (size := self._size(item))
        part = self._fair_share(self._rows_waiting + size)
        if item.sealing or self._staying <= 1 or size < 2 * part:
            return item
        rows = self._rows_of(item.shard) if item.rows is None else item.rows
        if item.rows is None:
            self._open[item.shard] = set(rows)
            self._generation[item.shard] = item.generation
            self._in_parts.add(item.shard)
        self._put_back(replace(item, rows=tuple(rows[part:])))
        return replace(item, rows=tuple(rows[:part]))

    def _fair_share(self, rows: int) -> int:
        batch = self._limits.batch_size
        return batch * math.ceil(rows / (batch * _PARTS_PER_WORKER * max(1, self._staying)))

    def _put_back(self, item: Work) -> None:
        self._bulk.appendleft(item)
        self._rows_waiting += self._size(item)

    def _size(self, item: Work) -> int:
        """How many rows are to be done."""
        if item.sealing:
            return 0
        return len(self._rows_of(item.shard) if item.rows is None else item.rows)

    @property
    def _staying(self) -> int:
        """Workers that may be given work, now or once they are ready."""
        return len(self._workers) - len(self._leaving)

    def _resize(self, now: float) -> list[Action]:
        """As many workers as there is work for, between the pool's bounds; the idle ones go at the end."""
        waiting = len(self._bulk) + len(self._probes)
        wanted = min(self._limits.max_workers, len(self._busy - self._leaving) + waiting)
        actions: list[Action] = []
        if waiting and self._failed_starts < _START_TRIES and now >= self._no_start_before:
            for _ in range(wanted - self._staying):
                worker_id = next(self._worker_ids)
                self._workers[worker_id] = _Worker()
                actions.append(Start(worker_id))
        spare = self._staying - max(wanted, self._limits.min_workers)
        if not waiting and not self._inspecting and spare > 0:
            idle = [key for key in self._workers if key not in self._busy and key not in self._leaving]
            for worker_id in idle[:spare]:
                self._forget(worker_id)
                actions.append(Stop(worker_id, "stopped"))
        return actions

    def _submit(self, worker_id: WorkerId, task: Task, now: float) -> Submit:
        worker = self._workers[worker_id]
        worker.tasks[task.id] = task
        if len(worker.tasks) == 1:
            worker.seen_at, worker.slowest_s = now, 0.0
        self._file(worker_id)
        return Submit(worker_id, task)

    def _take_back(self, worker_id: WorkerId, task: int) -> Task:
        taken = self._workers[worker_id].tasks.pop(task)
        self._file(worker_id)
        return taken

    def _file(self, worker_id: WorkerId) -> None:
        """Note what a worker may be given, after something about it changed."""
        worker = self._workers[worker_id]
        self._unfile(worker_id)
        if worker.ready:
            self._ready.add(worker_id)
        if worker.leaving:
            self._leaving.add(worker_id)
        if worker.tasks:
            self._busy.add(worker_id)
        if worker.ready and not (worker.probing or worker.leaving) and len(worker.tasks) < _TASKS_PER_WORKER:
            self._free[len(worker.tasks)].add(worker_id)

    def _unfile(self, worker_id: WorkerId) -> None:
        for group in (*self._free, self._busy, self._ready, self._leaving):
            group.discard(worker_id)

    def _forget(self, worker_id: WorkerId) -> None:
        del self._workers[worker_id]
        self._unfile(worker_id)

    def _task(self, work: Work) -> Task:
        return Task(
            id=next(self._task_ids),
            shard=work.shard,
            generation=work.generation,
            rows=work.rows,
            attempts=work.attempts,
            sealing=work.sealing,
        )
