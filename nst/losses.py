"""Losses as pure functions. Every one keeps the batch: (N, ...) in, one number per image (N,) out."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

__all__ = [
    "GramNormalization",
    "LossScale",
    "content_loss",
    "gram_matrix",
    "style_loss",
    "total_variation_loss",
]

GramNormalization = Literal["hw", "chw"]
LossScale = Literal["mean", "paper", "relative"]


def gram_matrix(features: Tensor, *, normalization: GramNormalization = "hw") -> Tensor:
    """Inner products of the channels of each image: (N, C, H, W) to (N, C, C), F F^T over flattened positions.

    Gatys, Ecker, Bethge 2016, eq. 3. `hw` divides by the number of positions, which the paper does within its
    style loss; `chw` divides by the number of elements, as the well-known tutorial does.
    """
    n, c, h, w = features.shape
    elements = h * w if normalization == "hw" else c * h * w
    gram: Tensor = _Gram.apply(features.reshape(n, c, h * w))
    return gram / elements


class _Gram(torch.autograd.Function):
    """(N, C, M) to (N, C, C). Autograd's own way back multiplies twice, once for each factor; since they are
    one and the same, the gradient is (G' + G'^T) F, one product."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        return _product(flat, flat.mT)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (flat,) = ctx.saved_tensors
        (grad,) = grads
        return _product(grad + grad.mT, flat)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Batched matrix product. On a CPU, for a single pair, mm is twice as fast as bmm."""
    return torch.mm(a[0], b[0])[None] if len(a) == 1 else torch.bmm(a, b)


def content_loss(features: Tensor, target: Tensor, *, scale: LossScale = "mean") -> Tensor:
    """Squared distance of activations (N, C, H, W): (N,).

    `mean` averages over elements; `paper` is half the sum (Gatys et al. 2016, eq. 1); `relative` is the mean
    divided by the target's variance, 1 for a picture that shares nothing with it.
    """
    square = (features - target).square().flatten(1)
    if scale == "paper":
        return square.sum(1) / 2
    if scale == "relative":
        return square.mean(1) / _positive(target.flatten(1).var(1, correction=0))
    return square.mean(1)


def style_loss(gram: Tensor, target: Tensor, *, scale: LossScale = "mean") -> Tensor:
    """Squared distance of Gram matrices (N, C, C): (N,).

    `mean` averages over the C^2 entries; `paper` is a quarter of that, which on `hw` Grams is
    Gatys et al. 2016, eq. 4: 1 / (4 C^2 (HW)^2) times the sum over unnormalized Grams; `relative` divides by
    the target's own mean square, so that it is 1 where the Gram is zero.
    """
    mean = (gram - target).square().flatten(1).mean(1)
    if scale == "paper":
        return mean / 4
    if scale == "relative":
        return mean / _positive(target.square().flatten(1).mean(1))
    return mean


def total_variation_loss(images: Tensor) -> Tensor:
    """Mean squared difference of vertical neighbors plus that of horizontal ones: (N, C, H, W) to (N,).

    The squared form of Mahendran and Vedaldi 2015. A checkerboard of zeros and ones has exactly 2; a side of
    one pixel has no neighbors and contributes nothing.
    """
    total = images.new_zeros(images.shape[0])
    for axis in (-2, -1):
        if images.shape[axis] > 1:
            total = total + images.diff(dim=axis).square().flatten(1).mean(1)
    return total


def _positive(scale: Tensor) -> Tensor:
    """A divisor; for a target that is flat, so that nothing is relative to it, the smallest that is safe."""
    return scale.clamp_min(1e-8)
