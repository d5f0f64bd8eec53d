"""Style pictures as the painter sees them."""

from __future__ import annotations

from torch import Tensor

from nst.errors import OptionError
from nst.images.codec import decode_image, resize_image

__all__ = ["LEAST_STYLE_PX", "style_picture"]

LEAST_STYLE_PX = 8
"""Short side of the smallest style picture whose activations have moments."""


def style_picture(option: str, place: str, data: bytes, side_px: int) -> Tensor:
    """A style picture as the network sees it, (3, h, w), no longer than `side_px`.

    Args:
        option, place: what messages call it.

    Raises:
        OptionError: it is too small.
        DecodeError: it is no picture.
    """
    picture = decode_image(data)
    height, width = picture.shape[1:]
    if min(height, width) < LEAST_STYLE_PX:
        reason = f"is {width} x {height} pixels, and must have {LEAST_STYLE_PX} at least each way"
        raise OptionError(option, place, reason=reason)
    scale = min(1.0, side_px / max(height, width))
    size = [max(LEAST_STYLE_PX, round(side * scale)) for side in (height, width)]
    return resize_image(picture, (size[0], size[1]))
