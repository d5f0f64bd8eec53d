"""What is done. Not a record that is kept, but a view of what exists: receipts, and journals before them.

A receipt has one row per manifest row of its shard, and is published last. A journal has results of single
photographs, so that a killed shard redoes only what was in flight, and deaths of workers that ran one row
alone.
A generation counts retries: receipt 0 is create-only; `nst retry` replaces it by one of generation 1, which
differs only in rows that had failed.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeVar

from jobs.errors import StoreError
from jobs.ledger.layout import (
    JOURNAL,
    RESULTS,
    JournalFile,
    ReceiptFile,
    journal_folder,
    journal_path,
    place_of,
    receipt_path,
    shard_of_journal,
)
from jobs.ledger.manifest import Row
from jobs.ledger.results import (
    Result,
    Status,
    Tally,
    read_receipt,
    receipt_tally,
    write_receipt,
)
from jobs.stores.store import Store
from jobs.stores.threads import map_in_turn

__all__ = [
    "JournalWriter",
    "Ledger",
    "ShardJournal",
    "journal_parts",
    "read_journal",
    "read_journal_part",
    "seal",
]

T = TypeVar("T")
_THREADS = 16


class Ledger:
    """The receipts of a job."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def done(self) -> set[int]:
        """Shards that have a receipt."""
        places = (place_of(f"{RESULTS}/{name}") for name in self.store.names(RESULTS))
        return {place.shard for place in places if isinstance(place, ReceiptFile)}

    def begun(self) -> set[int]:
        """Shards that have a journal."""
        shards = (shard_of_journal(f"{JOURNAL}/{name}") for name in self.store.names(JOURNAL))
        return {shard for shard in shards if shard is not None}

    def counts(self, shards: Iterable[int]) -> list[dict[Status, int]]:
        """Rows by status of each receipt, in order; see `tallies`."""
        return [dict(each.counts) for each in self.tallies(shards)]

    def tallies(self, shards: Iterable[int]) -> list[Tally]:
        """The rows of each receipt, counted, in order.

        Raises:
            StoreError: one is damaged.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda shard: self._read(shard, receipt_tally), shards))

    def failures(self, tallies: Mapping[int, Tally], most: int) -> list[Result]:
        """The first rows that failed or were quarantined, at most `most` of them.

        Args:
            tallies: by shard: what its receipt counts. Only those that have such rows are read.

        Raises:
            StoreError: one is damaged.
        """
        shards, expected = list[int](), 0
        for shard in sorted(tallies):
            if expected < most and tallies[shard].without_picture:
                shards.append(shard)
                expected += tallies[shard].without_picture

        def failed(shard: int) -> list[Result]:
            return [result for result in self.receipt(shard)[0] if result.status != "ok"]

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(chain.from_iterable(map_in_turn(pool, failed, shards)))[:most]

    def next_generation(self, shard: int, sealed: int) -> int:
        """For a retry: beyond `sealed`, the receipt's, and beyond that of a retry that was cut off, whose
        failures must not pass for new ones."""
        journaled = (part.generation for _, part in journal_parts(self.store, shard))
        return max(sealed, *journaled, 0) + 1

    def receipt(self, shard: int) -> tuple[list[Result], dict[str, Any]]:
        """A receipt's rows and metadata.

        Raises:
            StoreError: it is damaged.
        """
        return self._read(shard, read_receipt)

    def _read(self, shard: int, parse: Callable[[bytes], T]) -> T:
        path = receipt_path(shard)
        try:
            return parse(self.store.read(path))
        except ValueError as error:
            raise StoreError(f"{self.store.place(path)}: {error}") from error


@dataclass(slots=True)
class ShardJournal:
    """All that a shard's journal says about one generation."""

    results: dict[int, Result] = field(default_factory=dict)
    """By row."""
    deaths: Counter[int] = field(default_factory=Counter)
    """Workers that died while they ran this row alone."""


