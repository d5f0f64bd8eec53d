"""A job whose folder, photographs or pictures are elsewhere now: the same job, if these are the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs.config.listing import STANDARD_LISTING, ListingOptions
from jobs.driver.assets import Asset
from jobs.errors import JobMismatch
from jobs.ledger.job_record import JobRecord
from jobs.ledger.listing import list_photos, root_of
from jobs.ledger.manifest import Manifest
from jobs.ledger.receipts import Ledger
from jobs.spec import StylizeSpec
from jobs.stores.filesystems import StorageOptions, is_url
from jobs.stores.moved import Move, moved_along
from jobs.stores.store import Store
from nst.errors import NstError, OptionError

__all__ = ["along_with", "as_recorded", "first_that_differs", "photographs_now"]


def along_with(store: Store, record: JobRecord) -> Callable[[str], str | None]:
    """Gives where things are now that were moved together with the job's folder; None: they were not."""
    before = record.job.get("output")
    return lambda url: moved_along(url, before, store.url) if isinstance(before, str) else None


def as_recorded(
    table: Mapping[str, Any], assets: Sequence[Asset], record: JobRecord
) -> tuple[dict[str, Any], list[Asset]]:
    """A resolved job file and its assets, with the places on record of those that have the bytes on record."""
    top, now, stored = dict(table), dict(table["method"]), record.method
    found = {asset.option: asset.sha256 for asset in assets}
    for name in {option.partition("[")[0] for option in found}:
        before = {option: sha for option, sha in record.digests.items() if option.partition("[")[0] == name}
        if before == {option: sha for option, sha in found.items() if option.partition("[")[0] == name}:
            if name == "style" and "styles" in top:
                top["styles"] = record.job.get("styles", top["styles"])
            elif name in stored:
                now[name] = stored[name]
            else:  # an option that came later, with its default
                now.pop(name, None)
    same = [
        replace(asset, url=record.assets[asset.option].url)
        if record.digests.get(asset.option) == asset.sha256
        else asset
        for asset in assets
    ]
    return {**top, "method": now}, same


def photographs_now(
    store: Store,
    record: JobRecord,
    manifest: Manifest,
    said: str | None,
    spec: StylizeSpec,
    storage: StorageOptions,
) -> Move | None:
    """Where the photographs of a job are now; None: where they were.

    Args:
        said: where they are: a folder, a glob, a bucket prefix, or a table; None: nobody said.
        spec: the job's, with the places on record.

    Raises:
        JobMismatch: other photographs are there; of a finished job, most of them.
        OptionError: they are gone, or were at several places and are said to be at one.
    """
    finished = len(Ledger(store).done()) >= manifest.shards  # then nobody has to know
    if said is not None and said not in spec.places:
        if len(spec.places) > 1:
            reason = "names one place, and this job's photographs were at several"
            raise OptionError("--photos", said, reason=reason)
        move = Move(_root_was(spec.places[0], manifest), root_of(said))
        there = [said]
    else:
        roots = {place: _root_was(place, manifest) for place in spec.places if not is_url(place)}
        gone = [place for place, root in roots.items() if not os.path.exists(root)]
        if not gone:
            return None
        root = os.path.commonpath(list(roots.values()))
        now = moved_along(root, record.job["output"], store.url)
        if now is None or not os.path.exists(now):
            if finished:
                return None
            reason = "is not there any more; say with --photos where the photographs are now"
            raise OptionError("photos", gone[0], reason=reason)
        move = Move(root, now)
        there = [move.place(place) for place in spec.places]
        if finished:
            return move
    if finished and store.part is not None:
        return move
    found = differing(manifest, move, there, exclude=store.url, options=spec.listing, storage=storage)
    first = next(found, None)
    if first is not None and (not finished or 2 * (1 + sum(1 for _ in found)) > manifest.rows):
        raise JobMismatch(
            f"photos = {', '.join(there)!r}: does not hold the photographs of this job, which were in "
            f"{', '.join(spec.places)!r}: {first}"
        )
    return move


def _root_was(place: str, manifest: Manifest) -> str:
    """`root_of` a place that may be gone: by its photographs' places, a folder `Rome [2019]` was no glob."""
    return root_of(place, lambda name: os.path.exists(name) or manifest.has_at(name))


def first_that_differs(
    manifest: Manifest,
    move: Move,
    there: Sequence[str],
    *,
    exclude: str,
    storage: StorageOptions,
) -> str | None:
    """The first of `differing`; None: all are as they were."""
    return next(differing(manifest, move, there, exclude=exclude, storage=storage), None)


def differing(
    manifest: Manifest,
    move: Move,
    there: Sequence[str],
    *,
    exclude: str,
    options: ListingOptions = STANDARD_LISTING,
    storage: StorageOptions,
) -> Iterator[str]:
    """What is wrong with each photograph that is not as it was listed, by its name and size; of what cannot be
    listed, why.

    Args:
        there: where the photographs are said to be now.
    """
    try:
        photos = list_photos(there, exclude=exclude, options=options, storage=storage)
        found = {photo.url: photo.size_bytes for photo in photos}
    except NstError as error:
        yield from [str(error)] * manifest.rows
        return
    for shard in range(manifest.shards):
        for row in manifest.shard(shard):
            url = move.place(row.url)
            if url not in found:
                yield f"{url} is not there"
            elif None not in (found[url], row.size_bytes) and found[url] != row.size_bytes:
                yield f"{url} has {found[url]} bytes, not {row.size_bytes}"
