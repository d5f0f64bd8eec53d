"""How large the thumbnails of a report are: as large as fits into a file that can be mailed and opened."""

from __future__ import annotations

import io

from PIL import Image

__all__ = ["TYPE", "first_side", "share", "thumbnail"]

TYPE = "image/webp"
_MOST_BYTES = 34_000_000
"""What all thumbnails of a report take together, as they stand in it; with all else it stays below 40 MB."""
_MOST_OF_ONE = 120_000
_SIDES_PX = (720, 600, 500, 420, 350, 290, 240, 200, 165, 135, 110)
_LEAST_BYTES_PER_PIXEL = 0.04
"""What photographs need at least: sides that would leave them less are not tried."""
_QUALITY, _LEAST_QUALITY = 80, 10


def share(count: int) -> int:
    """The bytes that each of so many thumbnails may have."""
    return min(_MOST_OF_ONE, _MOST_BYTES * 3 // 4 // max(1, count))  # as text, three bytes are four


def first_side(most_bytes: int) -> int:
    """The longest side in pixels that a thumbnail of so many bytes may have."""
    fits = [side for side in _SIDES_PX if side * side * _LEAST_BYTES_PER_PIXEL <= most_bytes]
    return fits[0] if fits else _SIDES_PX[-1]


def thumbnail(image: Image.Image, most_bytes: int) -> tuple[bytes, int]:
    """A WebP of at most so many bytes, and its longer side in pixels: the largest of those that fit."""
    for side in _SIDES_PX[_SIDES_PX.index(first_side(most_bytes)) :]:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        data = _webp(small, _QUALITY)
        if len(data) <= most_bytes:
            break
    else:  # noise
        data = _webp(small, _LEAST_QUALITY)
    return data, max(small.size)


def _webp(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()
