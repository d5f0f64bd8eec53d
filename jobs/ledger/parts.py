"""Parts of a job: photographs that came later, and those that were done again.

Nothing of a job changes when it grows. A part is a whole job of its own in a folder within the job's, with its
own record, manifest, journals, receipts and lease; so all that holds for a job holds for each of its parts.

    parts/0001/job.json          as that of the job, and `"part": "new"` or `"again"`
    parts/0001/listing-...       its manifest, until the record says that it is the one
    parts/0001/manifest.parquet, results/, journal/, ...

Pictures of photographs that came later lie with the others, in the job's `images/`: their keys are new. Those
of photographs that were done again lie in the part's own `images/`: every version is kept.

Parts are numbered from 1, without a gap. Who begins one publishes its record create-only: of several that take
the same number, one wins, and what the others wanted is looked at anew, now with that part. So no photograph
is in two parts of new ones. Parts have no parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Literal

from jobs.ledger.job_record import JobRecord, changed_values, read_job
from jobs.ledger.layout import JOB, MANIFEST, SHARED, listing_path, part_folder
from jobs.ledger.manifest import Manifest
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import Result
from jobs.spec import HOW
from jobs.stores.part_store import PartStore
from jobs.stores.store import Part, Store

__all__ = [
    "WHERE",
    "below",
    "has_own_pictures",
    "is_finished",
    "manifest_of",
    "manifests_of",
    "newest_pictures",
    "other_options",
    "part_store",
    "parts_of",
    "path_below",
]

WHERE = ("photos", *HOW)
"""Options that say where a job's photographs are, and what no picture depends on."""


def part_store(store: Store, number: int, kind: Literal["new", "again"]) -> PartStore:
    """The store of the part with this number, whether or not there is one yet."""
    return PartStore(store, Part(part_folder(number), SHARED if kind == "new" else ()))


def parts_of(store: Store) -> list[Store]:
    """The stores of all parts of a job, in order: first the job's own, which may be the only one.

    Raises:
        UsageError: a part's record is damaged.
    """
    found = [store]
    for number in count(1):
        # Asked one by one: a listing may lag behind, and who overlooks a part does its photographs again.
        if not store.exists(f"{part_folder(number)}/{JOB}"):
            return found
        kind = read_job(part_store(store, number, "again")).part
        assert kind is not None  # or it could not be read
        found.append(part_store(store, number, kind))
    raise AssertionError("unreachable")


def manifests_of(store: Store) -> list[Manifest]:
    """Those of all parts of a job, in order; see `manifest_of`.

    Raises:
        UsageError: there is none of the job's own, or one is damaged.
    """
    return [manifest_of(part) for part in parts_of(store)]


def manifest_of(store: Store) -> Manifest:
    """The manifest of a job, or of a part; from where it was listed, if the process that began the part ended
    before it could publish it."""
    if store.part is None or store.exists(MANIFEST):
        return Manifest(store)
    info = read_job(store).manifest
    return Manifest(store, listing_path(info.sha256, info.shard_size))


def has_own_pictures(store: Store) -> bool:
    """Whether a part's pictures lie in its own folder, and not with those of the job."""
    return store.part is not None and not store.part.shared


def is_finished(store: Store, record: JobRecord) -> bool:
    """Whether every shard has its receipt."""
    return len(Ledger(store).done()) >= record.manifest.shards


def other_options(record: JobRecord, part: JobRecord) -> Mapping[str, object]:
    """Options with which a part was made, by name, that are not those of the job."""
    found = changed_values(record.job, part.job, but=WHERE)
    return {name: now for name, (_, now) in found.items()}


def newest_pictures(parts: list[Store]) -> dict[str, int]:
    """The last part that has a picture of each photograph that was done again, by key."""
    newest: dict[str, int] = {}
    for number, store in enumerate(parts):
        if has_own_pictures(store):
            ledger = Ledger(store)
            for shard in ledger.done():
                newest.update({each.key: number for each in ledger.receipt(shard)[0] if each.status == "ok"})
    return newest


def below(store: Store, result: Result) -> Result:
    """`result` with the place of its picture in the whole job."""
    return result if result.output is None else replace(result, output=path_below(store, result.output))


def path_below(store: Store, path: str) -> str:
    """Where in the whole job that is which a part has at `path`."""
    return store.within(path) if isinstance(store, PartStore) else path
