"""What VGG16 sees of the photographs and styles that pictures in work are to become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nst.features.embedded.easel import Work
from nst.features.networks import FeatureNetwork
from nst.losses import gram_matrix

__all__ = ["Seen", "Wanted", "grams_of"]

Seen = Mapping[str, Tensor]
"""Activations (N, C, H, W) or Gram matrices (N, C, C), by layer."""


class Wanted:
    """A picture is in work for some fifty steps, and what it is to become stays the same: it is looked at once,
    and kept. Each is looked at alone, so that it is the same whatever else is new.

    Args:
        count: pictures in work.
        keep: or else it is looked at in every step, where that costs less than the memory, some 20 MB a
            picture of 112 pixels.
    """

    def __init__(self, teacher: FeatureNetwork, count: int, *, keep: bool) -> None:
        self._teacher, self._count, self._keep = teacher, count, keep
        self._known = torch.zeros(count).bool()
        self._kept: dict[str, Tensor] = {}
        self._grams: dict[str, Tensor] = {}

    @torch.no_grad()
    def of(self, work: Work) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Activations of the styles, and then of the photographs; and Gram matrices of the styles."""
        if not self._keep:
            return self._look(work.styles, work.photos)
        for new in (work.new | ~self._known[work.places]).nonzero():
            places = work.places[new]
            seen, grams = self._look(work.styles[new], work.photos[new])
            self._known[places] = True
            both = torch.cat([places, self._count + places])
            for layer, each in seen.items():
                self._put(self._kept, layer, 2 * self._count, both, each.permute(0, 2, 3, 1))
                self._put(self._grams, layer, self._count, places, grams[layer])
        both = torch.cat([work.places, self._count + work.places])
        kept = {layer: each.index_select(0, both).permute(0, 3, 1, 2) for layer, each in self._kept.items()}
        return kept, {layer: each.index_select(0, work.places) for layer, each in self._grams.items()}

    def _look(self, styles: Tensor, photos: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        seen = self._teacher(torch.cat([styles, photos]))
        return seen, grams_of({layer: each[: len(styles)] for layer, each in seen.items()}, seen)

    @staticmethod
    def _put(kept: dict[str, Tensor], layer: str, count: int, places: Tensor, values: Tensor) -> None:
        if layer not in kept:
            kept[layer] = values.new_empty(count, *values.shape[1:])
        kept[layer][places] = values


def grams_of(seen: Seen, layers: Sequence[str] | Mapping[str, object]) -> dict[str, Tensor]:
    return {layer: gram_matrix(seen[layer]) for layer in layers}
