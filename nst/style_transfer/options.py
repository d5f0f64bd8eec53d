"""What style transfer's loss and its painting want to know: two frozen values, of the method's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nst.losses import GramNormalization, LossScale
from nst.ops.precision import Precision
from nst.style_transfer.losses import StyleLossName

__all__ = ["ObjectiveOptions", "PaintingPlan", "PreserveColor", "Start"]

PreserveColor = Literal["none", "luminance", "match", "original"]
Start = Literal["photo", "noise", "gray", "picture", "feed_forward"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveOptions:
    """The loss. Names and meanings are those of `StyleTransfer`, but for the last two."""

    content_layers: Mapping[str, float]
    """Layers of the content loss, and the weight of each within it."""
    style_layers: Mapping[str, float]
    """Layers of the style loss, and the weight of each within it."""
    content_weight: float
    """Weight of the content loss."""
    style_weight: float
    """Weight of the style loss."""
    tv_weight: float = 0.0
    """Weight of the total variation."""
    style_loss: StyleLossName = "gram"
    """What of the styles' activations is matched; see `nst.style_transfer.losses`."""
    gram_normalization: GramNormalization = "hw"
    """What Gram matrices are divided by."""
    loss_scale: LossScale = "mean"
    """What squared distances are relative to."""
    style_scale: float = 1.0
    """Long side of the style pictures relative to the photograph's."""
    style_side_px: int | None = None
    """Long side of the style pictures, whatever the photograph's; None: as `style_scale` says."""
    style_blend: tuple[float, ...] | None = None
    """Weight of each style; None: all alike. Without masks their Gram matrices, or moments, are averaged with
    these weights (as in Torch7's neural-style); with masks, the regions' losses are."""
    normalize_gradients: bool = False
    """Whether each loss's gradient at its layer is divided by its L1 norm, and multiplied by its weight."""
    preserve_color: PreserveColor = "none"
    """How the styles are recolored for each photograph; see `nst.style_transfer.color`."""
    share_passes: bool = False
    """Whether photographs share passes through the network, of different sizes too. Exact, but the last bits of
    each may then depend on the others."""
    cuda_graphs: bool = False
    """Whether what is computed of a photograph alone is recorded, on GPUs."""
    max_pass_pixels: int | None = None
    """Pixels of one pass; larger photographs are computed in tiles. Of the VGGs and the embedded network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintingPlan:
    """How a photograph is painted. Names and meanings are those of `StyleTransfer`."""

    init: Start
    """Where the optimization starts."""
    preserve_color: PreserveColor
    """How the photograph's colors are kept."""
    border_px: int
    """Pixels that are mirrored around the photograph."""
    coarse_scales: tuple[float, ...]
    """Smaller sizes of the photograph to go through first."""
    coarse_steps: int
    """Evaluations at each of the coarse scales."""
    steps: int
    """Evaluations at the photograph's own size."""
    optimizer: Literal["lbfgs", "adam"]
    """The optimizer's name."""
    learning_rate: float | None
    """The optimizer's learning rate; None: its own default."""
    history_size: int
    """Curvature pairs that L-BFGS keeps."""
    stop_tolerance: float
    """Share of the loss by which it must fall over 20 evaluations to go on."""
    average_iterates: float
    """Decay of the average of pictures; 0: the best picture is taken."""
    precision: Precision
    """Precision of activations."""
    refine_steps: int
    """Evaluations in float32 at the end, with `bfloat16`."""
    curve: bool
    """Whether the losses of every evaluation are kept."""
    frame_every: int
    """Evaluations from one kept picture to the next; 0: none are kept."""

    @property
    def scales(self) -> tuple[tuple[float, int], ...]:
        """Sizes relative to the photograph's own, coarse to fine, and evaluations at each."""
        coarse = ((scale, self.coarse_steps) for scale in sorted(self.coarse_scales))
        return (*coarse, (1.0, self.steps))
