"""Looking after a job: whether its folder holds what it says, what may be thrown away, what became of one row.

Asks the store alone, and trusts nothing in it but what another record confirms: pictures by the digests in the
receipts, receipts by their own digest and the manifest, the manifest by the one in `job.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.errors import StoreError, UsageError
from jobs.ledger.adapted import read_adapted
from jobs.ledger.curves import read_curve
from jobs.ledger.job_record import JobRecord, read_job
from jobs.ledger.layout import (
    JOB,
    MANIFEST,
    AdaptedFile,
    CommonFile,
    JournalFile,
    LeaseFile,
    PhotoFile,
    ReceiptFile,
    adapted_path,
    curve_path,
    picture_path,
    place_of,
    receipt_path,
)
from jobs.ledger.manifest import Manifest, Row, row_digest
from jobs.ledger.receipts import Ledger, journal_parts, read_journal_part
from jobs.ledger.results import Result, Tally, image_seed, results_digest, tally
from jobs.spec import ImageSpec, fingerprint
from jobs.stores.filesystems import absolute_url
from jobs.stores.store import Store
from nst.errors import NstError

__all__ = ["Fault", "Garbage", "collect_garbage", "explain", "manifest_digest", "verify"]

_THREADS = 16


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it must be."""

    path: str
    """Of the object, below the job's folder."""
    problem: str
    key: str | None = None
    """Of the photograph, if it is about one."""


def verify(store: Store) -> Iterator[Fault]:
    """Read everything again: job, manifest, every receipt, picture and curve; and list what is there besides.

    Raises:
        UsageError: there is no job, or nothing of it can be read.
    """
    record = read_job(store)
    yield from _verify_job(record)
    try:
        manifest = Manifest(store)
        shards = list(_shards(manifest))
    except (NstError, pa.ArrowException, OSError) as error:
        yield Fault(MANIFEST, f"cannot be read: {error}")
        return
    if manifest_digest(shards) != record.manifest.sha256 or manifest.rows != record.manifest.rows:
        yield Fault(MANIFEST, "is not the one that the job was begun with")
    with ThreadPoolExecutor(_THREADS) as pool:
        keys = yield from _verify_shards(store, record, shards, pool)
        curves = yield from _verify_places(store, record, keys, len(shards))
        for problem in pool.map(lambda curve: _curve_fault(store, *curve), curves):
            if problem is not None:
                yield problem


def _verify_job(record: JobRecord) -> Iterator[Fault]:
    if fingerprint(record.job, record.digests, record.manifest.sha256) != record.fingerprint:
        yield Fault(JOB, "was changed: its fingerprint is not that of the job in it")


def _verify_shards(
    store: Store, record: JobRecord, shards: list[list[Row]], pool: ThreadPoolExecutor
) -> Generator[Fault, None, set[str]]:
    """Faults of receipts and pictures; gives the keys of photographs that may have files."""
    ledger, image = Ledger(store), record.image
    weights = read_adapted(store, record.fingerprint) if record.method.get("adapt_steps") else None
    adapted = None if weights is None else hashlib.sha256(weights).hexdigest()
    keys: set[str] = set()
    for shard, rows in enumerate(shards):
        path = receipt_path(shard)
        try:
            results, meta = ledger.receipt(shard)
        except (StoreError, OSError) as error:
            missing = isinstance(error, FileNotFoundError)
            unfinished = f"there is none: {len(rows)} photographs are unfinished"
            yield Fault(path, unfinished if missing else f"cannot be read: {error}")
            # Pictures may be there before the receipt is.
            keys.update(row.key for row in rows)
            continue
        yield from _verify_receipt(record, shard, rows, results, meta, image)
        if meta.get("adapted") != adapted:
            yield Fault(path, "is of other weights than those that the network has learned")
        good = [result for result in results if result.status == "ok" and result.output]
        keys.update(result.key for result in good)
        for problem in pool.map(lambda result: _picture_fault(store, result), good):
            if problem is not None:
                yield problem
    return keys


