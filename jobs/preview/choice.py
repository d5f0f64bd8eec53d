"""Which photographs show what a collection is like: a few that differ in size, brightness and color.

Loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jobs.ledger.folders import Photo
from jobs.stores.filesystems import StorageOptions, absolute_url
from jobs.stores.photo_files import read_photo_file
from nst.errors import ImageError, OptionError
from nst.images.decode import MAX_PIXELS, open_photo
from nst.images.headers import picture_size

__all__ = ["LOOKED_AT", "Choice", "choose", "farthest", "features", "named", "spread"]

LOOKED_AT = 120
"""Photographs of a collection that are looked at, at most."""
_LOOK_PX = 64
_LOOKS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """Photographs that were chosen, in the order of their listing."""

    photos: Sequence[Photo]
    listed: int
    looked_at: int
    """0: nobody had to choose."""
    unreadable: Sequence[tuple[Photo, str]] = ()
    """Of those looked at, with reasons."""


def choose(
    listing: Iterable[Photo],
    count: int,
    storage: StorageOptions,
    seen: Callable[[int, int], None],
    most: int = LOOKED_AT,
) -> Choice:
    """Choose `count` photographs of a listing, always the same ones.

    Args:
        seen: is told how many of how many have been looked at.
        most: how many are looked at, at most.
    """
    some, listed = spread(listing, max(most, count))
    if len(some) <= count:
        return Choice(some, listed, 0)
    known: list[Photo] = []
    found: list[tuple[float, ...]] = []
    unreadable = []
    pool = ThreadPoolExecutor(_LOOKS_AT_ONCE)
    try:
        looks = pool.map(partial(_look, storage=storage), some)
        for number, (photo, look) in enumerate(zip(some, looks, strict=True), 1):
            if isinstance(look, str):
                unreadable.append((photo, look))
            else:
                known.append(photo)
                found.append(look)
            seen(number, len(some))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return Choice([known[index] for index in farthest(found, count)], listed, len(some), unreadable)


def named(listing: Iterable[Photo], names: Sequence[str]) -> Choice:
    """The photographs with these keys, paths or URLs, in this order.

    Raises:
        OptionError: one is not there.
    """
    places = {absolute_url(name, Path.cwd()): name for name in names}
    by_key: dict[str, Photo] = {}
    by_place: dict[str, Photo] = {}
    listed = 0
    for photo in listing:
        listed += 1
        if photo.key in names:
            by_key[photo.key] = photo
        if (place := places.get(absolute_url(photo.url, Path("/")))) is not None:
            by_place[place] = photo
    found = by_place | by_key
    for name in names:
        if name not in found:
            reason = (
                f"is neither a key nor a path of the {listed} photographs; keys are paths without extension"
            )
            raise OptionError("--photo", name, reason=reason)
    return Choice(list(dict.fromkeys(found[name] for name in names)), listed, 0)


def spread(listing: Iterable[Photo], most: int) -> tuple[list[Photo], int]:
    """At most so many photographs, evenly spread over a listing of any length; and its length."""
    kept: list[Photo] = []
    step, listed = 1, 0
    for photo in listing:
        if listed % step == 0:
            kept.append(photo)
            if len(kept) == 2 * most:
                kept, step = kept[::2], 2 * step
        listed += 1
    if len(kept) > most:
        kept = [kept[index * len(kept) // most] for index in range(most)]
    return kept, listed


def farthest(points: Sequence[Sequence[float]], count: int) -> list[int]:
    """Places of points that lie far apart: the one nearest to the mean, and then each time the one that is
    farthest from all before (Gonzalez 1985). Sorted; of equals the first."""
    if len(points) <= count:
        return list(range(len(points)))
    places = np.asarray(points, dtype=np.float64)
    chosen = [int(np.argmin(((places - places.mean(0)) ** 2).sum(1)))]
    nearest = ((places - places[chosen[0]]) ** 2).sum(1)
    while len(chosen) < count:
        nearest[chosen] = -1  # also where all others are equal to a chosen one
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((places - places[chosen[-1]]) ** 2).sum(1))
    return sorted(chosen)


def _look(photo: Photo, storage: StorageOptions) -> tuple[float, ...] | str:
    """A photograph's features, or why it cannot be read."""
    try:
        data = read_photo_file(photo.url, size_bytes=photo.size_bytes, max_pixels=MAX_PIXELS, storage=storage)
        return features(data)
    except (OSError, ImageError) as error:
        return str(error) or type(error).__name__


def features(data: bytes) -> tuple[float, ...]:
    """What a photograph is like. A difference of 1 in any of them is one that is seen at once.

    Raises:
        ImageError: it is no photograph.
    """
    image = open_photo(data, max_side_px=_LOOK_PX)
    width, height = image.size
    size = picture_size(lambda start, length: data[start : start + length]) or image.size
    levels = np.asarray(image.convert("YCbCr"), dtype=np.float64) / 255
    light, blue, red = levels[..., 0], levels[..., 1] - 0.5, levels[..., 2] - 0.5
    return (
        math.log2(max(1, size[0] * size[1])) / 2,
        math.log2(width / height),
        float(light.mean()) / 0.2,
        float(light.std()) / 0.1,
        float(blue.mean()) / 0.05,
        float(red.mean()) / 0.05,
        float(np.hypot(blue, red).mean()) / 0.05,
    )
