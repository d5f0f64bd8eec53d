"""What there is to do in a job, and to do again."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from jobs.driver.actions import Work
from jobs.driver.job import Job
from jobs.errors import UsageError
from jobs.ledger.receipts import JournalWriter, Ledger, read_journal
from jobs.stores.store import Store
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
        work = Work(shard, generation, tuple(r.row for r in rows))
        _keep_pictures(job.store, work, range(meta["generation"] + 1, generation))
        return {r.key for r in rows}, work

    with ThreadPoolExecutor(_THREADS) as pool:  # of a million photographs there are thousands to ask for
        looks = list(map_in_turn(pool, look_at, failed))
    if wanted is not None and (others := wanted.difference(*(its for its, _ in looks))):
        raise UsageError(f"no failed photograph has the key {min(others)!r}")
    return [work for _, work in looks if work is not None]


def _keep_pictures(store: Store, work: Work, cut_off: Iterable[int]) -> None:
    """Put those that were made in retries which were cut off into the journal of this one."""
    assert work.rows is not None
    journals = (read_journal(store, work.shard, generation) for generation in cut_off)
    found = (result for journal in journals for result in journal.results.values())
    good = {each.row: each for each in found if each.status == "ok" and each.row in work.rows}
    if good:
        JournalWriter(store, work.shard, work.generation).results([*good.values()])
