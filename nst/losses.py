"""Losses as pure functions. Every one keeps the batch: (N, ...) in, one number per image (N,) out."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from nst.ops.roots import root_and_inverse

__all__ = [
    "GramNormalization",
    "LossScale",
    "activation_spread",
    "content_factor",
    "covariance_root",
    "gaussian_distance",
    "gram_matrix",
    "normalize_gradient",
    "normalize_gram",
    "raw_gram",
    "raw_moments",
    "relative_to",
    "squared_distance",
    "style_factor",
    "total_variation_loss",
]

GramNormalization = Literal["hw", "chw"]
LossScale = Literal["mean", "paper", "relative"]
_TINY = 1e-30
_ROUNDING = 1e-13
"""What sums in float64 leave of nothing, relative to the largest variance."""
_EQUAL, _EQUAL_BY_PRODUCTS = 1e-12, 1e-10
"""Share of both variances up to which a distance of Gaussians is rounding."""
_FLAT = 1e-4
"""Share of activations' mean square below which their variance counts as none."""


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
        return _inner(flat, flat)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (flat,) = ctx.saved_tensors
        (grad,) = grads
        return _gram_slope(flat, grad).mT


def _inner(rows: Tensor, others: Tensor) -> Tensor:
    """Inner products of rows, (N, C, M) and (N, D, M) to (N, C, D), in float32 at least. Products of two
    numbers of half precision are exact in it: NVIDIA's GPUs add them up so, without a copy."""
    if rows.dtype.itemsize < 4 and rows.is_cuda and torch.version.hip is None:
        if len(rows) == 1:
            return torch.mm(rows[0], others[0].mT, out_dtype=torch.float32)[None]
        return torch.bmm(rows, others.mT, out_dtype=torch.float32)
    wide = _widened(rows)
    return _product(wide, (wide if others is rows else _widened(others)).mT)


def _widened(flat: Tensor) -> Tensor:
    """`flat` in float32 at least. Converted as it lies in memory: the other way is ten times slower."""
    return flat.mT.float().mT if flat.dtype.itemsize < 4 else flat


def _gram_slope(flat: Tensor, grad: Tensor) -> Tensor:
    """What comes back through the Gram matrices of (N, C, M), (N, M, C): transposed, so that it lies in memory
    as the features do, which are channels-last."""
    return _product(flat.mT, (grad + grad.mT).to(flat))


