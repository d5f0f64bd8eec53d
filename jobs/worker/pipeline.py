"""Loading, computing and saving, overlapped by threads, with a bound on what is in work at once."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from jobs.ledger.manifest import Row
from jobs.ledger.results import Result, Status
from jobs.worker.messages import AtWork, Spent
from nst.images.codec import DecodedPhoto
from nst.stylizer import Outcome, Stylized

__all__ = ["Loaded", "Pipeline", "Stages"]

_JOURNAL_INTERVAL_S = 0.5
"""Between journal parts, so that fast methods do not write one object per photograph."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A photograph ready for the method."""

    row: Row
    photo: DecodedPhoto
    sha256: str
    """The SHA-256 of the file."""
    load_s: float
    """Seconds that it took to read and decode."""
    retries: int = 0
    """Calls of the store that had to be made again."""

    def charge(self, failure: Result, compute_s: float) -> Result:
        """`failure` of this photograph, with what it was and what was spent on it."""
        return replace(
            failure, source_sha256=self.sha256, retries=self.retries, load_s=self.load_s, compute_s=compute_s
        )


class Stages(Protocol):
    """The stages that a photograph goes through. One that cannot be done is a `Result`; an exception from
    `save` means that the job's store failed, and ends the task."""

    def load(self, row: Row) -> Loaded | Result: ...

    def compute(self, batch: Sequence[Loaded]) -> list[Outcome | Exception]: ...

    def save(self, loaded: Loaded, stylized: Stylized, compute_s: float) -> Result: ...

    def failed(self, row: Row, error: Exception) -> Result: ...


