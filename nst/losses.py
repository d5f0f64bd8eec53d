"""Losses as pure functions. Every one keeps the batch: (N, ...) in, one number per image (N,) out."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

__all__ = [
    "GramNormalization",
    "LossScale",
    "content_factor",
    "content_loss",
    "gram_matrix",
    "normalize_gradient",
    "normalize_gram",
    "raw_gram",
    "squared_distance",
    "style_factor",
    "style_loss",
    "total_variation_loss",
]

GramNormalization = Literal["hw", "chw"]
LossScale = Literal["mean", "paper", "relative"]
_TINY = 1e-30


def gram_matrix(features: Tensor, *, normalization: GramNormalization = "hw") -> Tensor:
    """Inner products of the channels of each image: (N, C, H, W) to (N, C, C), F F^T over flattened positions.

    Gatys, Ecker, Bethge 2016, eq. 3. `hw` divides by the number of positions, which the paper does within its
    style loss; `chw` divides by the number of elements, as the well-known tutorial does.
    """
    height, width = features.shape[-2:]
    return normalize_gram(raw_gram(features), height * width, normalization)


def raw_gram(features: Tensor) -> Tensor:
    """F F^T as it is, (N, C, H, W) to (N, C, C). Features in half precision are multiplied in float32."""
    gram: Tensor = _Gram.apply(features.flatten(2))
    return gram


def normalize_gram(raw: Tensor, positions: Tensor | float, normalization: GramNormalization) -> Tensor:
    """Raw Gram matrices (N, C, C) over the number of positions (one number, or (N, 1, 1)) that they are sums
    of."""
    return raw / (positions if normalization == "hw" else raw.shape[-1] * positions)


class _Gram(torch.autograd.Function):
    """(N, C, M) to (N, C, C). Autograd's own way back multiplies twice, once for each factor; since they are
    one and the same, the gradient is (G' + G'^T) F, one product, in the features' own precision."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        # Converted as it lies in memory: the other way is ten times slower.
        wide = flat.mT.float().mT if flat.dtype.itemsize < 4 else flat
        return _product(wide, wide.mT)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (flat,) = ctx.saved_tensors
        (grad,) = grads
        # Of the transpose, so that the result lies in memory as the features do, which are channels-last.
        return _product(flat.mT, (grad + grad.mT).to(flat)).mT


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Batched matrix product. On a CPU, for a single pair, mm is twice as fast as bmm."""
    return torch.mm(a[0], b[0])[None] if len(a) == 1 else torch.bmm(a, b)


def squared_distance(features: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences of each image: (N, ...) to (N,), in float32 at least."""
    return (features - target).square().flatten(1).sum(1)


def content_factor(target: Tensor, *, scale: LossScale = "mean") -> Tensor:
    """What makes the squared distance to a photograph's activations `target` (N, C, H, W) its content loss:
    (N,).

    `mean` averages over elements; `paper` is half the sum (Gatys et al. 2016, eq. 1); `relative` is the mean
    divided by the target's variance, 1 for a picture that shares nothing with it.
    """
    elements = target[0].numel()
    if scale == "paper":
        return target.new_full((len(target),), 0.5)
    if scale == "relative":
        return 1 / (elements * _positive(target.flatten(1).var(1, correction=0)))
    return target.new_full((len(target),), 1 / elements)


def style_factor(target: Tensor, *, scale: LossScale = "mean") -> Tensor:
    """What makes the squared distance to the Gram matrices `target` (N, C, C) their style loss: (N,).

    `mean` averages over the C^2 entries; `paper` is a quarter of that, which on `hw` Grams is
    Gatys et al. 2016, eq. 4: 1 / (4 C^2 (HW)^2) times the sum over unnormalized Grams; `relative` divides by
    the target's own mean square, so that it is 1 where the Gram is zero.
    """
    entries = target[0].numel()
    if scale == "relative":
        return 1 / (entries * _positive(target.square().flatten(1).mean(1)))
    return target.new_full((len(target),), (0.25 if scale == "paper" else 1.0) / entries)


def content_loss(features: Tensor, target: Tensor, *, scale: LossScale = "mean") -> Tensor:
    """Squared distance of activations (N, C, H, W), scaled by `content_factor`: (N,)."""
    return content_factor(target, scale=scale) * squared_distance(features, target)


def style_loss(gram: Tensor, target: Tensor, *, scale: LossScale = "mean") -> Tensor:
    """Squared distance of Gram matrices (N, C, C), scaled by `style_factor`: (N,)."""
    return style_factor(target, scale=scale) * squared_distance(gram, target)


def normalize_gradient(features: Tensor, strength: float) -> Tensor:
    """`features` (N, ...) as they are; the gradient that comes back through here is divided by its L1 norm, of
    each image, and multiplied by `strength`.

    The option `normalize_gradients` of Torch7's neural-style. (A well-known port scales the loss instead, which
    multiplies by the square of the strength and normalizes nothing.)
    """
    normalized: Tensor = _NormalizedGradient.apply(features, strength)
    return normalized


class _NormalizedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        norm = grad.abs().flatten(1).sum(1, dtype=torch.promote_types(grad.dtype, torch.float32))
        # Where there is no gradient, large over tiny must not be infinity: that times nothing is not nothing.
        factor = (ctx.strength / (norm + _TINY)).clamp_max(torch.finfo(grad.dtype).max)
        return grad * factor.to(grad).view(-1, *[1] * (grad.ndim - 1)), None


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
