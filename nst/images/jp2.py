"""JPEG 2000: what colors a file has."""

from __future__ import annotations

import struct

from nst.errors import DecodeError
from nst.images.cicp import boxes

__all__ = ["jp2_profile"]

_KNOWN = (12, 16, 17, 18)
"""Enumerated color spaces that the decoder gives as CMYK, RGB and gray: CMYK, sRGB, gray, sYCC."""


def jp2_profile(data: bytes) -> bytes | None:
    """The ICC profile of a JPEG 2000 file; None: it has none, and its colors are sRGB's or unsaid.

    Raises:
        DecodeError: a color space that is not read here.
    """
    for kind, start, end in boxes(data, 0, len(data)):
        if kind != b"jp2h":
            continue
        for inner, at, after in boxes(data, start, end):
            if inner != b"colr":
                continue
            method = data[at]
            if method in (2, 3):
                return data[at + 3 : after]
            (space,) = struct.unpack_from(">I", data, at + 3)
            if method == 1 and space not in _KNOWN:
                raise DecodeError(f"JPEG 2000 of color space {space}, which is not read here")
            return None
    return None
