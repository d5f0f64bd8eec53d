"""What the store says about a job. Loads neither torch nor ray, and asks no running process."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from jobs.console.progress import SHOWN_FAILURES, end_notes
from jobs.errors import EXIT_FAILED_ROWS, EXIT_OK, EXIT_UNFINISHED
from jobs.ledger.adapted import AdaptProgress, read_progress
from jobs.ledger.job_record import read_job
from jobs.ledger.lease import read_holder
from jobs.ledger.lease_holder import Holder
from jobs.ledger.receipts import Ledger, read_journal
from jobs.ledger.results import Result, Status, add_up, tally
from jobs.stores.store import Store

__all__ = ["JobStatus", "job_status"]


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is, by what exists."""

    output: str
    kind: str
    created: str
    fingerprint: str
    rows: int
    shards: int
    sealed_shards: int
    counts: Mapping[Status, int]
    """Rows by status, of sealed shards and of the journals of the others."""
    failures: tuple[Result, ...]
    """Rows that failed or were quarantined, in order: the first ones, `SHOWN_FAILURES`, or all."""
    notes: tuple[str, ...]
    adapting: AdaptProgress | None
    """How far the network has learned on the photographs; None: it is not at that."""
    driver: Holder | None
    """Who works on it, or was killed at it; None: nobody."""

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def exit_code(self) -> int:
        """What a run would have ended with, had it ended here."""
        if self.sealed_shards < self.shards:
            return EXIT_UNFINISHED
        return EXIT_OK if self.counts["ok"] == self.rows else EXIT_FAILED_ROWS

    @property
    def state(self) -> str:
        names = {
            EXIT_OK: "complete",
            EXIT_FAILED_ROWS: "complete, with failures",
            EXIT_UNFINISHED: "unfinished",
        }
        return names[self.exit_code]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "done": self.done, "state": self.state, "exit_code": self.exit_code}


def job_status(store: Store, *, all_failures: bool = False) -> JobStatus:
    """Read a job's state.

    Args:
        all_failures: all rows that failed or were quarantined are wanted, not the first ones alone.

    Raises:
        UsageError: there is no job.
    """
    record = read_job(store)
    ledger = Ledger(store)
    done = ledger.done()
    begun = sorted(ledger.begun() - done)
    with ThreadPoolExecutor(16) as pool:
        journals = list(pool.map(lambda shard: read_journal(store, shard, 0), begun))
    tallies = dict(zip(done, ledger.tallies(done), strict=True))
    journaled = [result for journal in journals for result in journal.results.values()]
    found = add_up([*tallies.values(), tally(journaled)])
    most = record.manifest.rows if all_failures else SHOWN_FAILURES
    failures = ledger.failures(tallies, most) + [result for result in journaled if result.status != "ok"]
    return JobStatus(
        output=store.url,
        kind=record.method["kind"],
        created=record.created,
        fingerprint=record.fingerprint,
        rows=record.manifest.rows,
        shards=record.manifest.shards,
        sealed_shards=len(done),
        counts=found.counts,
        failures=tuple(sorted(failures, key=lambda result: result.row)[:most]),
        notes=(*record.notes, *end_notes(found, record.method)),
        adapting=read_progress(store, record.fingerprint),
        driver=read_holder(store),
    )
