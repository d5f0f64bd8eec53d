"""What the driver itself puts on record: deaths, results without picture, receipts of shards done piecewise."""

from __future__ import annotations

import time

from jobs.driver.actions import Conclude, Seal, Strike
from jobs.driver.job import Job
from jobs.ledger.manifest import Row
from jobs.ledger.receipts import JournalWriter, ShardJournal, read_journal, seal
from jobs.ledger.results import Result, image_seed
from jobs.worker.messages import Task

__all__ = ["Records"]


class Records:
    """The journals and receipts of `job`."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def shard_rows(self, shard: int) -> range:
        """The rows of a shard, as places within the manifest."""
        start = shard * self._job.manifest.shard_size
        return range(start, start + self._job.manifest.rows_in(shard))

    def journal(self, shard: int, generation: int) -> ShardJournal:
        return read_journal(self._job.store, shard, generation)

    def strike(self, action: Strike) -> None:
        """Journal a death."""
        self._writer(action.task).death(self._probed_row(action.task).index, action.cause)

    def conclude(self, action: Conclude) -> Result:
        """Journal a result without a picture, and return it."""
        row = self._probed_row(action.task)
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
        self._writer(action.task).results([result])
        return result

    def seal(self, action: Seal) -> list[Result]:
        """Publish a shard's receipt from its journal, and return the results.

        Raises:
            ValueError: somebody took away, or damaged, what was in the journal.
        """
        results = self.journal(action.shard, action.generation).results.values()
        seal(
            self._job.store,
            action.shard,
            self._job.manifest.shard(action.shard),
            results,
            generation=action.generation,
            fingerprint=self._job.fingerprint,
            adapted=self._job.adapted,
        )
        return list(results)

    def _writer(self, task: Task) -> JournalWriter:
        return JournalWriter(self._job.store, task.shard, task.generation)

    def _probed_row(self, task: Task) -> Row:
        """The one row of a probe."""
        assert task.rows is not None
        (index,) = task.rows
        return self._job.manifest.shard(task.shard)[index - self.shard_rows(task.shard).start]
