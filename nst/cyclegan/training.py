"""CycleGAN's training step, one process and one page, as the paper has it (Zhu et al. 2017, section 3).

G_A translates A to B, and D_A judges pictures of B; G_B and D_B the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst import check
from nst.cyclegan.method import GeneratorConfig, generator_file
from nst.cyclegan.networks import (
    DISCRIMINATORS,
    GENERATORS,
    Padding,
    Upsample,
    build_discriminator,
    check_generator,
)
from nst.errors import OptionError
from nst.gan.image_pool import ImagePool
from nst.gan.layers import MOST_LAYERS, Init, Norm, initialize
from nst.gan.losses import (
    GANMode,
    Penalty,
    check_penalty,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    mixed,
)
from nst.gan.parallel import Share
from nst.gan.trainer import (
    GANTraining,
    Precision,
    activations,
    evaluating,
    frozen,
    parameter_dtype,
    side_by_side,
)

__all__ = ["CycleGANOptions", "CycleGANTraining", "train_step"]

Losses = dict[str, Tensor]


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
    """Precision of activations: `float32` or `bfloat16`; parameters, losses and optimizers stay float32.
    `float64`, for proofs, is that of everything."""
    upsample: Upsample = "transposed"
    """How the ResNets enlarge: `transposed` convolutions, as in the paper, or `blur`: zoom, convolve, blur,
    which leaves no checkerboards (Odena et al. 2016)."""

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
        check.at_most("discriminator_layers", self.discriminator_layers, MOST_LAYERS)
        check_generator(self.generator, self.norm, self.generator_channels, self.padding, self.upsample)
        for option in ("penalty_weight", "lambda_a", "lambda_b", "lambda_identity", "pool_size"):
            check.at_least(option, getattr(self, option), 0)
        check.above_zero("learning_rate", self.learning_rate)
        check.above_zero("init_gain", self.init_gain)
        for option in ("beta1", "ema_decay"):
            if not 0 <= getattr(self, option) < 1:
                raise OptionError(option, getattr(self, option), reason="must be from 0 to below 1")


class CycleGANTraining(GANTraining):
    """Everything that training changes: networks, their averages, optimizers, image pools, random streams.

    Args:
        seed: of parameters, pools and of what penalties and dropout draw.
    """

    aliases: ClassVar[Mapping[str, str]] = {"A2B": "G_A", "B2A": "G_B"}

    def __init__(self, options: CycleGANOptions, *, seed: int = 0, device: str | torch.device = "cpu") -> None:
        self.options = options
        self._config = GeneratorConfig(
            generator=options.generator,
            norm=options.norm,
            channels=options.generator_channels,
            padding=options.padding,
            dropout=options.dropout,
            upsample=options.upsample,
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.G_A, self.G_B = (self._made(self._config.build(), device) for _ in range(2))
        self.D_A, self.D_B = (self._made(self._discriminator(), device) for _ in range(2))
        self.pool_a, self.pool_b = (ImagePool(options.pool_size, seed=seed + number) for number in (1, 2))
        generators = {"G_A": self.G_A, "G_B": self.G_B}
        discriminators = {"D_A": self.D_A, "D_B": self.D_B}
        super().__init__(
            generators,
            discriminators,
            (self._adam(generators), self._adam(discriminators)),
            averaged=options.ema_decay > 0,
            precision=options.precision,
            config=self._config.metadata(),
        )

    def _discriminator(self) -> nn.Module:
        options = self.options
        return build_discriminator(
            options.discriminator,
            norm=options.norm,
            channels=options.discriminator_channels,
            layers=options.discriminator_layers,
        )

    def _made(self, network: nn.Module, device: str | torch.device) -> nn.Module:
        initialize(network, self.options.init, gain=self.options.init_gain, generator=self.generator)
        return network.to(device, parameter_dtype(self.options.precision)).to(memory_format=torch.channels_last)

    def _adam(self, networks: dict[str, nn.Module]) -> torch.optim.Adam:
        parameters = [parameter for network in networks.values() for parameter in network.parameters()]
        return torch.optim.Adam(
            parameters, self.options.learning_rate, betas=(self.options.beta1, 0.999), fused=True
        )

    def step(self, images: Sequence[Tensor]) -> Losses:
        """`train_step` with the images of A and of B."""
        real_a, real_b = images
        return train_step(self, real_a, real_b)

    def file_bytes(self) -> bytes:
        """Both generators, as `nst.cyclegan.method.CycleGAN` takes them."""
        return generator_file({"A2B": self.best["G_A"], "B2A": self.best["G_B"]}, self._config)

    @torch.no_grad()
    def samples(self, photos: Mapping[str, Sequence[Tensor]], side: int) -> Tensor:
        """Rows of: a, its translation, that back; b, its translation, that back.

        Args:
            photos: of `a` and of `b`, (1, 3, h, w) in [-1, 1] each; as many of both are shown as there are.
            side: of each image in the rows, in pixels.

        Returns:
            One picture, (3, H, W) in [-1, 1].
        """
        there, back = self.best["G_A"], self.best["G_B"]
        rows = []
        with evaluating(self.best.values()):
            for a, b in zip(photos["a"], photos["b"], strict=False):
                of_a, of_b = there(a), back(b)
                rows.append(side_by_side([a, of_a, back(of_a), b, of_b, there(of_b)], side))
        return torch.cat(rows, dim=1)

    def state_dict(self) -> dict[str, Any]:
        more = {
            "pools": {"a": self.pool_a.state_dict(), "b": self.pool_b.state_dict()},
            "generator": self.generator.get_state(),
        }
        return super().state_dict() | more

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.pool_a.load_state_dict(state["pools"]["a"])
        self.pool_b.load_state_dict(state["pools"]["b"])
        self.generator.set_state(state["generator"])


def train_step(training: CycleGANTraining, real_a: Tensor, real_b: Tensor) -> Losses:
    """One step of both generators, and one of both discriminators.

    Args:
        real_a, real_b: (N, 3, H, W) in [-1, 1], unpaired, equally many; of a distributed training, its part.

    Returns:
        The losses by name, detached: `gan_A`, `gan_B`, `cycle_A`, `cycle_B`, `identity_A`, `identity_B` (if
        asked for), weighted; `D_A`, `D_B`; `penalty_A`, `penalty_B` (if there is one), weighted.

    Raises:
        ValueError: not equally many.
    """
    if len(real_a) != len(real_b):
        raise ValueError(f"expected equally many, got {tuple(real_a.shape)} and {tuple(real_b.shape)}")
    with _drawing(training):
        return _train_step(training, real_a, real_b)


def _train_step(training: CycleGANTraining, real_a: Tensor, real_b: Tensor) -> Losses:
    options, share = training.options, training.share
    real_a, real_b = (x.contiguous(memory_format=torch.channels_last) for x in (real_a, real_b))
    G_A, G_B, D_A, D_B = training.trained  # noqa: N806

    # The generators: fool the discriminators, find the way back, and leave alone what is there already.
    with frozen(training.discriminators.values()):
        with activations(options.precision, real_a):
            identity = options.lambda_identity > 0
            fake_b, same_b = _together(G_A, real_a, real_b if identity else None, options.norm)
            fake_a, same_a = _together(G_B, real_b, real_a if identity else None, options.norm)
            back_a, back_b = G_B(fake_b), G_A(fake_a)
            judged_b, judged_a = training.D_A(fake_b), training.D_B(fake_a)
        losses = {
            "gan_A": generator_loss(options.gan_mode, judged_b.to(real_a)),
            "gan_B": generator_loss(options.gan_mode, judged_a.to(real_a)),
            "cycle_A": options.lambda_a * F.l1_loss(back_a.to(real_a), real_a),
            "cycle_B": options.lambda_b * F.l1_loss(back_b.to(real_b), real_b),
        }
        if same_a is not None and same_b is not None:
            weight = options.lambda_identity
            losses["identity_A"] = weight * options.lambda_b * F.l1_loss(same_b.to(real_b), real_b)
            losses["identity_B"] = weight * options.lambda_a * F.l1_loss(same_a.to(real_a), real_a)
        training.optimizer_g.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        (share.weight * total).backward()  # type: ignore[no-untyped-call]
        training.optimizer_g.step()
    training.average(options.ema_decay)

    # The discriminators: tell real pictures from fakes, some of them earlier ones.
    training.optimizer_d.zero_grad(set_to_none=True)
    for name, D, real, fake in (  # noqa: N806
        ("A", D_A, real_b, _earlier(training.pool_b, fake_b, share)),
        ("B", D_B, real_a, _earlier(training.pool_a, fake_a, share)),
    ):
        fake = fake.to(real)
        with activations(options.precision, real):
            judged_real, judged_fake = _together(D, real, fake, options.norm)
        assert judged_fake is not None
        losses[f"D_{name}"] = discriminator_loss(options.gan_mode, judged_real.to(real), judged_fake.to(real))
        total = losses[f"D_{name}"]
        if options.penalty not in (None, "none"):
            seen = real if options.penalty == "r1" else _mixed(real, fake, training)
            penalty = options.penalty_weight * gradient_penalty(D, seen, options.penalty)
            losses[f"penalty_{name}"] = penalty
            total = total + penalty
        (share.weight * total).backward()  # type: ignore[no-untyped-call]
    training.optimizer_d.step()
    training.steps += 1
    return {name: loss.detach() for name, loss in losses.items()}


def _together(
    network: nn.Module, first: Tensor, second: Tensor | None, norm: Norm
) -> tuple[Tensor, Tensor | None]:
    """The network's outputs for both, in one pass unless batch norm would let them see each other, or they
    differ in size."""
    if second is None:
        return network(first), None
    if norm == "batch" or first.shape != second.shape:
        return network(first), network(second)
    both = network(torch.cat([first, second]))
    return both[: len(first)], both[len(first) :]


def _earlier(pool: ImagePool, fake: Tensor, share: Share) -> Tensor:
    """All processes have the same pool, of the fakes of all."""
    return share.take(pool.query(share.gather(fake.detach())))


def _mixed(real: Tensor, fake: Tensor, training: CycleGANTraining) -> Tensor:
    """All processes draw for all images."""
    count = len(real) if training.share.world == 1 else training.share.batch_size
    places = torch.rand((count, 1, 1, 1), generator=training.generator, dtype=torch.float64)
    return mixed(real, fake, training.share.take(places))


@contextmanager
def _drawing(training: CycleGANTraining) -> Iterator[None]:
    """Dropout draws from torch's own streams: they start from the training's."""
    if not training.options.dropout:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=training.generator)) + training.share.rank)
        yield
