"""Where things are that were moved after their places were put on record."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from jobs.errors import StoreError
from jobs.stores.filesystems import is_url, local_path, path_url

__all__ = ["Move", "moved_along", "read_moved_along"]


@dataclass(frozen=True, slots=True)
class Move:
    """A folder or prefix that was at one place, and is at another now."""

    before: str
    now: str

    def place(self, url: str) -> str:
        """Where that is now which was at `url`: the same, if it was not below the folder."""
        path = local_path(url)
        found = self._moved(url if path is None else path)
        if found is None:
            return url
        return found if is_url(found) else path_url(found)

    def _moved(self, place: str) -> str | None:
        before, now = self.before.rstrip("/"), self.now.rstrip("/")
        if place == before:
            return now
        return now + place[len(before) :] if place.startswith(f"{before}/") else None


def moved_along(url: str, before: str, now: str) -> str | None:
    """Where that is now which was at `url` on the disk, if it was moved together with a folder that was at
    `before` and is at `now`: it lies as it lay, seen from there. None: it was not moved so."""
    path = local_path(url)
    if path is None or before == now or is_url(before) or is_url(now):
        return None
    return path_url(os.path.normpath(os.path.join(now, os.path.relpath(path, before))))


def read_moved_along(url: str, before: str, now: str, read: Callable[[str], bytes]) -> bytes:
    """What `read` gives of `url`, or of where that is if it was moved along: see `moved_along`. Raises what it
    does."""
    try:
        return read(url)
    except (OSError, StoreError) as error:
        elsewhere = moved_along(url, before, now)
        if elsewhere is None:
            raise
        try:
            return read(elsewhere)
        except OSError:
            if isinstance(error, StoreError):  # of the disk that it was on, which may be back
                raise error from None
            raise
