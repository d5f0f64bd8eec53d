"""How a finished job grows: photographs that came later, or that are done again, are a part of their own.

Parts are given one after the other, each to be run to its end before the next one is asked for.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.driver.adapting import needs_adapting
from jobs.driver.collection import Changes, changes_of, places_now
from jobs.driver.job import Job, reopen
from jobs.driver.styles import InStyles, refuse_styles, takes_styles
from jobs.driver.todo import retry_work
from jobs.errors import JobMismatch, StoreError, UsageError
from jobs.ledger.adapted import read_adapted
from jobs.ledger.begin_job import begin_job
from jobs.ledger.folders import Photo
from jobs.ledger.job_record import PHOTOS, RecordedAsset, read_job
from jobs.ledger.layout import MANIFEST, adapted_path, listing_path
from jobs.ledger.lease import STANDARD_LEASE, LeaseOptions, hold
from jobs.ledger.manifest import write_manifest
from jobs.ledger.parts import is_finished, newest_pictures, other_options, part_store, parts_of
from jobs.ledger.receipts import Ledger
from jobs.spec import fingerprint
from jobs.stores.moved import Move
from jobs.stores.store import Store
from nst.errors import NstError
from nst.methods import METHODS

if TYPE_CHECKING:
    from jobs.driver.actions import Work
    from nst.stylizer import Method

__all__ = ["PartPlan", "begin_part", "grow", "retries", "unfinished_parts"]

_AFTER_LEARNING = frozenset(("method.strength", "method.pass_memory_mb", "image.format", "image.quality"))
"""Options that are the same to a network which learns on the photographs before all are painted."""
Registry = Mapping[str, "type[Method]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPlan:
    """A part that is to be begun. Its places are as the job's record has them, wherever they are now: what was
    moved with the job was moved with all of its parts."""

    kind: Literal["new", "again"]
    photos: Sequence[Photo]
    table: Mapping[str, Any]
    """The resolved job file."""
    assets: Mapping[str, RecordedAsset]
    method: Method


def begin_part(job: Job, number: int, plan: PartPlan) -> bool:
    """Begin the part with this number; returns whether it is this one, and not one of who was quicker.

    Raises:
        UsageError: photographs that cannot be in one job.
    """
    store = part_store(job.store, number, plan.kind)
    digests = {option: asset.sha256 for option, asset in plan.assets.items()}
    styled = takes_styles(plan.method)
    if not styled:
        refuse_styles(plan.photos, plan.table["method"]["kind"])
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / MANIFEST
        info = write_manifest(plan.photos, listing, job.resources.shard_size, styled=styled)
        # The record says which listing is the part's; it must be there first, since photographs come and go.
        store.publish(listing_path(info.sha256, info.shard_size), listing.read_bytes())
        try:
            begin_job(
                store,
                job=plan.table,
                assets=plan.assets,
                manifests={PHOTOS: info},
                fingerprint=fingerprint(plan.table, digests, info.sha256),
                notes=(),
                part=plan.kind,
            )
        except FileExistsError:
            return False
        store.publish(MANIFEST, listing.read_bytes())
    return True


def unfinished_parts(job: Job, photos: str | None = None, registry: Registry = METHODS) -> Iterator[Job]:
    """The parts that are not finished, as jobs to go on with.

    Args:
        photos: where the job's photographs are now, if that was said.

    Raises:
        JobMismatch, OptionError, UsageError: as of `reopen`.
    """
    for store in parts_of(job.store)[1:]:
        if not is_finished(store, read_job(store)):
            yield _open_part(job, store, photos, registry)


def _open_part(job: Job, store: Store, photos: str | None = None, registry: Registry = METHODS) -> Job:
    """A part of `job` as a job to go on with, with the same resources. Raises as `reopen`."""
    now = {"resources": asdict(job.resources), "storage": asdict(job.storage)}
    part = reopen(store, overrides=now, photos=photos, registry=registry)
    part = replace(part, notes=tuple(note for note in part.notes if note not in job.notes))
    if needs_adapting(part) and read_adapted(store, part.fingerprint) is None:
        learned = read_adapted(job.store, job.fingerprint)
        others = other_options(read_job(job.store), read_job(store)).keys()
        if learned is not None and others <= _AFTER_LEARNING:
            with suppress(FileExistsError):  # another driver was quicker
                store.publish(adapted_path(part.fingerprint), learned, create_only=True)
    return part


def grow(
    job: Job,
    given: Sequence[str] | None = None,
    *,
    photos: str | None = None,
    new: bool = True,
    again: bool = False,
    tell: Callable[[Changes], None] = lambda _: None,
    lease: LeaseOptions | None = STANDARD_LEASE,
    registry: Registry = METHODS,
) -> Iterator[Job]:
    """What is left of the parts of `job`, which is finished, then a part of the photographs that came later.

    Args:
        given: the places of its photographs, if they were said anew.
        photos: where they are now, if one place was said.
        new: whether those that came later are done; else it is only told that they came.
        again: do those that were changed again, too, in a part after that.
        tell: told how the collection has changed, once.

    Raises:
        LeaseHeld: somebody else is at the job.
        NstError, OSError: a part cannot go on.
    """
    try:
        found = changes_of(job, given, by_digest=again)
    except JobMismatch:
        raise
    except (NstError, OSError) as error:  # the photographs may be gone: what is done stays done
        failed = isinstance(error, OSError | StoreError)
        found = Changes(tuple(given or places_now(job)), problem=str(error), failed=failed)
    tell(found)
    wanted: dict[Literal["new", "again"], bool] = {
        "new": new and bool(found.new),
        "again": again and bool(found.changed),
    }
    if not any(wanted.values()) and next(unfinished_parts(job, photos, registry), None) is None:
        return
    changed = {photo.url for photo in found.changed}
    with hold(job.store, lease):
        yield from unfinished_parts(job, photos, registry)
        for kind, is_wanted in wanted.items():
            while is_wanted:
                number = len(parts_of(job.store))
                # Looked at anew, after the number was taken: what others began meanwhile is not new.
                found = changes_of(job, given, by_digest=kind == "again", among=changed)
                photos_now = found.new if kind == "new" else found.changed
                plan = _as_before(job, kind, photos_now, found.places)
                is_wanted = bool(photos_now) and not begin_part(job, number, plan)
                yield from unfinished_parts(job, photos, registry)


def retries(
    job: Job, keys: Sequence[str] | None = None, photos: str | None = None, registry: Registry = METHODS
) -> Generator[tuple[Job, Callable[[], list[Work]] | None], None, None]:
    """The job and its parts, with what there is to do again in each: what failed, and has no picture since.

    Args:
        keys: of these photographs alone.
        photos: where the job's photographs are now, if that was said.

    Raises:
        UsageError: one of `keys` has not failed.
    """
    stores = parts_of(job.store)
    if len(stores) == 1:
        yield job, lambda: retry_work(job, keys)
        return
    newest = newest_pictures(stores)
    failed = [
        {key for key in _failed(store) if newest.get(key, -1) <= number} for number, store in enumerate(stores)
    ]
    wanted = set[str]().union(*failed) if keys is None else set(keys)
    if wanted - set[str]().union(*failed):
        raise UsageError(f"no failed photograph has the key {min(wanted - set[str]().union(*failed))!r}")
    for number, store in enumerate(stores):
        mine = failed[number] & wanted
        if mine or (number == 0 and not wanted):
            part = _open_part(job, store, photos, registry) if number else job
            yield part, partial(retry_work, part, mine)


def _failed(store: Store) -> set[str]:
    ledger = Ledger(store)
    done = ledger.done()
    tallies = dict(zip(done, ledger.tallies(done), strict=True))
    return {result.key for result in ledger.failures(tallies, sys.maxsize)}


def _as_before(
    job: Job, kind: Literal["new", "again"], photos: Sequence[Photo], places: Sequence[str]
) -> PartPlan:
    """A part of photographs at `places` that are done as the others were.

    Args:
        photos: new ones, which are yet to have styles if the job's have; or what its rows are of.
    """
    record = read_job(job.store)
    if kind == "new":
        photos = list(InStyles(job.spec, job.assets)(photos))
    several = {} if len(places) == 1 else {"photos": [_on_record(job, place) for place in places]}
    return PartPlan(
        kind=kind,
        photos=[replace(photo, url=_on_record(job, photo.url)) for photo in photos],
        table={**record.job, **several},
        assets=record.assets,
        method=job.spec.method,
    )


def _on_record(job: Job, url: str) -> str:
    """The place, before photographs were moved, of what is at `url` now."""
    return url if job.moved is None else Move(job.moved.now, job.moved.before).place(url)
