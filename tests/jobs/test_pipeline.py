"""The overlap of loading, computing and saving, with stages of the tests' own."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from jobs.ledger.manifest import Row
from jobs.ledger.results import Result, Status
from jobs.worker.messages import AtWork
from jobs.worker.pipeline import Loaded, Pipeline
from nst.images.codec import DecodedPhoto
from nst.stylizer import Outcome, Stylized


class Recorder:
    """Stages that note what is under way at the same time."""

    def __init__(self, load_s: float = 0.0, compute_s: float = 0.0, save_s: float = 0.0) -> None:
        self.load_s, self.compute_s, self.save_s = load_s, compute_s, save_s
        self.batches: list[list[int]] = []
        self.journaled: list[int] = []
        self.parts: list[int] = []
        self.most_in_work = 0
        self.bad_loads: set[int] = set()
        self.bad_computes: set[int] = set()
        self.bad_saves: set[int] = set()
        self.loaded = 0
        self.lock = threading.Lock()

    def load(self, row: Row) -> Loaded | Result:
        time.sleep(self.load_s)
        with self.lock:
            self.loaded += 1
            self.most_in_work = max(self.most_in_work, self.loaded - len(self.journaled))
        if row.index in self.bad_loads:
            return self.result(row, "failed")
        return Loaded(row, DecodedPhoto(torch.zeros(3, 1, 1, dtype=torch.uint8)), "digest", self.load_s)

    def compute(self, batch: Sequence[Loaded]) -> list[Outcome | Exception]:
        time.sleep(self.compute_s)
        self.batches.append([loaded.row.index for loaded in batch])
        return [
            RuntimeError("no") if loaded.row.index in self.bad_computes else Stylized(loaded.photo.image)
            for loaded in batch
        ]

    def save(self, loaded: Loaded, stylized: Stylized, compute_s: float) -> Result:  # noqa: ARG002
        time.sleep(self.save_s)
        if loaded.row.index in self.bad_saves:
            raise OSError(28, "No space left on device")
        return self.result(loaded.row, "ok")

    def failed(self, row: Row, error: Exception) -> Result:  # noqa: ARG002
        return self.result(row, "failed")

    def journal(self, results: Sequence[Result]) -> None:
        with self.lock:
            self.journaled += [result.row for result in results]
            self.parts.append(len(results))

    def result(self, row: Row, status: Status) -> Result:
        return Result(row=row.index, key=row.key, url=row.url, status=status)


@pytest.fixture
def make() -> Iterator[Callable[..., Pipeline]]:
    slots = [0] * 8
    load_pool, save_pool, compute_thread = ThreadPoolExecutor(2), ThreadPoolExecutor(2), ThreadPoolExecutor(1)

    def build(recorder: Recorder, count: int, **options: object) -> Pipeline:
        plain: dict[str, object] = {
            "window": 12,
            "batch_size": 1,
            "prefetch": 3,
            "load_pool": load_pool,
            "save_pool": save_pool,
            "compute_thread": compute_thread,
            "draining": threading.Event(),
            "at_work": AtWork(slots),
        }
        rows = [Row(index, f"k{index}", f"/{index}", None) for index in range(count)]
        return Pipeline(rows, recorder, recorder.journal, **{**plain, **options})  # type: ignore[arg-type]

    yield build
    load_pool.shutdown()
    compute_thread.shutdown()
    save_pool.shutdown()


def test_every_row_once_and_computed_in_order(make: Callable[..., Pipeline]) -> None:
    recorder = Recorder()
    pipeline = make(recorder, 50, batch_size=4)
    pipeline.run()
    assert sorted(recorder.journaled) == list(range(50))
    assert [row for batch in recorder.batches for row in batch] == list(range(50))
    assert [len(batch) for batch in recorder.batches] == [4] * 12 + [2]
    assert pipeline.counts == {"ok": 50}
    assert pipeline.in_flight() == 0


def test_nothing_to_do(make: Callable[..., Pipeline]) -> None:
    recorder = Recorder()
    make(recorder, 0).run()
    assert recorder.parts == []


def test_failures_are_rows_and_do_not_shrink_batches(make: Callable[..., Pipeline]) -> None:
    recorder = Recorder()
    recorder.bad_loads, recorder.bad_computes = {0, 3}, {5}
    pipeline = make(recorder, 9, batch_size=3)
    pipeline.run()
    assert recorder.batches == [[1, 2, 4], [5, 6, 7], [8]]
    assert pipeline.counts == {"ok": 6, "failed": 3}
    assert sorted(result.row for result in pipeline.results if result.status == "failed") == [0, 3, 5]


def test_photographs_leave_memory_before_their_pictures_are_saved(make: Callable[..., Pipeline]) -> None:
    recorder, known, left = Recorder(), dict[int, weakref.ref[torch.Tensor]](), list[bool]()

    def compute(batch: Sequence[Loaded]) -> list[Outcome | Exception]:
        known.update({each.row.index: weakref.ref(each.photo.levels) for each in batch})
        return [Stylized(each.photo.image) for each in batch]

    def save(loaded: Loaded, *_: object) -> Result:
        time.sleep(0.02)
        left.append(known[loaded.row.index]() is not None)
        return recorder.result(loaded.row, "ok")

    recorder.compute, recorder.save = compute, save  # type: ignore[method-assign, assignment]
    make(recorder, 5, batch_size=2).run()
    assert left == [False] * 5


def test_no_more_than_the_window_is_in_work(make: Callable[..., Pipeline]) -> None:
    """What is not in the journal counts as in work, also when it is saved already."""
    recorder = Recorder()
    original = recorder.journal

    def slow(results: Sequence[Result]) -> None:
        time.sleep(0.02)
        original(results)

    recorder.journal = slow  # type: ignore[method-assign]
    make(recorder, 60, window=5).run()
    assert sorted(recorder.journaled) == list(range(60))
    assert recorder.most_in_work <= 5


def test_stages_overlap(make: Callable[..., Pipeline]) -> None:
    """Three stages of 20 ms each, 25 photographs: about 25 * 20 ms, not 25 * 60 ms."""
    recorder = Recorder(load_s=0.02, compute_s=0.02, save_s=0.02)
    began = time.monotonic()
    make(recorder, 25).run()
    assert time.monotonic() - began < 0.8 * 25 * 0.06


def test_fast_results_share_journal_parts_and_rare_ones_do_not_wait(make: Callable[..., Pipeline]) -> None:
    fast = Recorder()
    make(fast, 200, window=40).run()
    assert len(fast.parts) < 60
    slow = Recorder(compute_s=0.6)
    pipeline = make(slow, 3)
    seen: list[int] = []
    compute = slow.compute

    def look(batch: Sequence[Loaded]) -> list[Outcome | Exception]:
        outcomes = compute(batch)
        seen.append(len(slow.journaled))
        return outcomes

    slow.compute = look  # type: ignore[method-assign]
    pipeline.run()
    assert seen == [0, 1, 2], "each result is journaled while the next photograph computes"


def test_a_store_that_fails_ends_the_task_with_its_error(make: Callable[..., Pipeline]) -> None:
    recorder = Recorder()
    recorder.bad_saves = {7}
    pipeline = make(recorder, 1000)
    with pytest.raises(OSError, match="No space left"):
        pipeline.run()
    assert 7 not in recorder.journaled
    assert recorder.loaded < 100


def test_a_journal_that_fails_ends_the_task(make: Callable[..., Pipeline]) -> None:
    recorder = Recorder()

    def broken(_results: Sequence[Result]) -> None:
        raise OSError(5, "Input/output error")

    recorder.journal = broken  # type: ignore[method-assign]
    pipeline = make(recorder, 1000)
    with pytest.raises(OSError, match="Input/output"):
        pipeline.run()
    assert pipeline.results == []


def test_draining_finishes_what_was_taken(make: Callable[..., Pipeline]) -> None:
    recorder, draining = Recorder(compute_s=0.01), threading.Event()
    pipeline = make(recorder, 1000, draining=draining)
    threading.Timer(0.15, draining.set).start()
    pipeline.run()
    assert 0 < len(recorder.journaled) < 200
    assert sorted(recorder.journaled) == list(range(len(recorder.journaled)))


def test_says_how_long_the_slowest_is_at_work(make: Callable[..., Pipeline]) -> None:
    recorder = Recorder(compute_s=0.6)
    pipeline = make(recorder, 4, batch_size=2)
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    time.sleep(0.4)
    assert 0.1 < pipeline.slowest_s() < 0.3, "two share the call"
    assert pipeline.slowest_s(time.monotonic()) < 0.1, "they advanced just now"
    assert pipeline.in_flight() == 4
    thread.join()
    assert pipeline.slowest_s() == 0.0


def test_a_journal_that_does_not_answer_counts_as_slow(make: Callable[..., Pipeline]) -> None:
    answered = threading.Event()

    class Stuck(Recorder):
        def journal(self, results: Sequence[Result]) -> None:
            answered.wait(20)
            super().journal(results)

    pipeline = make(Stuck(), 30)
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    time.sleep(0.6)
    assert pipeline.in_flight() > 0
    assert 0.3 < pipeline.slowest_s() < 5
    answered.set()
    thread.join()


def test_waiting_for_the_other_task_is_not_being_slow(make: Callable[..., Pipeline]) -> None:
    pipelines = [make(Recorder(compute_s=0.6), 8, batch_size=4) for _ in range(2)]
    threads = [threading.Thread(target=pipeline.run) for pipeline in pipelines]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        slowest = max(slowest, *(pipeline.slowest_s() for pipeline in pipelines))
        time.sleep(0.01)
    assert slowest < 0.4, "0.6 s shared by four, and 0.6 s of waiting that do not count"


def test_two_tasks_compute_one_at_a_time(make: Callable[..., Pipeline]) -> None:
    running, most = 0, 0

    class Counting(Recorder):
        def compute(self, batch: Sequence[Loaded]) -> list[Outcome | Exception]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            outcomes = super().compute(batch)
            running -= 1
            return outcomes

    pipelines = [make(Counting(compute_s=0.01), 10) for _ in range(2)]
    threads = [threading.Thread(target=pipeline.run) for pipeline in pipelines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
