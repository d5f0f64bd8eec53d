"""All results of a job as columns, which grow while it runs: read from its receipts, and from the journals of
shards that have none yet. Photographs that have no result are not in it; of those that were done again, the
newest with a picture is, in the place of the first. Parts of the job are read as the job itself is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.ledger.job_record import JobRecord, read_job
from jobs.ledger.layout import receipt_path
from jobs.ledger.parts import has_own_pictures, other_options, parts_of
from jobs.ledger.receipts import Ledger, read_journal
from jobs.ledger.results import SCHEMA, STATUSES, receipt_table, results_table
from jobs.stores.store import Store

__all__ = ["FIGURES", "STATS", "Index", "Part", "Rows"]

Array: TypeAlias = npt.NDArray[Any]
Place: TypeAlias = tuple[int, int]
"""A part of the job, 0 the job itself, and a shard of it."""

FIGURES = ("width", "height", "load_s", "compute_s", "save_s", "attempts", "retries", "finished_at")
"""Columns of numbers that every result has."""
STATS = "stats."
"""Begins the names of columns of what the method measured."""
_TEXTS = ("key", "url", "error_type", "error", "output")
_TAGS = {"before": "source_sha256", "after": "output_sha256"}
_TAG_LENGTH = 16
_AT_FIRST, _AT_ONCE = 8, 64
"""Receipts that are read before what they say is shown."""
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a job, or the job itself."""

    store: Store
    record: JobRecord
    first: int
    """Number of its first photograph, when those of all parts are counted."""
    again: str | None = None
    """What its photographs were done again with, `as before` if with the job's options; None: they were not
    done before."""


@dataclass(frozen=True, slots=True)
class Rows:
    """All results that were known at a moment, in the order of parts and manifests. Columns are of one
    length."""

    version: int
    """Another one whenever anything has changed."""
    number: Array
    """Place of each photograph in the manifests, one after the other, where it is first; ascending."""
    part: Array
    """Part of the job that each is of."""
    status: Array
    """Place of each status in `STATUSES`."""
    worker: Array
    """Number of the worker, counted as they were met."""
    figures: Mapping[str, Array]
    """Floats, by name; NaN: there is none. What the method measured has `STATS` before its name."""
    texts: Mapping[str, pa.Array]
    """`key`, `url`, `error_type`, `error`, `output`, and `before` and `after`: the beginnings of the digests of
    the photograph and of its picture."""

    def __len__(self) -> int:
        return len(self.number)

    def place(self, number: int) -> int | None:
        """Where the photograph with this place in the manifests is; None: it has no result."""
        found = int(np.searchsorted(self.number, number))
        return found if found < len(self) and self.number[found] == number else None

    def place_of(self, key: str) -> int:
        """Where the photograph with this key is; -1: it has no result."""
        return int(pc.index(self.texts["key"], key).as_py())

    def text(self, name: str, place: int) -> str | None:
        """The value of a column of texts."""
        value: str | None = self.texts[name][place].as_py()
        return value


