"""The loss of neural style transfer and its gradient, for photographs that share a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.features import FeatureNetwork
from nst.features.passes import by_shape, plan_passes
from nst.features.tiles import Tile, layer_strides, owned_features
from nst.losses import normalize_gradient, total_variation_loss
from nst.ops.constant import constant
from nst.ops.graphs import Graphs, Recorded
from nst.optim.descent import Evaluation
from nst.recent import Recent
from nst.style_transfer.options import ObjectiveOptions
from nst.style_transfer.targets import Picture, StyleTargets, Targets
from nst.style_transfer.terms import CONTENT, Term, Terms, View

__all__ = ["StyleObjective"]

_MOST_STYLES, _SIZES_OF_EACH = 32, 4
"""Styles by name whose targets are kept, each for so many sizes of photographs: a few MB for each of both."""


class StyleObjective:
    """content_weight * content + style_weight * style + tv_weight * total variation (Gatys et al. 2016, eq. 7).

    Args:
        styles: one or several (3, H, W) in [0, 1].
        masks: per style, where in the photographs it is painted: (1, H, W) in [0, 1], stretched to each of
            them. The Gram matrices of a region are guided (Gatys et al. 2017, "Controlling perceptual factors
            in neural style transfer"): activations times mask, over the sum of the squared mask.
        named: styles that a photograph may be drawn to instead, alone and everywhere, by name.

    Raises:
        OptionError: `max_pass_pixels` is too small for a tile.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        styles: Tensor | Sequence[Picture],
        options: ObjectiveOptions,
        *,
        masks: Sequence[Tensor] | None = None,
        named: Mapping[str, Picture] | None = None,
    ) -> None:
        self.network, self.options = network, options
        self._terms = Terms(options)
        self._networks = {network.dtype: network}
        pictures = [styles] if isinstance(styles, Tensor) else styles
        self._targets = StyleTargets(network, pictures, options, masks=masks)
        self.named = {} if named is None else named
        self._kept = Recent[str, StyleTargets](_MOST_STYLES)
        self._graphs = Graphs(options.cuda_graphs)
        self._recorded = WeakKeyDictionary[Targets, dict[torch.dtype, Recorded]]()

    def targets(self, photo: Tensor, border_px: int = 0, style: str | None = None) -> Targets:
        """What `photo` (3, H, W) is drawn to, with `border_px` of it mirrored on all sides: points have that
        border too.

        Args:
            style: one of `named`; None: all styles, as the options blend them.

        Raises:
            ImageTooSmall: the photograph or a scaled style picture vanishes before the deepest layer.
        """
        found = self._targets if style is None else self._of_one(style)
        return found.find(photo, border_px)

    def _of_one(self, style: str) -> StyleTargets:
        options = replace(self.options, style_blend=None)
        return self._kept.get(
            style,
            lambda: StyleTargets(self.network, [self.named[style]], options, masks=None, sizes=_SIZES_OF_EACH),
        )

    def has_room(self, pixels: Sequence[int]) -> bool:
        """Whether photographs of so many pixels each may be in work at once."""
        most = self.options.max_pass_pixels
        return most is None or sum(pixels) <= most

    def evaluate(
        self,
        points: Sequence[Tensor],
        targets: Sequence[Targets],
        dtype: torch.dtype | None = None,
        before: Sequence[Tensor] | None = None,
    ) -> list[Evaluation]:
        """Losses by name and the gradient at each point (3, H, W), given that photograph's targets.

        Args:
            dtype: of activations and their gradients; None: the network's own. Gram matrices, losses and the
                pixels' gradients are not less than float32.
            before: the points before, if it is to be known how far these have moved.
        """
        network = self._in_precision(dtype)
        evaluations: dict[int, Evaluation] = {}
        for whole in _alike(targets):
            for group in self._passes([points[index] for index in whole]):
                mine = [whole[place] for place in group]
                together = self._evaluate_pass(
                    network,
                    [points[index] for index in mine],
                    [targets[index] for index in mine],
                    None if before is None else [before[index] for index in mine],
                )
                evaluations.update(zip(mine, together, strict=True))
        for index, each in enumerate(targets):
            if each.tiles:
                last = None if before is None else before[index]
                evaluations[index] = self._evaluate_tiles(network, points[index], each, last)
        return [evaluations[index] for index in range(len(points))]

    def _in_precision(self, dtype: torch.dtype | None) -> FeatureNetwork:
        if dtype is None:
            return self.network
        if dtype not in self._networks:
            self._networks[dtype] = self.network.in_precision(dtype)
        return self._networks[dtype]

    def _passes(self, points: Sequence[Tensor]) -> Iterable[list[int]]:
        if not self.options.share_passes:
            return [[index] for index in range(len(points))]
        if not self.network.shares_canvas:
            return by_shape(points)
        return plan_passes([(point.shape[1], point.shape[2]) for point in points], self.options.max_pass_pixels)

    def _evaluate_pass(
        self,
        network: FeatureNetwork,
        points: Sequence[Tensor],
        targets: Sequence[Targets],
        before: Sequence[Tensor] | None = None,
    ) -> list[Evaluation]:
        """Evaluate whole photographs in one pass forward, and one backward through the sum of all losses: no
        gradient crosses from one photograph to another."""
        sizes = [(point.shape[1], point.shape[2]) for point in points]
        canvas = max(size[0] for size in sizes), max(size[1] for size in sizes)
        weights = self._terms.weights(targets[0])

        def compute(given: Tensor) -> tuple[Tensor, ...]:
            pixels = given.detach().requires_grad_()
            features = network(pixels, sizes) if len(set(sizes)) > 1 else network(pixels)
            values = self._terms.losses(self._terms.sums(self._whole(features, targets, weights)), targets)
            variation = pixels.new_zeros(len(sizes))
            if self.options.tv_weight:
                each_alone = (
                    total_variation_loss(image[None, :, :height, :width])
                    for image, (height, width) in zip(pixels, sizes, strict=True)
                )
                variation = torch.cat(list(each_alone))
            losses = self._terms.named(values, weights, variation)
            (grads,) = torch.autograd.grad(losses["loss"].sum(), pixels)
            parts = zip(grads, sizes, strict=True)
            whole = [grad[:, :height, :width].contiguous() for grad, (height, width) in parts]
            return _known(losses, whole), *whole

        stacked = _stacked(points, canvas)
        if len(points) == 1 and self._graphs.suit(stacked):
            recorded = self._recorded.setdefault(targets[0], {})
            known, *whole = recorded.setdefault(network.dtype, Recorded(self._graphs))(compute, stacked)
        else:
            known, *whole = compute(stacked)
        return _evaluations(self._terms.names(weights), known, whole, points, before)

    def _whole(
        self, features: Mapping[str, Tensor], targets: Sequence[Targets], weights: Mapping[Term, float]
    ) -> View:
        """Activations (N, C, h, w) of whole photographs, as the terms look at them."""
        seen: dict[Term, Tensor] = {}
        masks: dict[Term, Tensor] = {}
        for (number, layer), weight in weights.items():
            here = features[layer]
            seen[number, layer] = normalize_gradient(here, weight) if self.options.normalize_gradients else here
            if number != CONTENT:
                found = [each.regions[number].masks for each in targets]
                if found[0] is not None:
                    size = here.shape[-2:]
                    masks[number, layer] = _stacked([each[layer] for each in found if each], size)
        photos = {
            layer: _stacked([each.content[layer] for each in targets], features[layer].shape[-2:])
            for layer in self.options.content_layers
        }
        return View(seen, photos, masks)

    def _evaluate_tiles(
        self, network: FeatureNetwork, point: Tensor, targets: Targets, before: Tensor | None = None
    ) -> Evaluation:
        """Evaluate one photograph in tiles: first the styles' sums over all of them, which say how much each
        sum is to change; then the gradient, tile by tile."""
        weights = self._terms.weights(targets)
        sums: dict[Term, Tensor] = {}
        with torch.no_grad():
            for tile in targets.tiles:
                seen = owned_features(network, tile.cut(point), tile)
                for term, share in self._terms.sums(self._tile(seen, tile, targets)).items():
                    sums[term] = sums[term] + share if term in sums else share
        sums = {term: each.requires_grad_() for term, each in sums.items()}
        values = self._terms.losses(sums, [targets])
        slopes = {term: torch.autograd.grad(values[term].sum(), each)[0] for term, each in sums.items()}
        values = {term: value.detach() for term, value in values.items()}
        for layer in self.options.content_layers:
            values[CONTENT, layer] = point.new_zeros(1)
            slopes[CONTENT, layer] = targets.content_factors[layer][None]
        scales: Mapping[Term, float | Tensor] = weights
        if self.options.normalize_gradients:
            norms = self._norms(network, point, targets, slopes)
            divided = constant(list(weights.values()), norms) / norms.where(norms > 0, 1.0)
            scales = dict(zip(weights, divided, strict=True))
        grad = torch.zeros_like(point)
        for tile, photo in self._with_photo(targets):
            pixels = tile.cut(point).clone().requires_grad_()
            seen = owned_features(network, pixels, tile)
            shares = self._terms.sums(self._tile(seen, tile, targets, photo))
            back = [scales[term] * slopes[term] for term in shares]
            tile.cut(grad).add_(torch.autograd.grad(list(shares.values()), pixels, back)[0])
            content = {term: each.detach() for term, each in shares.items() if term[0] == CONTENT}
            for term, loss in self._terms.losses(content, [targets]).items():
                values[term] = values[term] + loss
        variation = point.new_zeros(1)
        if self.options.tv_weight:
            pixels = point.clone().requires_grad_()
            variation = total_variation_loss(pixels[None])
            grad += self.options.tv_weight * torch.autograd.grad(variation.sum(), pixels)[0]
        known = _known(self._terms.named(values, weights, variation.detach()), [grad])
        names = self._terms.names(weights)
        return _evaluations(names, known, [grad], [point], None if before is None else [before])[0]

    def _norms(
        self, network: FeatureNetwork, point: Tensor, targets: Targets, slopes: Mapping[Term, Tensor]
    ) -> Tensor:
        """L1 norms of the gradients of the terms, in their order, unweighted, at the activations of all tiles;
        in float64."""
        norms = point.new_zeros(len(slopes), dtype=torch.float64)
        by_term = dict(zip(self._terms.weights(targets), norms, strict=True))
        for tile, photo in self._with_photo(targets):
            with torch.no_grad():
                seen = owned_features(network, tile.cut(point), tile)
            seen = {layer: each.requires_grad_() for layer, each in seen.items()}
            view = self._tile(seen, tile, targets, photo)
            for (number, layer), share in self._terms.sums(view).items():
                (slope,) = torch.autograd.grad(share, seen[layer], slopes[number, layer])
                by_term[number, layer] += slope.abs().sum(dtype=share.dtype)
        return norms

    def _with_photo(self, targets: Targets) -> Iterator[tuple[Tile, Mapping[str, Tensor]]]:
        """The tiles, and what each owns of the photograph's own activations."""
        if targets.tile_content:
            yield from zip(targets.tiles, targets.tile_content, strict=True)
            return
        for tile in targets.tiles:
            with torch.no_grad():
                photo = owned_features(self.network, tile.cut(targets.photo), tile)
            yield tile, photo

    def _tile(
        self,
        seen: Mapping[str, Tensor],
        tile: Tile,
        targets: Targets,
        photo: Mapping[str, Tensor] | None = None,
    ) -> View:
        """What `tile` owns, activations (C, h, w), as the terms look at them; those of content only with
        `photo`."""
        content = () if photo is None else tuple(self.options.content_layers)
        features: dict[Term, Tensor] = {(CONTENT, layer): seen[layer][None] for layer in content}
        photos = {} if photo is None else {layer: photo[layer][None] for layer in content}
        masks: dict[Term, Tensor] = {}
        strides = layer_strides(self.network)
        for number, region in enumerate(targets.regions):
            for layer in self.options.style_layers:
                features[number, layer] = seen[layer][None]
                if region.masks is not None:
                    mask = tile.pick_from_whole(region.masks[layer], strides[layer])[None]
                    masks[number, layer] = mask.to(seen[layer])
        return View(features, photos, masks)