def _verify_places(
    store: Store, record: JobRecord, keys: set[str], shards: int
) -> Generator[Fault, None, list[tuple[str, str]]]:
    """Files that are not the job's; gives the paths of curves, and their keys."""
    curves = []
    for path in store.find():
        match place_of(path, record.image):
            case CommonFile() | LeaseFile():
                pass
            case AdaptedFile(weights) if record.method.get("adapt_steps") and (
                not weights or path == adapted_path(record.fingerprint)
            ):
                pass
            case ReceiptFile(shard) | JournalFile(shard) if shard < shards:
                pass
            case PhotoFile(key, role) if key in keys:
                if role == "curve":
                    curves.append((path, key))
            case _:
                yield Fault(path, "does not belong to the job")
    return curves


def manifest_digest(shards: Iterable[Iterable[Row]]) -> str:
    """The digest of a manifest by its rows, whatever it says of itself."""
    digest = hashlib.sha256()
    for rows in shards:
        for row in rows:
            digest.update(row_digest(row.key, row.url, row.style))
    return digest.hexdigest()


def _shards(manifest: Manifest) -> Iterator[list[Row]]:
    for shard in range(manifest.shards):
        yield manifest.shard(shard)


def _verify_receipt(
    record: JobRecord,
    shard: int,
    rows: list[Row],
    results: list[Result],
    meta: dict[str, Any],
    image: ImageSpec,
) -> Iterator[Fault]:
    path = receipt_path(shard)
    if meta["shard"] != shard or meta["fingerprint"] != record.fingerprint:
        yield Fault(path, "is the receipt of another shard or job")
    if meta.get("digest") != results_digest(results):
        yield Fault(path, "was changed: its digest is not that of its rows")
    claimed, counted = Tally.from_json(meta), tally(results)
    if claimed != counted:
        yield Fault(path, f"counts {asdict(claimed)} and has {asdict(counted)}")
    by_row: dict[int, list[Result]] = {}
    for result in results:
        by_row.setdefault(result.row, []).append(result)
    for row in rows:
        found = by_row.pop(row.index, [])
        if len(found) != 1:
            yield Fault(path, "has no row for it" if not found else f"has {len(found)} rows for it", row.key)
        for result in found:
            if (result.key, result.url) != (row.key, row.url):
                yield Fault(path, f"row {row.index} is of {result.key!r} ({result.url})", row.key)
            if result.seed != image_seed(record.seed, row.key):
                yield Fault(path, f"row {row.index} has another seed than the job gives it", row.key)
            expected = picture_path(row.key, image) if result.status == "ok" else None
            if result.output != expected:
                yield Fault(path, f"is {result.status} and names the picture {result.output!r}", row.key)
    for index, found in by_row.items():
        yield Fault(path, f"has a row {index} that is not in its shard", found[0].key)


def _picture_fault(store: Store, result: Result) -> Fault | None:
    assert result.output is not None
    try:
        data = store.read(result.output)
    except FileNotFoundError:
        return Fault(result.output, "the picture is not there", result.key)
    except OSError as error:
        return Fault(result.output, f"the picture cannot be read: {error}", result.key)
    if hashlib.sha256(data).hexdigest() != result.output_sha256:
        return Fault(result.output, "is not the picture that was made: its SHA-256 differs", result.key)
    return None


