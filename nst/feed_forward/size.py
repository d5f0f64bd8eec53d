"""A photograph painted at the size of its strokes, and carried up to its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nst.gan.translate import checked_outcomes
from nst.images.codec import resize_image
from nst.style_transfer.color import luminance, with_luminance
from nst.style_transfer.options import PreserveColor
from nst.stylizer import Outcome, Stylized, mean_change, row_bands

__all__ = [
    "REFERENCE_PX",
    "FeedForwardPlan",
    "Precision",
    "at_its_size",
    "outcome_of",
    "reduced",
    "reference_px",
    "seen_as",
]

Precision = Literal["float32", "bfloat16"]

REFERENCE_PX = 576
"""Long side of what a photograph's moments are taken from, at most."""
_LEAST_REFERENCE_PX, _REFERENCE_SHARE = 384, 3 / 8
"""And at least; between, it is this share of the photograph's."""


@dataclass(frozen=True, slots=True)
class FeedForwardPlan:
    """Options of the method that the stylizer needs."""

    strength: float
    preserve_color: PreserveColor
    stroke_side_px: int | None
    precision: Precision
    pass_memory_mb: int | None


def at_its_size(plan: FeedForwardPlan, image: Tensor, paint: Callable[[Tensor], Tensor]) -> Tensor:
    """A photograph (3, H, W) in [0, 1] as `paint` paints it, which gets it no longer than strokes are to be."""
    if plan.strength == 0:
        return image.clone()
    small = seen_as(plan, reduced(image, plan.stroke_side_px))
    return _finished(plan, image, small, paint(small))


def outcome_of(picture: Tensor, photo: Tensor) -> Outcome:
    """What was painted of a photograph, both (3, H, W), as its outcome: an error if it is not finite."""
    (found,) = checked_outcomes(picture[None])
    if isinstance(found, Stylized):
        return replace(found, stats={"change": mean_change(found.image, photo)})
    return found


def seen_as(plan: FeedForwardPlan, photo: Tensor) -> Tensor:
    """A photograph as it is painted."""
    return luminance(photo) if plan.preserve_color == "luminance" else photo


def reference_px(photo: Tensor) -> int:
    """Long side of what the moments of a photograph (3, H, W) are taken from, as it is painted."""
    share = round(_REFERENCE_SHARE * max(photo.shape[-2:]))
    return min(REFERENCE_PX, max(_LEAST_REFERENCE_PX, share))


def reduced(photo: Tensor, side_px: int | None) -> Tensor:
    """The photograph, at most this long."""
    height, width = photo.shape[-2:]
    if side_px is None or max(height, width) <= side_px:
        return photo
    scale = side_px / max(height, width)
    return resize_image(photo, (max(1, round(height * scale)), max(1, round(width * scale))))


def _finished(plan: FeedForwardPlan, image: Tensor, small: Tensor, painted: Tensor) -> Tensor:
    """The painted picture (3, h, w) at the photograph's size (3, H, W), with what of the photograph's
    luminance `small` has lost, and in its colors if they are kept. Some rows at a time: photographs may be
    large."""
    larger = small.shape != image.shape
    change = painted - luminance(small) if larger else painted
    out = torch.empty_like(image)
    for rows in row_bands(image.shape[1]):
        band = _enlarged(change, (image.shape[1], image.shape[2]), rows)
        if larger:
            band = band + luminance(image[:, rows])
        if plan.preserve_color in ("luminance", "original"):
            band = with_luminance(image[:, rows], band)
        torch.clamp(band, 0, 1, out=out[:, rows])
    return out


def _enlarged(image: Tensor, size: tuple[int, int], rows: slice) -> Tensor:
    """These rows of an image (3, h, w) at a size, as `resize_image` enlarges."""
    (height, width), (before, _) = size, image.shape[1:]
    if (height, width) == tuple(image.shape[1:]):
        return image[:, rows]
    places = (np.arange(rows.start, rows.stop) + 0.5) * before / height - 0.5
    places = places.clip(0, before - 1)
    above = places.astype(np.int64)
    first, last = int(above[0]), min(int(above[-1]) + 2, before)
    below = (above + 1).clip(max=before - 1)
    wide = resize_image(image[:, first:last], (last - first, width))
    one, other = (
        wide[:, torch.from_numpy(each - first).to(image.device, non_blocking=True)] for each in (above, below)
    )
    return torch.lerp(one, other, torch.from_numpy(places - above).to(image, non_blocking=True)[:, None])
