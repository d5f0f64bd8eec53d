"""Whitening and coloring (Li et al. 2017, "Universal Style Transfer via Feature Transforms"): the affine map
after which activations have the mean and the covariance of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nst.ops.captured import is_captured
from nst.ops.equalized import at_least_float32

__all__ = ["Moments", "coloring", "product", "root"]

_NOISE = 1e-2
"""Added to the variance along each direction, as a share of their mean over both: what has none in one
picture must not decide what the other becomes."""
_LEAST_VARIANCE = 1e-5
_ITERATIONS = 24
"""Enough for variances a million times as large as the least."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Means (N, C, 1) and covariances (N, C, C) of activations."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, activations: Tensor) -> Moments:
        """Those of each of (N, C, h, w), over positions."""
        flat = at_least_float32(activations.flatten(2))
        mean = flat.mean(2, keepdim=True)
        flat = flat - mean
        return cls(mean, product(flat, flat.mT) / flat.shape[2])

    def double(self) -> Moments:
        """The same in float64."""
        return Moments(self.mean.double(), self.covariance.double())

    @classmethod
    def cat(cls, parts: Sequence[Moments]) -> Moments:
        """All of these, in order."""
        return cls(torch.cat([each.mean for each in parts]), torch.cat([each.covariance for each in parts]))

    def of_one(self, number: int) -> Moments:
        """Those of one of the N."""
        return Moments(self.mean[number, None], self.covariance[number, None])

    def repeated(self, times: int) -> Moments:
        """Each of them so many times."""
        return Moments(self.mean.repeat_interleave(times, 0), self.covariance.repeat_interleave(times, 0))

    def mixed(self, shares: Tensor) -> Moments:
        """Those of pictures of which each of the N makes up a share: (M, N) to M of them."""
        with torch.autocast(shares.device.type, enabled=False):  # rounded, they would be no covariances
            second = self.covariance + self.mean @ self.mean.mT
            mean, second = (torch.einsum("mn,nij->mij", shares, each) for each in (self.mean, second))
            return Moments(mean, second - mean @ mean.mT)

    def towards(self, others: Moments, share: float) -> Moments:
        """Those of N pictures of each of which one of the N others makes up this share."""
        mean = torch.lerp(self.mean, others.mean, share)
        one, other = (each.covariance + product(each.mean, each.mean.mT) for each in (self, others))
        return Moments(mean, torch.lerp(one, other, share) - product(mean, mean.mT))


def coloring(own: Moments, wanted: Moments) -> tuple[Tensor, Tensor]:
    """Matrices (N, C, C) and shifts (N, C, 1): of x with the moments `own`, `matrix @ x + shift` has the
    moments `wanted`, about. Where both are equal, x stays what it is."""
    channels = own.mean.shape[1]
    total = own.covariance.diagonal(dim1=1, dim2=2).mean(1) + wanted.covariance.diagonal(dim1=1, dim2=2).mean(1)
    noise = (_NOISE / 2 * total + _LEAST_VARIANCE)[:, None, None] * _one(channels, own.mean)
    roots = _iterated if is_captured() else _Roots.apply
    (matrix, _), (_, inverse) = roots(wanted.covariance + noise), roots(own.covariance + noise)
    matrix = product(matrix, inverse)
    return matrix, wanted.mean - product(matrix, own.mean)


def _one(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)


def product(first: Tensor, second: Tensor) -> Tensor:
    """Of matrices (N, i, j) and (N, j, k), or of one of these with all of the others."""
    # An exported network takes any number, which @ would not let it.
    return torch.bmm(first, second) if is_captured() else first @ second


def root(covariance: Tensor) -> Tensor:
    """Square roots of covariances (N, C, C), symmetric."""
    noise = _LEAST_VARIANCE * _one(covariance.shape[-1], covariance)
    found: Tensor = _Roots.apply(covariance + noise)[0]
    return found


def _iterated(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The same as `_Roots`, of products alone, for programs that know no eigenvalues: the coupled iteration of
    Newton and Schulz (Higham 2008, "Functions of Matrices", section 6.7), in float64."""
    wide = matrices.double()
    size = wide.square().sum((1, 2), keepdim=True).sqrt()
    one = _one(wide.shape[-1], wide)
    root, inverse = wide / size, one.expand_as(wide)
    for _ in range(_ITERATIONS):
        change = 1.5 * one - 0.5 * product(inverse, root)
        root, inverse = product(root, change), product(change, inverse)
    return (root * size.sqrt()).to(matrices), (inverse / size.sqrt()).to(matrices)


class _Roots(torch.autograd.Function):
    """Square roots of positive definite matrices (N, C, C), and their inverses.

    The gradient is that of functions of matrices (Daleckii and Krein 1965), where equal eigenvalues do no harm,
    as they do to that of an eigendecomposition.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> tuple[Tensor, Tensor]:
        try:
            values, vectors = torch.linalg.eigh(matrices)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # they are not finite: let the loss say so
            return matrices * torch.nan, matrices * torch.nan
        roots = values.clamp_min(torch.finfo(values.dtype).tiny).sqrt()
        ctx.save_for_backward(roots, vectors)
        return (vectors * roots[:, None]) @ vectors.mT, (vectors / roots[:, None]) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, of_root: Tensor, of_inverse: Tensor) -> Tensor:
        if not ctx.saved_tensors:
            return of_root * torch.nan
        roots, vectors = ctx.saved_tensors
        sums = roots[:, :, None] + roots[:, None]
        products = roots[:, :, None] * roots[:, None]
        inner = vectors.mT @ of_root @ vectors - vectors.mT @ of_inverse @ vectors / products
        gradient = vectors @ (inner / sums) @ vectors.mT
        symmetric: Tensor = (gradient + gradient.mT) / 2
        return symmetric
