"""What there is to do in a job, and to do again."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.driver.actions import Work
from jobs.driver.job import Job
from jobs.errors import UsageError
from jobs.ledger.receipts import Ledger

__all__ = ["retry_work", "shards_to_do"]


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
    for shard, tally in zip(done := sorted(ledger.done()), ledger.tallies(done), strict=True):
        if not tally.without_picture:
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
