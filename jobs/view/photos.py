"""A row's photograph and its picture, as a browser shows them: made on the fly, and kept as long as there is
room. Asked for by row; nobody names a path."""

from __future__ import annotations

import io
import re
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

from PIL import Image

from jobs.ledger.layout import PhotoFile, place_of
from jobs.ledger.parts import path_below
from jobs.stores.moved import read_moved_along
from jobs.stores.photo_files import read_photo_file
from jobs.view.index import Index, Part, Rows
from nst.images.decode import open_photo
from nst.recent import Recent

__all__ = ["THUMBNAIL_PX", "Photos", "Shown", "Side"]

Side: TypeAlias = Literal["before", "after"]
"""The photograph, or its picture."""
THUMBNAIL_PX = 320
_CACHE_BYTES = 256 << 20
_BROWSERS_KNOW = ("jpeg", "png", "webp", "avif")


@dataclass(frozen=True, slots=True)
class Shown:
    """A file for a browser."""

    data: bytes
    type: str


@dataclass(frozen=True, slots=True)
class Photos:
    """Photographs and pictures of a job.

    Args:
        at_once: held while one is decoded, so that memory and cores are shared out.
    """

    index: Index
    cache: Recent[str, Shown] = field(default_factory=lambda: Recent(_CACHE_BYTES, lambda file: len(file.data)))
    at_once: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(3))

    def tag(self, rows: Rows, place: int, side: Side, *, small: bool) -> str:
        """What names the file's bytes, before it is made."""
        size = THUMBNAIL_PX if small else f"full-{self._full_px(rows, place)}"
        digest = re.sub("[^0-9a-f]", "", rows.text(side, place) or "")
        return f"{side}-{size}-{rows.number[place]}-{digest or 'unknown'}"

    def thumbnail(self, rows: Rows, place: int, side: Side) -> Shown:
        """A small JPEG.

        Raises:
            FileNotFoundError: the row has no picture.
            OSError, NstError: it cannot be read.
        """
        tag = self.tag(rows, place, side, small=True)
        return self.cache.get(tag, lambda: self._jpeg(rows, place, side, THUMBNAIL_PX, 82))

    def full(self, rows: Rows, place: int, side: Side) -> Shown:
        """A picture as it was made, and a photograph as large as its picture, so that one lies on the other.

        Raises: as `thumbnail`.
        """
        kind = self._part(rows, place).record.image.format
        if side == "after" and kind in _BROWSERS_KNOW:
            return Shown(self._read(rows, place, side), f"image/{kind}")
        tag, most = self.tag(rows, place, side, small=False), self._full_px(rows, place)
        return self.cache.get(tag, lambda: self._jpeg(rows, place, side, most, 92))

    def _full_px(self, rows: Rows, place: int) -> int:
        """The longer side of the picture, which may be another one after it was done again."""
        size = max(rows.figures["width"][place], rows.figures["height"][place])
        return int(size) if size > 0 else 2048  # of one that failed nobody knows how large it would be

    def _jpeg(self, rows: Rows, place: int, side: Side, most: int, quality: int) -> Shown:
        out = io.BytesIO()
        self.open(rows, place, side, most).save(out, "JPEG", quality=quality)
        return Shown(out.getvalue(), "image/jpeg")

    def open(self, rows: Rows, place: int, side: Side, most: int) -> Image.Image:
        """It in pixels, upright, no side longer than `most`.

        Raises: as `thumbnail`.
        """
        data, image = self._read(rows, place, side), self._part(rows, place).record.image
        with self.at_once:
            return open_photo(data, max_side_px=most, max_pixels=image.max_pixels, background=image.background)

    def path(self, rows: Rows, place: int) -> str | None:
        """Where the picture is below the job's folder; None: there is none that a browser shows."""
        part, output = self._part(rows, place), rows.text("output", place) or ""
        if part.record.image.format not in _BROWSERS_KNOW or not _is_picture(output, part):
            return None
        return path_below(part.store, output)

    def _part(self, rows: Rows, place: int) -> Part:
        return self.index.parts[int(rows.part[place])]

    def _read(self, rows: Rows, place: int, side: Side) -> bytes:
        part = self._part(rows, place)
        if side == "before":
            before = part.record.job.get("output", self.index.store.url)
            url = rows.text("url", place) or ""
            # Whoever could not be painted may be no file, or one that is larger than memory.
            read = partial(
                read_photo_file,
                size_bytes=None,
                max_pixels=part.record.image.max_pixels,
                storage=part.record.storage,
            )
            return read_moved_along(url, before, self.index.store.url, read)
        output = rows.text("output", place) or ""
        if not _is_picture(output, part):
            raise FileNotFoundError("there is no picture")
        return part.store.read(output)


def _is_picture(output: str, part: Part) -> bool:
    """Whether that is a path of one, whatever a receipt may say."""
    return isinstance(place_of(output, part.record.image), PhotoFile) and ".." not in output.split("/")
