"""What photographs are drawn to: their own activations, and statistics of the style pictures' activations."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.errors import ImageTooSmall, OptionError
from nst.features import FeatureNetwork
from nst.features.tiles import Tile, layer_sizes, owned_features, tile_side, tiles
from nst.images.codec import mirrored, resize_image
from nst.losses import activation_spread, content_factor, relative_to
from nst.recent import Recent
from nst.style_transfer.color import match_color, match_luminance
from nst.style_transfer.losses import Wanted, make_style_loss
from nst.style_transfer.options import ObjectiveOptions

__all__ = ["Picture", "Region", "StyleTargets", "Targets"]

Picture: TypeAlias = Tensor | Callable[[], Tensor]
"""A style picture (3, H, W) in [0, 1], or what gives it whenever it is looked at, so that nobody keeps it."""


@dataclass(frozen=True, slots=True)
class Region:
    """What a photograph, or one part of it, is drawn to in style; by style layer."""

    wanted: Mapping[str, Wanted]
    """What the style's statistics are compared by, without the batch."""
    factors: Mapping[str, Tensor]
    """What a distance of statistics is multiplied by to be its loss; 0 where the region has no area."""
    weight: float
    """The region's weight within the style loss."""
    masks: Mapping[str, Tensor] | None
    """Where the region is, (1, h, w) in [0, 1]; None: the whole photograph."""
    positions: Mapping[str, Tensor]
    """Positions that count: the sum of the squared mask."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Targets:
    """What one photograph is drawn to."""

    photo: Tensor
    """The photograph, (3, H, W), its mirrored border included."""
    content: Mapping[str, Tensor]
    """The photograph's own activations by content layer, (C, h, w); none if it is computed in tiles."""
    content_factors: Mapping[str, Tensor]
    """What the squared distance of activations is multiplied by to be the content loss, by content layer."""
    regions: tuple[Region, ...]
    """The parts of the photograph, each with a style of its own; without masks, one."""
    tiles: tuple[Tile, ...]
    """The photograph in tiles; none if it fits into a pass."""
    tile_content: tuple[Mapping[str, Tensor], ...] = ()
    """What each tile owns of the photograph's own activations by content layer, (C, h, w); none if these are
    more than a pass may take."""


@dataclass(frozen=True, slots=True)
class _Style:
    """A style picture, or several blended, at one size; by style layer."""

    wanted: Mapping[str, Wanted]
    factors: Mapping[str, Tensor]