def read_journal(
    store: Store, shard: int, generation: int, parts: MutableMapping[str, list[dict[str, Any]]] | None = None
) -> ShardJournal:
    """Read a shard's journal. Where a row has several results, a good one counts, else the last.

    A damaged part counts as not there: its rows are done again.

    Args:
        parts: records by the path of their part; what is in it is not read again, what is read is put into it.
    """
    journal, parts = ShardJournal(), {} if parts is None else parts
    for path, part in journal_parts(store, shard):
        if part.generation != generation:
            continue
        if path not in parts:
            try:
                parts[path] = read_journal_part(store.read(path))
            except ValueError:
                continue
        for record in parts[path]:
            if record["event"] == "death":
                journal.deaths[record["row"]] += 1
            if record["event"] != "result":  # nor is what later versions may have added
                continue
            result = Result.from_json(record["result"])
            known = journal.results.get(result.row)
            if known is None or (result.status == "ok", result.finished_at) >= (
                known.status == "ok",
                known.finished_at,
            ):
                journal.results[result.row] = result
    return journal


def journal_parts(store: Store, shard: int) -> list[tuple[str, JournalFile]]:
    """The parts of a shard's journal, of all generations, and their paths, in the order of these."""
    folder = journal_folder(shard)
    places = ((path, place_of(path)) for path in (f"{folder}/{name}" for name in store.names(folder)))
    return [(path, place) for path, place in places if isinstance(place, JournalFile)]


def read_journal_part(data: bytes) -> list[dict[str, Any]]:
    """Its records.

    Raises:
        ValueError: it is damaged.
    """
    records = []
    for line in data.splitlines():
        record = json.loads(line)
        if not isinstance(record, dict) or record.pop("digest", None) != _digest(record):
            raise ValueError("not what was written")
        records.append(record)
    return records


def _digest(record: dict[str, Any]) -> str:
    """So that a flipped bit does not pass for another row's result."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


class JournalWriter:
    """Appends to one shard's journal: every call is one small object of its own."""

    def __init__(self, store: Store, shard: int, generation: int) -> None:
        self._store, self._shard, self._generation = store, shard, generation
        self._id, self._parts = uuid.uuid4().hex[:12], 0

    def results(self, results: Sequence[Result]) -> None:
        """Record that these photographs are done."""
        self._append([{"event": "result", "result": result.to_json()} for result in results])

    def death(self, row: int, cause: str) -> None:
        """Record that a worker died while it ran `row` alone."""
        self._append([{"event": "death", "row": row, "cause": cause, "at": time.time()}])

    def _append(self, records: Sequence[dict[str, Any]]) -> None:
        lines = [json.dumps({**record, "digest": _digest(record)}) + "\n" for record in records]
        path = journal_path(self._shard, self._generation, self._id, self._parts)
        self._store.publish(path, "".join(lines).encode())
        self._parts += 1


def seal(
    store: Store,
    shard: int,
    rows: Sequence[Row],
    results: Iterable[Result],
    *,
    generation: int,
    fingerprint: str,
    adapted: str | None = None,
) -> None:
    """Publish a shard's receipt: exactly one result for each of its manifest rows.

    Generation 0 is create-only; that another worker was quicker is fine, since work is deterministic. Later
    generations take the rows they did not do from the receipt that they replace, and never lose a picture.

    Raises:
        ValueError: a row has no result.
    """
    by_row = {result.row: result for result in results}
    if generation > 0:
        earlier, meta = Ledger(store).receipt(shard)
        if meta["generation"] >= generation:
            return
        for before in earlier:
            again = by_row.get(before.row)
            if again is None:
                by_row[before.row] = before
                continue
            # Another retry may have been quicker and had more luck.
            kept = before if before.status == "ok" and again.status != "ok" else again
            by_row[before.row] = replace(kept, attempts=before.attempts + again.attempts)
    missing = [row.key for row in rows if row.index not in by_row]
    if missing or len(by_row) != len(rows):
        raise ValueError(f"shard {shard} cannot be sealed: {len(missing)} rows have no result ({missing[:3]})")
    data = write_receipt(
        list(by_row.values()), shard=shard, generation=generation, fingerprint=fingerprint, adapted=adapted
    )
    try:
        store.publish(receipt_path(shard), data, create_only=generation == 0)
    except FileExistsError:
        return
