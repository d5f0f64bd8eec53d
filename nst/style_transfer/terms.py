"""The terms of the loss: one for each content layer, and one for each style region and layer.

Each is made of sums over positions: the squared distance of activations, or a style's statistics. So the same
two functions do for whole photographs, whose sums come from one pass, and for tiles, whose sums are added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from nst.losses import squared_distance
from nst.style_transfer.losses import make_style_loss
from nst.style_transfer.options import ObjectiveOptions
from nst.style_transfer.targets import Region, Targets

__all__ = ["CONTENT", "Term", "Terms", "View"]

CONTENT = -1
Term: TypeAlias = tuple[int, str]
"""A loss at a layer: the number of a style region, or `CONTENT`; and the layer."""


@dataclass(frozen=True, slots=True)
class View:
    """What a pass sees of N photographs, or of a tile of one."""

    features: Mapping[Term, Tensor]
    """The activations that a term looks at, (N, C, h, w)."""
    photos: Mapping[str, Tensor] = field(default_factory=dict)
    """The photographs' own activations by content layer, (N, C, h, w)."""
    masks: Mapping[Term, Tensor] = field(default_factory=dict)
    """What the activations of a style's term are multiplied by, (N, 1, h, w); none: nothing."""


class Terms:
    """The maths of the loss, by term."""

    def __init__(self, options: ObjectiveOptions) -> None:
        self._options = options
        self._style_loss = make_style_loss(options.style_loss, options.gram_normalization)

    def weights(self, targets: Targets) -> dict[Term, float]:
        """What each term is multiplied by, content first."""
        given = self._options
        content = {
            (CONTENT, layer): given.content_weight * weight for layer, weight in given.content_layers.items()
        }
        style = {
            (number, layer): given.style_weight * region.weight * weight
            for number, region in enumerate(targets.regions)
            for layer, weight in given.style_layers.items()
        }
        return content | style

    def sums(self, view: View) -> dict[Term, Tensor]:
        """What each term of `view` is made of: (N,) of content, (N, C, ...) of style."""
        found = {}
        for term, features in view.features.items():
            number, layer = term
            if number == CONTENT:
                found[term] = squared_distance(features, view.photos[layer])
            else:
                mask = view.masks.get(term)
                found[term] = self._style_loss.sums(features if mask is None else features * mask, mask)
        return found

    def losses(self, sums: Mapping[Term, Tensor], targets: Sequence[Targets]) -> dict[Term, Tensor]:
        """The terms that `sums` make, without their weights: (N,) each."""
        found = {}
        for (number, layer), each in sums.items():
            if number == CONTENT:
                found[number, layer] = torch.stack([one.content_factors[layer] for one in targets]) * each
            else:
                regions = [one.regions[number] for one in targets]
                found[number, layer] = self._region_loss(each, regions, layer)
        return found

    def _region_loss(self, sums: Tensor, regions: Sequence[Region], layer: str) -> Tensor:
        positions = torch.stack([region.positions[layer] for region in regions]).view(-1, 1, 1)
        wanted = tuple(
            torch.stack(parts) for parts in zip(*(region.wanted[layer] for region in regions), strict=True)
        )
        factors = torch.stack([region.factors[layer] for region in regions])
        return factors * self._style_loss.distance(self._style_loss.means(sums, positions), wanted)

    def names(self, weights: Mapping[Term, float]) -> tuple[str, ...]:
        """The names of losses: the total, content, style and total variation; then those of the layers."""
        layers = dict.fromkeys(f"{_part(number)}.{layer}" for number, layer in weights)
        return "loss", "content_loss", "style_loss", "tv_loss", *layers

    def named(
        self, values: Mapping[Term, Tensor], weights: Mapping[Term, float], variation: Tensor
    ) -> dict[str, Tensor]:
        """Losses by name, as in `names`, weighted as they enter the total, each (N,)."""
        losses = {"content_loss": torch.zeros_like(variation), "style_loss": torch.zeros_like(variation)}
        layers: dict[str, Tensor] = {}
        for (number, layer), weight in weights.items():
            name = _part(number)
            weighted = weight * values[number, layer]
            losses[name] = losses[name] + weighted
            at_layer = f"{name}.{layer}"
            layers[at_layer] = layers[at_layer] + weighted if at_layer in layers else weighted
        losses["tv_loss"] = self._options.tv_weight * variation
        return {"loss": torch.stack(list(losses.values())).sum(0), **losses, **layers}


def _part(number: int) -> str:
    return "content_loss" if number == CONTENT else "style_loss"
