"""The loss of neural style transfer and its gradient, for photographs that share a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.features import FeatureNetwork
from nst.features.passes import by_shape, plan_passes
from nst.features.tiles import Tile, owned_features, strides_of
from nst.losses import (
    GramNormalization,
    LossScale,
    normalize_gradient,
    squared_distance,
    total_variation_loss,
)
from nst.optim.descent import Evaluation
from nst.style_transfer.losses import StyleLossName, style_loss_of
from nst.style_transfer.targets import PreserveColor, Region, StyleTargets, Targets

__all__ = ["StyleObjective"]

_CONTENT = -1
Term: TypeAlias = tuple[int, str]
"""A loss at a layer: the number of a style region, or `_CONTENT`; and the layer."""


class StyleObjective:
    """content_weight * content + style_weight * style + tv_weight * total variation (Gatys et al. 2016, eq. 7).

    Args:
        styles: one or several (3, H, W) in [0, 1].
        style_loss: what of the styles' activations is matched; see `nst.style_transfer.losses`.
        blend: weight of each style. Without masks their Gram matrices, or moments, are averaged with these
            weights (as in Torch7's neural-style); with masks, the regions' losses are.
        masks: per style, where in the photographs it is painted: (1, H, W) in [0, 1], stretched to each of
            them. The Gram matrices of a region are guided (Gatys et al. 2017, "Controlling perceptual factors
            in neural style transfer"): activations times mask, over the sum of the squared mask.
        style_scale: long side of the style pictures relative to the photograph's.
        style_side_px: their long side, whatever the photograph's; None: as `style_scale` says.
        normalize_gradients: divide each loss's gradient at its layer by its L1 norm, and multiply it by its
            weight.
        preserve_color: how the styles are recolored for each photograph; see `nst.style_transfer.color`.
        share_passes: let photographs share passes through the network, of different sizes too. Exact, but the
            last bits of each may then depend on the others.
        max_pass_pixels: of one pass; larger photographs are computed in tiles. For the VGGs.

    Raises:
        OptionError: `max_pass_pixels` is too small for a tile.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        styles: Tensor | Sequence[Tensor],
        *,
        content_layers: Mapping[str, float],
        style_layers: Mapping[str, float],
        content_weight: float,
        style_weight: float,
        tv_weight: float = 0.0,
        style_loss: StyleLossName = "gram",
        gram_normalization: GramNormalization = "hw",
        loss_scale: LossScale = "mean",
        style_scale: float = 1.0,
        style_side_px: int | None = None,
        blend: Sequence[float] | None = None,
        masks: Sequence[Tensor] | None = None,
        normalize_gradients: bool = False,
        preserve_color: PreserveColor = "none",
        share_passes: bool = False,
        max_pass_pixels: int | None = None,
    ) -> None:
        self.network = network
        self._content_layers, self._style_layers = dict(content_layers), dict(style_layers)
        self._content_weight, self._style_weight, self._tv_weight = content_weight, style_weight, tv_weight
        self._style_loss = style_loss_of(style_loss, gram_normalization)
        self._normalize = normalize_gradients
        self._share_passes, self._max_pass_pixels = share_passes, max_pass_pixels
        self._networks = {network.dtype: network}
        self._targets = StyleTargets(
            network,
            [styles] if isinstance(styles, Tensor) else styles,
            content_layers=content_layers,
            style_layers=style_layers,
            style_loss=self._style_loss,
            loss_scale=loss_scale,
            style_scale=style_scale,
            style_side_px=style_side_px,
            blend=blend,
            masks=masks,
            preserve_color=preserve_color,
            max_pass_pixels=max_pass_pixels,
        )

    def targets(self, photo: Tensor, border_px: int = 0) -> Targets:
        """What `photo` (3, H, W) is drawn to, with `border_px` of it mirrored on all sides: points have that
        border too.

        Raises:
            ImageTooSmall: the photograph or a scaled style picture vanishes before the deepest layer.
        """
        return self._targets.of(photo, border_px)

    def fits(self, pixels: Sequence[int]) -> bool:
        """Whether photographs of so many pixels each may be in work at once."""
        return self._max_pass_pixels is None or sum(pixels) <= self._max_pass_pixels

    def evaluate(
        self, points: Sequence[Tensor], targets: Sequence[Targets], dtype: torch.dtype | None = None
    ) -> list[Evaluation]:
        """Losses by name and the gradient at each point (3, H, W), given that photograph's targets.

        Args:
            dtype: of activations and their gradients; None: the network's own. Gram matrices, losses and the
                pixels' gradients are not less than float32.
        """
        network = self._in_precision(dtype)
        evaluations: dict[int, Evaluation] = {}
        whole = [index for index, each in enumerate(targets) if not each.tiles]
        for group in self._passes([points[index] for index in whole]):
            mine = [whole[place] for place in group]
            together = self._evaluate_pass(
                network, [points[index] for index in mine], [targets[index] for index in mine]
            )
            evaluations.update(zip(mine, together, strict=True))
        for index, each in enumerate(targets):
            if each.tiles:
                evaluations[index] = self._evaluate_tiles(network, points[index], each)
        return [evaluations[index] for index in range(len(points))]

    def _in_precision(self, dtype: torch.dtype | None) -> FeatureNetwork:
        if dtype is None:
            return self.network
        if dtype not in self._networks:
            self._networks[dtype] = self.network.in_precision(dtype)
        return self._networks[dtype]

    def _passes(self, points: Sequence[Tensor]) -> Iterable[list[int]]:
        if not self._share_passes:
            return [[index] for index in range(len(points))]
        if not self.network.shares_canvas:
            return by_shape(points)
        return plan_passes([(point.shape[1], point.shape[2]) for point in points], self._max_pass_pixels)

    def _evaluate_pass(
        self, network: FeatureNetwork, points: Sequence[Tensor], targets: Sequence[Targets]
    ) -> list[Evaluation]:
        sizes = [(point.shape[1], point.shape[2]) for point in points]
        canvas = max(size[0] for size in sizes), max(size[1] for size in sizes)
        pixels = _stacked(points, canvas).detach().requires_grad_()
        features = network(pixels, sizes) if len(set(sizes)) > 1 else network(pixels)
        values: dict[Term, Tensor] = {}
        strengths = self._strengths(targets[0])
        for (number, layer), strength in strengths.items():
            own = features[layer]
            if self._normalize:
                own = normalize_gradient(own, strength)
            if number == _CONTENT:
                wanted = _stacked([each.content[layer] for each in targets], own.shape[-2:])
                factors = torch.stack([each.content_factors[layer] for each in targets])
                values[number, layer] = factors * squared_distance(own, wanted)
            else:
                regions = [each.regions[number] for each in targets]
                mask = None
                if regions[0].masks is not None:
                    mask = _stacked([each.masks[layer] for each in regions if each.masks], own.shape[-2:])
                    own = own * mask
                values[number, layer] = self._region_loss(self._style_loss.sums(own, mask), regions, layer)
        smooth = pixels.new_zeros(len(points))
        if self._tv_weight:
            each_alone = (
                total_variation_loss(image[None, :, :height, :width])
                for image, (height, width) in zip(pixels, sizes, strict=True)
            )
            smooth = torch.cat(list(each_alone))
        losses = self._named(values, strengths, smooth)
        # One backward for the sum of all losses; no gradient crosses from one photograph to another.
        (grads,) = torch.autograd.grad(losses["loss"].sum(), pixels)
        rows = torch.stack(list(losses.values()), dim=1).tolist()
        return [
            Evaluation(dict(zip(losses, row, strict=True)), grad[:, :height, :width].contiguous())
            for row, grad, (height, width) in zip(rows, grads, sizes, strict=True)
        ]

    def _evaluate_tiles(self, network: FeatureNetwork, point: Tensor, targets: Targets) -> Evaluation:
        """First the styles' statistics, which need all tiles; then the gradient, tile by tile."""
        strengths = self._strengths(targets)
        sums: dict[Term, Tensor] = {}
        with torch.no_grad():
            for tile in targets.tiles:
                features = owned_features(network, tile.cut(point), tile)
                for term, own in self._tile_sums(features, tile, targets):
                    sums[term] = sums[term] + own if term in sums else own
        values: dict[Term, Tensor] = {}
        slopes: dict[Term, Tensor] = {}
        for (number, layer), own in sums.items():
            own.requires_grad_()
            loss = self._region_loss(own, [targets.regions[number]], layer)
            (slopes[number, layer],) = torch.autograd.grad(loss.sum(), own)
            values[number, layer] = loss.detach()

        def parts(features: Mapping[str, Tensor], tile: Tile) -> dict[Term, Tensor]:
            """What has the gradient of each loss at the owned activations. Of content, it is that loss."""
            found = {}
            with torch.no_grad():
                photo = owned_features(self.network, tile.cut(targets.photo), tile)
            for layer in self._content_layers:
                distance = squared_distance(features[layer][None], photo[layer][None])
                found[_CONTENT, layer] = targets.content_factors[layer] * distance
            for term, own in self._tile_sums(features, tile, targets):
                found[term] = (slopes[term] * own).sum((1, 2))
            return found

        scales = strengths
        if self._normalize:
            norms: defaultdict[Term, float] = defaultdict(float)
            for tile in targets.tiles:
                with torch.no_grad():
                    features = owned_features(network, tile.cut(point), tile)
                features = {layer: each.requires_grad_() for layer, each in features.items()}
                for (number, layer), part in parts(features, tile).items():
                    (slope,) = torch.autograd.grad(part.sum(), features[layer])
                    norms[number, layer] += float(slope.abs().sum(dtype=part.dtype))
            scales = {term: strength / (norms[term] or 1.0) for term, strength in strengths.items()}
        grad = torch.zeros_like(point)
        for layer in self._content_layers:
            values[_CONTENT, layer] = point.new_zeros(1)
        for tile in targets.tiles:
            pixels = tile.cut(point).clone().requires_grad_()
            found = parts(owned_features(network, pixels, tile), tile)
            total = torch.cat([scales[term] * part for term, part in found.items()]).sum()
            tile.cut(grad).add_(torch.autograd.grad(total, pixels)[0])
            for layer in self._content_layers:
                values[_CONTENT, layer] += found[_CONTENT, layer].detach()
        smooth = point.new_zeros(1)
        if self._tv_weight:
            pixels = point.clone().requires_grad_()
            smooth = total_variation_loss(pixels[None])
            grad += self._tv_weight * torch.autograd.grad(smooth.sum(), pixels)[0]
        losses = self._named(values, strengths, smooth.detach())
        return Evaluation({name: float(value) for name, value in losses.items()}, grad)

    def _strengths(self, targets: Targets) -> dict[Term, float]:
        """What each loss is multiplied by."""
        content = {
            (_CONTENT, layer): self._content_weight * weight for layer, weight in self._content_layers.items()
        }
        style = {
            (number, layer): self._style_weight * region.weight * weight
            for number, region in enumerate(targets.regions)
            for layer, weight in self._style_layers.items()
        }
        return content | style

    def _region_loss(self, sums: Tensor, regions: Sequence[Region], layer: str) -> Tensor:
        """Of a layer's statistics, summed over positions, (N, ...): (N,)."""
        positions = torch.stack([region.positions[layer] for region in regions]).view(-1, 1, 1)
        wanted = tuple(
            torch.stack(parts) for parts in zip(*(region.wanted[layer] for region in regions), strict=True)
        )
        factors = torch.stack([region.factors[layer] for region in regions])
        return factors * self._style_loss.distance(self._style_loss.means(sums, positions), wanted)

    def _tile_sums(
        self, features: Mapping[str, Tensor], tile: Tile, targets: Targets
    ) -> Iterator[tuple[Term, Tensor]]:
        """The share of a tile, whose owned activations are `features`, in the statistics."""
        strides = strides_of(self.network)
        for number, region in enumerate(targets.regions):
            for layer in self._style_layers:
                own, mask = features[layer][None], None
                if region.masks is not None:
                    mask = tile.own_of_whole(region.masks[layer], strides[layer])[None].to(own)
                    own = own * mask
                yield (number, layer), self._style_loss.sums(own, mask)

    def _named(
        self, values: Mapping[Term, Tensor], strengths: Mapping[Term, float], smooth: Tensor
    ) -> dict[str, Tensor]:
        """Losses by name, weighted as they enter the total, each (N,): the total, content, style and total
        variation; then those of the layers."""
        losses = {"content_loss": torch.zeros_like(smooth), "style_loss": torch.zeros_like(smooth)}
        layers: dict[str, Tensor] = {}
        for (number, layer), strength in strengths.items():
            name = "content_loss" if number == _CONTENT else "style_loss"
            weighted = strength * values[number, layer]
            losses[name] = losses[name] + weighted
            at_layer = f"{name}.{layer}"
            layers[at_layer] = layers[at_layer] + weighted if at_layer in layers else weighted
        losses["tv_loss"] = self._tv_weight * smooth
        return {"loss": torch.stack(list(losses.values())).sum(0), **losses, **layers}


def _stacked(images: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """(C, h, w) images on canvases of `size`, top left, zero beyond: (N, C, *size)."""
    height, width = size
    if len(images) == 1 and images[0].shape[1:] == (height, width):
        return images[0][None]  # as it lies in memory: mixing layouts costs more than the arithmetic
    return torch.stack(
        [F.pad(each, (0, width - each.shape[-1], 0, height - each.shape[-2])) for each in images]
    )
