"""A photograph painted at the size of its strokes, and carried up to its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nst.errors import Diverged
from nst.images.codec import as_float, levels_of, reduced, resize_image
from nst.ops.precision import Precision
from nst.style_transfer.color import luminance, with_luminance
from nst.style_transfer.options import PreserveColor
from nst.stylizer import Outcome, Stylized, row_bands

__all__ = [
    "REFERENCE_PX",
    "FeedForwardPlan",
    "at_its_size",
    "outcome_of",
    "reference_px",
    "seen_as",
]


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


def at_its_size(
    plan: FeedForwardPlan, image: Tensor, like: Tensor, paint: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The picture of a photograph, float (3, H, W) in [0, 1] or uint8, and of the same type; and numbers that
    are finite if it is, of which all but the first two make up its change. Both where `like` is.

    Args:
        like: of the type and on the device on which it is painted.
        paint: paints a photograph (3, h, w), no longer than strokes are to be.
    """
    photo = image.to(like.device, non_blocking=True)
    small = seen_as(plan, reduced(photo, plan.stroke_side_px, like.dtype))
    if plan.strength == 0:
        return photo.clone(), torch.stack([*small.aminmax(), small.new_zeros(())])
    painted = paint(small)
    picture, changes = _finished(plan, photo, small, painted)
    return picture, torch.cat([torch.stack(painted.aminmax()), changes])


def outcome_of(picture: Tensor, numbers: Tensor) -> Outcome:
    """What `at_its_size` gave as an outcome: an error if it is not finite. A GPU is waited for once."""
    numbers = numbers.to("cpu", non_blocking=True)  # there when what is copied next is there
    image = picture.to("cpu", torch.float32 if picture.is_floating_point() else None)
    if not numbers.isfinite().all():
        return Diverged("the network's picture is not finite")
    return Stylized(image=image, stats={"change": sum(numbers[2:].tolist()) / image.numel()})


def seen_as(plan: FeedForwardPlan, photo: Tensor) -> Tensor:
    """A photograph as it is painted."""
    return luminance(photo) if plan.preserve_color == "luminance" else photo


def reference_px(photo: Tensor) -> int:
    """Long side of what the moments of a photograph (3, H, W) are taken from, as it is painted."""
    share = round(_REFERENCE_SHARE * max(photo.shape[-2:]))
    return min(REFERENCE_PX, max(_LEAST_REFERENCE_PX, share))


def _finished(plan: FeedForwardPlan, photo: Tensor, small: Tensor, painted: Tensor) -> tuple[Tensor, Tensor]:
    """The painted picture (3, h, w) at the photograph's size and of its type (3, H, W), with what of the
    photograph's luminance `small` has lost, and in its colors if they are kept; and sums whose sum is that of
    all changes. Some rows at a time: photographs may be large."""
    larger = small.shape != photo.shape
    change = painted - luminance(small) if larger else painted
    out, sums = torch.empty_like(photo), []
    for rows in row_bands(photo.shape[1], photo.shape[2]):
        before = as_float(photo[:, rows], painted.dtype)
        band = _enlarged(change, (photo.shape[1], photo.shape[2]), rows)
        if larger:
            band = band + luminance(before)
        if plan.preserve_color in ("luminance", "original"):
            band = with_luminance(before, band)
        band = band.clamp(0, 1)
        out[:, rows] = levels_of(band) if out.dtype == torch.uint8 else band
        sums.append(band.sub_(before).abs_().sum())
    return out, torch.stack(sums)


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