class Pipeline:
    """One task's rows on their way through the stages, in order.

    Args:
        journal: makes results durable; a photograph counts as in work until then.
        window: photographs in work at most.
        compute_thread: one thread, shared by all tasks of the worker, which overlap in everything else. Memory
            that a thread has faulted in stays its own, so computing moves to no other.
        draining: once set, no more photographs are taken.
        at_work: is told which photographs are in a stage.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        stages: Stages,
        journal: Callable[[Sequence[Result]], None],
        *,
        window: int,
        batch_size: int,
        prefetch: int,
        load_pool: Executor,
        save_pool: Executor,
        compute_thread: Executor,
        draining: threading.Event,
        at_work: AtWork,
    ) -> None:
        self._rows, self._stages, self._journal = deque(rows), stages, journal
        self._window, self._batch_size, self._prefetch = window, batch_size, prefetch
        self._load_pool, self._save_pool = load_pool, save_pool
        self._compute_thread, self._draining = compute_thread, draining
        self._slots = threading.Semaphore(window)
        self._finished: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        self._at_work_slots = at_work
        self._active: dict[int, tuple[float, int, bool]] = {}  # row: since when, shared by how many, computed
        self._error: BaseException | None = None
        self._in_work = 0
        self._progressed_at = time.monotonic()  # when a stage or the journal last got something done
        self._queued = False  # for the compute thread, which another task may be using
        self.results: list[Result] = []
        """Results that are in the journal."""
        self._images: Counter[Status] = Counter()
        self.counts: Counter[Status] = Counter()
        self._seconds = dict.fromkeys(("load", "compute", "save"), 0.0)
        self._retries = 0
        self._marks: set[str] = set()

    def run(self) -> None:
        """Do all rows or, draining, those in work; returns when they are in the journal."""
        journal_writer = threading.Thread(target=self._write_journal, name="journal", daemon=True)
        journal_writer.start()
        saves: list[Future[Result]] = []
        try:
            for batch in self._batches():
                saves += self._compute(batch)
                saves = [save for save in saves if not save.done()]
            for save in saves:
                save.exception()  # waits; the error, if any, is in _error already
        finally:
            self._finished.put(None)
            journal_writer.join()
        if self._error is not None:
            raise self._error

    def spent(self) -> Spent:
        """What was spent on the photographs that are in the journal."""
        return Spent(
            images=dict(self._images),
            seconds=dict(self._seconds),
            retries=self._retries,
            marks=frozenset(self._marks),
        )

    def in_flight(self) -> int:
        """Photographs taken and not yet in the journal."""
        return self._in_work

    def slowest_s(self, evaluated_at: float = 0.0) -> float:
        """Seconds for which the slowest photograph is at work in its stage, per photograph that shares it; or
        for which nothing moves although there is work, e.g. because the store does not answer the journal.

        Args:
            evaluated_at: time of the last evaluation, which it counts from for what is computed.
        """
        now = time.monotonic()
        active = list(self._active.values())
        stalled = now - self._progressed_at if self._in_work and not active and not self._queued else 0.0
        seconds = ((now - max(since, evaluated_at * computed)) / share for since, share, computed in active)
        return max([stalled, *seconds])

    def _batches(self) -> Iterator[list[Loaded]]:
        """Loaded photographs in order, `batch_size` at a time."""
        loading: deque[Future[Loaded | Result]] = deque()
        batch: list[Loaded] = []
        while self._error is None:
            self._take(loading, must=not loading)
            if not loading:
                break
            self._add(loading.popleft().result(), batch)
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch and self._error is None:
            yield batch

    def _add(self, loaded: Loaded | Result, batch: list[Loaded]) -> None:
        if isinstance(loaded, Result):
            self._finished.put(loaded)
        else:
            self._marks.update(loaded.photo.marks)
            batch.append(loaded)

    def _take(self, loading: deque[Future[Loaded | Result]], *, must: bool) -> None:
        """Start loading as many as may be; if it `must`, wait until there is one or none is left."""
        while self._rows and len(loading) < self._prefetch and not self._draining.is_set():
            if not self._slots.acquire(timeout=0.1 if must and not loading else 0):
                if must and not loading and self._error is None:
                    continue
                return
            self._in_work += 1
            loading.append(self._load_pool.submit(self._load, self._rows.popleft()))

    def _load(self, row: Row) -> Loaded | Result:
        with self._at_work([row]):
            return self._stages.load(row)

    def _compute(self, batch: list[Loaded]) -> list[Future[Result]]:
        """Photographs leave the batch, and memory, before their pictures are saved."""
        self._queued = True
        outcomes, compute_s = self._compute_thread.submit(self._timed_compute, batch).result()
        self._queued = False
        saves = []
        done = [replace(loaded, photo=loaded.photo.without_levels()) for loaded in batch]
        batch.clear()
        for loaded, outcome in zip(done, outcomes, strict=True):
            if isinstance(outcome, Stylized):
                saves.append(self._save_pool.submit(self._save, loaded, outcome, compute_s))
            else:
                failure = self._stages.failed(loaded.row, outcome)
                self._finished.put(loaded.charge(failure, compute_s))
        return saves

    def _timed_compute(self, batch: list[Loaded]) -> tuple[list[Outcome | Exception], float]:
        with self._at_work([loaded.row for loaded in batch], computed=True):
            began = time.perf_counter()
            outcomes = self._stages.compute(batch)
            return outcomes, (time.perf_counter() - began) / len(batch)

    def _save(self, loaded: Loaded, stylized: Stylized, compute_s: float) -> Result:
        try:
            with self._at_work([loaded.row]):
                result = self._stages.save(loaded, stylized, compute_s)
        except BaseException as error:
            self._error = self._error or error
            raise
        self._finished.put(result)
        return result

    @contextmanager
    def _at_work(self, rows: Sequence[Row], *, computed: bool = False) -> Iterator[None]:
        since = time.monotonic()
        for row in rows:
            self._active[row.index] = (since, len(rows), computed)
            self._at_work_slots.enter(row.index)
        try:
            yield
        finally:
            self._progressed_at = time.monotonic()
            for row in rows:
                self._active.pop(row.index, None)
                self._at_work_slots.leave(row.index)

    def _write_journal(self) -> None:
        """Write results as they come: at once when they are rare, many in one part when they are not."""
        last = False
        try:
            while not last:
                part = [self._finished.get()]
                deadline = time.monotonic() + _JOURNAL_INTERVAL_S if self.results else 0.0
                while part[-1] is not None and len(part) < self._window // 2:
                    try:
                        part.append(self._finished.get(timeout=max(0.0, deadline - time.monotonic())))
                    except queue.Empty:
                        break
                last = part[-1] is None
                results = [result for result in part if result is not None]
                if results:
                    self._journal(results)
                    self._progressed_at = time.monotonic()
                    self.results += results
                    self._images.update(result.status for result in results)
                    self.counts.update(result.status for result in results)
                    for result in results:
                        self._retries += result.retries
                        for stage in self._seconds:
                            self._seconds[stage] += getattr(result, f"{stage}_s") or 0.0
                    self._in_work -= len(results)
                    self._slots.release(len(results))
        except BaseException as error:  # noqa: BLE001  raised again by run()
            self._error = self._error or error
