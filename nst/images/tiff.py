"""TIFF: which of a file's pictures is the photograph, and what it looks like.

Pillow reads many layouts, and some wrongly without a word: 16 bits white-is-zero, 16 bits in planes, signed
ones, subsampled YCbCr. So its libtiff only undoes the compression; what the bytes mean is decided here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from nst.errors import DecodeError
from nst.images.raw import RawFile
from nst.images.tiff_color import picture_of
from nst.images.tiff_samples import Layout, layout_of, number, numbers, samples_of

__all__ = ["TiffPage", "is_tiff", "main_page", "page_picture"]

_MOST_DIRECTORIES = 4096
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_INCHES = {2: 1.0, 3: 2.54}  # ResolutionUnit: how many of it an inch has
_RAW = (32803, 34892)  # PhotometricInterpretation: the mosaic of a camera's sensor; DNG's linear raw


@dataclass(frozen=True, slots=True)
class TiffPage:
    """The directory of a TIFF that describes its photograph."""

    tags: ImageFileDirectory_v2
    at: int
    """Where it is in the file, in bytes."""
    exif_at: int
    """Where the directory is that has its EXIF: itself, or that of the page which it belongs to."""
    frames: int
    """How many pages the file has; thumbnails and masks are none."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as stored."""
        return number(self.tags, 256, 0), number(self.tags, 257, 0)


def is_tiff(data: bytes) -> bool:
    """Whether these bytes begin as a TIFF does."""
    return data.startswith(tuple(TiffImagePlugin.PREFIXES))


def main_page(data: bytes) -> TiffPage:
    """Find the photograph among a TIFF's pictures: the first that is no thumbnail and no mask.

    Raises:
        RawFile: a camera's.
        DecodeError: there are thumbnails only.
    """
    found = [*_directories(data)]
    if not found:
        raise DecodeError("a damaged TIFF: it has no picture")
    first = found[0][1]
    is_raw = any(number(tags, 262, 0) in _RAW for _, tags, _ in found)
    if is_raw or 50706 in first or data[8:10] == b"CR":  # DNG and Canon say what they are
        maker = " ".join(str(first.get(271, "")).replace("\0", " ").split())
        raise RawFile(maker)
    plain = [each for each in found if not _is_part(each[1])]
    if not plain:
        raise DecodeError("a TIFF that has only reduced pictures (thumbnails), not the photograph")
    pages = [(at, tags, parent) for at, tags, parent in plain if at == parent]
    at, tags, parent = (pages or plain)[0]
    return TiffPage(tags, at, parent, max(1, len(pages)))


def _is_part(tags: ImageFileDirectory_v2) -> bool:
    """Whether it is a thumbnail or a mask of another picture."""
    return bool(number(tags, 254, 0) & (_REDUCED | _MASK)) or number(tags, 255, 1) == 2


def _directories(data: bytes) -> Iterator[tuple[int, ImageFileDirectory_v2, int]]:
    """Every directory: where it is, what it says, and where that of the page is which it belongs to."""
    # Pillow knows BigTIFF by its third byte, which is the fourth if the high bytes come first.
    file, head = io.BytesIO(data), b"II+\0" + data[4:16] if _is_big(data) else data[:8]
    at, seen = ImageFileDirectory_v2(head, prefix=data[:2]).next, set[int]()

    def directory(place: int) -> ImageFileDirectory_v2:
        seen.add(place)
        tags = ImageFileDirectory_v2(head, prefix=data[:2])
        file.seek(place)
        tags.load(file)
        return tags

    while at and at not in seen and len(seen) < _MOST_DIRECTORIES:
        is_first = not seen
        try:
            tags = directory(at)
            yield at, tags, at
            for place in numbers(tags, 330)[:_MOST_DIRECTORIES]:
                if place not in seen:
                    yield place, directory(place), at
            at = tags.next
        except Exception:  # a damaged later directory is not asked for
            if is_first and at not in seen:
                raise
            return


def page_picture(data: bytes, page: TiffPage) -> Image.Image:
    """Decode a page, its EXIF with it: mode L, LA, RGB, RGBA or CMYK; fax and JPEG as Pillow gives them.

    RGB of 16 bits is cut to the upper 8, as Pillow does for PNG; all else is rounded.

    Raises:
        DecodeError: damaged, or of a layout that is not known; it is named.
    """
    layout = layout_of(page.tags)
    if _is_pillows(layout):
        return _by_pillow(data, page, layout)  # which knows its resolution
    picture = picture_of(samples_of(data, page.tags, layout), page.tags, layout)
    profile = page.tags.get(34675)
    if isinstance(profile, bytes) and layout.photometric not in (8, 9):
        picture.info["icc_profile"] = profile
    exif = picture.getexif()
    exif.bigtiff, exif.endian = _is_big(data), layout.order
    if not exif.bigtiff or layout.order == "<":  # Pillow has no EXIF of the others
        exif.load_from_fp(io.BytesIO(data), page.exif_at)
    if 274 in page.tags:
        exif[274] = page.tags[274]
    if (unit := number(page.tags, 296, 2)) in _INCHES and 282 in page.tags and 283 in page.tags:
        picture.info["dpi"] = tuple(_INCHES[unit] * float(page.tags[tag]) for tag in (282, 283))
    return picture


def _is_pillows(layout: Layout) -> bool:
    """Whether the compression knows pixels, not bytes, and Pillow is right about what they mean."""
    if layout.compression in (2, 3, 4):  # fax
        return (layout.bits, layout.samples) == (1, 1) and layout.photometric in (0, 1)
    if layout.compression in (6, 7, 50001):  # JPEG, WebP
        plain = (layout.bits, layout.kind, layout.planar) == (8, 1, False)
        return plain and layout.photometric in (1, 2, 5, 6)
    return False


def _by_pillow(data: bytes, page: TiffPage, layout: Layout) -> Image.Image:
    """Read through a header that points to this page."""
    if _is_big(data):
        patched = data[:8] + struct.pack(f"{layout.order}Q", page.at) + data[16:]
    else:
        patched = data[:4] + struct.pack(f"{layout.order}I", page.at) + data[8:]
    try:
        picture = TiffImagePlugin.TiffImageFile(io.BytesIO(patched))
    except SyntaxError as error:
        raise layout.unknown() from error
    picture.load()
    return picture


def _is_big(data: bytes) -> bool:
    return data[2:4] in (b"\0+", b"+\0")