def _curve_fault(store: Store, path: str, key: str) -> Fault | None:
    try:
        read_curve(store.read(path))
    except (OSError, ValueError) as error:
        return Fault(path, f"the curve cannot be read: {error}", key)
    return None


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a finished shard no longer needs."""

    journals: tuple[str, ...]
    pictures: tuple[str, ...]
    """And curves; of photographs that failed: published, and then their worker died."""


def collect_garbage(store: Store, *, remove: bool = True) -> Garbage:
    """Remove the journals of finished shards, pictures and curves of photographs that failed, and what
    killed processes left half written. Nothing else; and nothing of a shard whose receipt cannot be read, or of
    a retry that is not finished.

    Raises:
        UsageError: there is no job.
    """
    image = read_job(store).image
    manifest, ledger = Manifest(store), Ledger(store)
    generations: dict[int, int] = {}
    failed: set[str] = set()
    for shard in sorted(ledger.done()):
        try:
            results, meta = ledger.receipt(shard)
        except StoreError:
            continue
        if shard >= manifest.shards or len(results) != manifest.rows_in(shard):
            continue
        generations[shard] = meta["generation"]
        failed.update(each.key for each in results if each.status != "ok")
    journals, orphans, retried = [], [], set()
    for path in store.find():
        match place_of(path, image):
            case PhotoFile(key) if key in failed:
                orphans.append((path, key))
            case JournalFile(shard, generation):
                if generation <= generations.get(shard, -1):
                    journals.append(path)
                else:
                    retried.add(shard)
    keep = {row.key for shard in retried & generations.keys() for row in manifest.shard(shard)}
    pictures = [path for path, key in orphans if key not in keep]
    if remove:
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(store.remove, [*journals, *pictures]))
        store.clean()
    return Garbage(tuple(journals), tuple(pictures))


def explain(store: Store, photo: str) -> Iterator[str]:
    """What became of one photograph, line by line: its row, its journal, its result.

    Args:
        photo: its key, its path or URL, its file name, or the path of its picture.

    Raises:
        UsageError: there is no job, no such photograph in it, or several of this name.
    """
    shard, row = _find_row(store, photo)
    key = row.key
    yield f"{row.key}: row {row.index}, in shard {shard}, from {row.url}"
    for path, part in journal_parts(store, shard):
        try:
            records = read_journal_part(store.read(path))
        except ValueError as error:
            yield f"{path} is damaged and counts as not there: {error}"
            continue
        for record in records:
            if record["event"] == "death" and record["row"] == row.index:
                yield f"{_time(record['at'])}  a worker that ran it alone was gone: {record['cause']}"
            elif record["event"] == "result" and record["result"]["row"] == row.index:
                yield from _told(Result.from_json(record["result"]), f"journal, generation {part.generation}")
    try:
        results, meta = Ledger(store).receipt(shard)
    except FileNotFoundError:
        yield "its shard is not finished"
    else:
        for result in results:
            if result.row == row.index:
                yield from _told(result, f"receipt, generation {meta['generation']}")
    if store.exists(curve_path(key)):
        yield f"curve: {curve_path(key)}"


def _find_row(store: Store, photo: str) -> tuple[int, Row]:
    """A photograph's shard and row. A key goes before a path, and that before a file name.

    Raises:
        UsageError: see `explain`.
    """
    image = read_job(store).image
    place = absolute_url(photo, Path.cwd())
    by_path: list[tuple[int, Row]] = []
    by_name: list[tuple[int, Row]] = []
    for shard, rows in enumerate(_shards(Manifest(store))):
        for row in rows:
            if row.key == photo:
                return shard, row
            if place in (row.url, f"{store.url.rstrip('/')}/{picture_path(row.key, image)}"):
                by_path.append((shard, row))
            elif row.url.rpartition("/")[2] == photo:
                by_name.append((shard, row))
    found = by_path or by_name
    if not found:
        raise UsageError(f"{store.url} has no photograph {photo!r}; keys are paths without extension")
    if len(found) > 1:
        keys = ", ".join(repr(row.key) for _, row in found[:3])
        raise UsageError(f"{store.url} has {len(found)} photographs {photo!r}; tell them apart by key: {keys}")
    return found[0]


def _told(result: Result, where: str) -> Iterable[str]:
    yield f"{_time(result.finished_at)}  {result.status} ({where}), attempt {result.attempts}"
    if result.worker_host:
        yield f"  worker: process {result.worker_pid} on {result.worker_host}"
    if result.error is not None:
        yield f"  {result.error_type}: {result.error}"
    if result.output is not None:
        yield f"  picture: {result.output}, {result.width}x{result.height}, SHA-256 {result.output_sha256}"
    spans = {"load": result.load_s, "compute": result.compute_s, "save": result.save_s}
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in spans.items() if seconds is not None)
    if told:
        yield f"  {told}"
    if result.stats:
        stats = ", ".join(f"{name} {value:.5g}" for name, value in result.stats.items())
        yield f"  {stats}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "-"