@dataclass(slots=True)
class Index:
    """The results of the job in `store`. One thread refreshes it, any number ask for its rows.

    Raises:
        UsageError: there is no job of photographs.
    """

    store: Store
    listed: int = 0
    """Receipts that there are, by the last listing."""
    damaged: dict[Place, str] = field(default_factory=dict)
    """What is wrong with receipts that cannot be read."""
    parts: list[Part] = field(default_factory=list)
    """By the last look."""
    _tables: dict[Place, pa.Table] = field(default_factory=dict)
    _sealed: set[Place] = field(default_factory=set)
    _journals: dict[Place, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    """What was read of shards that have no receipt yet."""
    _workers: dict[tuple[str | None, int | None], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looked_at: Place = (-1, -1)
    _version: int = 0
    _rows: Rows | None = None

    def __post_init__(self) -> None:
        self._look_for_parts()

    @property
    def read(self) -> int:
        """Receipts that were read."""
        return len(self._sealed)

    @property
    def photographs(self) -> int:
        """How many the job has, with those that came later."""
        return sum(part.record.manifest.rows for part in self.parts if not has_own_pictures(part.store))

    @property
    def left(self) -> int:
        """Rows of all parts without a result: of photographs, and of those that are done again."""
        with self._lock:
            known: int = sum(table.num_rows for table in self._tables.values())
        return sum(part.record.manifest.rows for part in self.parts) - known

    @property
    def shards(self) -> int:
        return sum(part.record.manifest.shards for part in self.parts)

    def refresh(self, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Read what came since the last time.

        Args:
            goes_on: asked between receipts.

        Raises:
            OSError: the store fails.
        """
        self._look_for_parts()
        ledgers = [Ledger(part.store) for part in self.parts]
        done = {(number, shard) for number, ledger in enumerate(ledgers) for shard in ledger.done()}
        self.listed = len(done)
        self._add(sorted(done - self._sealed), goes_on)
        begun = {(number, shard) for number, ledger in enumerate(ledgers) for shard in ledger.begun()}
        self._journals = {place: self._journals.get(place, {}) for place in begun - done}
        for place, journal in sorted(self._journals.items()):
            if not goes_on():
                return
            part, shard = place
            results = read_journal(self.parts[part].store, shard, 0, journal).results
            known = self._tables.get(place)
            if len(results) > (0 if known is None else known.num_rows):
                ordered = [results[row] for row in sorted(results)]
                self._put({place: results_table(ordered)}, sealed=False)

    def _look_for_parts(self) -> None:
        for store in parts_of(self.store)[len(self.parts) :]:
            before = self.parts[-1] if self.parts else None
            first = 0 if before is None else before.first + before.record.manifest.rows
            record = read_job(store)
            again = None
            if has_own_pictures(store):
                options = other_options(self.parts[0].record, record)
                again = ", ".join(f"{name} = {now!r}" for name, now in options.items()) or "as before"
            self.parts.append(Part(store, record, first, again))

    def again(self, keys: Iterable[str], goes_on: Callable[[], bool] = lambda: True) -> bool:
        """Read receipts again that a retry may have replaced, some of them at each call: those with rows that
        have no picture, and those with rows of these keys. Gives whether these were the last of them.

        Raises:
            OSError: the store fails.
        """
        wanted = pa.array(keys, pa.string())
        failed = [place for place, status in enumerate(STATUSES) if status != "ok"]
        found = [
            place
            for place in sorted(self._sealed & self._tables.keys())
            if pc.any(pc.is_in(self._tables[place]["status"], pa.array(failed, pa.int8()))).as_py()
            or (len(wanted) and pc.any(pc.is_in(self._tables[place]["key"], wanted)).as_py())
        ]
        turn = [place for place in found if place > self._looked_at] or found
        self._looked_at = turn[:_AT_ONCE][-1] if turn else (-1, -1)
        self._add(turn[:_AT_ONCE], goes_on)
        return len(turn) <= _AT_ONCE

    def rows(self) -> Rows:
        """All results that are known by now."""
        with self._lock:
            if self._rows is None or self._rows.version != self._version:
                self._rows = self._together()
            return self._rows

    def _add(self, places: list[Place], goes_on: Callable[[], bool]) -> None:
        """Read receipts, the first few for a first look. Threads wait for the store; one computes, and leaves
        time to those who ask."""
        with ThreadPoolExecutor(_THREADS) as pool:
            first = 0
            while first < len(places) and goes_on():
                some = places[first : first + (_AT_ONCE if first else _AT_FIRST)]
                found = {}
                for place, data in zip(some, pool.map(self._receipt, some), strict=True):
                    try:
                        found[place] = receipt_table(data)[0]
                    except ValueError as error:
                        self.damaged[place] = str(error)
                        found[place] = SCHEMA.empty_table()
                self._put(found, sealed=True)
                first += len(some)

    def _receipt(self, place: Place) -> bytes:
        part, shard = place
        return self.parts[part].store.read(receipt_path(shard))

    def _put(self, tables: Mapping[Place, pa.Table], *, sealed: bool) -> None:
        made = {place: self._numbered(place, _columns(table, self._workers)) for place, table in tables.items()}
        with self._lock:
            # A retry's receipt differs where it has rows that were done again.
            new = {
                place: table
                for place, table in made.items()
                if not table.equals(self._tables.get(place, _NONE))
            }
            self._tables |= new
            if sealed:
                self._sealed |= made.keys()
            self._version += bool(new)

    def _numbered(self, place: Place, table: pa.Table) -> pa.Table:
        part, _ = place
        rows = pc.add(table["row"], self.parts[part].first)
        table = table.set_column(table.column_names.index("row"), "row", rows)
        return table.append_column("part", pa.array(np.full(table.num_rows, part, np.int32)))

    def _together(self) -> Rows:
        places = sorted(self._tables)
        empty = _columns(SCHEMA.empty_table(), {}).append_column("part", pa.array([], pa.int32()))
        tables = [self._tables[place] for place in places] or [empty]
        table = pa.concat_tables(tables, promote_options="default").combine_chunks()
        start = 0
        for place in places:  # they are parts of it, so that nothing is held twice
            length = self._tables[place].num_rows
            self._tables[place] = table.slice(start, length)
            start += length
        again = [number for number, part in enumerate(self.parts) if has_own_pictures(part.store)]
        if again:
            table = _those_that_count(table, again).combine_chunks()
        columns = {name: _one(table[name]) for name in table.column_names}
        texts = {*_TEXTS, *_TAGS}
        numbers = {
            name: column.to_numpy(zero_copy_only=False) for name, column in columns.items() if name not in texts
        }
        return Rows(
            version=self._version,
            number=numbers.pop("row"),
            part=numbers.pop("part"),
            status=numbers.pop("status"),
            worker=numbers.pop("worker"),
            figures=numbers,
            texts={name: columns[name] for name in texts},
        )


def _those_that_count(table: pa.Table, again: list[int]) -> pa.Table:
    """One row of each photograph: the newest that has a picture, or the first one if none has. It is where the
    first one is, and has its number.

    Args:
        again: the parts of photographs that were done again.
    """
    part = table["part"].to_numpy()
    is_again = np.isin(part, again)
    good = table["status"].to_numpy() == STATUSES.index("ok")
    places = np.flatnonzero(is_again & good)
    keys = table["key"].take(pa.array(places)).to_pylist()
    newest = dict(zip(keys, places.tolist(), strict=True))  # the last of each
    former = ~is_again & pc.is_in(table["key"], pa.array(list(newest), pa.string())).to_numpy()
    numbers, firsts = table["row"].to_numpy().copy(), np.flatnonzero(former)
    numbers[[newest[key] for key in table["key"].take(pa.array(firsts)).to_pylist()]] = numbers[firsts]
    counting = np.concatenate([np.flatnonzero(~is_again & ~former), list(newest.values())]).astype(int)
    counting = counting[np.argsort(numbers[counting])]
    table = table.set_column(table.column_names.index("row"), "row", pa.array(numbers))
    return table.take(pa.array(counting))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks or [column.combine_chunks()])
    )


def _columns(table: pa.Table, workers: dict[tuple[str | None, int | None], int]) -> pa.Table:
    """What is kept of a receipt's table. New workers get numbers."""
    who = zip(table["worker_host"].to_pylist(), table["worker_pid"].to_pylist(), strict=True)
    columns = {name: table[name] for name in ("row", *_TEXTS)}
    columns["status"] = pc.index_in(table["status"], pa.array(STATUSES)).cast(pa.int8())
    columns["worker"] = pa.array([workers.setdefault(each, len(workers)) for each in who], pa.int32())
    columns |= {name: pc.utf8_slice_codeunits(table[digest], 0, _TAG_LENGTH) for name, digest in _TAGS.items()}
    columns |= {name: table[name].cast(pa.float64()) for name in FIGURES if name != "finished_at"}
    finished = table["finished_at"].cast(pa.int64()).cast(pa.float64())
    columns["finished_at"] = pc.divide(finished, 1e6)
    return pa.table(columns | _stats(table["stats"]))


def _stats(column: pa.ChunkedArray) -> dict[str, pa.Array]:
    """A column of maps as a column for each of their names."""
    maps = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    lengths = np.diff(maps.offsets.to_numpy())
    rows = np.repeat(np.arange(len(maps)), lengths)
    first = maps.offsets[0].as_py() if len(maps) else 0
    keys = maps.keys.slice(first, len(rows)).dictionary_encode()
    values = maps.items.slice(first, len(rows)).to_numpy(zero_copy_only=False)
    codes = keys.indices.to_numpy()
    found = {}
    for code, name in enumerate(keys.dictionary.to_pylist()):
        numbers = np.full(len(maps), np.nan)
        numbers[rows[codes == code]] = values[codes == code]
        found[f"{STATS}{name}"] = pa.array(numbers)
    return found


_NONE = pa.table({})
