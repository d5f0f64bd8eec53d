"""How large a picture is, from a few hundred bytes of its file: a bomb need not be read to be refused."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

__all__ = ["ReadAt", "picture_size"]

ReadAt: TypeAlias = Callable[[int, int], bytes]
"""`read_at(start, length)` of a file; fewer bytes at its end."""

_MOST_STEPS = 4096
"""Segments, tags or boxes that are looked at; photographs have tens."""

_JP2, _JXL = b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def picture_size(read_at: ReadAt) -> tuple[int, int] | None:
    """(width, height) as the header says, of JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIF, JPEG 2000
    and JPEG XL.

    None if the header does not say, which proves nothing: the picture's reader has the last word.
    """
    head = read_at(0, 32)
    try:
        if head.startswith(b"\xff\xd8"):
            return _jpeg(read_at)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return _unpack(">II", head[16:24])
        if head.startswith(b"GIF8"):
            return _unpack("<HH", head[6:10])
        if head.startswith(b"BM"):
            return _bmp(head)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp(head)
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(read_at, head)
        if head.startswith((_JP2, b"\xff\x4f\xff\x51")):
            return _jpeg_2000(read_at, head)
        if head.startswith((_JXL, b"\xff\x0a")):
            return _jpeg_xl(read_at, head)
        if head[4:8] == b"ftyp":
            return max(_heif_sizes(read_at), key=lambda size: size[0] * size[1], default=None)
    except (struct.error, IndexError, OverflowError):  # it ends before it says, or points beyond all files
        pass
    return None


def _unpack(layout: str, data: bytes) -> tuple[int, int]:
    width, height = struct.unpack(layout, data)
    return width, height


def _jpeg(read_at: ReadAt) -> tuple[int, int] | None:
    place = 2
    for _ in range(_MOST_STEPS):
        segment = read_at(place, 9)
        marker = segment[1]
        if segment[0] != 0xFF or marker == 0xFF:  # fill bytes, or, as readers allow, rubbish
            place += 1
        elif marker == 0 or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            place += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = _unpack(">HH", segment[5:9])
            return width, height
        elif marker in (0xD9, 0xDA):
            return None
        else:
            place += 2 + int.from_bytes(segment[2:4], "big")
    return None


def _bmp(head: bytes) -> tuple[int, int]:
    if head[14:18] == b"\x0c\0\0\0":
        return _unpack("<HH", head[18:22])
    width, height = _unpack("<ii", head[18:26])
    return abs(width), abs(height)  # below zero: from top to bottom


def _webp(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = _unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(read_at: ReadAt, head: bytes) -> tuple[int, int] | None:
    """The first directory's ImageWidth and ImageLength; it may be anywhere in the file."""
    order = "<" if head.startswith(b"II") else ">"
    if 43 in head[2:4]:  # BigTIFF
        (place,) = struct.unpack(f"{order}Q", head[8:16])
        (count,) = struct.unpack(f"{order}Q", read_at(place, 8))
        place, entry_bytes, value_at = place + 8, 20, 12
    else:
        (place,) = struct.unpack(f"{order}I", head[4:8])
        (count,) = struct.unpack(f"{order}H", read_at(place, 2))
        place, entry_bytes, value_at = place + 2, 12, 8
    entries = read_at(place, entry_bytes * min(count, _MOST_STEPS))
    found: dict[int, int] = {}
    for start in range(0, len(entries) - entry_bytes + 1, entry_bytes):
        tag, kind = struct.unpack_from(f"{order}HH", entries, start)
        if tag in (256, 257):
            layout = {3: "H", 4: "I", 16: "Q"}.get(kind, "I")
            (found[tag],) = struct.unpack_from(order + layout, entries, start + value_at)
    return (found[256], found[257]) if len(found) == 2 else None


def _heif_sizes(read_at: ReadAt) -> Iterator[tuple[int, int]]:
    """The sizes of every picture in the file: the whole, its tiles, its thumbnails (ISO 23008-12, `ispe`)."""
    waiting = [(0, 1 << 62)]
    for _ in range(_MOST_STEPS):
        if not waiting:
            return
        start, end = waiting.pop()
        box = read_at(start, 20)
        if start >= end or len(box) < 8:
            continue
        size, kind, inner = int.from_bytes(box[:4], "big"), box[4:8], start + 8
        if size == 1:
            size, inner = int.from_bytes(box[8:16], "big"), start + 16
        after = start + size if size else end  # 0: to the end of the file
        if kind == b"ispe":
            yield _unpack(">II", box[12:20])
        waiting.append((after, end))
        if kind in (b"meta", b"iprp", b"ipco"):
            waiting.append((inner + 4 if kind == b"meta" else inner, min(after, end)))


def _content(read_at: ReadAt, wanted: tuple[bytes, ...]) -> tuple[bytes, int] | None:
    """The kind of the first box of these kinds at the top of a file, and where its content is."""
    place = 0
    for _ in range(_MOST_STEPS):
        box = read_at(place, 16)
        if len(box) < 8:
            return None
        size, kind, inner = int.from_bytes(box[:4], "big"), box[4:8], place + 8
        if size == 1:
            size, inner = int.from_bytes(box[8:16], "big"), place + 16
        if kind in wanted:
            return kind, inner
        if size < inner - place:
            return None
        place += size
    return None


def _jpeg_2000(read_at: ReadAt, head: bytes) -> tuple[int, int] | None:
    """The image and its offset on the reference grid (ISO 15444-1, A.5.1), or the box `ihdr`."""
    if head.startswith(b"\xff\x4f"):
        right, bottom, left, top = struct.unpack(">IIII", head[8:24])
        return right - left, bottom - top
    found = _content(read_at, (b"jp2h",))
    if found is None:
        return None
    height, width = _unpack(">II", read_at(found[1] + 8, 8))  # `ihdr` is the first within
    return width, height


def _jpeg_xl(read_at: ReadAt, head: bytes) -> tuple[int, int] | None:
    """The size that a codestream begins with (ISO 18181-1, SizeHeader): bits, the lowest first."""
    start = 0
    if not head.startswith(b"\xff\x0a"):
        found = _content(read_at, (b"jxlc", b"jxlp"))
        if found is None:
            return None
        start = found[1] + (4 if found[0] == b"jxlp" else 0)
    bits = int.from_bytes(read_at(start + 2, 12), "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def length() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = length()
    ratio = take(3)
    if ratio == 0:
        return length(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height