class StyleTargets:
    """Makes targets. What is wanted of the styles is computed once per size of photograph and kept, unless they
    are recolored for each. The arguments are those of `StyleObjective`.

    Args:
        sizes: of photographs, for which that is kept.

    Raises:
        OptionError: `max_pass_pixels` is too small for a tile.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        styles: Sequence[Picture],
        options: ObjectiveOptions,
        *,
        masks: Sequence[Tensor] | None,
        sizes: int = 32,
    ) -> None:
        self.network, self._options = network, options
        self._pictures = [each.to(network.mean) if isinstance(each, Tensor) else each for each in styles]
        self._style_loss = make_style_loss(options.style_loss, options.gram_normalization)
        blend = options.style_blend or [1.0] * len(styles)
        self._blend = [weight / sum(blend) for weight in blend]
        self._masks = None if masks is None else [mask.to(network.mean) for mask in masks]
        self._tile_side, self._pass_bytes = 0, 0.0
        most = options.max_pass_pixels
        if most is not None:
            self._tile_side = tile_side(network, most)
            if self._tile_side == 0:
                raise OptionError("max_pass_pixels", most, reason="is too small for a single tile")
            assert network.geometry is not None
            self._pass_bytes = most * network.geometry.bytes_per_pixel
        self._styles = Recent[int, list[_Style]](sizes)

    @torch.no_grad()
    def find(self, photo: Tensor, border_px: int = 0) -> Targets:
        """What `photo` (3, H, W) is drawn to, with `border_px` of it mirrored on all sides.

        Raises:
            ImageTooSmall: the photograph or a scaled style picture vanishes before the deepest layer.
        """
        photo = photo.to(self.network.mean)
        self.network.check_size(photo)
        styles = self._styles_at(photo)
        framed = mirrored(photo, border_px)
        parts = self._tiles(framed)
        kept: tuple[Mapping[str, Tensor], ...] = ()
        if parts:
            content: dict[str, Tensor] = {}
            factors, kept = self._content_in_tiles(framed, parts)
            sizes = layer_sizes(self.network, framed)
        else:
            features = self.network(framed[None])
            content = {layer: features[layer][0] for layer in self._options.content_layers}
            factors = {
                layer: content_factor(each[None], scale=self._options.loss_scale)[0]
                for layer, each in content.items()
            }
            sizes = {layer: (each.shape[-2], each.shape[-1]) for layer, each in features.items()}
        regions = self._regions(styles, sizes, photo, border_px)
        return Targets(framed, content, factors, regions, parts, kept)

    def _tiles(self, picture: Tensor) -> tuple[Tile, ...]:
        height, width = picture.shape[-2:]
        if self._options.max_pass_pixels is None or height * width <= self._options.max_pass_pixels:
            return ()
        return tuple(tiles(self.network, height, width, self._tile_side))

    def _content_in_tiles(
        self, photo: Tensor, parts: Sequence[Tile]
    ) -> tuple[dict[str, Tensor], tuple[Mapping[str, Tensor], ...]]:
        """What `content_factor` gives, from sums over tiles; and what each tile owns, unless all of it is more
        than a pass may take."""
        kept: list[Mapping[str, Tensor]] = []
        left = self._pass_bytes
        counts: Counter[str] = Counter()
        sums: defaultdict[str, Tensor] = defaultdict(lambda: photo.new_zeros(2, dtype=torch.float64))
        for tile in parts:
            features = owned_features(self.network, tile.cut(photo), tile)
            for layer in self._options.content_layers:
                wide = features[layer].double()
                counts[layer] += wide.numel()
                sums[layer] += torch.stack([wide.sum(), wide.square().sum()])
            mine = {layer: features[layer] for layer in self._options.content_layers}
            left -= sum(each.nbytes for each in mine.values())
            if left >= 0:
                kept.append({layer: each.clone() for layer, each in mine.items()})
            else:
                kept.clear()
        factors = {}
        for layer, (total, squares) in sums.items():
            count = counts[layer]
            factor = torch.full_like(total, 0.5 if self._options.loss_scale == "paper" else 1 / count)
            if self._options.loss_scale == "relative":
                variance = squares / count - (total / count) ** 2
                factor = relative_to(activation_spread(variance, squares / count)) / count
            factors[layer] = factor.to(photo)
        return factors, tuple(kept)

    def _regions(
        self,
        styles: Sequence[_Style],
        sizes: Mapping[str, tuple[int, int]],
        photo: Tensor,
        border_px: int,
    ) -> tuple[Region, ...]:
        if self._masks is None:
            (style,) = styles
            layers = self._options.style_layers
            positions = {layer: photo.new_full((), float(math.prod(sizes[layer]))) for layer in layers}
            return (Region(style.wanted, style.factors, 1.0, None, positions),)
        regions = []
        for weight, style, mask in zip(self._blend, styles, self._masks, strict=True):
            stretched = mirrored(resize_image(mask, (photo.shape[1], photo.shape[2])), border_px)
            masks = {
                layer: F.adaptive_avg_pool2d(stretched, sizes[layer]) for layer in self._options.style_layers
            }
            areas = {layer: mask.square().sum() for layer, mask in masks.items()}
            factors = {layer: factor * (areas[layer] > 0) for layer, factor in style.factors.items()}
            positions = {layer: torch.where(area > 0, area, 1.0) for layer, area in areas.items()}
            regions.append(Region(style.wanted, factors, weight, masks, positions))
        return tuple(regions)

    def _styles_at(self, photo: Tensor) -> list[_Style]:
        """What each region is to look like, for styles at the size that goes with `photo`."""
        long_side = self._options.style_side_px or max(
            1, round(max(photo.shape[-2:]) * self._options.style_scale)
        )
        if self._options.preserve_color in ("luminance", "match"):
            recolor = match_luminance if self._options.preserve_color == "luminance" else match_color
            return self._blended([recolor(self._scaled(each, long_side), photo) for each in self._pictures])
        return self._styles.get(
            long_side, lambda: self._blended([self._scaled(each, long_side) for each in self._pictures])
        )

    def _scaled(self, style: Picture, long_side: int) -> Tensor:
        picture = style if isinstance(style, Tensor) else style().to(self.network.mean)
        height, width = picture.shape[-2:]
        factor = long_side / max(height, width)
        return resize_image(picture, (max(1, round(height * factor)), max(1, round(width * factor))))

    def _blended(self, pictures: Sequence[Tensor]) -> list[_Style]:
        """The styles of the regions; without masks, the average of the pictures' statistics."""
        found = [self._statistics(each) for each in pictures]
        if self._masks is None:
            mixed = {
                layer: torch.stack(
                    [weight * each[layer] for weight, each in zip(self._blend, found, strict=True)]
                ).sum(0)
                for layer in self._options.style_layers
            }
            found = [mixed]
        return [self._style(each) for each in found]

    def _style(self, statistics: Mapping[str, Tensor]) -> _Style:
        loss = self._style_loss
        return _Style(
            {layer: tuple(part[0] for part in loss.wanted(each[None])) for layer, each in statistics.items()},
            {layer: loss.factor(each[None], self._options.loss_scale)[0] for layer, each in statistics.items()},
        )

    def _statistics(self, style: Tensor) -> dict[str, Tensor]:
        """Statistics of a style picture, averaged over the positions of each style layer."""
        try:
            self.network.check_size(style)
        except ImageTooSmall as error:
            raise ImageTooSmall(f"the style picture at this photograph's size: {error}") from None
        parts = self._tiles(style)
        sums: dict[str, Tensor] = {}
        sizes: Mapping[str, tuple[int, int]]
        if not parts:
            features = self.network(style[None])
            sums = {
                layer: self._style_loss.sums(features[layer], None)[0] for layer in self._options.style_layers
            }
            sizes = {layer: (each.shape[-2], each.shape[-1]) for layer, each in features.items()}
        else:
            for tile in parts:
                owned = owned_features(self.network, tile.cut(style), tile)
                for layer in self._options.style_layers:
                    share = self._style_loss.sums(owned[layer][None], None)[0]
                    sums[layer] = sums[layer] + share if layer in sums else share
            sizes = layer_sizes(self.network, style)
        return {layer: self._style_loss.means(each, math.prod(sizes[layer])) for layer, each in sums.items()}
