"""What a finished job may be rid of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from jobs.errors import StoreError
from jobs.ledger.job_record import read_job
from jobs.ledger.layout import MANIFEST, JournalFile, PhotoFile, is_listing, part_path, place_of
from jobs.ledger.lease import refuse_if_held
from jobs.ledger.manifest import Manifest
from jobs.ledger.parts import has_own_pictures, manifest_of, parts_of
from jobs.ledger.receipts import Ledger
from jobs.spec import ImageSpec
from jobs.stores.store import Store
from jobs.stores.threads import map_in_turn

__all__ = ["Garbage", "collect_garbage"]

_THREADS = 16


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a finished shard no longer needs."""

    journals: tuple[str, ...]
    pictures: tuple[str, ...]
    """And curves; of photographs that failed: published, and then their worker died."""


@dataclass(slots=True)
class _Part:
    """A job, or a part of one, and what is found of it."""

    manifest: Manifest
    image: ImageSpec
    generations: dict[int, int] = field(default_factory=dict)
    """Of the receipts that can be read, by shard."""
    failed: set[str] = field(default_factory=set)
    journals: list[str] = field(default_factory=list)
    orphans: list[tuple[str, str]] = field(default_factory=list)
    """Paths and keys."""
    retried: set[int] = field(default_factory=set)


def collect_garbage(store: Store, *, remove: bool = True) -> Garbage:
    """Remove the journals of finished shards, pictures and curves of photographs that failed, and what
    killed processes left half written. Nothing else; and nothing of a shard whose receipt cannot be read, or of
    a retry that is not finished. Of the parts of a job, too.

    Raises:
        LeaseHeld: a driver is at it, who may have made what nobody knows of yet.
        UsageError: there is no job.
    """
    read_job(store)  # which is of photographs
    stores = parts_of(store)
    for each in stores if remove else ():
        refuse_if_held(each, "nothing was removed: ask again when the job has ended")
    parts = [_read(each) for each in stores]
    sharing = [part for part, each in zip(parts, stores, strict=True) if not has_own_pictures(each)]
    owner = {key: part for part in sharing for key in part.failed}
    listings = []
    for path in store.find():
        number, inner = part_path(path) or (0, path)
        if number and is_listing(inner):
            if number >= len(stores) or stores[number].exists(MANIFEST):
                listings.append(path)
        elif number < len(parts):
            own = has_own_pictures(stores[number])
            _sort(path, inner, parts[number], None if own else {} if number else owner)
    journals = [path for part in parts for path in part.journals]
    pictures = [path for part in parts for path in _pictures(part)]
    if remove:
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in map_in_turn(pool, store.remove, [*journals, *pictures, *listings]):
                pass
        store.clean()
    return Garbage(tuple(journals), tuple(pictures))


def _read(store: Store) -> _Part:
    ledger = Ledger(store)
    part = _Part(manifest_of(store), read_job(store).image)

    def found(shard: int) -> tuple[int, list[str]] | None:
        """The receipt's generation, and the keys that have no picture; None: it cannot be read."""
        try:
            results, meta = ledger.receipt(shard)
        except StoreError:
            return None
        if shard >= part.manifest.shards or len(results) != part.manifest.rows_in(shard):
            return None
        return meta["generation"], [each.key for each in results if each.status != "ok"]

    done = sorted(ledger.done())
    with ThreadPoolExecutor(_THREADS) as pool:
        for shard, its in zip(done, map_in_turn(pool, found, done), strict=True):
            if its is not None:
                part.generations[shard], failed = its
                part.failed.update(failed)
    return part


def _sort(path: str, inner: str, part: _Part, shared: dict[str, _Part] | None) -> None:
    """Note what is at `path`, and at `inner` within `part`, if it is garbage or says what is not.

    Args:
        shared: whose each failed photograph is; None: all are those of the part.
    """
    match place_of(inner, part.image):
        case PhotoFile(key) if shared is None and key in part.failed:
            part.orphans.append((path, key))
        case PhotoFile(key) if shared is not None and key in shared:
            shared[key].orphans.append((path, key))
        case JournalFile(shard, generation):
            if generation <= part.generations.get(shard, -1):
                part.journals.append(path)
            else:
                part.retried.add(shard)


def _pictures(part: _Part) -> list[str]:
    kept = part.retried & part.generations.keys()
    keep = {row.key for shard in kept for row in part.manifest.shard(shard)}
    return [path for path, key in part.orphans if key not in keep]
