"""Options of the training of one generator for many styles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from nst import check
from nst.gan.layers import MOST_LAYERS, Norm
from nst.gan.losses import GANMode, check_penalty
from nst.gan.precision import Precision
from nst.modulated.networks import check_styles
from nst.ops.equalized import Border
from nst.stylizer import LATER

__all__ = ["ManyStylesOptions"]

_GAN_MODES = tuple(mode for mode in get_args(GANMode) if mode != "wgangp")


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyStylesOptions:
    """Networks, losses and optimizers."""

    styles: tuple[str, ...]
    """Names of the styles; the first is that of the photographs."""
    generator_channels: int = 64
    """Channels of the generator's first layer."""
    blocks: int = 6
    """Residual blocks of the generator."""
    latent: int = 64
    """Length of a style's latent."""
    mapping_layers: int = 2
    """Layers that map a style's embedding to its latent."""
    pixel_norm: bool = True
    """Whether the styles' embeddings are normalized."""
    padding: Border = "reflect"
    """How the generator's convolutions pad: `reflect` or `zero`."""
    norm: Norm = "instance"
    """The normalization in the generator's encoder: `instance`, `batch` or `none`."""
    discriminator_channels: int = 64
    """Channels of the discriminator's first layer."""
    discriminator_layers: int = 3
    """Layers of stride 2 of the discriminator."""
    discriminator_norm: Norm = "none"
    """The discriminator's normalization: `instance`, `batch` or `none`."""
    blur: bool = True
    """Whether images are blurred before each of the discriminator's strides."""
    gan_mode: GANMode = "vanilla"
    """The adversarial loss: `vanilla`, `lsgan` or `hinge`."""
    penalty: Literal["none", "r1"] = "r1"
    """The penalty on the discriminator's gradients: `none` or `r1`, at real pictures (Mescheder et al. 2018):
    penalty_weight / 2 times the mean over these of |g|^2, where g is the gradient of the mean of a picture's
    logits with respect to the picture. The mean, unlike the sum of the logits, is one number whatever the size
    of their map."""
    penalty_weight: float = 10.0
    """Gamma, the penalty's weight, as StyleGAN2 (Karras et al. 2020) writes it; but here `vanilla` has half of
    its loss of the discriminator, so that the same gamma is twice as strong."""
    penalty_every: int = 16
    """Steps from one with the penalty to the next, which has it times as many (Karras et al. 2020, section
    3.1)."""
    lambda_cycle: float = 10.0
    """Weight of the cycle a -> b -> a."""
    lambda_identity: float = 0.0
    """Weight of the identity loss a -> a, relative to the cycles'. 0: this pass is left out."""
    learning_rate: float = 2e-3
    """Adam's learning rate."""
    discriminator_learning_rate: float | None = None
    """Learning rate of the discriminator's Adam (Heusel et al. 2017). None: the same as the generator's."""
    beta1: float = 0.0
    """Adam's decay of the mean of gradients."""
    beta2: float = 0.99
    """Adam's decay of the mean of squared gradients."""
    ema_decay: float = 0.999
    """Decay of an average of the generator's parameters over steps; while few steps are done, the average is
    over a tenth of them. 0: none."""
    precision: Precision = "float32"
    """Precision of activations: `float32`, `bfloat16`, which is slower on CPUs that do not have it, or, for
    GPUs without it, `float16`, with losses scaled so that gradients are in its range; parameters, losses and
    optimizers stay float32. `float64`, for proofs, is that of everything."""
    compile: bool = field(default=False, metadata=LATER)
    """Whether torch.compile fuses what the generators compute, which GPUs need that wait for small images. It
    takes a compiler and some minutes at the start, and changes last digits."""
    max_gradient_norm: float = field(default=0.0, metadata=LATER)
    """Norm that the gradients of each side are clipped to, of all its parameters together. 0: they are not."""
    critic_steps: int = field(default=1, metadata=LATER)
    """Steps of the discriminator for each of the generator (Arjovsky et al. 2017): only every so many steps the
    generator is trained, too, and other steps measure its losses. Steps have the same photographs, whatever it
    is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "styles", tuple(self.styles))
        check_styles(self.styles)
        for option, choices in (
            ("padding", get_args(Border)),
            ("norm", get_args(Norm)),
            ("discriminator_norm", get_args(Norm)),
            ("gan_mode", _GAN_MODES),
            ("penalty", ("none", "r1")),
            ("precision", get_args(Precision)),
        ):
            check.one_of(option, getattr(self, option), choices)
        check_penalty(self.penalty, self.discriminator_norm)
        for option in ("generator_channels", "latent", "discriminator_channels", "discriminator_layers"):
            check.at_least(option, getattr(self, option), 1)
        check.at_most("discriminator_layers", self.discriminator_layers, MOST_LAYERS)
        for option in ("penalty_every", "critic_steps"):
            check.at_least(option, getattr(self, option), 1)
        for option in (
            "blocks",
            "mapping_layers",
            "penalty_weight",
            "lambda_cycle",
            "lambda_identity",
            "max_gradient_norm",
        ):
            check.at_least(option, getattr(self, option), 0)
        check.above_zero("learning_rate", self.learning_rate)
        if self.discriminator_learning_rate is not None:
            check.above_zero("discriminator_learning_rate", self.discriminator_learning_rate)
        for option in ("beta1", "beta2", "ema_decay"):
            check.below_one(option, getattr(self, option))
