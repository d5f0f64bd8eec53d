"""PNGs whose file ends too early: the pixels that are there."""

from __future__ import annotations

import struct
import zlib

from nst.images.lossless import png_chunk

__all__ = ["completed_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7's passes: the first column and row of each, and the steps to the next."""


def completed_png(data: bytes) -> bytes | None:
    """A PNG with zeros for the pixels that are missing at its end; None: it is not cut, or has no pixel.

    Raises:
        zlib.error: it is damaged otherwise.
    """
    place, head, packed = 8, _SIGNATURE, bytearray()  # of thousands of chunks
    width = height = bits = color = interlaced = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        if kind == b"IEND":
            return None
        if kind == b"IDAT":
            packed += body
        elif place + 12 + length > len(data):
            break
        elif not packed:
            head += data[place : place + 12 + length]
        if kind == b"IHDR":
            width, height, bits, color, interlaced = struct.unpack(">IIBB2xB", body)
        place += 12 + length
    if not packed or color not in _CHANNELS:
        return None
    pixel_bits = bits * _CHANNELS[color]
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for x, y, across, down in passes:
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        total += max(0, rows) * (1 + -(-columns * pixel_bits // 8)) if columns > 0 else 0
    rows_there = zlib.decompressobj().decompress(packed, total)
    if not rows_there or len(rows_there) >= total:
        return None
    whole = zlib.compress(rows_there + bytes(total - len(rows_there)), 1)
    return head + png_chunk(b"IDAT", whole) + png_chunk(b"IEND", b"")
