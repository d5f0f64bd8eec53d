"""The loss of neural style transfer and its gradient, for photographs that share a network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nst.batching import by_shape
from nst.features import FeatureNetwork
from nst.images import resize_image
from nst.losses import (
    GramNormalization,
    LossScale,
    content_loss,
    gram_matrix,
    style_loss,
    total_variation_loss,
)
from nst.optimize import Evaluation

__all__ = ["StyleObjective", "Targets"]


@dataclass(frozen=True, slots=True)
class Targets:
    """What one photograph is drawn to."""

    content: Mapping[str, Tensor]
    """The photograph's own activations by content layer, each (C, H, W)."""
    grams: Mapping[str, Tensor]
    """The style picture's Gram matrices by style layer, each (C, C)."""


class StyleObjective:
    """content_weight * content + style_weight * style + tv_weight * total variation (Gatys et al. 2016, eq. 7).

    Args:
        style: (3, H, W) in [0, 1].
        style_scale: long side of the style picture relative to the photograph's.

    The style's Gram matrices are computed once per size of photograph and kept.
    """

    _MAX_CACHED_SIZES = 32

    def __init__(
        self,
        network: FeatureNetwork,
        style: Tensor,
        *,
        content_layers: Mapping[str, float],
        style_layers: Mapping[str, float],
        content_weight: float,
        style_weight: float,
        tv_weight: float = 0.0,
        gram_normalization: GramNormalization = "hw",
        loss_scale: LossScale = "mean",
        style_scale: float = 1.0,
    ) -> None:
        self.network = network
        self._style, self._style_scale = style.to(network.mean), style_scale
        self._content_layers, self._style_layers = dict(content_layers), dict(style_layers)
        self._content_weight, self._style_weight, self._tv_weight = content_weight, style_weight, tv_weight
        self._gram_normalization, self._loss_scale = gram_normalization, loss_scale
        self._grams: OrderedDict[int, dict[str, Tensor]] = OrderedDict()

    @torch.no_grad()
    def targets(self, photo: Tensor) -> Targets:
        """What `photo` (3, H, W) is drawn to.

        Raises:
            ImageTooSmall: the photograph or the scaled style picture vanishes before the deepest layer.
        """
        features = self.network(photo.to(self.network.mean)[None])
        content = {layer: features[layer][0] for layer in self._content_layers}
        long_side = max(1, round(max(photo.shape[-2:]) * self._style_scale))
        return Targets(content=content, grams=self._style_grams(long_side))

    def evaluate(self, points: Sequence[Tensor], targets: Sequence[Targets]) -> list[Evaluation]:
        """Losses by name and the gradient at each point (3, H, W), given that photograph's targets."""
        evaluations: dict[int, Evaluation] = {}
        for group in by_shape(points):
            pixels = torch.stack([points[index] for index in group]).requires_grad_()
            losses = self._losses(pixels, [targets[index] for index in group])
            # One backward for the sum of all losses; no gradient crosses from one photograph to another.
            (grads,) = torch.autograd.grad(losses["loss"].sum(), pixels)
            rows = torch.stack(list(losses.values()), dim=1).tolist()
            for index, row, grad in zip(group, rows, grads, strict=True):
                evaluations[index] = Evaluation(losses=dict(zip(losses, row, strict=True)), grad=grad)
        return [evaluations[index] for index in range(len(points))]

    def _losses(self, pixels: Tensor, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """(N, 3, H, W) to named losses, each (N,)."""
        features = self.network(pixels)
        content = style = smooth = pixels.new_zeros(len(pixels))
        for layer, weight in self._content_layers.items():
            wanted = torch.stack([target.content[layer] for target in targets])
            content = content + weight * content_loss(features[layer], wanted, scale=self._loss_scale)
        for layer, weight in self._style_layers.items():
            gram = gram_matrix(features[layer], normalization=self._gram_normalization)
            wanted = torch.stack([target.grams[layer] for target in targets])
            style = style + weight * style_loss(gram, wanted, scale=self._loss_scale)
        if self._tv_weight:
            smooth = self._tv_weight * total_variation_loss(pixels)
        content, style = self._content_weight * content, self._style_weight * style
        return {
            "loss": content + style + smooth,
            "content_loss": content,
            "style_loss": style,
            "tv_loss": smooth,
        }

    def _style_grams(self, long_side: int) -> dict[str, Tensor]:
        if long_side not in self._grams:
            height, width = self._style.shape[-2:]
            factor = long_side / max(height, width)
            size = max(1, round(height * factor)), max(1, round(width * factor))
            features = self.network(resize_image(self._style, size)[None])
            self._grams[long_side] = {
                layer: gram_matrix(features[layer], normalization=self._gram_normalization)[0]
                for layer in self._style_layers
            }
            if len(self._grams) > self._MAX_CACHED_SIZES:
                self._grams.popitem(last=False)
        self._grams.move_to_end(long_side)
        return self._grams[long_side]
