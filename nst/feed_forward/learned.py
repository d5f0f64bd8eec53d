"""Styles that a painter was trained for: the moments that its activations get for each, which training moved
along with the painter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from nst.feed_forward.coloring import Moments, root

__all__ = ["LearnedStyle", "StyleName"]


@dataclass(frozen=True, slots=True)
class StyleName:
    """Which picture a style is of."""

    name: str
    """The picture's name without folder and suffix"""
    sha256: str
    """Digest of its file"""

    def table(self) -> dict[str, str]:
        """As a painter's file has it."""
        return asdict(self)


class LearnedStyle(nn.Module):
    """The moments of one style at each of the places where activations are colored: means, and roots of
    covariances, so that these remain covariances whatever training does."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.means = nn.ParameterList(nn.Parameter(torch.zeros(1, each, 1)) for each in channels)
        self.roots = nn.ParameterList(nn.Parameter(torch.eye(each)[None]) for each in channels)

    @torch.no_grad()
    def begin(self, moments: Sequence[Moments]) -> None:
        """Begin as these, each of one picture."""
        for mean, one, each in zip(self.means, self.roots, moments, strict=True):
            mean.copy_(each.mean)
            one.copy_(root(each.covariance))

    def forward(self) -> list[Moments]:
        """The moments at each place, each (1, C, ...)."""
        pairs: list[tuple[Tensor, Tensor]] = list(zip(self.means, self.roots, strict=True))
        with torch.autocast(self.means[0].device.type, enabled=False):
            return [Moments(mean, one @ one.mT) for mean, one in pairs]
