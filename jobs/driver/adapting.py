"""The stage before a job's shards, if its method asks for it: the network learns on the job's photographs."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from jobs.config.styles import PerPhoto
from jobs.console.progress import Snapshot
from jobs.console.stop import StopSignal
from jobs.driver.assets import Asset, by_url
from jobs.driver.job import Job
from jobs.driver.run_log import RunLog
from jobs.driver.styles import photograph_key
from jobs.errors import WorkersBroken
from jobs.ledger.adapted import clean_adapting, read_adapted, read_loading, read_progress
from jobs.ledger.layout import adapted_path
from jobs.ledger.lease import Lease
from jobs.ledger.manifest import Manifest, Row
from jobs.ledger.results import STATUSES
from jobs.pools import Pool, open_pool
from jobs.pools.capacity import cluster_address, cpu_count, fit, pool_kind, room_for
from jobs.spec import Resources
from jobs.worker.messages import Died, Failed, Finished, Ready, Task, WorkerSetup
from nst.errors import NstError
from nst.stylizer import AdaptableMethod

__all__ = ["Adapting", "adapt_rows", "adapted_job", "needs_adapting"]

_POLL_S = 0.25
_TELL_S = 10.0
_WORTH_IT = 12
"""Photographs under which optimizing each takes no longer."""
_MOST_DEATHS = 5
"""Deaths of workers in a row, none of which came a step further, after which the job is given up for now."""


def needs_adapting(job: Job) -> bool:
    """Whether the job's photographs wait for its network to learn on some of them."""
    method = job.spec.method
    return isinstance(method, AdaptableMethod) and method.adapt_steps > 0


def adapt_rows(manifest: Manifest, count: int, seed: int, per_photo: PerPhoto | None = None) -> tuple[Row, ...]:
    """The photographs that a network learns on: those whose keys have the least digests.

    Args:
        per_photo: the job's `styles_per_photo`.
    """
    shards = (manifest.shard(number) for number in range(manifest.shards))
    rows: Iterator[Row] = itertools.chain.from_iterable(shards)
    if per_photo == "all":  # the pictures of a photograph follow each other
        rows = (next(group) for _, group in itertools.groupby(rows, lambda row: row.url))

    def digest(row: Row) -> bytes:
        return hashlib.sha256(f"{seed}/{photograph_key(row.key, per_photo)}".encode()).digest()

    return tuple(heapq.nsmallest(count, rows, key=digest))


def adapted_job(job: Job) -> Job | None:
    """`job` with the weights that its network has learned; None: it has not yet.

    Raises:
        OSError: the store failed.
    """
    data = read_adapted(job.store, job.fingerprint)
    if data is None:
        return None
    clean_adapting(job.store)  # who published it may have ended before it could
    url, digest = f"{job.store.url}/{adapted_path(job.fingerprint)}", hashlib.sha256(data).hexdigest()
    assert isinstance(job.spec.method, AdaptableMethod)
    method = job.spec.method.adapted(url, digest)
    wanted = {ref.url for ref in method.assets()}
    assets = (*(asset for asset in job.assets if asset.url in wanted), Asset("weights", url, data, digest))
    return replace(job, spec=replace(job.spec, method=method), assets=assets, adapted=digest)


