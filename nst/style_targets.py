"""What photographs are drawn to: their own activations, and the style pictures' Gram matrices."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.color import match_color, match_luminance
from nst.errors import ImageTooSmall, OptionError
from nst.features import FeatureNetwork
from nst.images import resize_image
from nst.losses import (
    GramNormalization,
    LossScale,
    content_factor,
    gram_matrix,
    normalize_gram,
    raw_gram,
    style_factor,
)
from nst.tiles import Tile, layer_sizes, owned_features, tile_side, tiles

__all__ = ["PreserveColor", "Region", "StyleTargets", "Targets"]

PreserveColor = Literal["none", "luminance", "match"]


@dataclass(frozen=True, slots=True)
class Region:
    """What a photograph, or one part of it, is drawn to in style; by style layer."""

    grams: Mapping[str, Tensor]
    """(C, C)."""
    factors: Mapping[str, Tensor]
    """From a Gram's squared distance to its loss; 0 where the region has no area."""
    weight: float
    masks: Mapping[str, Tensor] | None
    """(1, h, w) in [0, 1]; None: the whole photograph."""
    positions: Mapping[str, Tensor]
    """How many count: the sum of the squared mask."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What one photograph is drawn to."""

    photo: Tensor
    """(3, H, W)."""
    content: Mapping[str, Tensor]
    """The photograph's own activations by content layer, (C, h, w); none if it is computed in tiles."""
    content_factors: Mapping[str, Tensor]
    """From their squared distance to the content loss."""
    regions: tuple[Region, ...]
    tiles: tuple[Tile, ...]
    """Empty if it fits into a pass."""


