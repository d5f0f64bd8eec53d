"""Which workers there are, what each has, and who may be given more."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from jobs.worker.messages import Task, WorkerId

__all__ = ["TASKS_PER_WORKER", "WorkerState", "Workers"]

TASKS_PER_WORKER = 2
"""Tasks that a worker has at most: the next shard is being loaded while the last one is still in work."""


@dataclass(slots=True)
class WorkerState:
    """A worker that was asked for and is not known to be gone. To be changed by `Workers` alone."""

    ready: bool = False
    proven: bool = False
    """A photograph got done on it."""
    leaving: bool = False
    """Its machine is about to be taken away, so it gets no more tasks."""
    stopped: bool = False
    """It was told to end, so what it is given now would end with it."""
    tasks: dict[int, Task] = field(default_factory=dict)
    """Tasks that it has, by id."""
    slowest_s: float = 0.0
    """Seconds for which its slowest photograph had been at work at `seen_at`."""
    seen_at: float = 0.0
    """When it was last heard of."""

    @property
    def probing(self) -> bool:
        return any(task.probe for task in self.tasks.values())


class Workers:
    """All workers by id, and sets of those who are ready, busy, leaving, proven and free: kept, because there
    are as many events a second as workers, and looking at all workers for each of them is a square."""

    def __init__(self) -> None:
        self._ids = itertools.count()
        self._states: dict[WorkerId, WorkerState] = {}
        self._free: tuple[set[WorkerId], ...] = tuple(set() for _ in range(TASKS_PER_WORKER))  # by tasks
        self._busy: set[WorkerId] = set()
        self._ready: set[WorkerId] = set()
        self._leaving: set[WorkerId] = set()
        self._proven: set[WorkerId] = set()

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, worker: WorkerId) -> bool:
        return worker in self._states

    def __getitem__(self, worker: WorkerId) -> WorkerState:
        return self._states[worker]

    @property
    def ready(self) -> int:
        """How many are ready."""
        return len(self._ready)

    @property
    def staying(self) -> int:
        """How many may be given work, now or once they are ready."""
        return len(self._states) - len(self._leaving)

    @property
    def staying_busy(self) -> int:
        """How many of those have tasks."""
        return len(self._busy - self._leaving)

    @property
    def any_busy(self) -> bool:
        """Whether anyone has tasks."""
        return bool(self._busy)

    def busy(self) -> list[WorkerId]:
        """Who has tasks."""
        return sorted(self._busy)

    def free(self, depth: int) -> list[WorkerId]:
        """Who has `depth` tasks and may be given one more."""
        return sorted(self._free[depth])

    def idle(self) -> list[WorkerId]:
        """Who stays and has nothing to do, ready or not, in the order in which they were asked for."""
        return [worker for worker in self._states if worker not in self._busy and worker not in self._leaving]

    def proven(self) -> set[WorkerId]:
        """Who stays, and has got a photograph done."""
        return self._proven - self._leaving

    def add(self) -> WorkerId:
        """Note that one more worker is asked for, and give its id."""
        worker = next(self._ids)
        self._states[worker] = WorkerState()
        return worker

    def set_ready(self, worker: WorkerId, now: float) -> None:
        state = self._states[worker]
        state.ready, state.seen_at = True, now
        self._index(worker)

    def set_proven(self, worker: WorkerId) -> None:
        self._states[worker].proven = True
        self._proven.add(worker)

    def set_leaving(self, worker: WorkerId) -> None:
        self._states[worker].leaving = True
        self._index(worker)

    def set_seen(self, worker: WorkerId, now: float, slowest_s: float = 0.0) -> None:
        state = self._states[worker]
        if not state.stopped:
            state.seen_at, state.slowest_s = now, slowest_s

    def set_stopped(self, worker: WorkerId, now: float) -> None:
        """Note that a worker was told to end; what it says from here on is no sign of life."""
        state = self._states[worker]
        state.stopped, state.seen_at, state.slowest_s = True, now, 0.0
        self._index(worker)

    def give(self, worker: WorkerId, task: Task, now: float) -> None:
        state = self._states[worker]
        state.tasks[task.id] = task
        if len(state.tasks) == 1:
            self.set_seen(worker, now)
        self._index(worker)

    def take(self, worker: WorkerId, task: int) -> Task:
        """A worker's task, which it no longer has."""
        taken = self._states[worker].tasks.pop(task)
        self._index(worker)
        return taken

    def remove(self, worker: WorkerId) -> WorkerState:
        """What is known of a worker, which is gone."""
        self._unindex(worker)
        return self._states.pop(worker)

    def _index(self, worker: WorkerId) -> None:
        """Bring the sets up to date, after something about a worker changed."""
        state = self._states[worker]
        self._unindex(worker)
        if state.ready:
            self._ready.add(worker)
        if state.leaving:
            self._leaving.add(worker)
        if state.proven:
            self._proven.add(worker)
        if state.tasks:
            self._busy.add(worker)
        taken = state.probing or state.leaving or state.stopped
        if state.ready and not taken and len(state.tasks) < TASKS_PER_WORKER:
            self._free[len(state.tasks)].add(worker)

    def _unindex(self, worker: WorkerId) -> None:
        for group in (*self._free, self._busy, self._ready, self._leaving, self._proven):
            group.discard(worker)
