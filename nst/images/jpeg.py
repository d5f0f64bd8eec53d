"""JPEGs that end without saying so: whether their picture is all there. And gain maps beside the picture."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

__all__ = ["ENDINGS", "End", "closed", "end_of", "has_gain_map"]

End: TypeAlias = Literal["marked", "open", "early"]

ENDINGS = tuple(filler + b"\xff\xd9" for filler in (b"", 256 * b"\x55", 256 * b"\xa6", 256 * b"\x07\xd3"))
"""What may follow the last pixel. To a picture that is all there these are all the same; where pixels are
missing, a decoder takes them for pixels."""

_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_GAIN_MAPS = (b"http://ns.adobe.com/hdr-gain-map/1.0/", b"urn:iso:std:iso:ts:21496:-1", b"/HDRGainMap/1.0/")


def has_gain_map(data: bytes) -> bool:
    """Whether a second picture says how bright the first is on a screen of high dynamic range."""
    return any(name in data for name in _GAIN_MAPS)


def end_of(data: bytes) -> End:
    """How a JPEG ends: `marked`; or `open`, without a marker; or `early`, so too, and before every coefficient
    of every component was in some scan to its last bit (ISO 10918-1, G)."""
    place, missing = 2, dict[int, list[int]]()
    progressive = False
    while place + 2 <= len(data):
        if data[place] != 0xFF or data[place + 1] in (0x00, 0x01, 0xFF, *range(0xD0, 0xD9)):
            place += 1
            continue
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if marker == 0xD9:
            return "marked"
        place += 2 + length
        if place > len(data):
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            progressive = marker in (0xC2, 0xCA)
            missing = {body[6 + 3 * each]: [1] * 64 for each in range(body[5])}
        elif marker == 0xDA:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            for each in range(count):
                for coefficient in range(first, last + 1) if progressive else range(64):
                    missing[body[1 + 2 * each]][coefficient] = bits & 15
            found = _AFTER_SCAN.search(data, place)
            if found is None:
                break
            place = found.start()
    return "open" if missing and not any(map(any, missing.values())) else "early"


def closed(data: bytes) -> bytes:
    """A JPEG that ends too early, with an end marker after what is there whole: decoders make up the pixels
    that are missing from those that are not."""
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF or data[place + 1] in (0x00, 0x01, 0xFF, *range(0xD0, 0xD9)):
            place += 1
            continue
        after = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if after > len(data):
            break
        if data[place + 1] == 0xDA:
            found = _AFTER_SCAN.search(data, after)
            if found is None:
                return data.rstrip(b"\xff") + ENDINGS[0]
            after = found.start()
        place = after
    return data[:place] + ENDINGS[0]