class Adapting:
    """One run of the stage.

    Args:
        setup: what workers of the job are told.
    """

    def __init__(
        self,
        job: Job,
        setup: WorkerSetup,
        observe: Callable[[Snapshot], None],
        stop: StopSignal,
        lease: Lease | None,
    ) -> None:
        self._job, self._observe, self._stop, self._lease = job, observe, stop, lease
        fitted = fit(job.resources, room_for(job.resources), "go on where there are some")
        self._resources = replace(fitted.resources, min_workers=1, max_workers=1)
        assert isinstance(job.spec.method, AdaptableMethod)
        self._setup = replace(
            setup,
            adapt_rows=adapt_rows(
                job.manifest, job.spec.method.adapt_photos, job.spec.seed, job.spec.styles_per_photo
            ),
            threads=_threads(fitted.resources),
        )
        self._log = RunLog(job.manifest.shard_size)
        self._told_at = 0.0
        self._worker, self._ready = 0, False
        self._deaths = 0
        self._furthest = (-1, 0)
        self._seen: object = None
        self._seen_at = time.monotonic()

    def run(self) -> Job | None:
        """The job with its weights; None: it was stopped.

        Raises:
            NstError: the workers cannot be kept alive, the method cannot be built, or another driver has taken
                over.
            OSError: the store failed.
        """
        rows = len(self._setup.adapt_rows)
        self._log.adapting(f"the network learns on {rows} of the photographs")
        if self._job.manifest.rows < _WORTH_IT:
            better = 'method.kind = "style_transfer" optimizes each in as long, and better'
            self._log.notes([f"that takes minutes, for {self._job.manifest.rows} photographs; {better}"])
        with open_pool(self._resources, self._setup, by_url(self._job.assets)) as pool:
            pool.start(self._worker)
            if not self._loop(pool):
                return None
        return adapted_job(self._job)

    def _loop(self, pool: Pool) -> bool:
        """Whether it came to its end."""
        deadline: float | None = None
        while True:
            if self._lease is not None and self._lease.lost is not None:
                raise self._lease.lost
            if self._stop.gently and deadline is None:
                deadline = time.monotonic() + self._job.resources.grace_s
                pool.drain()
            if self._stop.at_once or (deadline is not None and time.monotonic() > deadline):
                return False
            for event in pool.poll(_POLL_S):
                self._log.heard(event)
                match event:
                    case Ready():
                        self._ready = True
                        pool.submit(event.worker, Task(id=event.worker, shard=0))
                        if deadline is not None:
                            pool.drain()
                    case Finished(report=report):
                        return report.complete
                    case Failed(error=error):
                        if isinstance(error, NstError):
                            raise error
                        pool.stop(event.worker, "crash")  # which is reported
                    case Died():
                        if deadline is not None:
                            return False
                        self._died(event, pool)
                    case _:
                        pass
            self._tell(pool)

    def _died(self, event: Died, pool: Pool) -> None:
        if isinstance(event.error, NstError):
            raise event.error
        # By the most there was: the next one begins at a checkpoint, and need not die at the very same step.
        (steps, left_out), (most, most_left_out) = self._how_far(), self._furthest
        self._deaths = 1 if steps > most or left_out > most_left_out else self._deaths + 1
        self._furthest = max(steps, most), max(left_out, most_left_out)
        if self._deaths >= _MOST_DEATHS:
            raise WorkersBroken(
                f"the network cannot learn: {self._deaths} workers died, at last: {event.detail}"
            )
        self._worker, self._ready = self._worker + 1, False
        pool.start(self._worker)

    def _how_far(self) -> tuple[int, int]:
        """How many steps are done, and how many photographs are left out: one of them grows."""
        progress = read_progress(self._job.store, self._job.fingerprint)
        left_out = read_loading(self._job.store).ended().left_out
        return -1 if progress is None else progress.step, len(left_out)

    def _tell(self, pool: Pool) -> None:
        """Say how far it is, and end a worker that shows nothing for as long as a photograph may take."""
        now = time.monotonic()
        if now - self._told_at >= _TELL_S:
            self._told_at = now
            progress = read_progress(self._job.store, self._job.fingerprint)
            if progress is not None:
                self._log.adapting(f"the network learns: {progress}")
            seen = progress, read_loading(self._job.store), self._worker, self._ready
            if seen != self._seen:
                self._seen, self._seen_at = seen, now
            limit = self._job.resources.timeout_s if self._ready else self._job.resources.start_timeout_s
            if now - self._seen_at > limit:
                self._seen_at = now
                pool.stop(self._worker, "time limit")
        self._observe(
            Snapshot(
                total=self._job.manifest.rows,
                counts=dict.fromkeys(STATUSES, 0),
                already=0,
                workers=int(self._ready),
                elapsed_s=0.0,
                log_events=self._log.take(),
            )
        )


def _threads(resources: Resources) -> int:
    """Nobody else works on this machine meanwhile: it may have what all workers have."""
    assert resources.max_workers is not None  # fitted
    here = pool_kind(resources) == "local" or cluster_address(resources.address) is None
    return max(resources.threads, min(resources.threads * resources.max_workers, cpu_count()) if here else 1)
