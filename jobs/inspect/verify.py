"""Whether a job's folder holds what it says.

Asks the store alone, and trusts nothing in it but what another record confirms: pictures by the digests in the
receipts, receipts by their own digest and the manifest, the manifest by the one in `job.json`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import pyarrow as pa

from jobs.console.text import counted
from jobs.errors import StoreError
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
    is_listing,
    part_path,
    picture_path,
    place_of,
    receipt_path,
)
from jobs.ledger.lease import read_holder
from jobs.ledger.manifest import Manifest, Row, row_digest
from jobs.ledger.parts import has_own_pictures, manifest_of, parts_of
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import Result, Tally, image_seed, results_digest, tally
from jobs.spec import ImageSpec, fingerprint
from jobs.stores.part_store import PartStore
from jobs.stores.store import Store
from jobs.stores.threads import map_in_turn
from nst.errors import NstError

__all__ = ["Fault", "manifest_digest", "verify"]

_THREADS = 16
_Owner: TypeAlias = tuple[int, str]
"""The part that has a photograph's pictures, 0 the job itself, and its key; none: all that is in the part."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it must be."""

    path: str
    """Of the object, below the job's folder."""
    problem: str
    key: str | None = None
    """Of the photograph, if it is about one."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """What was found of a part of the job."""

    store: Store
    record: JobRecord
    manifest: Manifest
    keys: set[str] = field(default_factory=set)
    """Of photographs that may have files."""
    generations: dict[int, int] = field(default_factory=dict)
    """Of receipts that can be read, by shard."""
    failed: set[int] = field(default_factory=set)
    """Shards whose receipts have rows without a picture."""


def verify(store: Store) -> Iterator[Fault]:
    """Read everything again: job, manifest, every receipt, picture and curve, of the job and of its parts; and
    list what is there besides.

    Raises:
        UsageError: there is no job, or nothing of it can be read.
    """
    checked: list[_Checked] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for part in parts_of(store):
            found = yield from _verify_part(part, pool)
            if found is None:
                return
            checked.append(found)
        curves = yield from _verify_places(store, checked)
        for problem in map_in_turn(pool, lambda curve: _curve_fault(store, *curve), curves):
            if problem is not None:
                yield problem


def _verify_part(store: Store, pool: ThreadPoolExecutor) -> Generator[Fault, None, _Checked | None]:
    """Faults of a job, or of a part of one; gives what it has, or None if nothing can be said of that."""
    record = read_job(store)
    yield from _within(store, _verify_job(record))
    try:
        manifest = Manifest(store)
        digest = manifest_digest(_shards(manifest))
    except (NstError, pa.ArrowException, OSError) as error:
        yield from _within(store, [Fault(MANIFEST, f"cannot be read: {error}")])
        return None
    if digest != record.manifest.sha256 or manifest.rows != record.manifest.rows:
        yield from _within(store, [Fault(MANIFEST, "is not the one that the job was begun with")])
    checked = _Checked(store, record, manifest)
    yield from _within(store, _verify_shards(checked, pool))
    return checked


def _within(store: Store, faults: Iterable[Fault]) -> Iterator[Fault]:
    """The faults of a part, with their paths in the whole job."""
    for fault in faults:
        yield replace(fault, path=store.within(fault.path)) if isinstance(store, PartStore) else fault


def _verify_job(record: JobRecord) -> Iterator[Fault]:
    if fingerprint(record.job, record.digests, record.manifest.sha256) != record.fingerprint:
        yield Fault(JOB, "was changed: its fingerprint is not that of the job in it")


def _verify_shards(checked: _Checked, pool: ThreadPoolExecutor) -> Iterator[Fault]:
    """Faults of receipts and pictures; what else is found of them is noted in `checked`."""
    store, record, manifest, keys = checked.store, checked.record, checked.manifest, checked.keys
    ledger, image = Ledger(store), record.image
    weights = read_adapted(store, record.fingerprint) if record.method.get("adapt_steps") else None
    adapted = None if weights is None else hashlib.sha256(weights).hexdigest()
    for shard, rows in enumerate(_shards(manifest)):
        path = receipt_path(shard)
        try:
            results, meta = ledger.receipt(shard)
        except (StoreError, OSError) as error:
            missing = isinstance(error, FileNotFoundError)
            unfinished = f"there is none: {counted(len(rows), 'photograph')} unfinished"
            yield Fault(path, unfinished if missing else f"cannot be read: {error}")
            # Pictures may be there before the receipt is.
            keys.update(row.key for row in rows)
            continue
        yield from _verify_receipt(record, shard, rows, results, meta, image)
        if meta.get("adapted") != adapted:
            yield Fault(path, "is of other weights than those that the network has learned")
        checked.generations[shard] = meta["generation"]
        if any(result.status != "ok" for result in results):
            checked.failed.add(shard)
        good = [result for result in results if result.status == "ok" and result.output]
        keys.update(result.key for result in good)
        for problem in pool.map(lambda result: _picture_fault(store, result), good):
            if problem is not None:
                yield problem


def _verify_places(store: Store, checked: list[_Checked]) -> Generator[Fault, None, list[tuple[str, str]]]:
    """Files that are not the job's; gives the paths of curves, and their keys."""
    curves: list[tuple[str, str]] = []
    odd: list[tuple[str, _Owner]] = []
    retried: set[tuple[int, int]] = set()
    shared = {key for part in checked if not has_own_pictures(part.store) for key in part.keys}
    for path in store.find():
        number, inner = part_path(path) or (0, path)
        if 0 < number <= len(checked) and is_listing(inner):
            continue
        if number >= len(checked):
            odd.append((path, (number, "")))
            continue
        part, record = checked[number], checked[number].record
        keys = part.keys if has_own_pictures(part.store) else shared
        match place_of(inner, record.image):
            case CommonFile() | LeaseFile():
                pass
            case AdaptedFile(weights) if record.method.get("adapt_steps") and (
                not weights or inner == adapted_path(record.fingerprint)
            ):
                pass
            case ReceiptFile(shard) if shard < part.manifest.shards:
                pass
            case JournalFile(shard, generation) if shard < part.manifest.shards:
                if generation > part.generations.get(shard, generation):
                    retried.add((number, shard))
            case PhotoFile(key, role) if number == 0 or keys is not shared:
                if key not in keys:
                    odd.append((path, (number, key)))
                elif role == "curve":
                    curves.append((path, key))
            case _:
                yield Fault(path, "does not belong to the job")
    may_be = {*_of_retries(checked, retried), *_of_new_parts(store, len(checked))} if odd else set()
    for path, owner in odd:
        if owner not in may_be:
            yield Fault(path, "does not belong to the job")
    return curves


def _of_new_parts(store: Store, first: int) -> Iterator[_Owner]:
    """Parts from number `first` on, which came while the job was read, and photographs that these brought."""
    for number, part in enumerate(parts_of(store)[first:], first):
        yield number, ""
        if not has_own_pictures(part):
            yield from ((0, key) for key in manifest_of(part).column("key"))


def _of_retries(checked: list[_Checked], retried: set[tuple[int, int]]) -> set[_Owner]:
    """Photographs that failed, and may have a picture of a retry that is not finished.

    Args:
        retried: parts and shards with a journal that no receipt is of. Others may be about to have one.
    """
    found: set[_Owner] = set()
    for number, part in enumerate(checked):
        holder = read_holder(part.store)
        works = holder is not None and holder.works_at(time.time())
        own = number if has_own_pictures(part.store) else 0
        for shard in part.failed:
            if works or (number, shard) in retried:
                found |= {(own, row.key) for row in part.manifest.shard(shard)}
    return found


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
