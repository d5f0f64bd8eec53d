"""What there is to do in a job, and to do again."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from jobs.driver.actions import Work
from jobs.driver.job import Job
from jobs.errors import UsageError
from jobs.ledger.receipts import Ledger
from jobs.stores.threads import map_in_turn

__all__ = ["retry_work", "shards_to_do"]

_THREADS = 16


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
    done = sorted(ledger.done())
    failed = [shard for shard, tally in zip(done, ledger.tallies(done), strict=True) if tally.without_picture]

    def look_at(shard: int) -> tuple[set[str], Work | None]:
        results, meta = ledger.receipt(shard)
        rows = [r for r in results if r.status != "ok" and (wanted is None or r.key in wanted)]
        if not rows:
            return set(), None
        generation = ledger.next_generation(shard, meta["generation"])
        return {r.key for r in rows}, Work(shard, generation, tuple(r.row for r in rows))

    with ThreadPoolExecutor(_THREADS) as pool:  # of a million photographs there are thousands to ask for
        looks = list(map_in_turn(pool, look_at, failed))
    if wanted is not None and (others := wanted.difference(*(its for its, _ in looks))):
        raise UsageError(f"no failed photograph has the key {min(others)!r}")
    return [work for _, work in looks if work is not None]
