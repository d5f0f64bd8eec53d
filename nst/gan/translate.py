"""Photographs through a trained generator, whatever their size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.errors import Diverged
from nst.images.codec import levels_of
from nst.ops.captured import is_captured
from nst.ops.constant import constant
from nst.stylizer import Outcome, Stylized

__all__ = ["checked_outcomes", "mirrored_beyond", "translate", "with_channels"]

_LUMA = (0.299, 0.587, 0.114)


def checked_outcomes(
    pictures: Tensor, photo: Tensor, stats: Sequence[Mapping[str, float]] = ()
) -> list[Outcome]:
    """What a generator made of photographs, (N, 3, H, W) in [0, 1], as their outcomes, of the type of a
    photograph, float32 or uint8: an error for one that is not finite. A GPU looks and rounds by itself, and is
    waited for once.

    Args:
        stats: what to keep with each; none: nothing.
    """
    extremes = torch.stack([each for picture in pictures for each in picture.aminmax()]).view(-1, 2)
    extremes = extremes.to("cpu", non_blocking=True)  # there when what is copied next is there
    images = pictures.to("cpu", torch.float32) if photo.is_floating_point() else levels_of(pictures).to("cpu")
    finite = extremes.isfinite().all(1).tolist()
    return [
        Stylized(image=image, stats=known) if good else Diverged("the generator's picture is not finite")
        for image, good, known in zip(images, finite, stats or [{} for _ in images], strict=True)
    ]


def translate(
    network: Callable[[Tensor], Tensor], images: Tensor, multiple: int, least: int, channels: int = 3
) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] of images of the same shape and range, by a network of [-1, 1].

    Args:
        multiple, least: what the network needs of height and width: images are mirrored at the border to it,
            and cropped back.
        channels: those of its images, 1 (gray) or 3. Its pictures may have others.
    """
    height, width = images.shape[-2:]
    padded = with_channels(images, channels)
    for dim, length in ((-1, width), (-2, height)):
        wanted = max(least, length + -length % multiple)
        if wanted > length:
            padded = mirrored_beyond(padded, dim, 0, wanted - length)
    found = network(2 * padded - 1).to(images.dtype)
    return with_channels(((found[..., :height, :width] + 1) / 2).clamp(0, 1), 3)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """RGB or gray (N, 3 or 1, H, W) as RGB or gray; of RGB the luma (ITU-R BT.601), as Pillow makes it."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    return (images * constant(_LUMA, images)[:, None, None]).sum(1, keepdim=True)


def mirrored_beyond(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Put pixels before the first and after the last of `dim`: mirrored, back and forth if it is short."""
    length = x.shape[dim]
    # An exported network takes any length; else it is a tenth of the time.
    if not is_captured() and max(before, after) < length and dim - x.ndim * (dim >= 0) in (-1, -2):
        sides = (before, after, 0, 0) if dim in (-1, x.ndim - 1) else (0, 0, before, after)
        return F.pad(x, sides, mode="reflect")
    period = (2 * torch.arange(length, device=x.device).amax(0)).clamp_min(1)  # ONNX divides by no size
    places = torch.arange(-before, length + after, device=x.device) % period
    return x.index_select(dim, torch.where(places < length, places, period - places))
