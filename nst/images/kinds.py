"""What kind of picture a file is, by its first bytes."""

from __future__ import annotations

import re

__all__ = ["HEAD_BYTES", "kind_of_head"]

HEAD_BYTES = 32
"""Bytes at a file's beginning that say what it is."""

_BEGINNINGS = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WebP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "AVIF": re.compile(rb"....ftypavi[fs]", re.DOTALL),
    "HEIC": re.compile(rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
    "JPEG 2000": re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    "JPEG XL": re.compile(rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a"),
    "RAW": re.compile(rb"....ftypcrx |FUJIFILMCCD-RAW|II(?:RO|RS|U\0)|MMOR|FOVb|\0MRM", re.DOTALL),
}
"""RAW files are mostly TIFFs; these are the others."""


def kind_of_head(head: bytes) -> str | None:
    """The format that a file is in, as JPEG, or RAW for a camera's own; None: no format of photographs."""
    return next((kind for kind, beginning in _BEGINNINGS.items() if beginning.match(head)), None)
