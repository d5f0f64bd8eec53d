"""TIFFs of every layout, written tag by tag: neither Pillow nor tifffile can write them all."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

Samples = NDArray[Any]

COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773, "zstd": 50000, "lzma": 34925}
_PILLOWS = {"lzw": "tiff_lzw", "packbits": "packbits", "zstd": "zstd", "lzma": "lzma"}
_CODES = {2: "B", 3: "H", 4: "I", 12: "d", 16: "Q"}


@dataclass(frozen=True)
class Page:
    """A directory and its picture."""

    samples: Samples
    """(H, W, S): what `bits` bits of each sample hold; floats are written as they are."""
    photometric: int = 2
    bits: int = 8
    tags: dict[int, Any] = field(default_factory=dict)
    """Whole numbers or bytes that the directory says too."""
    planar: bool = False
    tile: tuple[int, int] | None = None
    """Rows and columns of one; None: strips."""
    rows_per_strip: int = 16
    compression: str = "none"
    predictor: int = 1
    children: tuple[Page, ...] = ()
    """SubIFDs."""
    segments: tuple[bytes, ...] | None = None
    """If the picture is encoded already, and how is said by the tags."""


def compressed(raw: bytes, row_bytes: int, how: str) -> bytes:
    if how == "none":
        return raw
    if how == "deflate":
        return zlib.compress(raw)
    out = io.BytesIO()
    image = Image.frombytes("L", (row_bytes, len(raw) // row_bytes), raw)
    image.save(out, "TIFF", compression=_PILLOWS[how])
    out.seek(0)
    tags = TiffImagePlugin.TiffImageFile(out).tag_v2
    (start,), (size,) = tags[273], tags[279]
    return out.getvalue()[start : start + size]


def packed(samples: Samples, page: Page, order: str) -> bytes:
    """Rows of one strip or tile: differences taken, bits packed."""
    rows, each = samples.shape[0], samples.shape[2]
    if page.predictor == 3:
        big = samples.astype(samples.dtype.newbyteorder(">")).reshape(rows, -1)
        by_byte = big.view(np.uint8).reshape(rows, -1, samples.itemsize).swapaxes(1, 2).reshape(rows, -1, each)
        return np.concatenate([by_byte[:, :1], np.diff(by_byte, axis=1)], axis=1).tobytes()
    if page.predictor == 2:
        whole = np.ascontiguousarray(samples).view(f"u{samples.itemsize}")
        samples = np.concatenate([whole[:, :1], whole[:, 1:] - whole[:, :-1]], axis=1)
    if page.bits == 8 * samples.itemsize:
        return samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    places = np.arange(page.bits - 1, -1, -1)
    bits = (samples.reshape(rows, -1)[:, :, None].astype(np.uint32) >> places) & 1
    return np.packbits(bits.reshape(rows, -1).astype(np.uint8), axis=1).tobytes()


def _segments(page: Page, order: str) -> list[bytes]:
    if page.segments is not None:
        return [*page.segments]
    planes = np.split(page.samples, page.samples.shape[2], axis=2) if page.planar else [page.samples]
    found = []
    for plane in planes:
        height, width = plane.shape[:2]
        down, across = page.tile or (page.rows_per_strip, width)
        for top in range(0, height, down):
            for left in range(0, width, across):
                part = plane[top : top + down, left : left + across]
                if page.tile:
                    part = np.pad(part, ((0, down - part.shape[0]), (0, across - part.shape[1]), (0, 0)))
                raw = packed(part, page, order)
                segment = compressed(raw, len(raw) // len(part), page.compression)
                if page.tags.get(266) == 2:  # the lowest bit first
                    bits = np.unpackbits(np.frombuffer(segment, np.uint8)).reshape(-1, 8)
                    segment = np.packbits(bits[:, ::-1]).tobytes()
                found.append(segment)
    return found


def tiff(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    """A file of these pages."""
    mark = b"II" if order == "<" else b"MM"
    out = bytearray(
        mark + struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else mark + struct.pack(order + "HI", 42, 0)
    )
    link = 8 if big else 4
    word, count_word, at_word = ("Q", "Q", 16) if big else ("I", "H", 4)

    def put(page: Page) -> tuple[int, int]:
        """Where its directory is, and where the place is that points to the next."""
        children = [put(child)[0] for child in page.children]
        places, sizes = [], []
        for segment in _segments(page, order):
            out.extend(bytes(len(out) % 2))
            places.append(len(out))
            sizes.append(len(segment))
            out.extend(segment)
        height, width, samples = page.samples.shape
        kind = {"u": 1, "i": 2, "f": 3}[page.samples.dtype.kind]
        tags: dict[int, Any] = {
            256: width, 257: height, 258: [page.bits] * samples, 259: COMPRESSIONS[page.compression],
            262: page.photometric, 277: samples, 284: 2 if page.planar else 1, 317: page.predictor,
            339: [kind] * samples,
        }  # fmt: skip
        if page.tile:
            tags |= {322: page.tile[1], 323: page.tile[0], 324: places, 325: sizes}
        else:
            tags |= {278: page.rows_per_strip, 273: places, 279: sizes}
        if children:
            tags[330] = children
        tags |= page.tags
        cells = bytearray()
        for tag, value in sorted((tag, value) for tag, value in tags.items() if value is not None):
            values = [*value] if isinstance(value, bytes | list | tuple) else [value]
            code = 2 if isinstance(value, bytes) else at_word if tag in (273, 279, 324, 325, 330) else 4
            code = 12 if isinstance(values[0], float) else 3 if code == 4 and max(values) < 1 << 16 else code
            body = struct.pack(f"{order}{len(values)}{_CODES[code]}", *values)
            if len(body) > struct.calcsize(word):
                out.extend(bytes(len(out) % 2))
                at = len(out)
                out.extend(body)
                body = struct.pack(order + word, at)
            cells += struct.pack(f"{order}HH{word}", tag, code, len(values)) + body.ljust(
                struct.calcsize(word), b"\0"
            )
        out.extend(bytes(len(out) % 2))
        at = len(out)
        out.extend(
            struct.pack(order + count_word, len(cells) // struct.calcsize(f"={'HH' + 2 * word}")) + cells
        )
        out.extend(bytes(struct.calcsize(word)))
        return at, len(out) - struct.calcsize(word)

    for page in pages:
        at, next_link = put(page)
        struct.pack_into(order + word, out, link, at)
        link = next_link
    return bytes(out)


__all__ = ["COMPRESSIONS", "Page", "Samples", "compressed", "packed", "tiff"]
