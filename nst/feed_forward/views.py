"""Squares of pictures as training sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.feed_forward.networks import STRIDE_PX
from nst.gan.trainer import cell_side
from nst.images.codec import resize_image

__all__ = ["contact_sheet", "recolored", "resized", "square", "whole_strides"]


def square(image: Tensor, least: int, most: int, row: Sequence[float]) -> Tensor:
    """A random square of an image (3, h, h): all ratios of its sides are alike.

    Args:
        row: three numbers in [0, 1).
    """
    side = round(math.exp(math.log(least) + row[0] * (math.log(most) - math.log(least))))
    top, left = (int(each * (image.shape[-1] - side + 1)) for each in row[1:3])
    return image[:, top : top + side, left : left + side]


def resized(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image[None], (side, side), mode="bilinear", antialias=True, align_corners=False)[0]


def recolored(image: Tensor, share: float, normal: Tensor) -> Tensor:
    """An image (3, h, w) with its channels mixed about their means, which move.

    Args:
        share: from 0, the image's own, to 1, the directions of a random rotation.
        normal: (4, 3), numbers of a normal distribution.
    """
    normal = normal.to(image, non_blocking=True)
    mean = image.mean((1, 2), keepdim=True)
    rotation = torch.linalg.qr(normal[:3])[0]
    mixing = (1 - share) * torch.eye(3, dtype=image.dtype, device=image.device) + share * rotation
    mixed = torch.einsum("ij,jhw->ihw", mixing, image - mean)
    return (mixed + mean + 0.1 * normal[3].view(3, 1, 1)).clamp(0, 1)


def whole_strides(image: Tensor) -> Tensor:
    """As much of an image (1, 3, h, w) as the painter takes."""
    height, width = (side // STRIDE_PX * STRIDE_PX for side in image.shape[2:])
    return image[..., :height, :width]


def contact_sheet(rows: Sequence[Sequence[Tensor]], side: int) -> Tensor:
    """Images (1, 3, h, w) in [0, 1], in rows, as squares of a picture (3, H, W) in [-1, 1]."""
    side = cell_side(side, len(rows), max(map(len, rows)))
    cells = [
        torch.cat([resize_image(each[0].cpu().float().clamp(0, 1), (side, side)) for each in row], 2)
        for row in rows
    ]
    return 2 * torch.cat(cells, 1) - 1