class StyleTargets:
    """Makes targets. The styles' Gram matrices are computed once per size of photograph and kept, unless the
    styles are recolored for each. For the arguments see `StyleObjective`.

    Raises:
        OptionError: `max_pass_pixels` is too small for a tile.
    """

    _MAX_CACHED_SIZES = 32

    def __init__(
        self,
        network: FeatureNetwork,
        styles: Sequence[Tensor],
        *,
        content_layers: Iterable[str],
        style_layers: Iterable[str],
        loss_scale: LossScale,
        gram_normalization: GramNormalization,
        style_scale: float,
        blend: Sequence[float] | None,
        masks: Sequence[Tensor] | None,
        preserve_color: PreserveColor,
        max_pass_pixels: int | None,
    ) -> None:
        self.network = network
        self._styles = [style.to(network.mean) for style in styles]
        self._content_layers, self._style_layers = tuple(content_layers), tuple(style_layers)
        self._loss_scale, self._gram_normalization = loss_scale, gram_normalization
        self._style_scale = style_scale
        blend = blend or [1.0] * len(styles)
        self._blend = [weight / sum(blend) for weight in blend]
        self._masks = None if masks is None else [mask.to(network.mean) for mask in masks]
        self._preserve_color = preserve_color
        self._max_pass_pixels, self._tile_side = max_pass_pixels, 0
        if max_pass_pixels is not None:
            self._tile_side = tile_side(network, max_pass_pixels)
            if self._tile_side == 0:
                raise OptionError("max_pass_pixels", max_pass_pixels, reason="is too small for a single tile")
        self._grams: OrderedDict[int, list[dict[str, Tensor]]] = OrderedDict()

    @torch.no_grad()
    def of(self, photo: Tensor) -> Targets:
        """What `photo` (3, H, W) is drawn to.

        Raises:
            ImageTooSmall: the photograph or a scaled style picture vanishes before the deepest layer.
        """
        photo = photo.to(self.network.mean)
        self.network.check_size(photo)
        long_side = max(1, round(max(photo.shape[-2:]) * self._style_scale))
        grams = self._style_grams(long_side, photo)
        parts = self._tiles(photo)
        if parts:
            content: dict[str, Tensor] = {}
            factors = self._content_factors(photo, parts)
            sizes = layer_sizes(self.network, photo)
        else:
            features = self.network(photo[None])
            content = {layer: features[layer][0] for layer in self._content_layers}
            factors = {
                layer: content_factor(each[None], scale=self._loss_scale)[0] for layer, each in content.items()
            }
            sizes = {layer: (each.shape[-2], each.shape[-1]) for layer, each in features.items()}
        return Targets(photo, content, factors, self._regions(grams, sizes, photo), parts)

    def _tiles(self, picture: Tensor) -> tuple[Tile, ...]:
        height, width = picture.shape[-2:]
        if self._max_pass_pixels is None or height * width <= self._max_pass_pixels:
            return ()
        return tuple(tiles(self.network, height, width, self._tile_side))

    def _content_factors(self, photo: Tensor, parts: Sequence[Tile]) -> dict[str, Tensor]:
        """As `content_factor`, from sums over tiles."""
        sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros(3, dtype=torch.float64))
        for tile in parts:
            features = owned_features(self.network, tile.cut(photo), tile)
            for layer in self._content_layers:
                own = features[layer].double()
                sums[layer] += torch.stack([own.new_tensor(own.numel()), own.sum(), own.square().sum()]).cpu()
        factors = {}
        for layer, (count, total, squares) in sums.items():
            # A target of as many elements, with the same variance.
            spread = float((squares / count - (total / count) ** 2).clamp_min(0).sqrt())
            stand_in = photo.new_tensor([[-spread, spread]])
            factor = content_factor(stand_in, scale=self._loss_scale)[0]
            factors[layer] = factor if self._loss_scale == "paper" else factor * 2 / float(count)
        return factors

    def _regions(
        self, grams: Sequence[Mapping[str, Tensor]], sizes: Mapping[str, tuple[int, int]], photo: Tensor
    ) -> tuple[Region, ...]:
        if self._masks is None:
            blended = {
                layer: torch.stack(
                    [weight * each[layer] for weight, each in zip(self._blend, grams, strict=True)]
                ).sum(0)
                for layer in self._style_layers
            }
            positions = {
                layer: photo.new_tensor(float(math.prod(sizes[layer]))) for layer in self._style_layers
            }
            return (Region(blended, self._factors(blended), 1.0, None, positions),)
        regions = []
        for weight, each, mask in zip(self._blend, grams, self._masks, strict=True):
            stretched = resize_image(mask, (photo.shape[1], photo.shape[2]))
            masks = {layer: F.adaptive_avg_pool2d(stretched, sizes[layer]) for layer in self._style_layers}
            areas = {layer: own.square().sum() for layer, own in masks.items()}
            factors = {layer: factor * (areas[layer] > 0) for layer, factor in self._factors(each).items()}
            positions = {layer: torch.where(area > 0, area, 1.0) for layer, area in areas.items()}
            regions.append(Region(each, factors, weight, masks, positions))
        return tuple(regions)

    def _factors(self, grams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {layer: style_factor(gram[None], scale=self._loss_scale)[0] for layer, gram in grams.items()}

    def _style_grams(self, long_side: int, photo: Tensor) -> list[dict[str, Tensor]]:
        """By style and layer."""
        if self._preserve_color != "none":
            recolor = match_luminance if self._preserve_color == "luminance" else match_color
            return [self._grams_of(recolor(self._scaled(each, long_side), photo)) for each in self._styles]
        if long_side not in self._grams:
            self._grams[long_side] = [self._grams_of(self._scaled(each, long_side)) for each in self._styles]
            if len(self._grams) > self._MAX_CACHED_SIZES:
                self._grams.popitem(last=False)
        self._grams.move_to_end(long_side)
        return self._grams[long_side]

    def _scaled(self, style: Tensor, long_side: int) -> Tensor:
        height, width = style.shape[-2:]
        factor = long_side / max(height, width)
        return resize_image(style, (max(1, round(height * factor)), max(1, round(width * factor))))

    def _grams_of(self, style: Tensor) -> dict[str, Tensor]:
        try:
            self.network.check_size(style)
        except ImageTooSmall as error:
            raise ImageTooSmall(f"the style picture at this photograph's size: {error}") from None
        parts = self._tiles(style)
        if not parts:
            features = self.network(style[None])
            return {
                layer: gram_matrix(features[layer], normalization=self._gram_normalization)[0]
                for layer in self._style_layers
            }
        sums: dict[str, Tensor] = {}
        for tile in parts:
            features = owned_features(self.network, tile.cut(style), tile)
            for layer in self._style_layers:
                gram = raw_gram(features[layer][None])[0]
                sums[layer] = sums[layer] + gram if layer in sums else gram
        sizes = layer_sizes(self.network, style)
        return {
            layer: normalize_gram(gram, math.prod(sizes[layer]), self._gram_normalization)
            for layer, gram in sums.items()
        }