def _alike(targets: Sequence[Targets]) -> Iterable[list[int]]:
    """Which of those that are not in tiles may share a pass: their losses have the same terms."""
    found: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
    for index, each in enumerate(targets):
        if not each.tiles:
            found[len(each.regions), each.regions[0].masks is None].append(index)
    return found.values()


def _known(losses: Mapping[str, Tensor], grads: Sequence[Tensor]) -> Tensor:
    """Losses, (N,) each, and the extremes of N gradients, as rows: (K, N)."""
    extremes = zip(*(grad.aminmax() for grad in grads), strict=True)
    return torch.stack([*losses.values(), *(torch.stack(each) for each in extremes)]).detach()


def _evaluations(
    names: Sequence[str],
    known: Tensor,
    grads: Sequence[Tensor],
    points: Sequence[Tensor],
    before: Sequence[Tensor] | None,
) -> list[Evaluation]:
    """Evaluations at N points, of what is `known` of them and N gradients. All of it comes from a GPU at once,
    which is waited for here only."""
    if before is not None:
        moves = [(point - last).abs().mean() for point, last in zip(points, before, strict=True)]
        known = torch.cat([known, torch.stack(moves)[None]])
    columns, count = known.T.tolist(), len(names)
    return [
        Evaluation(dict(zip(names, row, strict=False)), grad, (row[count], row[count + 1]), *row[count + 2 :])
        for row, grad in zip(columns, grads, strict=True)
    ]


def _stacked(images: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """(C, h, w) images on canvases of `size`, top left, zero beyond: (N, C, *size)."""
    height, width = size
    if len(images) == 1 and images[0].shape[1:] == (height, width):
        return images[0][None]  # as it lies in memory: mixing layouts costs more than the arithmetic
    return torch.stack(
        [F.pad(each, (0, width - each.shape[-1], 0, height - each.shape[-2])) for each in images]
    )
