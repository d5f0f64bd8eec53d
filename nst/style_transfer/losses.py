"""What the style of a layer is, and how far a picture is from it: the option `style_loss`.

A style loss looks at *statistics* of a layer, which are sums over positions: they add up over tiles, and mix
where styles are blended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from torch import Tensor

from nst.losses import (
    GramNormalization,
    LossScale,
    covariance_root,
    gaussian_distance,
    normalize_gram,
    raw_gram,
    raw_moments,
    relative_to,
    squared_distance,
    style_factor,
)

__all__ = ["GramLoss", "StyleLoss", "StyleLossName", "Wanted", "WassersteinLoss", "make_style_loss"]

StyleLossName = Literal["gram", "wasserstein"]
Wanted: TypeAlias = tuple[Tensor, ...]
"""What is computed once of a style's statistics, for `StyleLoss.distance`; each is (N, ...)."""

_NOISE = 1e-3
"""Variance that is added to all channels before they are compared, relative to the style's mean variance.
Without it, the first steps of L-BFGS make visible differences of rounding."""


class StyleLoss(Protocol):
    def sums(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Statistics of activations (N, C, H, W), summed over positions. `mask` (N, 1, H, W) is what the
        activations were multiplied by, if they were."""
        ...

    def means(self, sums: Tensor, positions: Tensor | float) -> Tensor:
        """`sums` over the number of positions, which may be one for each, (N, 1, 1)."""
        ...

    def wanted(self, means: Tensor) -> Wanted:
        """What `distance` wants to know of a style's statistics."""
        ...

    def factor(self, means: Tensor, scale: LossScale) -> Tensor:
        """What a distance to a style's statistics is multiplied by, (N,)."""
        ...

    def distance(self, means: Tensor, wanted: Wanted) -> Tensor:
        """How far statistics are from a style's: (N,)."""
        ...


@dataclass(frozen=True, slots=True)
class GramLoss:
    """The squared distance of Gram matrices (Gatys et al. 2016, eq. 4)."""

    normalization: GramNormalization

    def sums(self, features: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ARG002
        return raw_gram(features)

    def means(self, sums: Tensor, positions: Tensor | float) -> Tensor:
        return normalize_gram(sums, positions, self.normalization)

    def wanted(self, means: Tensor) -> Wanted:
        return (means,)

    def factor(self, means: Tensor, scale: LossScale) -> Tensor:
        return style_factor(means, scale=scale)

    def distance(self, means: Tensor, wanted: Wanted) -> Tensor:
        return squared_distance(means, *wanted)


@dataclass(frozen=True, slots=True)
class WassersteinLoss:
    """The squared Wasserstein-2 distance of Gaussians with the mean and covariance of the activations.

    It is of the power of a content loss: their balance does not depend on the scale of the network. `mean`
    divides it by the number of channels; `relative` by the mean square of the style's activations.
    """

    def sums(self, features: Tensor, mask: Tensor | None) -> Tensor:
        return raw_moments(features, mask)

    def means(self, sums: Tensor, positions: Tensor | float) -> Tensor:
        return sums / positions

    def wanted(self, means: Tensor) -> Wanted:
        return covariance_root(means, _NOISE)

    def factor(self, means: Tensor, scale: LossScale) -> Tensor:
        if scale == "relative":
            return relative_to(means[..., :-1].diagonal(dim1=-2, dim2=-1).sum(-1))
        return means.new_full((len(means),), 1.0 if scale == "paper" else 1 / means.shape[1])

    def distance(self, means: Tensor, wanted: Wanted) -> Tensor:
        return gaussian_distance(means, *wanted)


def make_style_loss(name: StyleLossName, normalization: GramNormalization) -> StyleLoss:
    """The style loss of that name."""
    return GramLoss(normalization) if name == "gram" else WassersteinLoss()
