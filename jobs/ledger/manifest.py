"""The frozen listing of a job's photographs: Parquet, whole shards in every row group.

A shard is a row range that a worker reads itself, so the driver's memory grows with shards, not photographs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import JobMismatch, UsageError
from jobs.ledger.folders import Photo
from jobs.ledger.layout import MANIFEST, listing_path
from jobs.ledger.names import folded
from jobs.ledger.parquet import open_parquet
from jobs.stores.store import Store

__all__ = ["Manifest", "ManifestInfo", "Row", "listed_manifest", "row_digest", "write_manifest"]

DEFAULT_SHARD_SIZE = 64
# A small job is cut finer than the default, so that there are shards for several workers.
_WANTED_SHARDS = 32
# A row group costs some 5 KB of memory wherever the manifest is open: one for each shard of millions of
# photographs would be too many. Who reads a shard reads what is around it.
_GROUP_ROWS = 4096

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
    ]
)
STYLED_SCHEMA = SCHEMA.append(pa.field("style", pa.string()))
"""Of jobs whose method takes a style for each photograph."""


@dataclass(frozen=True, slots=True)
class Row:
    """One photograph to be done."""

    index: int
    """Its place in the whole manifest."""
    key: str
    """Its name within the job: unique, a relative path without extension."""
    url: str
    size_bytes: int | None
    style: str | None = None
    """Its own one, if the method takes one for each photograph."""


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """What identifies a manifest."""

    rows: int
    shards: int
    shard_size: int
    sha256: str
    """Over keys, URLs, and styles of their own, in order; does not depend on how they are cut into shards."""


def write_manifest(
    photos: Iterable[Photo], path: Path, shard_size: int | None, *, styled: bool = False
) -> ManifestInfo:
    """Write the listing to a local file, in one pass, with memory for one row group.

    Args:
        styled: with the photographs' styles; else these are left out.

    Raises:
        UsageError: no photographs, or two with the same key.
    """
    iterator = iter(photos)
    head = list(itertools.islice(iterator, _WANTED_SHARDS * DEFAULT_SHARD_SIZE))
    if not head:
        raise UsageError("no photographs found")
    if shard_size is None:
        shard_size = max(1, min(DEFAULT_SHARD_SIZE, math.ceil(len(head) / _WANTED_SHARDS)))
    group_shards = max(1, _GROUP_ROWS // shard_size)
    digest = hashlib.sha256()
    key_hashes = array("Q")
    rows = 0
    rest = itertools.chain(head, iterator)
    schema = STYLED_SCHEMA if styled else SCHEMA
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while chunk := list(itertools.islice(rest, group_shards * shard_size)):
            for photo in chunk:
                digest.update(row_digest(photo.key, photo.url, photo.style if styled else None))
                key_hashes.append(_hash64(photo.key))
            columns = {name: [getattr(photo, name) for photo in chunk] for name in schema.names}
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(chunk))
            rows += len(chunk)
        info = ManifestInfo(
            rows=rows, shards=math.ceil(rows / shard_size), shard_size=shard_size, sha256=digest.hexdigest()
        )
        meta = {"sha256": info.sha256, "shard_size": shard_size, "group_shards": group_shards}
        writer.add_key_value_metadata({"nst": json.dumps(meta)})
    _refuse_repeated_keys(key_hashes, path)
    return info


def row_digest(key: str, url: str, style: str | None = None) -> bytes:
    """What a row adds to the digest of its manifest."""
    own = "" if style is None else f"\0{style}"
    return f"{key}\0{url}{own}\n".encode("utf-8", "surrogateescape")


def _hash64(key: str) -> int:
    digest = hashlib.blake2b(folded(key).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _refuse_repeated_keys(hashes: array[int], path: Path) -> None:
    """Names that differ in case only, or in Unicode's forms, are equal: on some disks they are one file."""
    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not repeated.size:
        return
    wanted = int(repeated[0])
    found: list[str] = []
    for batch in open_parquet(path).iter_batches(columns=["key", "url"], use_threads=False):
        for key, url in zip(batch["key"].to_pylist(), batch["url"].to_pylist(), strict=True):
            if _hash64(key) == wanted:
                found.append(f"{key!r} ({url})")
    raise UsageError(
        f"keys must be unique, also without regard to case and to Unicode's forms: {found[0]} and {found[1]}; "
        f"a `key` column in the manifest can tell them apart"
    )


