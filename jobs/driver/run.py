"""Running a job: the scheduler decides, the pool computes, the ledger remembers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import fields
from typing import Any, assert_never, cast

from jobs.console.progress import SHOWN_FAILURES, Snapshot, Summary, end_notes
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
from jobs.driver.adapting import Adapting, adapted_job, needs_adapting
from jobs.driver.assets import by_url
from jobs.driver.estimate import schedule_of
from jobs.driver.job import Job
from jobs.driver.records import Records
from jobs.driver.run_log import RunLog
from jobs.driver.scheduler import Limits, Scheduler
from jobs.driver.tally import RunTally
from jobs.driver.todo import shards_to_do
from jobs.errors import StoreError, WorkersBroken
from jobs.ledger.lease import STANDARD_LEASE, Lease, LeaseOptions, hold
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import Result, Status, Tally, add_up, total
from jobs.pools import Pool, open_pool
from jobs.pools.capacity import NOTHING_TO_FIT, fit, room_for
from jobs.spec import Resources
from jobs.worker.messages import (
    Died,
    Event,
    Failed,
    Finished,
    Leaving,
    Progress,
    Ready,
    WorkerId,
    WorkerSetup,
)
from nst.errors import NstError

__all__ = ["run", "worker_setup"]

_POLL_S = 0.25
_GPUS_GONE = "go on where there are some; or, as long as nothing was done, with --set resources.num_gpus=0"


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
    failure: NstError | None = None
    with ExitStack() as stack:
        held = None
        try:
            held = stack.enter_context(hold(job.store, lease))
        except OSError as error:
            failure = _store_error(error)
        work = work() if callable(work) else work
        items = shards_to_do(job) if work is None else list(work)
        observe, stop = observe or (lambda _: None), stop or StopSignal()
        stopped = False
        if items and failure is None and needs_adapting(job):
            try:
                adapted = _adapted(job, observe, stop, held)
            except NstError as error:
                failure = error
            except OSError as error:
                failure = _store_error(error)
            else:
                stopped, job = adapted is None, adapted or job
        return _Run(job, items, observe, stop, held).go(pool, failure, stopped=stopped)


def _adapted(
    job: Job, observe: Callable[[Snapshot], None], stop: StopSignal, lease: Lease | None
) -> Job | None:
    """The job with the weights that its network learns first, if it has not yet; None: it was stopped."""
    stop.running()
    adapted = adapted_job(job)
    return adapted or Adapting(job, worker_setup(job), observe, stop, lease).run()


class _Run:
    """One run: hands events to the scheduler, and carries out its actions."""

    def __init__(
        self,
        job: Job,
        work: list[Work],
        observe: Callable[[Snapshot], None],
        stop: StopSignal,
        lease: Lease | None,
    ) -> None:
        self._job, self._observe, self._stop, self._lease = job, observe, stop, lease
        began = time.monotonic()
        self._ledger = Ledger(job.store)
        self._setup = worker_setup(job)
        self._records = Records(job)
        fitted = fit(job.resources, room_for(job.resources), _GPUS_GONE) if work else NOTHING_TO_FIT
        self._scheduler = Scheduler(work, self._records.shard_rows, _limits(fitted.resources, self._setup))
        self._shards = frozenset(item.shard for item in work)
        self._unsealed = set(self._shards)
        schedule, batch_size = schedule_of(job.spec.method), job.resources.batch_size
        self._again = frozenset(item.shard for item in work if item.generation)
        if any(item.rows is not None for item in work):
            count, before = sum(len(item.rows or ()) for item in work), total([])
        else:
            count, before = job.manifest.rows, total(self._ledger.counts(self._ledger.done()))
        self._tally = RunTally(count, before, began, schedule, batch_size)
        self._log = RunLog(job.manifest.shard_size)
        self._log.notes(fitted.notes)
        self._error: NstError | None = None

    def go(self, pool: Pool | None, failure: NstError | None = None, *, stopped: bool = False) -> Summary:
        """Do the work.

        Args:
            failure: why it cannot be done.
            stopped: it is not to be done any more.
        """
        self._error = failure
        self._stop.running()
        try:
            self._job.store.clean()
            if self._unsealed and self._error is None and not stopped:
                with pool or open_pool(self._job.resources, self._setup, by_url(self._job.assets)) as entered:
                    self._tally.mark("pool")
                    stopped = self._loop(entered)
            self._job.store.clean()
        except WorkersBroken as error:
            stopped = self._stop.gently  # nobody waits for them any more
            self._error = self._error or (None if stopped else error)
        except OSError as error:
            self._error = self._error or _store_error(error)
        self._tally.mark("whole")
        tally, unfinished, failures = self._outcome()
        options = {option.name for option in fields(cast(Any, self._job.spec.method))}
        return Summary(
            total=self._job.manifest.rows,
            counts=tally.counts,
            unfinished_shards=unfinished,
            stopped=stopped and bool(self._unsealed),
            error=self._error,
            seconds=self._tally.seconds,
            notes=end_notes(tally, options),
            failures=tuple(failures),
            unfinished_retries=len(self._unsealed & self._again),
        )

    def _outcome(self) -> tuple[Tally, int, list[Result]]:
        """All rows, counted, how many shards have no receipt, and the first failures: by the store, or if that
        does not answer any more, as last seen."""
        try:
            done = self._ledger.done() | (self._shards - self._unsealed)  # a listing may lag behind
            everything = set(range(self._job.manifest.shards))
            tallies = dict(zip(done, self._ledger.tallies(done), strict=True))
            failures = self._ledger.failures(tallies, SHOWN_FAILURES)
            return add_up(tallies.values()), len(self._unsealed | (everything - done)), failures
        except OSError as error:
            self._error = self._error or _store_error(error)
            return Tally(self._tally.counts()), len(self._unsealed), []

    def _loop(self, pool: Pool) -> bool:
        """Carry the job on to its end; returns whether it was stopped."""
        deadline: float | None = None
        ticked = time.monotonic()
        self._perform(self._scheduler.begin(time.monotonic()), pool)
        while not self._over() and not self._scheduler.finished:
            if self._stop.gently and deadline is None:
                deadline = time.monotonic() + self._job.resources.grace_s
                self._log.stopping(self._job.resources.grace_s)
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
            self._observe(self._tally.snapshot(self._scheduler.ready_workers, self._log.take()))
        return deadline is not None

    def _over(self) -> bool:
        """Whether the job ended badly, or is another driver's now."""
        if self._error is None and self._lease is not None:
            self._error = self._lease.lost
        return self._error is not None

    def _take(self, event: Event, pool: Pool) -> None:
        """Count and log an event, and have the scheduler decide about it."""
        self._log.heard(event)
        match event:
            case Ready():
                self._tally.ready()
            case Progress():
                self._tally.computing(event.worker, event.evaluations)
                for task in event.tasks:
                    self._tally.progressed(task.task, task.counts, task.spent.made)
            case Finished():
                self._tally.computing(event.worker, 0)
                self._tally.finished(event.task, event.report.counts, event.report.spent.made)
            case Died():
                self._tally.computing(event.worker, 0)
            case Failed() | Leaving():
                pass
            case _:
                assert_never(event)
        self._perform(self._scheduler.on(event, time.monotonic()), pool)
        if isinstance(event, Finished) and event.report.sealed:
            report = event.report
            self._sealed(report.shard, report.counts, report.without_picture, worker=event.worker)

    def _perform(self, actions: Iterable[Action], pool: Pool) -> None:
        for action in actions:
            if self._over():
                return
            match action:
                case Start():
                    pool.start(action.worker)
                case Stop():
                    pool.stop(action.worker, action.cause)
                case Drain():
                    pool.drain(action.worker)
                case Submit():
                    self._tally.submitted(action.task)
                    pool.submit(action.worker, action.task)
                case Inspect():
                    self._inspect(action, pool)
                case Strike():
                    self._records.strike(action)
                case Conclude():
                    self._log.photo_concluded(self._records.conclude(action))
                    self._tally.concluded(action.status)
                    pool.count(action.status)
                case Seal():
                    self._seal(action)
                case GiveUp():
                    self._log.shard_unfinished(action.shard, action.reason)
                case Abort():
                    self._error = action.error
                case _:
                    assert_never(action)

    def _inspect(self, action: Inspect, pool: Pool) -> None:
        task = action.task
        journal = self._records.journal(task.shard, task.generation)
        rows = self._records.shard_rows(task.shard) if task.rows is None else task.rows
        statuses = [journal.results[row].status for row in rows if row in journal.results]
        self._tally.corrected(task.id, statuses)
        now = time.monotonic()
        done, deaths = journal.results.keys(), journal.deaths
        self._perform(self._scheduler.inspected(action, done, deaths, now), pool)

    def _seal(self, action: Seal) -> None:
        try:
            results = self._records.seal(action)
        except ValueError as error:
            self._log.shard_unfinished(action.shard, error)
            return
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
            if result.worker_host:  # the others were logged when the driver gave them up
                self._log.photo_failed(result)
        self._log.shard_done(shard, counts, worker)


def _store_error(error: OSError) -> StoreError:
    return StoreError(f"{type(error).__name__}: {error}")


def _limits(resources: Resources, setup: WorkerSetup) -> Limits:
    assert resources.max_workers is not None  # fitted
    return Limits(
        min_workers=resources.min_workers,
        max_workers=resources.max_workers,
        window=setup.window,
        timeout_s=resources.timeout_s,
        start_timeout_s=resources.start_timeout_s,
        batch_size=resources.batch_size,
    )


def worker_setup(job: Job) -> WorkerSetup:
    """What every worker of `job` is told once."""
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
        load_threads=resources.load_threads or max(2, resources.threads),
        save_threads=resources.save_threads or max(2, resources.threads),
        threads=resources.threads,
        num_gpus=resources.num_gpus or 0.0,
        moved=job.moved,
        adapted=job.adapted,
        part=job.store.part,
    )
