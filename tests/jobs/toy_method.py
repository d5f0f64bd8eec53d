"""A method in one file: it mixes each photograph with a color."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nst import check
from nst.stylizer import AssetRef, Assets, Outcome, Stylized, mean_change

__all__ = ["Toy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Toy:
    """A wash of color."""

    color: tuple[float, float, float] = (1.0, 0.5, 0.0)
    """The color of the wash: red, green, blue in [0, 1]."""
    strength: float = 0.5
    """How much of the color there is in the picture; 0: the photograph."""

    def __post_init__(self) -> None:
        check.at_least("strength", self.strength, 0)

    def assets(self) -> list[AssetRef]:
        return []

    def notes(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return []

    def build(self, assets: Assets, device: torch.device) -> Wash:  # noqa: ARG002
        return Wash(torch.tensor(self.color).view(3, 1, 1), self.strength)


class Wash:
    """The stylizer."""

    def __init__(self, color: Tensor, strength: float) -> None:
        self._color, self._strength = color, strength

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG002
        painted = [torch.lerp(image, self._color.expand_as(image), self._strength) for image in images]
        return [
            Stylized(picture, {"change": mean_change(picture, photo)})
            for picture, photo in zip(painted, images, strict=True)
        ]
