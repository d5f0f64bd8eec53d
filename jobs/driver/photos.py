"""A job's photographs as they are listed, and those that are at the same place later and not in the job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.config.styles import PerPhoto
from jobs.driver.styles import photograph_key
from jobs.errors import UsageError
from jobs.ledger.folders import Photo
from jobs.ledger.job_record import read_job
from jobs.ledger.left_out import LeftOut
from jobs.ledger.listing import list_photos
from jobs.ledger.manifest import Manifest
from jobs.ledger.parts import manifests_of
from jobs.spec import JobFile, StylizeSpec, job_from_table
from jobs.stores.filesystems import StorageOptions, absolute_url
from jobs.stores.store import Store, open_store
from nst.errors import NstError, OptionError
from nst.methods import METHODS

if TYPE_CHECKING:
    from jobs.driver.job import Job
    from nst.stylizer import Method

__all__ = [
    "LaterPhotos",
    "has_photos",
    "job_of_later_photos",
    "later_photos",
    "listed",
    "photos_of_followers",
]

_NAMED = 10
_MOST_FOLDERS = 1000


def listed(spec: StylizeSpec, storage: StorageOptions, left_out: LeftOut) -> Iterator[Photo]:
    """The photographs that a job has if it is begun now; `left_out` counts what else there is.

    Raises:
        OptionError: `photos` is nothing that can be listed, or `not_in` no job.
        UsageError: a table with rows that are none.
        OSError: it cannot be listed.
    """
    photos = list_photos(
        spec.photos, exclude=spec.output, options=spec.listing, storage=storage, left_out=left_out
    )
    if not spec.listing.not_in:
        return photos
    manifests = []
    for place in spec.listing.not_in:
        try:
            manifests += _with_styles(open_store(place, storage, option="not_in"))
        except UsageError as error:
            raise OptionError("not_in", place, reason=str(error)) from error
    return _without_known(photos, manifests, left_out)


def _with_styles(store: Store) -> list[tuple[Manifest, PerPhoto | None]]:
    """The manifests of all parts of a job, with its `styles_per_photo`."""
    per_photo = read_job(store).job.get("styles_per_photo")
    return [(manifest, per_photo) for manifest in manifests_of(store)]


def has_photos(job: JobFile) -> bool:
    """Whether there is any photograph for a job that is not begun. Raises as `listed`."""
    return next(iter(listed(job.spec, job.storage, LeftOut())), None) is not None


def _without_known(
    photos: Iterator[Photo], manifests: Sequence[tuple[Manifest, PerPhoto | None]], left_out: LeftOut
) -> Iterator[Photo]:
    known = Known(manifests)
    for photo in photos:
        if photo in known:
            left_out.add("not_in", photo.key, "photographs")
        else:
            yield photo


class Known:
    """Photographs of jobs: of the same place, or, where photographs were moved, of the same key.

    Args:
        manifests: with the `styles_per_photo` of their jobs.
    """

    def __init__(self, manifests: Sequence[tuple[Manifest, PerPhoto | None]]) -> None:
        self._urls = {url for manifest, _ in manifests for url in manifest.column("url")}
        self._keys = {
            photograph_key(key, per_photo)
            for manifest, per_photo in manifests
            for key in manifest.column("key")
        }

    def __contains__(self, photo: Photo) -> bool:
        return photo.url in self._urls or photo.key in self._keys


@dataclass(frozen=True, slots=True)
class LaterPhotos:
    """Photographs that are where a job's are, and not in it."""

    keys: tuple[str, ...]
    """The first ten."""
    count: int
    output: str
    """A folder or bucket prefix in which a job of them can be begun, or goes on."""


def later_photos(job: Job) -> LaterPhotos | None:
    """Photographs that came after `job` was begun; None: there are none, or it cannot be told."""
    keys, count = [], 0
    try:
        known = Known(_with_styles(job.store))
        spec = job.spec
        if job.moved is not None:
            spec = replace(spec, photos=tuple(map(job.moved.place, spec.places)))
        for photo in listed(spec, job.storage, LeftOut()):
            if photo not in known:
                count += 1
                keys += [photo.key] if count <= _NAMED else []
    except (OSError, NstError):  # the photographs may be gone: what is done stays done
        return None
    return LaterPhotos(tuple(keys), count, _next_output(job)) if count else None


def _next_output(job: Job) -> str:
    """`painted-2` for a job in `painted`: the first that is empty, or that is this job's next."""
    url = job.store.url.rstrip("/")
    for place in _next_places(url):
        store = open_store(place, job.storage)
        if not store.names("") or url in _not_in(store):
            break
    return place


def _next_places(url: str) -> list[str]:
    """`painted-2`, `painted-3` and so on, for `painted`."""
    url = url.rstrip("/")
    found = re.fullmatch(r"(.+)-([0-9]{1,6})", url, re.DOTALL)
    stem, number = (found[1], int(found[2])) if found else (url, 1)
    return [f"{stem}-{next_}" for next_ in range(number + 1, number + 1 + _MOST_FOLDERS)]


def photos_of_followers(job: Job) -> Known:
    """Photographs of the jobs beside `job` that were begun of those that came after it."""
    found: list[tuple[Manifest, PerPhoto | None]] = []
    stores = (open_store(place, job.storage) for place in _next_places(job.store.url))
    for store in takewhile(lambda each: each.names(""), stores):
        if job.store.url.rstrip("/") in _not_in(store):
            found += _with_styles(store)
    return Known(found)


def _not_in(store: Store) -> Sequence[str]:
    try:
        places: Sequence[str] = read_job(store).job.get("not_in", ())
    except UsageError:
        return ()
    return places


def job_of_later_photos(
    store: Store,
    output: str,
    tables: Mapping[str, Any],
    registry: Mapping[str, type[Method]] = METHODS,
    photos: str | None = None,
) -> JobFile:
    """A job as the one in `store`, in another folder, of the photographs that are there now and not in it.

    Args:
        output: its folder or bucket prefix.
        tables: replacements of its options, by table: of `resources` and `storage`.
        photos: where the photographs are now; None: where they were.

    Raises:
        UsageError: there is no job of photographs in the store.
    """
    stored = read_job(store).job
    not_in = [*stored.get("not_in", ()), store.url.rstrip("/")]
    table = {**stored, "output": absolute_url(output, Path.cwd()), "not_in": not_in}
    if photos is not None:
        table["photos"] = absolute_url(photos, Path.cwd())
    for name, options in tables.items():
        table[name] = {**stored.get(name, {}), **options}
    return job_from_table(table, Path.cwd(), registry)
