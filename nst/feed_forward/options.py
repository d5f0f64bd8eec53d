"""Options of the training of the painter that paints in any style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nst import check
from nst.errors import OptionError
from nst.features.conventions import check_convention
from nst.features.layers import VGG_BLOCKS, check_layers
from nst.features.weights import default_weights

__all__ = ["SIGHT", "PainterOptions"]

SIGHT = ("relu3_1", "relu4_1", "relu3_1", "relu2_1")
"""The teacher's layers whose activations the painter's, where they are colored, are to tell."""

Precision = Literal["float32", "bfloat16"]
_LEAST_SIDE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class PainterOptions:
    """Networks, losses and the optimizer."""

    half: int = 32
    """Channels of the painter at half a photograph's size."""
    quarter: int = 64
    """Channels of the painter at a quarter of a photograph's size."""
    eighth: int = 128
    """Channels of the painter at an eighth of a photograph's size."""
    side: int = 128
    """Side in pixels of the squares of photographs and pictures that are trained on; a multiple of 8. They are
    taken of crops, data.crop_size, which have twice this side at least, at random scales."""
    teacher: str = "vgg16"
    """Feature network whose activations the losses compare: vgg19, vgg16, or embedded."""
    teacher_weights: str | None = None
    """Weights of the teacher: the path or URL of a state dict, `imagenet`, `embedded`, or `seeded`. None: those
    that the network is published with."""
    teacher_weights_sha256: str | None = None
    """Digest that the file of the teacher's weights must have."""
    teacher_weights_convention: str | None = None
    """What the weights of a teacher that is a VGG want as input, as that of the other methods."""
    content_layer: str = "relu3_1"
    """Layer whose activations, normalized as instance normalization does, are to be the photograph's."""
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    """Layers whose Gram matrices are to be the style's."""
    style_weight: float = 40.0
    """Weight of the style's loss, relative to the content's."""
    reconstruction_weight: float = 10.0
    """Weight of the loss of pictures that are painted as they are, relative to the content's."""
    sight_weight: float = 0.3
    """Weight of what the painter does not see of what the teacher sees, relative to the content's loss."""
    warmup_steps: int = 2000
    """Steps at first in which the painter only learns to see pictures as the teacher does, and to paint them as
    they are. A step takes half of what later ones do."""
    learning_rate: float = 7e-4
    """Adam's learning rate."""
    beta1: float = 0.9
    """Adam's decay of the mean of gradients."""
    beta2: float = 0.99
    """Adam's decay of the mean of squared gradients."""
    ema_decay: float = 0.999
    """Decay of an average of all parameters over steps; while few steps are done, the average is over a tenth
    of them. 0: none."""
    precision: Precision = "float32"
    """Precision of activations: `float32` or `bfloat16`; parameters, losses and the optimizer are float32."""
    max_gradient_norm: float = 1.0
    """Norm that the gradients of all parameters together are clipped to. 0: they are not."""

    def __post_init__(self) -> None:
        for option in ("half", "quarter", "eighth"):
            check.at_least(option, getattr(self, option), 1)
        check.at_least("side", self.side, _LEAST_SIDE)
        if self.side % 8:
            raise OptionError("side", self.side, reason="must be a multiple of 8")
        check.one_of("teacher", self.teacher, tuple(VGG_BLOCKS))
        if self.teacher_weights is None:
            object.__setattr__(self, "teacher_weights", default_weights(self.teacher))
        try:
            check_convention(self.teacher, self.teacher_weights_convention)
        except OptionError as error:
            raise OptionError(
                f"teacher_{error.option}", error.value, choices=error.choices, reason=error.reason
            ) from error
        object.__setattr__(self, "style_layers", tuple(self.style_layers))
        check_layers("style_layers", self.teacher, self.style_layers)
        check_layers("content_layer", self.teacher, [self.content_layer])
        check.above_zero("learning_rate", self.learning_rate)
        for option in (
            "style_weight",
            "reconstruction_weight",
            "sight_weight",
            "warmup_steps",
            "max_gradient_norm",
        ):
            check.at_least(option, getattr(self, option), 0)
        for option in ("beta1", "beta2", "ema_decay"):
            check.below_one(option, getattr(self, option))
        check.one_of("precision", self.precision, get_args(Precision))

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the teacher that the losses compare."""
        return tuple(dict.fromkeys((self.content_layer, *self.style_layers, *SIGHT)))
