"""Small files whose headers promise more pixels than any photograph has, followed by megabytes of nothing."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from tests.charts import png_chunk
from tests.conftest import encoded, picture

PADDING = bytes(5 << 20)
SIDE = 60_000


def png() -> bytes:
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", PADDING)


def jpeg() -> bytes:
    data = bytearray(encoded(picture(1), "JPEG", exif=b"Exif\0\0" + bytes(60_000), icc_profile=bytes(300_000)))
    start = data.index(b"\xff\xc0\0\x11\x08")
    data[start + 5 : start + 9] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data) + PADDING


def gif() -> bytes:
    data = bytearray(encoded(picture(1), "GIF"))
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data) + PADDING


def bmp() -> bytes:
    data = bytearray(encoded(picture(1), "BMP"))
    data[18:26] = struct.pack("<ii", SIDE, -SIDE)
    return bytes(data) + PADDING


def tiff(order: str = "<", big: bool = False) -> bytes:
    """As most programs write it: the directory at the end."""
    entries = [(256, 4, SIDE), (257, 4, SIDE), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 9)]
    start = 16 + len(PADDING)
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, start)
        table = struct.pack(order + "Q", len(entries))
    else:
        head = (mark + struct.pack(order + "HI", 42, start)).ljust(16, b"\0")
        table = struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        cell = struct.pack(order + {3: "H", 4: "I"}[kind], value).ljust(8 if big else 4, b"\0")
        table += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, 1) + cell
    return head + PADDING + table + bytes(8)


def webp(kind: str) -> bytes:
    """Its sides have 14 bits, or 24 in the extended form."""
    if kind == "extended":
        body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + 2 * (SIDE - 1).to_bytes(3, "little")
    elif kind == "lossless":
        body = b"VP8L" + struct.pack("<I", len(PADDING)) + b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14)
    else:
        start = b"\x30\x01\0\x9d\x01\x2a"
        body = (
            b"VP8 " + struct.pack("<I", len(PADDING)) + start + struct.pack("<HH", 0xFFFF, 0xFFFF)
        )  # two bits scale
    return b"RIFF" + struct.pack("<I", len(body) + len(PADDING) + 4) + b"WEBP" + body + PADDING


def avif() -> bytes:
    data = bytearray(encoded(picture(1), "AVIF"))
    start = data.index(b"ispe") + 8
    data[start : start + 8] = struct.pack(">II", SIDE, SIDE)
    return bytes(data) + struct.pack(">I", len(PADDING) + 8) + b"free" + PADDING


BOMBS = {
    "png": png,
    "jpeg": jpeg,
    "gif": gif,
    "bmp": bmp,
    "tiff": tiff,
    "tiff big-endian": lambda: tiff(">"),
    "bigtiff": lambda: tiff(big=True),
    "webp": lambda: webp("lossy"),
    "webp lossless": lambda: webp("lossless"),
    "webp extended": lambda: webp("extended"),
    "avif": avif,
}


def large_photograph() -> bytes:
    """A good one of more than 2 MB."""
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()
