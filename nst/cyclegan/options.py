"""The options of CycleGAN's training: networks, losses and optimizers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from nst import check
from nst.cyclegan.networks import DISCRIMINATORS, GENERATORS, Padding, Upsample, check_generator
from nst.errors import OptionError
from nst.gan.layers import MOST_LAYERS, Init, Norm
from nst.gan.losses import GANMode, Penalty, check_penalty
from nst.gan.precision import Precision
from nst.stylizer import LATER

__all__ = ["CycleGANOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleGANOptions:
    """Networks, losses and optimizers. The defaults are the paper's."""

    generator: str = "resnet_9blocks"
    """The generators' network: `resnet_9blocks`, `resnet_6blocks`, `unet_256` or `unet_128`."""
    discriminator: str = "basic"
    """The discriminators' network: `basic` (PatchGAN of 70 pixels), `n_layers` or `pixel`."""
    discriminator_layers: int = 3
    """Layers of stride 2 of the discriminator `n_layers`."""
    norm: Norm = "instance"
    """The normalization after convolutions: `instance`, `batch` or `none`."""
    generator_channels: int = 64
    """Channels of the generators' first layer."""
    discriminator_channels: int = 64
    """Channels of the discriminators' first layer."""
    padding: Padding = "reflect"
    """How the ResNets' blocks pad: `reflect`, `replicate` or `zero`."""
    dropout: bool = False
    """Whether there is dropout of a half within the generators."""
    init: Init = "normal"
    """The distribution of the first parameters: `normal`, `xavier`, `kaiming` or `orthogonal`."""
    init_gain: float = 0.02
    """Standard deviation or gain of the first parameters."""
    gan_mode: GANMode = "lsgan"
    """The adversarial loss: `lsgan`, `vanilla`, `wgangp` or `hinge`."""
    penalty: Penalty | None = None
    """The penalty on the discriminators' gradients: `wgangp`, `r1`, `zero_centered` or `none`. None: what goes
    with `gan_mode`."""
    penalty_weight: float = 10.0
    """Weight of the penalty on the discriminators' gradients."""
    lambda_a: float = 10.0
    """Weight of the cycle A -> B -> A."""
    lambda_b: float = 10.0
    """Weight of the cycle B -> A -> B."""
    lambda_identity: float = 0.5
    """Weight of the identity losses, G_A(b) = b and G_B(a) = a, relative to the cycles'. 0: these passes are
    left out."""
    pool_size: int = 50
    """Earlier fakes that the discriminators may see again; 0: only the last."""
    learning_rate: float = 2e-4
    """Adam's learning rate."""
    beta1: float = 0.5
    """Adam's decay of the mean of gradients."""
    ema_decay: float = 0.0
    """Decay of an average of the generators' parameters over steps; while few steps are done, the average is
    over a tenth of them. 0: none."""
    precision: Precision = "float32"
    """Precision of activations: `float32`, `bfloat16`, which is slower on CPUs that do not have it, or, for
    GPUs without it, `float16`, with losses scaled so that gradients are in its range; parameters, losses and
    optimizers stay float32. `float64`, for proofs, is that of everything."""
    compile: bool = field(default=False, metadata=LATER)
    """Whether torch.compile fuses what the generators compute, which GPUs need that wait for small images. It
    takes a compiler and some minutes at the start, and changes last digits."""
    upsample: Upsample = field(default="transposed", metadata=LATER)
    """How the ResNets enlarge: `transposed` convolutions, as in the paper, or `blur`: zoom, convolve, blur,
    which leaves no checkerboards (Odena et al. 2016)."""
    input_channels: Literal[1, 3] = field(default=3, metadata=LATER)
    """Channels of the images of `a`: 3, or 1, which makes its photographs gray."""
    output_channels: Literal[1, 3] = field(default=3, metadata=LATER)
    """Channels of the images of `b`: 3, or 1, which makes its photographs gray."""
    discriminator_learning_rate: float | None = field(default=None, metadata=LATER)
    """The discriminators' own learning rate. None: the generators'."""
    beta2: float = field(default=0.999, metadata=LATER)
    """Adam's decay of the mean of squared gradients."""
    max_gradient_norm: float = field(default=0.0, metadata=LATER)
    """Norm that the gradients of each side are clipped to, of all its parameters together. 0: they are not."""
    critic_steps: int = field(default=1, metadata=LATER)
    """Steps of the discriminators for each of the generators (Arjovsky et al. 2017): only every so many steps
    these are trained, too, and other steps measure their losses. Steps have the same photographs, whatever it
    is."""
    spectral_norm: bool = field(default=False, metadata=LATER)
    """Whether weights of the discriminators' convolutions are divided by their largest singular values (Miyato
    et al. 2018), whatever `norm` is."""

    def __post_init__(self) -> None:
        check.one_of("generator", self.generator, GENERATORS)
        check.one_of("discriminator", self.discriminator, DISCRIMINATORS)
        check.one_of("norm", self.norm, get_args(Norm))
        check.one_of("padding", self.padding, get_args(Padding))
        check.one_of("init", self.init, get_args(Init))
        check.one_of("gan_mode", self.gan_mode, get_args(GANMode))
        check.one_of("precision", self.precision, get_args(Precision))
        if self.penalty is None:
            object.__setattr__(self, "penalty", "wgangp" if self.gan_mode == "wgangp" else "none")
        assert self.penalty is not None
        check_penalty(self.penalty, self.norm)
        for option in ("discriminator_layers", "generator_channels", "discriminator_channels"):
            check.at_least(option, getattr(self, option), 1)
        check.at_least("critic_steps", self.critic_steps, 1)
        check.at_most("discriminator_layers", self.discriminator_layers, MOST_LAYERS)
        ends = self.input_channels, self.output_channels
        check_generator(self.generator, self.norm, self.generator_channels, self.padding, self.upsample, ends)
        if self.lambda_identity and self.input_channels != self.output_channels:
            reason = "must be 0: images of a and of b have different numbers of channels"
            raise OptionError("lambda_identity", self.lambda_identity, reason=reason)
        for option in (
            "penalty_weight",
            "lambda_a",
            "lambda_b",
            "lambda_identity",
            "pool_size",
            "max_gradient_norm",
        ):
            check.at_least(option, getattr(self, option), 0)
        for option in ("learning_rate", "discriminator_learning_rate", "init_gain"):
            if getattr(self, option) is not None:
                check.above_zero(option, getattr(self, option))
        for option in ("beta1", "beta2", "ema_decay"):
            check.below_one(option, getattr(self, option))
