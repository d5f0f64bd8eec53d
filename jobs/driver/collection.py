"""A job's collection of photographs as it is now: which ones came, which are gone, which were changed."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jobs.driver.photos import listed, photos_of_followers
from jobs.driver.styles import photograph_key
from jobs.errors import JobMismatch
from jobs.ledger.folders import Photo
from jobs.ledger.left_out import LeftOut
from jobs.ledger.names import folded
from jobs.ledger.parts import manifest_of, manifests_of, parts_of
from jobs.ledger.receipts import Ledger
from jobs.stores.filesystems import StorageOptions, read_url
from jobs.stores.threads import map_in_turn

if TYPE_CHECKING:
    from jobs.driver.job import Job

__all__ = ["Changes", "changes_of", "places_now"]

_READS = 8


@dataclass(frozen=True, slots=True)
class Changes:
    """How a collection differs from what a job and its parts have of it. Places are those of now."""

    places: tuple[str, ...]
    """Where was looked."""
    new: tuple[Photo, ...] = ()
    changed: tuple[Photo, ...] = ()
    """Under their keys in the job; their bytes are others."""
    gone: tuple[str, ...] = ()
    """Keys."""
    problem: str | None = None
    """Why it cannot be told."""
    failed: bool = False
    """Whether that is since a store fails; else the photographs may be gone."""


def places_now(job: Job) -> tuple[str, ...]:
    """Where a job's photographs are."""
    places = job.spec.places
    return places if job.moved is None else tuple(map(job.moved.place, places))


def changes_of(
    job: Job,
    given: Sequence[str] | None = None,
    *,
    by_digest: bool = False,
    among: Container[str] | None = None,
) -> Changes:
    """How the collection has changed.

    A photograph is known by its place or, where it was moved or its name changed in case alone, by its key.

    Args:
        given: where the photographs are said to be now; None: where the job's are.
        by_digest: read them, to see also those that were changed and kept their size.
        among: read those at these places alone; None: all.

    Raises:
        JobMismatch: of several places given, most of the job's photographs are at none.
        NstError, OSError: they cannot be listed.
    """
    places = places_now(job) if given is None else tuple(given)
    spec = replace(job.spec, photos=places if len(places) > 1 else places[0])
    known = _Known(job)
    seen: dict[str, Photo] = {}
    new: list[Photo] = []
    elsewhere: list[tuple[str, Photo]] = []
    for photo in listed(spec, job.storage, LeftOut()):
        if photo.url in known.sizes:
            seen[photo.url] = photo
        elif (before := known.by_name.get(folded(photo.key))) is not None:
            elsewhere.append((before, photo))
        else:
            new.append(photo)
    for before, photo in elsewhere:
        if before in seen:  # that one is where it was: this is another one of its name
            new.append(replace(photo, key=known.free(photo)))
        else:
            seen[before] = photo
    changed = {url for url, photo in seen.items() if known.has_other_size(url, photo)}
    same = {url: photo for url, photo in seen.items() if url not in changed}
    if given is not None and set(given) != set(places_now(job)) and 2 * len(same) < len(known.sizes):
        raise JobMismatch(
            f"photos = {', '.join(places)!r}: does not hold the photographs of this job, which were in "
            f"{', '.join(job.spec.places)!r}: {len(same)} of {len(known.sizes)} are there as they were"
        )
    if by_digest:
        asked = {url: photo for url, photo in same.items() if among is None or url in among}
        changed |= set(_with_other_bytes(job, known, asked))
    if new:
        done = photos_of_followers(job)
        new = [photo for photo in new if photo not in done]
    here = {key for url in seen for key in known.styles[url]}
    return Changes(
        places,
        tuple(new),
        tuple(each for url, photo in seen.items() if url in changed for each in known.rows(url, photo)),
        tuple(key for key in known.keys if key not in here),
    )


class _Known:
    """The photographs of a job and its parts, by the places where they were last, as these are called now."""

    def __init__(self, job: Job) -> None:
        self.sizes: dict[str, int | None] = {}
        self.styles: dict[str, dict[str, str | None]] = {}
        """By place: of each of its rows, by key."""
        self.keys: dict[str, None] = {}
        self.by_name: dict[str, str] = {}
        for manifest in manifests_of(job.store):
            for shard in range(manifest.shards):
                for row in manifest.shard(shard):
                    url = row.url if job.moved is None else job.moved.place(row.url)
                    self.sizes[url] = row.size_bytes
                    self.styles.setdefault(url, {})[row.key] = row.style
                    self.keys[row.key] = None
                    self.by_name[folded(photograph_key(row.key, job.spec.styles_per_photo))] = url

    def has_other_size(self, url: str, photo: Photo) -> bool:
        """Whether the photograph that was at `url` has another size than when it was listed last."""
        before = self.sizes[url]
        return None not in (before, photo.size_bytes) and before != photo.size_bytes

    def rows(self, url: str, photo: Photo) -> Iterator[Photo]:
        """What was made of the photograph that was at `url`, as it is to be made anew."""
        for key, style in self.styles[url].items():
            yield replace(photo, key=key, style=style)

    def free(self, photo: Photo) -> str:
        """A key for a photograph that has one of those that are known, and is none of them."""
        key = f"{photo.key}~{hashlib.sha256(photo.url.encode()).hexdigest()[:8]}"
        assert folded(key) not in self.by_name
        return key


def _with_other_bytes(job: Job, known: _Known, photos: Mapping[str, Photo]) -> Iterator[str]:
    """Those of `photos` that are not what they were when they were last read for the job."""
    digests: dict[str, str] = {}
    for store in parts_of(job.store):
        ledger, manifest = Ledger(store), manifest_of(store)
        done = ledger.done()
        for shard in range(manifest.shards):
            if shard in done:
                digests.update({r.key: r.source_sha256 for r in ledger.receipt(shard)[0] if r.source_sha256})
                continue
            # Listings may lag behind: by what was read before, these would be done once more.
            for row in manifest.shard(shard):
                digests.pop(row.key, None)
    before = {url: next((digests[key] for key in known.styles[url] if key in digests), None) for url in photos}
    wanted = {url: photo for url, photo in photos.items() if before[url] is not None}
    with ThreadPoolExecutor(_READS) as pool:
        now = map_in_turn(pool, lambda photo: _digest(photo, job.storage), wanted.values())
        for url, digest in zip(wanted, now, strict=True):
            if digest not in (None, before[url]):
                yield url


def _digest(photo: Photo, storage: StorageOptions) -> str | None:
    try:
        return hashlib.sha256(read_url(photo.url, storage)).hexdigest()
    except OSError:  # what cannot be read cannot be done again either
        return None
