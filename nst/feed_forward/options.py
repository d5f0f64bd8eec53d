"""Options of the training of the painter that paints in any style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from nst import check
from nst.errors import OptionError
from nst.features.conventions import check_convention
from nst.features.layers import VGG_BLOCKS, check_layers
from nst.features.weights import default_weights
from nst.ops.precision import Precision
from nst.style_transfer.pictures import check_styles, styles_of

__all__ = ["SIGHT", "PainterOptions", "StyleTrainingOptions"]

SIGHT = ("relu3_1", "relu4_1", "relu3_1", "relu2_1")
"""The teacher's layers whose activations the painter's, where they are colored, are to tell."""

_LEAST_SIDE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class _TrainingOptions:
    """What trainings of the painter have in common."""

    half: int = 32
    """Channels of the painter at half a photograph's size."""
    quarter: int = 64
    """Channels of the painter at a quarter of a photograph's size."""
    eighth: int = 128
    """Channels of the painter at an eighth of a photograph's size."""
    teacher: str | None = None
    """Feature network whose activations the losses compare: vgg16, vgg19, or embedded. None: vgg16."""
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
    beta1: float = 0.9
    """Adam's decay of the mean of gradients."""
    beta2: float = 0.99
    """Adam's decay of the mean of squared gradients."""
    precision: Precision = "float32"
    """Precision of activations: `float32`, or `bfloat16`, which is slower on CPUs that do not have it;
    parameters, losses and the optimizer are float32."""
    max_gradient_norm: float = 1.0
    """Norm that the gradients of all parameters together are clipped to. 0: they are not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleTrainingOptions(_TrainingOptions):
    """Styles, networks, losses and the optimizer."""

    style: str | tuple[str, ...]
    """Path or URL of the style picture, or a list of several, which are all learned. By their names, without
    folder and suffix, photographs may ask for one."""
    style_sha256: str | tuple[str, ...] | None = None
    """Digest that the style picture must have; of several, a list."""
    teacher: str | None = None
    """Feature network whose activations the losses compare: embedded, which comes with nst, vgg16, or vgg19.
    None: embedded, or vgg16 if `teacher_weights` are others."""
    style_side_px: int = 512
    """Long side of the style pictures as the network sees them, in pixels; more for larger strokes."""
    painter: str | None = "embedded"
    """Path or URL of the network to begin with: what another training of a painter ended with; or `embedded`,
    the one that comes with nst. None: a random one."""
    side: int = 224
    """Side in pixels of the pieces of photographs that are painted in a step; a multiple of 8."""
    pieces: int = 3
    """Pieces of each photograph that are painted in a step. Together they are to have the style."""
    reference_side: int = 576
    """Long side in pixels of what photographs' moments are taken from; the method has 384 to 576,
    three eighths of the photograph's."""
    style_weight: float = 15.0
    """Weight of the style's loss, relative to the content's."""
    learning_rate: float = 5e-4
    """Learning rate of Muon, which changes filters, and of Adam, which changes everything else."""
    ema_decay: float = 0.99
    """Decay of an average of all parameters over steps; while few steps are done, the average is over a tenth
    of them. 0: none."""

    def __post_init__(self) -> None:
        check_styles(self)
        for option in ("style_side_px", "side", "reference_side"):
            check.at_least(option, getattr(self, option), _LEAST_SIDE)
        check.at_least("pieces", self.pieces, 1)
        _check(self, "embedded" if self.teacher_weights in (None, "embedded") else "vgg16")
        check.at_least("style_weight", self.style_weight, 0)

    @property
    def style_blend(self) -> None:
        """Styles are learned apart."""

    @property
    def style_masks(self) -> None:
        """They are painted everywhere."""

    @property
    def styles(self) -> tuple[str, ...]:
        """Places of the style pictures."""
        return styles_of(self)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the teacher that the losses compare."""
        return tuple(dict.fromkeys((self.content_layer, *self.style_layers)))


@dataclass(frozen=True, kw_only=True, slots=True)
class PainterOptions(_TrainingOptions):
    """Networks, losses and the optimizer."""

    side: int = 128
    """Side in pixels of the squares of photographs and pictures that are trained on; a multiple of 8. They are
    taken of crops, data.crop_size, which have twice this side at least, at random scales."""
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
    ema_decay: float = 0.999
    """Decay of an average of all parameters over steps; while few steps are done, the average is over a tenth
    of them. 0: none."""

    def __post_init__(self) -> None:
        check.at_least("side", self.side, _LEAST_SIDE)
        _check(self, "vgg16")
        for option in ("style_weight", "reconstruction_weight", "sight_weight", "warmup_steps"):
            check.at_least(option, getattr(self, option), 0)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the teacher that the losses compare."""
        return tuple(dict.fromkeys((self.content_layer, *self.style_layers, *SIGHT)))


def _check(options: StyleTrainingOptions | PainterOptions, usual: str) -> None:
    """Check what both have, and fill in the teacher, which is the `usual` one if none is given, and its
    weights."""
    for option in ("half", "quarter", "eighth"):
        check.at_least(option, getattr(options, option), 1)
    if options.side % 8:
        raise OptionError("side", options.side, reason="must be a multiple of 8")
    if options.teacher is None:
        object.__setattr__(options, "teacher", usual)
    assert options.teacher is not None
    check.one_of("teacher", options.teacher, tuple(VGG_BLOCKS))
    if options.teacher_weights is None:
        object.__setattr__(options, "teacher_weights", default_weights(options.teacher))
    try:
        check_convention(options.teacher, options.teacher_weights_convention)
    except OptionError as error:
        raise OptionError(
            f"teacher_{error.option}", error.value, choices=error.choices, reason=error.reason
        ) from error
    object.__setattr__(options, "style_layers", tuple(options.style_layers))
    if not options.style_layers:
        raise OptionError("style_layers", (), reason="at least one layer is needed")
    check_layers("style_layers", options.teacher, options.style_layers)
    check_layers("content_layer", options.teacher, [options.content_layer])
    check.above_zero("learning_rate", options.learning_rate)
    check.at_least("max_gradient_norm", options.max_gradient_norm, 0)
    for option in ("beta1", "beta2", "ema_decay"):
        check.below_one(option, getattr(options, option))
    check.one_of("precision", options.precision, get_args(Precision))
