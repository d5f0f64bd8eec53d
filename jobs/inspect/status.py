"""What the store says about a job. Loads neither torch nor ray, and asks no running process."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from jobs.console.progress import SHOWN_FAILURES, end_notes
from jobs.console.text import counted
from jobs.errors import EXIT_FAILED_ROWS, EXIT_OK, EXIT_UNFINISHED
from jobs.ledger.adapted import AdaptProgress, read_progress
from jobs.ledger.job_record import JobRecord, read_job
from jobs.ledger.lease import read_holder
from jobs.ledger.lease_holder import Holder, at_work
from jobs.ledger.parts import manifest_of, newest_pictures, other_options, parts_of
from jobs.ledger.receipts import Ledger, read_journal
from jobs.ledger.results import Result, Status, add_up, tally, total
from jobs.stores.store import Store

__all__ = ["JobStatus", "PartStatus", "job_status"]


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
    parts: tuple[PartStatus, ...] = ()
    """Of a job that has grown: what the numbers above count together, the job's own first."""

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
        table = {**asdict(self), "done": self.done, "state": self.state, "exit_code": self.exit_code}
        if not self.parts:
            del table["parts"]
        return table


@dataclass(frozen=True, slots=True)
class PartStatus:
    """How far a part of a job is."""

    part: Literal["new", "again"] | None
    """Whether its photographs came later, or are done again; None: it is the job itself."""
    created: str
    rows: int
    shards: int
    sealed_shards: int
    counts: Mapping[Status, int]
    options: Mapping[str, Any]
    """Those that are others than the job's, by name."""

    def describe(self) -> str:
        """For people, in one line."""
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        names = {None: "begun with", "new": "added", "again": "done again"}
        options = "".join(f", {name} = {value!r}" for name, value in self.options.items())
        return f"{names[self.part]} {self.created}: {counted(self.rows, 'photograph')}{options}: {counts}"


def job_status(store: Store, *, all_failures: bool = False) -> JobStatus:
    """Read a job's state.

    Args:
        all_failures: all rows that failed or were quarantined are wanted, not the first ones alone.

    Raises:
        UsageError: there is no job.
    """
    first, *parts = [_Read(each, all_failures) for each in parts_of(store)]
    if not parts:
        return first.status
    return _of_all(first, parts, all_failures)


class _Read:
    """What is read of one part.

    Args:
        all_failures: see `job_status`.
    """

    def __init__(self, store: Store, all_failures: bool) -> None:
        self.record = record = read_job(store)
        self.store, ledger = store, Ledger(store)
        done = ledger.done()
        begun = sorted(ledger.begun() - done)
        with ThreadPoolExecutor(16) as pool:
            journals = list(pool.map(lambda shard: read_journal(store, shard, 0), begun))
        self._tallies = dict(zip(done, ledger.tallies(done), strict=True))
        self._journaled = [result for journal in journals for result in journal.results.values()]
        self.tally = add_up([*self._tallies.values(), tally(self._journaled)])
        most = record.manifest.rows if all_failures else SHOWN_FAILURES
        self.status = JobStatus(
            output=store.url,
            kind=record.method["kind"],
            created=record.created,
            fingerprint=record.fingerprint,
            rows=record.manifest.rows,
            shards=record.manifest.shards,
            sealed_shards=len(done),
            counts=self.tally.counts,
            failures=self.failures(most),
            notes=(*record.notes, *end_notes(self.tally, record.method)),
            adapting=read_progress(store, record.fingerprint),
            driver=read_holder(store),
        )

    def failures(self, most: int) -> tuple[Result, ...]:
        """The first rows that failed or were quarantined, in order, at most `most` of them."""
        found = Ledger(self.store).failures(self._tallies, most)
        found += [result for result in self._journaled if result.status != "ok"]
        return tuple(sorted(found, key=lambda result: result.row)[:most])

    def failures_of(self, keys: Container[str]) -> list[Result]:
        """The rows of these photographs that failed or were quarantined. Of millions, no others are read."""
        failed = {shard: found for shard, found in self._tallies.items() if found.without_picture}
        results = [result for result in self._journaled if result.status != "ok"]
        if failed:
            manifest = manifest_of(self.store)
            named = enumerate(manifest.column("key"))
            shards = {row // manifest.shard_size for row, key in named if key in keys}
            some = {shard: failed[shard] for shard in failed.keys() & shards}
            results += Ledger(self.store).failures(some, self.record.manifest.rows)
        return [result for result in results if result.key in keys]

    def part(self, first: JobRecord) -> PartStatus:
        """As a part of the job of `first`."""
        status = self.status
        return PartStatus(
            part=self.record.part,
            created=status.created,
            rows=status.rows,
            shards=status.shards,
            sealed_shards=status.sealed_shards,
            counts=status.counts,
            options=other_options(first, self.record),
        )


def _of_all(first: _Read, parts: Sequence[_Read], all_failures: bool) -> JobStatus:
    """The status of a job that has grown: of its photographs, each by the row that counts."""
    newest = newest_pictures([each.store for each in (first, *parts)])
    growth = [first, *(each for each in parts if each.record.part == "new")]
    everything = [first, *parts]
    counts = dict(total(each.tally.counts for each in growth))
    failures: list[Result] = []
    for each in growth:
        since = each.failures_of(newest) if newest else []  # which have a picture by now
        for result in since:
            counts[result.status] -= 1
            counts["ok"] += 1
        most = each.record.manifest.rows if all_failures else SHOWN_FAILURES + len(since)
        failures += [result for result in each.failures(most) if result.key not in newest]
    notes = (*first.record.notes, *end_notes(add_up(each.tally for each in everything), first.record.method))
    return replace(
        first.status,
        rows=sum(each.record.manifest.rows for each in growth),
        shards=sum(each.status.shards for each in everything),
        sealed_shards=sum(each.status.sealed_shards for each in everything),
        counts=counts,
        failures=tuple(failures if all_failures else failures[:SHOWN_FAILURES]),
        notes=notes,
        adapting=next((each.status.adapting for each in everything if each.status.adapting), None),
        driver=at_work(each.status.driver for each in everything),
        parts=tuple(each.part(first.record) for each in everything),
    )
