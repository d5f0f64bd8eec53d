"""What a dream climbs: activations that are made stronger, or more like a guide's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nst.errors import OptionError
from nst.features import FeatureNetwork
from nst.features.tiles import Tile, owned_features, tile_side, tiles
from nst.ops import ReLUBackward, relu_backward
from nst.ops.equalized import at_least_float32

__all__ = ["DreamObjective", "best_matches", "parse_term"]

_CHUNK_BYTES = 16_000_000


def parse_term(name: str) -> tuple[str, int | None]:
    """`layer` or `layer:channel`, taken apart.

    Raises:
        OptionError: the channel is no number from 0.
    """
    layer, colon, channel = name.partition(":")
    if not colon:
        return layer, None
    if not channel.isdecimal():
        raise OptionError("layers", name, reason="a channel is a number from 0, as in relu4_3:17")
    return layer, int(channel)


@dataclass(frozen=True, slots=True)
class _Term:
    layer: str
    channel: int | None
    weight: float


class DreamObjective:
    """A weighted sum of one term for each of `layers`, of activations F:

    - `layer`: |F|^2 / 2; its gradient at the layer is F itself (Mordvintsev et al. 2015).
    - `layer:channel`: the sum of one channel (Olah et al. 2017, "Feature visualization"). With the layer
      `logits`, the channel is a class.
    - `layer`, with a guide: sum_i max_j <x_i, y_j> over the positions i of the photograph and j of the guide;
      its gradient at i is the guide's activation that matches best (Mordvintsev et al. 2015, "guided").

    Args:
        network: with the layers of all terms.
        guide: (3, h, w) in [0, 1], of any size.
        max_pass_pixels: those of one pass, at least `nst.features.tiles.least_pixels`; larger photographs are
            computed in tiles, exactly. Not with `logits`, which see all of a photograph.

    Raises:
        OptionError: a layer has no such channel.
        ImageTooSmall: the guide vanishes before the deepest layer.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        layers: Mapping[str, float],
        *,
        guide: Tensor | None = None,
        max_pass_pixels: int | None = None,
    ) -> None:
        self.network = network
        self._terms = [_Term(*parse_term(name), weight) for name, weight in layers.items()]
        self._max_pass_pixels = max_pass_pixels
        self._guide: dict[str, Tensor] = {}
        with torch.no_grad():
            if guide is not None:
                found = network(guide[None].to(network.mean))
                self._guide = {layer: at_least_float32(each[0]).flatten(1) for layer, each in found.items()}
            else:
                found = network(network.mean.expand(1, 3, network.min_side_px, network.min_side_px))
        for term in self._terms:
            channels = found[term.layer].shape[1]
            if term.channel is not None and term.channel >= channels:
                reason = f"{term.layer} has channels 0 to {channels - 1}"
                raise OptionError("layers", f"{term.layer}:{term.channel}", reason=reason)

    def evaluate(self, images: Tensor, backward: ReLUBackward = "standard") -> tuple[Tensor, Tensor]:
        """The objective of each of (N, 3, H, W), (N,), and its gradient, (N, 3, H, W).

        Args:
            backward: what the network's ReLUs let back through.

        Raises:
            ImageTooSmall: the images vanish before the deepest layer.
        """
        height, width = images.shape[-2:]
        if self._max_pass_pixels is None or len(images) * height * width <= self._max_pass_pixels:
            return self._climb(images, backward, self.network)
        if height * width <= self._max_pass_pixels:
            passes = torch.split(images, self._max_pass_pixels // (height * width))
            parts = [self._climb(part, backward, self.network) for part in passes]
            return torch.cat([value for value, _ in parts]), torch.cat([grad for _, grad in parts])
        values, grads = images.new_zeros(len(images)), torch.zeros_like(images)
        for tile in tiles(self.network, height, width, tile_side(self.network, self._max_pass_pixels)):
            for index, image in enumerate(images):
                value, grad = self._climb(tile.cut(image)[None], backward, partial(self._seen, tile))
                values[index] += value[0]
                tile.cut(grads[index]).add_(grad[0])
        return values, grads

    def _seen(self, tile: Tile, pixels: Tensor) -> dict[str, Tensor]:
        owned = owned_features(self.network, pixels[0], tile)
        return {layer: each[None] for layer, each in owned.items()}

    def _climb(
        self, images: Tensor, backward: ReLUBackward, see: Callable[[Tensor], Mapping[str, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        x = images.detach().requires_grad_()
        with relu_backward(self.network, backward):
            features = see(x)
        values = x.new_zeros(len(x))
        for term in self._terms:
            values = values + term.weight * self._value(term, features[term.layer])
        # A redirected ReLU takes its gradient for that of a loss, which is stepped against.
        sign = -1.0 if backward == "redirected" else 1.0
        (grads,) = torch.autograd.grad(sign * values.sum(), x)
        return values.detach(), sign * grads

    def _value(self, term: _Term, activations: Tensor) -> Tensor:
        """The value of a term for each of (N, C, ...): (N,)."""
        activations = at_least_float32(activations)  # as they are summed
        if term.channel is not None:
            return activations[:, term.channel].reshape(len(activations), -1).sum(1)
        if not self._guide:
            return activations.square().sum(list(range(1, activations.ndim))) / 2
        guide = self._guide[term.layer]
        values = []
        for each in activations:
            with torch.no_grad():
                matches = guide[:, best_matches(each.flatten(1), guide)].view_as(each)
            values.append((each * matches).sum())
        return torch.stack(values)


def best_matches(features: Tensor, guide: Tensor, chunk_bytes: int = _CHUNK_BYTES) -> Tensor:
    """The index of the largest inner product with (C, M), for each of (C, N): (N,). N x M products are too many
    to keep: `chunk_bytes` of them exist at once."""
    rows = max(1, chunk_bytes // (guide.shape[1] * guide.element_size()))
    return torch.cat([(chunk.T @ guide).argmax(1) for chunk in torch.split(features, rows, dim=1)])