def raw_moments(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Second and first moments of the channels, summed over positions: (N, C, H, W) to (N, C, C + 1), F F^T
    and, in the last column, the sum of F.

    Args:
        weights: (N, 1, H, W), what `features` were multiplied by, as for a guided Gram matrix. It enters
            squared, into the sums of F too.
    """
    flat = features.flatten(2)
    moments: Tensor = _Moments.apply(flat, None if weights is None else weights.to(flat).flatten(2))
    return moments


class _Moments(torch.autograd.Function):
    """What `_Gram` gives, and (N, C, 1), the product with `weights` (N, 1, M), as the last column."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(flat, weights)
        ones = flat.new_ones(len(flat), 1, flat.shape[2]) if weights is None else weights
        return torch.cat([_inner(flat, flat), _inner(flat, ones)], dim=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        flat, weights = ctx.saved_tensors
        (grad,) = grads
        sums = grad[..., -1:].mT.to(flat)
        back = _gram_slope(flat, grad[..., :-1])
        return back.add_(sums if weights is None else weights.mT * sums).mT, None


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Batched matrix product. On a CPU, for a single pair, mm is twice as fast as bmm."""
    return torch.mm(a[0], b[0])[None] if len(a) == 1 else torch.bmm(a, b)


def squared_distance(features: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences of each image: (N, ...) to (N,), in float32 at least if one of both is."""
    # Not of flatten(1), which copies what is channels-last.
    return (features - target).square().sum(list(range(1, features.ndim)))


def content_factor(target: Tensor, *, scale: LossScale = "mean") -> Tensor:
    """What makes the squared distance to a photograph's activations `target` (N, C, H, W) its content loss:
    (N,).

    `mean` averages over elements; `paper` is half the sum (Gatys et al. 2016, eq. 1); `relative` is the mean
    divided by the target's variance, 1 for a picture that shares nothing with it.
    """
    flat = target.flatten(1)
    elements = flat.shape[1]
    if scale != "relative":
        return target.new_full((len(target),), 0.5 if scale == "paper" else 1 / elements)
    return relative_to(activation_spread(flat.var(1, correction=0), flat.square().mean(1))) / elements


def relative_to(scale: Tensor) -> Tensor:
    """One over `scale`, and 0 where that is 0: nothing is relative to nothing."""
    inverse: Tensor = torch.where(scale > torch.finfo(scale.dtype).tiny, 1 / scale, 0.0)
    return inverse


def activation_spread(variance: Tensor, mean_square: Tensor) -> Tensor:
    """What a loss of activations is relative to, whatever the scale of the network: their `variance`, or, where
    they hardly vary, as those of a flat photograph, a share of their `mean_square`."""
    spread: Tensor = variance.maximum(_FLAT * mean_square)
    return spread


def style_factor(target: Tensor, *, scale: LossScale = "mean") -> Tensor:
    """What makes the squared distance to the Gram matrices `target` (N, C, C) their style loss: (N,).

    `mean` averages over the C^2 entries; `paper` is a quarter of that, which on `hw` Grams is
    Gatys et al. 2016, eq. 4: 1 / (4 C^2 (HW)^2) times the sum over unnormalized Grams; `relative` divides by
    the target's own mean square, so that it is 1 where the Gram is zero.
    """
    entries = target[0].numel()
    if scale == "relative":
        return relative_to(target.square().flatten(1).mean(1)) / entries
    return target.new_full((len(target),), (0.25 if scale == "paper" else 1.0) / entries)


def covariance_root(moments: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """What `gaussian_distance` wants to know of one Gaussian, in float64: its mean (N, C), the symmetric root
    of its covariance (N, C, C), and the variance (N,) of what was added to that.

    Args:
        moments: (N, C, C + 1), as of `raw_moments`, divided by the number of positions.
        noise: variance of white noise that is added to the channels, relative to their mean variance.
    """
    moments = moments.double()
    mean = moments[..., -1]
    covariance = moments[..., :-1] - mean[..., None] * mean[..., None, :]
    added = noise * covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    values, vectors = torch.linalg.eigh(covariance)
    spread = (values + added[..., None]).clamp_min(0).sqrt()
    return mean, (vectors * spread[..., None, :]) @ vectors.mT, added


def gaussian_distance(moments: Tensor, mean: Tensor, root: Tensor, noise: Tensor) -> Tensor:
    """Squared Wasserstein-2 distance of two Gaussians: (N,).

    |m - m'|^2 + tr(C) + tr(C') - 2 tr((C'^(1/2) C C'^(1/2))^(1/2)) (Dowson and Landau 1982; Olkin and
    Pukelsheim 1982). The mean square of the least change of activations that turns the one into the other: of
    the power of a content loss, whatever the scale of the network.

    Computed in float64: in float32 the gradient is wrong by a tenth, as most channels go together. White noise
    that is added to both keeps the gradient from being steep, and rounding from deciding, where the one hardly
    varies or where there are fewer positions than channels.

    Args:
        moments: (N, C, C + 1), as of `raw_moments`, divided by the number of positions.
        mean, root, noise: those of the other one, as `covariance_root` gives them.
    """
    wide = moments.double()
    first = wide[..., -1]
    covariance = wide[..., :-1] - first[..., None] * first[..., None, :]
    covariance = covariance + torch.diag_embed(noise[..., None].expand_as(first))
    overlap: Tensor = _RootTrace.apply(root @ covariance @ root)
    spread = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    both = spread + root.square().sum((-2, -1))
    distance = (first - mean).square().sum(-1) + both - 2 * overlap
    # Of equal Gaussians rounding is left, whose slope leads nowhere: a picture in its own style is at its end.
    equal = _EQUAL_BY_PRODUCTS if moments.is_cuda else _EQUAL
    return torch.where(distance > equal * both, distance, 0).to(moments)


class _RootTrace(torch.autograd.Function):
    """tr(M^(1/2)) of symmetric (N, C, C), whose gradient is M^(-1/2) / 2, from one eigendecomposition; on GPUs,
    which are slow at these, from products.

    Eigenvalues that rounding may have made of nothing enter by a straight line from zero instead of by their
    root, so that the gradient of what has no variance is finite.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        if matrix.is_cuda:
            root, inverse = root_and_inverse(matrix)
            ctx.save_for_backward(inverse / 2)
            return root.diagonal(dim1=-2, dim2=-1).sum(-1)
        values, vectors = torch.linalg.eigh(matrix)
        floor = (_ROUNDING * values[..., -1:]).clamp_min(torch.finfo(matrix.dtype).tiny)
        small = values < floor
        slopes = torch.where(small, floor.rsqrt(), values.maximum(floor).rsqrt() / 2)
        ctx.save_for_backward((vectors * slopes[..., None, :]) @ vectors.mT)
        trace: Tensor = torch.where(small, values * slopes, values.clamp_min(0).sqrt()).sum(-1)
        return trace

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        (grad,) = grads
        back: Tensor = grad[..., None, None] * slope
        return back


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
        wide = torch.promote_types(grad.dtype, torch.float32)
        norm = grad.abs().sum(list(range(1, grad.ndim)), dtype=wide)
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