class Manifest:
    """A job's published manifest, read shard by shard. Holds the footer and one row group, and nothing open.

    Raises:
        JobMismatch: there is none, or it is damaged.
    """

    def __init__(self, store: Store, path: str = MANIFEST) -> None:
        self._store, self._path = store, path
        self._last: tuple[int, pa.Table] | None = None
        try:
            with store.open(path) as handle:
                self._footer = pq.read_metadata(handle)
            self._meta: dict[str, Any] = json.loads(self._footer.metadata[b"nst"])
        except FileNotFoundError as error:
            raise JobMismatch(f"{store.url} has no {path}") from error
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise JobMismatch(f"{store.place(path)} is damaged: {error}") from error

    @property
    def rows(self) -> int:
        return int(self._footer.num_rows)

    @property
    def shards(self) -> int:
        return math.ceil(self.rows / self.shard_size)

    @property
    def shard_size(self) -> int:
        return int(self._meta["shard_size"])

    @property
    def sha256(self) -> str:
        """As recorded by its writer."""
        return str(self._meta["sha256"])

    def rows_in(self, shard: int) -> int:
        """How many rows a shard has, without reading it."""
        return min(self.shard_size, self.rows - shard * self.shard_size)

    def shard(self, shard: int) -> list[Row]:
        """The rows of one shard, in order."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard}: the manifest has {self.shards}")
        group, place = divmod(shard, int(self._meta.get("group_shards", 1)))  # there was one per shard once
        table = self._group(group).slice(place * self.shard_size, self.shard_size)
        if table.num_rows != self.rows_in(shard):
            raise JobMismatch(
                f"{self._store.place(self._path)} is damaged: its row groups are not whole shards"
            )
        start = shard * self.shard_size
        schema = STYLED_SCHEMA if "style" in table.column_names else SCHEMA
        columns = (table[name].to_pylist() for name in schema.names)
        return [Row(start + place, *values) for place, values in enumerate(zip(*columns, strict=True))]

    def sample(self, most: int) -> list[Row]:
        """Rows spread evenly over all of them, at most `most`, in order."""
        count = min(self.rows, most)
        places = (divmod(number * self.rows // count, self.shard_size) for number in range(count))
        return [self.shard(shard)[place] for shard, place in places]

    def _group(self, group: int) -> pa.Table:
        """Shards are mostly asked for in order."""
        last = self._last
        if last is None or last[0] != group:
            with self._store.open(self._path) as handle:
                file = open_parquet(handle, metadata=self._footer)
                last = group, file.read_row_group(group, use_threads=False)
            self._last = last
        return last[1]

    def urls(self) -> pa.ChunkedArray:
        """Places of all photographs, in order."""
        return self._column("url")

    def column(self, name: Literal["key", "url"]) -> Iterator[str]:
        """One value of each row, in order."""
        for chunk in self._column(name).chunks:
            yield from chunk.to_pylist()

    def has_at(self, place: str) -> bool:
        """Whether a photograph is at a place, or below it."""
        import pyarrow.compute as pc

        urls = self._column("url")
        return bool(pc.any(pc.or_(pc.equal(urls, place), pc.starts_with(urls, f"{place}/"))).as_py())

    def _column(self, name: str) -> pa.ChunkedArray:
        with self._store.open(self._path) as handle:
            table = open_parquet(handle, metadata=self._footer).read(columns=[name], use_threads=False)
        return table[name]


def listed_manifest(
    store: Store,
    photos: Callable[[], Iterable[Photo]],
    recorded: ManifestInfo,
    *,
    path: str = MANIFEST,
    styled: bool = False,
) -> Manifest:
    """A job's manifest; listed again if the process that began the job died before it could publish it. That of
    a part is what was listed for it.

    Args:
        photos: lists them.
        styled: see `write_manifest`.
        recorded: what `job.json` says of it.

    Raises:
        JobMismatch: it would be another one now, or what is there is damaged.
    """
    if store.part is not None and not store.exists(path):
        store.publish(path, store.read(listing_path(recorded.sha256, recorded.shard_size)))
    if not store.exists(path):
        with tempfile.TemporaryDirectory() as folder:
            listing = Path(folder) / MANIFEST
            found = write_manifest(photos(), listing, recorded.shard_size, styled=styled)
            if found != recorded:
                raise JobMismatch(
                    f"the job in {store.url} was begun and its listing never published, and the photographs "
                    f"have changed since. Nothing was done yet: delete it, or choose a new output"
                )
            store.publish(path, listing.read_bytes())
    return Manifest(store, path)
