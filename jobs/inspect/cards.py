"""Photographs as a report has them: their rows, thumbnails, curves, and where they are at full size."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from jobs.console.html import curve_line
from jobs.errors import StoreError
from jobs.inspect.thumbnails import first_side, share, thumbnail
from jobs.ledger.curves import read_curve
from jobs.ledger.layout import CURVES, curve_path
from jobs.ledger.parts import has_own_pictures
from jobs.ledger.results import STATUSES
from jobs.stores.filesystems import local_path
from jobs.stores.moved import moved_along
from jobs.stores.store import Store
from jobs.view.index import Rows
from jobs.view.photos import Photos, Side
from jobs.view.query import row_json
from jobs.view.watch import Watch
from nst.errors import NstError

__all__ = ["Card", "cards"]

_THREADS = 8
_MOST_POINTS, _POINTS_EACH = 300_000, 300
"""Points of all curves together, and of each curve; a point takes some 11 bytes."""
_NAMES: dict[Side, str] = {"before": "photograph", "after": "picture"}
_BROWSERS_KNOW = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp")


@dataclass(slots=True)
class Card:
    """A photograph in a report."""

    row: dict[str, Any]
    """As the page is told of it: see `report.js`."""
    small: list[str | None] = field(default_factory=lambda: [None, None])
    """Its thumbnails, before and after, as base64."""
    sides_px: list[int] = field(default_factory=list)
    """The longer sides of these."""


def cards(watch: Watch, rows: Rows, places: Sequence[int], tell: Callable[[int, int], object]) -> list[Card]:
    """Those of the photographs at `places`. What cannot be read is said in them.

    Args:
        tell: told how many are made, of how many.
    """
    photos, parts = Photos(watch.index), watch.index.parts
    good = STATUSES.index("ok")
    most_bytes = share(sum(2 if rows.status[place] == good else 1 for place in places))
    most_points = min(_POINTS_EACH, _MOST_POINTS // max(1, len(places)))
    curved = [_has_curves(watch.store, part.store) for part in parts]
    # What stores said that refuse all, or do not answer: nobody waits for them twice.
    silent: dict[tuple[str, ...], str] = {}

    def card(place: int) -> Card:
        part = int(rows.part[place])
        made = Card({**row_json(rows, place, watch.marks), "again": parts[part].again})
        sides: tuple[Side, ...] = ("before", "after") if rows.status[place] == good else ("before",)
        problems = []
        for number, side in enumerate(sides):
            store = (side, *(rows.text("url", place) or "").split("/", 3)[:3])
            if store in silent:
                problems.append(silent[store])
                continue
            try:
                image = photos.open(rows, place, side, first_side(most_bytes))
            except (OSError, NstError) as error:
                problems.append(f"{_NAMES[side]} cannot be read: {error}")
                if isinstance(error, StoreError):
                    silent[store] = problems[-1]
                continue
            data, side_px = thumbnail(image, most_bytes)
            made.small[number] = base64.b64encode(data).decode()
            made.sides_px.append(side_px)
        made.row["small"] = [side for side, small in zip(_NAMES, made.small, strict=True) if small]
        made.row["problem"] = "; ".join(problems)
        made.row["full"] = _addresses(watch, photos, rows, place)
        if "after" in sides and curved[part]:
            made.row["curve"] = _curve(parts[part].store.read, made.row["key"], most_points)
        return made

    found = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for made in pool.map(card, places):
            found.append(made)
            tell(len(found), len(places))
    return found


def _addresses(watch: Watch, photos: Photos, rows: Rows, place: int) -> dict[Side, str | None]:
    """Where the files themselves are, as seen from the report; None: nowhere that a browser would show."""
    picture = photos.path(rows, place)
    before, now = watch.record.job.get("output", watch.store.url), watch.store.url
    url, root = rows.text("url", place) or "", local_path(now)
    there = [path for each in (url, moved_along(url, before, now)) if each and (path := local_path(each))]
    found = next((path for path in there if os.path.exists(path)), None)
    if root is None or found is None or not found.lower().endswith(_BROWSERS_KNOW):
        photograph = None
    else:
        photograph = quote(os.fsencode(os.path.relpath(found, root)))
    return {"before": photograph, "after": None if picture is None else quote(picture)}


def _has_curves(store: Store, part: Store) -> bool:
    """Whether there are any: most jobs have none, and are not asked for one by one."""
    return CURVES in (part if has_own_pictures(part) else store).names("")


def _curve(read: Callable[[str], bytes], key: str, most_points: int) -> list[str] | None:
    """The photograph's loss over its evaluations: the points of a line, and what it shows; or no points, and
    why there are none. None: there is no curve of it."""
    try:
        found = read_curve(read(curve_path(key)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return ["", f"loss curve cannot be read: {error}"]
    losses = [(number, loss) for number, loss in enumerate(found.get("loss", ()), 1) if math.isfinite(loss)]
    if not losses:
        return ["", "its curve has no finite loss"]
    return list(curve_line(losses, key, most=most_points))
