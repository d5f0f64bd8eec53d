"""Running a job: the scheduler decides, the pool computes, the ledger remembers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import fields
from typing import Any, cast

from jobs.console.log_events import Level, News
from jobs.console.progress import Snapshot, Summary, end_notes
from jobs.console.stop import StopSignal
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
from jobs.driver.assets import by_url
from jobs.driver.job import Job
from jobs.driver.scheduler import Limits, Scheduler
from jobs.errors import StoreError, UsageError, WorkersBroken
from jobs.ledger.lease import STANDARD_LEASE, Lease, LeaseOptions, hold
from jobs.ledger.manifest import Row
from jobs.ledger.receipts import JournalWriter, Ledger, read_journal, seal
from jobs.ledger.results import Result, Status, Tally, add_up, image_seed, total
from jobs.pools import Pool, open_pool
from jobs.worker.messages import Event, Failed, Finished, Leaving, Progress, Ready, Task, WorkerId, WorkerSetup
from nst.errors import NstError

__all__ = ["retry_work", "run", "shards_to_do", "worker_setup"]

_POLL_S = 0.25


def shards_to_do(job: Job) -> list[Work]:
    """Shards without a receipt."""
    done = Ledger(job.store).done()
    return [Work(shard) for shard in range(job.manifest.shards) if shard not in done]


def retry_work(job: Job, keys: Iterable[str] | None = None) -> list[Work]:
    """Rows to do again: the failed and quarantined, or those of the given `keys`.

    Raises:
        UsageError: one of `keys` has no result, or has a picture already.
    """
    ledger = Ledger(job.store)
    wanted = None if keys is None else set(keys)
    work: list[Work] = []
    found: set[str] = set()
    for shard, counts in zip(done := sorted(ledger.done()), ledger.counts(done), strict=True):
        if counts["failed"] + counts["quarantined"] == 0:
            continue
        results, meta = ledger.receipt(shard)
        rows = [r for r in results if r.status != "ok" and (wanted is None or r.key in wanted)]
        found.update(result.key for result in rows)
        if rows:
            generation = ledger.next_generation(shard, meta["generation"])
            work.append(Work(shard, generation, tuple(result.row for result in rows)))
    if wanted is not None and wanted - found:
        raise UsageError(f"no failed photograph has the key {sorted(wanted - found)[0]!r}")
    return work


def run(
    job: Job,
    work: Iterable[Work] | Callable[[], Iterable[Work]] | None = None,
    *,
    observe: Callable[[Snapshot], None] | None = None,
    stop: StopSignal | None = None,
    pool: Pool | None = None,
    lease: LeaseOptions | None = STANDARD_LEASE,
) -> Summary:
    """Do what is left of a job. Whatever ends it, what is done is kept and the next run goes on from there.

    Args:
        work: None: all shards without a receipt. A function is asked once no other driver is at the job.
        observe: called about four times a second.
        pool: None: what the job's resources ask for.
        lease: None: begin also while another driver is at it, and do the same work twice.

    Raises:
        LeaseHeld: another driver is at it.
    """
    failure: StoreError | None = None
    with ExitStack() as stack:
        held = None
        try:
            held = stack.enter_context(hold(job.store, lease))
        except OSError as error:
            failure = StoreError(f"{type(error).__name__}: {error}")
        work = work() if callable(work) else work
        items = shards_to_do(job) if work is None else list(work)
        one = _Run(job, items, observe or (lambda _: None), stop or StopSignal(), held)
        return one.go(pool, failure)


class _Run:
    """One run's state. What is done is asked of the store at the end; counts in between are for show."""

    def __init__(
        self,
        job: Job,
        work: list[Work],
        observe: Callable[[Snapshot], None],
        stop: StopSignal,
        lease: Lease | None,
    ) -> None:
        self._job, self._observe, self._stop, self._lease = job, observe, stop, lease
        self._began, self._cpu = time.monotonic(), time.process_time()
        self._ledger = Ledger(job.store)
        self._setup = worker_setup(job)
        resources = job.resources
        limits = Limits(
            min_workers=resources.min_workers,
            max_workers=resources.max_workers,
            window=self._setup.window,
            timeout_s=resources.timeout_s,
            start_timeout_s=resources.start_timeout_s,
            batch_size=resources.batch_size,
        )
        self._scheduler = Scheduler(work, self._rows_of, limits)
        self._shards = frozenset(item.shard for item in work)
        self._unsealed = set(self._shards)
        if any(item.rows is not None for item in work):
            self._total = sum(len(item.rows or ()) for item in work)
            self._before = total([])
        else:
            self._total = job.manifest.rows
            self._before = total(self._ledger.counts(self._ledger.done()))
        self._running: dict[int, Mapping[Status, int]] = {}  # counts by running task
        self._seen: Counter[Status] = Counter(self._before)  # and rows of this run's tasks, as last heard
        self._first_ready: float | None = None
        self._news: list[News] = []
        self._seconds: dict[str, float] = {}
        self._error: NstError | None = None

    def go(self, pool: Pool | None, failure: StoreError | None = None) -> Summary:
        stopped, self._error = False, failure
        self._stop.running()
        try:
            self._job.store.clean()
            if self._unsealed and self._error is None:
                with pool or open_pool(self._job.resources, self._setup, by_url(self._job.assets)) as entered:
                    self._mark("pool")
                    stopped = self._loop(entered)
            self._job.store.clean()
        except WorkersBroken as error:
            self._error = self._error or error
        except OSError as error:
            self._error = self._error or StoreError(f"{type(error).__name__}: {error}")
        self._mark("whole")
        tally, unfinished = self._outcome()
        options = {option.name for option in fields(cast(Any, self._job.spec.method))}
        return Summary(
            total=self._job.manifest.rows,
            counts=tally.counts,
            unfinished_shards=unfinished,
            stopped=stopped and bool(self._unsealed),
            error=self._error,
            seconds=self._seconds,
            driver_cpu_s=time.process_time() - self._cpu,
            notes=end_notes(tally, options),
        )

    def _outcome(self) -> tuple[Tally, int]:
        """All rows, counted, and how many shards have no receipt: by the store, or if that does not answer any
        more, as last seen."""
        try:
            done = self._ledger.done() | (self._shards - self._unsealed)  # a listing may lag behind
            everything = set(range(self._job.manifest.shards))
            return add_up(self._ledger.tallies(done)), len(self._unsealed | (everything - done))
        except OSError as error:
            self._error = self._error or StoreError(f"{type(error).__name__}: {error}")
            return Tally(self._counts()), len(self._unsealed)

    def _counts(self) -> Mapping[Status, int]:
        return total([self._seen])

    def _loop(self, pool: Pool) -> bool:
        """Returns whether the run was stopped."""
        deadline: float | None = None
        ticked = time.monotonic()
        self._perform(self._scheduler.begin(time.monotonic()), pool)
        while not self._over() and not self._scheduler.finished:
            if self._stop.gently and deadline is None:
                deadline = time.monotonic() + self._job.resources.grace_s
                text = f"stopping: photographs in work have {self._job.resources.grace_s:g} s"
                self._tell("stopping", text, "warning")
                self._scheduler.stop()
                pool.drain()
            if self._stop.at_once or (deadline is not None and time.monotonic() > deadline):
                break
            events = pool.poll(_POLL_S)
            heard = time.monotonic()
            for event in events:
                self._take(event, pool)
            # What waits to be heard while the store is slow is not a worker that says nothing.
            now = time.monotonic()
            if now - heard < 1.0 and now - ticked >= _POLL_S:
                ticked = now
                self._perform(self._scheduler.tick(now), pool)
            self._observe(self._snapshot())
        return deadline is not None

    def _over(self) -> bool:
        """Whether the job ended badly, or is another driver's now."""
        if self._error is None and self._lease is not None:
            self._error = self._lease.lost
        return self._error is not None

    def _take(self, event: Event, pool: Pool) -> None:
        if isinstance(event, Ready):
            self._first_ready = self._first_ready or time.monotonic()
            self._mark("worker")
            info = event.info
            values = {"host": info.host, "pid": info.pid, "device": info.device, "seconds": dict(info.seconds)}
            text = f"worker {event.worker}: {info.host}, {info.device}"
            self._tell("worker_ready", text, worker=event.worker, values=values)
        elif isinstance(event, Progress):
            for progress in event.tasks:
                self._count(progress.task, progress.counts)
        elif isinstance(event, Finished):
            self._count(event.task, event.report.counts)
            self._running.pop(event.task, None)
        elif isinstance(event, Failed):
            text = f"worker {event.worker}: task failed: {event.error}"
            self._tell("task_failed", text, "warning", worker=event.worker)
        elif isinstance(event, Leaving):
            text = f"worker {event.worker} finishes what is in work: {event.detail}"
            self._tell("worker_leaving", text, worker=event.worker)
        elif event.cause != "stopped":
            text = f"worker {event.worker} is gone: {event.cause} ({event.detail})"
            self._tell("worker_gone", text, "warning", worker=event.worker, values={"cause": event.cause})
        self._perform(self._scheduler.on(event, time.monotonic()), pool)
        if isinstance(event, Finished) and event.report.sealed:
            report = event.report
            self._sealed(report.shard, report.counts, report.without_picture, worker=event.worker)

    def _perform(self, actions: Iterable[Action], pool: Pool) -> None:
        for action in actions:
            if self._over():
                return
            if isinstance(action, Start):
                pool.start(action.worker)
            elif isinstance(action, Stop):
                pool.stop(action.worker, action.cause)
            elif isinstance(action, Drain):
                pool.drain(action.worker)
            elif isinstance(action, Submit):
                if not action.task.sealing:  # its rows are counted
                    self._running[action.task.id] = total([])
                pool.submit(action.worker, action.task)
            elif isinstance(action, Inspect):
                self._inspect(action, pool)
            elif isinstance(action, Strike):
                self._journal(action.task).death(self._row_of(action.task).index, action.cause)
            elif isinstance(action, Conclude):
                self._conclude(action)
                pool.count(action.status)
            elif isinstance(action, Seal):
                self._seal(action)
            elif isinstance(action, GiveUp):
                self._unfinished(action.shard, action.reason)
            elif isinstance(action, Abort):
                self._error = action.error

    def _inspect(self, action: Inspect, pool: Pool) -> None:
        task = action.task
        journal = read_journal(self._job.store, task.shard, task.generation)
        rows = self._rows_of(task.shard) if task.rows is None else task.rows
        if task.id in self._running:
            self._seen.subtract(self._running.pop(task.id))
            self._seen.update(journal.results[row].status for row in rows if row in journal.results)
        now = time.monotonic()
        done, deaths = journal.results.keys(), journal.deaths
        self._perform(self._scheduler.inspected(action, done, deaths, now), pool)

    def _conclude(self, action: Conclude) -> None:
        row = self._row_of(action.task)
        result = Result(
            row=row.index,
            key=row.key,
            url=row.url,
            status=action.status,
            error_type=action.error_type,
            error=action.error,
            seed=image_seed(self._job.spec.seed, row.key),
            attempts=action.task.attempts,
            finished_at=time.time(),
        )
        self._journal(action.task).results([result])
        self._seen[action.status] += 1
        self._tell_of(result, f"{row.key}: {action.status}: {action.error}", shown=True)

    def _seal(self, action: Seal) -> None:
        journal = read_journal(self._job.store, action.shard, action.generation)
        try:
            seal(
                self._job.store,
                action.shard,
                self._job.manifest.shard(action.shard),
                journal.results.values(),
                generation=action.generation,
                fingerprint=self._job.fingerprint,
            )
        except ValueError as error:  # somebody took away, or damaged, what was in the journal
            self._unfinished(action.shard, error)
            return
        results = journal.results.values()
        counts = total([Counter(result.status for result in results)])
        self._sealed(action.shard, counts, [result for result in results if result.status != "ok"])

    def _sealed(
        self,
        shard: int,
        counts: Mapping[Status, int],
        without_picture: Iterable[Result],
        worker: WorkerId | None = None,
    ) -> None:
        self._unsealed.discard(shard)
        for result in without_picture:
            if result.worker_host:  # of the others, the driver told when it gave them up
                self._tell_of(result, f"{result.key}: {result.error}", shown=False)
        values = {"images": dict(counts)}
        text = f"shard {shard} is done"
        self._tell("shard_done", text, shard=shard, worker=worker, values=values, shown=False)

    def _unfinished(self, shard: int, why: object) -> None:
        self._tell("shard_unfinished", f"shard {shard} stays unfinished: {why}", "warning", shard=shard)

    def _tell_of(self, result: Result, text: str, *, shown: bool) -> None:
        """Of a photograph that has no picture."""
        shard = result.row // self._job.manifest.shard_size
        values = {"error_type": result.error_type, "attempts": result.attempts}
        event = f"photo_{result.status}"
        self._tell(event, text, "warning", shard=shard, key=result.key, values=values, shown=shown)

    def _tell(self, event: str, text: str, level: Level = "info", **more: Any) -> None:
        self._news.append(News(event=event, text=text, level=level, **more))

    def _journal(self, task: Task) -> JournalWriter:
        return JournalWriter(self._job.store, task.shard, task.generation)

    def _row_of(self, task: Task) -> Row:
        """The one row of a probe."""
        assert task.rows is not None
        (index,) = task.rows
        return self._job.manifest.shard(task.shard)[index - self._rows_of(task.shard).start]

    def _rows_of(self, shard: int) -> range:
        start = shard * self._job.manifest.shard_size
        return range(start, start + self._job.manifest.rows_in(shard))

    def _count(self, task: int, counts: Mapping[Status, int]) -> None:
        if task not in self._running:  # news of a task that is over
            return
        self._seen.update(counts)
        self._seen.subtract(self._running[task])
        self._running[task] = counts
        if any(counts.values()):
            self._mark("first_result")

    def _mark(self, phase: str) -> None:
        self._seconds.setdefault(phase, time.monotonic() - self._began)

    def _snapshot(self) -> Snapshot:
        news, self._news = tuple(self._news), []
        return Snapshot(
            total=self._total,
            counts=self._counts(),
            already=sum(self._before.values()),
            workers=self._scheduler.ready_workers,
            elapsed_s=time.monotonic() - (self._first_ready or time.monotonic()),
            news=news,
        )


def worker_setup(job: Job) -> WorkerSetup:
    """What every worker of `job` is told."""
    resources = job.resources
    return WorkerSetup(
        output=job.spec.output,
        storage=job.storage,
        create_only=job.store.create_only,
        method=job.spec.method,
        image=job.spec.image,
        seed=job.spec.seed,
        fingerprint=job.fingerprint,
        batch_size=resources.batch_size,
        load_threads=resources.load_threads,
        save_threads=resources.save_threads,
        threads=resources.threads,
        use_gpu=resources.num_gpus > 0,
    )
