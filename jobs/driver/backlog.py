"""What waits to be done: shards, parts of shards, and single rows that are to run alone."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace

from jobs.driver.actions import Seal, Work
from jobs.worker.messages import Task

__all__ = ["Backlog"]

_PARTS_PER_WORKER = 8
"""Parts that each worker gets of what is left, when shards are given out in parts: one that has two is not the
last one even if it is three times slower than others."""


class Backlog:
    """A queue of shards, and of parts of shards, and one of probes; and which rows of shards that are done
    piecewise have no result yet.

    Near the end shards are given out in parts, each an eighth of a fair share of what is left (guided
    self-scheduling, Polychronopoulos and Kuck 1987), so that nobody waits for the last whole ones. When the
    last part of a shard is done, a task over the whole shard finds all its results in the journal and publishes
    the receipt.

    Args:
        shard_rows: gives the rows of a shard, as places within the manifest.
        batch_size: photographs that a method is given at once; parts of shards are multiples of it.
    """

    def __init__(self, work: Iterable[Work], shard_rows: Callable[[int], range], batch_size: int) -> None:
        self._shard_rows, self._batch_size = shard_rows, batch_size
        self._queue = deque(work)
        self._rows_queued = sum(self._size(item) for item in self._queue)
        self._probes: deque[Task] = deque()
        self._task_ids = itertools.count()
        self._open: dict[int, set[int]] = {}  # by shard that is done piecewise: its rows without a result
        self._generation: dict[int, int] = {}  # by the same
        self._in_parts: set[int] = set()  # shards that a worker is to seal when all parts are done
        for item in self._queue:
            if item.rows is not None:
                self._open[item.shard] = set(item.rows)
                self._generation[item.shard] = item.generation

    def __len__(self) -> int:
        """Tasks that wait."""
        return len(self._queue) + len(self._probes)

    @property
    def probes(self) -> int:
        """Rows that wait to run alone."""
        return len(self._probes)

    def rows(self, task: Task) -> Sequence[int]:
        """The rows of `task`, as places within the manifest."""
        return self._shard_rows(task.shard) if task.rows is None else task.rows

    def enough_for(self, depth: int, workers: int) -> bool:
        """Whether one of so many workers that has `depth` tasks may have one more."""
        tasks = max(len(self._queue), self._rows_queued // self._batch_size)
        return bool(self._queue) and (depth == 0 or tasks >= workers)

    def has_probe(self, rows: Container[int]) -> bool:
        """Whether one of these rows waits to run alone."""
        return any(self.rows(task)[0] in rows for task in self._probes)

    def pop_probe(self, but: Container[int] = ()) -> Task | None:
        """The next row that is to run alone, and is none of these; None: there is none."""
        found = next((task for task in self._probes if self.rows(task)[0] not in but), None)
        if found is not None:
            self._probes.remove(found)
        return found

    def pop(self, workers: int) -> Task:
        """The next shard; near the end, for several workers, a part of one."""
        item = self._queue.popleft()
        self._rows_queued -= (size := self._size(item))
        part = self._part_size(self._rows_queued + size, workers)
        if not item.sealing and workers > 1 and size >= 2 * part:
            rows = self._shard_rows(item.shard) if item.rows is None else item.rows
            if item.rows is None:
                self.open(item.shard, item.generation)
                self._in_parts.add(item.shard)
            self._push(replace(item, rows=tuple(rows[part:])))
            item = replace(item, rows=tuple(rows[:part]))
        return Task(
            id=next(self._task_ids),
            shard=item.shard,
            generation=item.generation,
            rows=item.rows,
            attempts=item.attempts,
            sealing=item.sealing,
        )

    def requeue(self, task: Task, rows: Iterable[int]) -> None:
        """Put rows of a task back, to be done next, and alone if they were alone."""
        if task.probe:
            for row in rows:
                self.probe(task, row)
        else:
            self._push(Work(task.shard, task.generation, tuple(rows), task.attempts))

    def probe(self, task: Task, row: int) -> None:
        """Have a row of `task` run again, alone on its worker."""
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

    def open(self, shard: int, generation: int) -> None:
        """Keep, from here on, which rows of a shard have no result: it is done piecewise."""
        self._open.setdefault(shard, set(self._shard_rows(shard)))
        self._generation[shard] = generation

    def resolve(self, task: Task, rows: Iterable[int], *, by_worker: bool) -> Seal | None:
        """Note that rows of a shard that is done piecewise have results.

        Args:
            by_worker: a shard that was given out in parts may be sealed by a worker, which is queued.

        Returns:
            What seals the shard, if these rows were its last and no worker is to do it.
        """
        unresolved = self._open.get(task.shard)
        if unresolved is None:
            return None
        unresolved.difference_update(rows)
        if unresolved:
            return None
        del self._open[task.shard]
        generation = self._generation.pop(task.shard)
        if by_worker and task.shard in self._in_parts:
            self._in_parts.remove(task.shard)
            self._push(Work(task.shard, task.generation, sealing=True))
            return None
        return Seal(task.shard, generation)

    def _push(self, item: Work) -> None:
        self._queue.appendleft(item)
        self._rows_queued += self._size(item)

    def _size(self, item: Work) -> int:
        """How many rows are to be done."""
        if item.sealing:
            return 0
        return len(self._shard_rows(item.shard) if item.rows is None else item.rows)

    def _part_size(self, rows: int, workers: int) -> int:
        """How many rows a part has, when so many are left: whole batches."""
        parts = _PARTS_PER_WORKER * max(1, workers)
        return self._batch_size * math.ceil(rows / (self._batch_size * parts))
