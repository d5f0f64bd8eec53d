"""CycleGAN's training step, one process and one page, as the paper has it (Zhu et al. 2017, section 3).

G_A translates A to B, and D_A judges pictures of B; G_B and D_B the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.cyclegan.method import GeneratorConfig, generator_file
from nst.cyclegan.networks import build_discriminator
from nst.cyclegan.options import CycleGANOptions
from nst.gan.image_pool import ImagePool
from nst.gan.layers import initialize
from nst.gan.losses import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    mixed,
)
from nst.gan.parallel import Share
from nst.gan.precision import activations, parameter_dtype
from nst.gan.trainer import (
    GANTraining,
    cell_side,
    evaluating,
    frozen,
    side_by_side,
)
from nst.gan.translate import with_channels

__all__ = ["CycleGANOptions", "CycleGANTraining", "train_step"]

Losses = dict[str, Tensor]


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
            input_channels=options.input_channels,
            output_channels=options.output_channels,
        )
        self.generator = torch.Generator().manual_seed(seed)
        ends = options.input_channels, options.output_channels
        self.G_A, self.G_B = (self._made(each.build(), device) for each in (self._config, self._config.back))
        self.D_A, self.D_B = (self._made(self._discriminator(count), device) for count in reversed(ends))
        self.pool_a, self.pool_b = (ImagePool(options.pool_size, seed=seed + number) for number in (1, 2))
        generators = {"G_A": self.G_A, "G_B": self.G_B}
        discriminators = {"D_A": self.D_A, "D_B": self.D_B}
        own = options.discriminator_learning_rate or options.learning_rate
        super().__init__(
            generators,
            discriminators,
            (self._adam(generators, options.learning_rate), self._adam(discriminators, own)),
            averaged=options.ema_decay > 0,
            precision=options.precision,
            config=self._config.metadata(),
        )
        if options.compile:
            self.G_A.compile()
            self.G_B.compile()

    def _discriminator(self, image_channels: int) -> nn.Module:
        options = self.options
        return build_discriminator(
            options.discriminator,
            norm=options.norm,
            channels=options.discriminator_channels,
            image_channels=image_channels,
            layers=options.discriminator_layers,
            spectral_norm=options.spectral_norm,
        )

    def _made(self, network: nn.Module, device: str | torch.device) -> nn.Module:
        initialize(network, self.options.init, gain=self.options.init_gain, generator=self.generator)
        return network.to(device, parameter_dtype(self.options.precision)).to(memory_format=torch.channels_last)

    def _adam(self, networks: dict[str, nn.Module], learning_rate: float) -> torch.optim.Adam:
        parameters = [parameter for network in networks.values() for parameter in network.parameters()]
        return torch.optim.Adam(
            parameters, learning_rate, betas=(self.options.beta1, self.options.beta2), fused=True
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
        options, side = self.options, cell_side(side, min(map(len, photos.values())), 6)
        with evaluating(self.best.values()):
            for a, b in zip(photos["a"], photos["b"], strict=False):
                a, b = with_channels(a, options.input_channels), with_channels(b, options.output_channels)
                of_a, of_b = there(a), back(b)
                row = [a, of_a, back(of_a), b, of_b, there(of_b)]
                rows.append(side_by_side([with_channels(each, 3) for each in row], side))
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
    """One step of both generators, unless `critic_steps` leaves it out, and one of both discriminators.

    Args:
        real_a, real_b: (N, 3, H, W) in [-1, 1], unpaired, equally many; of a distributed training, its part.

    Returns:
        The losses by name, detached: `gan_A`, `gan_B`, `cycle_A`, `cycle_B`, `identity_A`, `identity_B` (if
        asked for), weighted; `D_A`, `D_B`; `penalty_A`, `penalty_B` (if there is one), weighted; of float16
        `skipped_G`, `skipped_D`: see `GANTraining.skipped`.

    Raises:
        ValueError: not equally many.
    """
    if len(real_a) != len(real_b):
        raise ValueError(f"expected equally many, got {tuple(real_a.shape)} and {tuple(real_b.shape)}")
    with _drawing(training):
        return _train_step(training, real_a, real_b)


def _train_step(training: CycleGANTraining, real_a: Tensor, real_b: Tensor) -> Losses:
    options, share = training.options, training.share
    real_a, real_b = (
        with_channels(images, channels).contiguous(memory_format=torch.channels_last)
        for images, channels in ((real_a, options.input_channels), (real_b, options.output_channels))
    )
    *_, D_A, D_B = training.trained  # noqa: N806
    losses, fake_a, fake_b, g_skipped = _generators(training, real_a, real_b)

    # The discriminators: tell real pictures from fakes, some of them earlier ones.
    training.optimizer_d.zero_grad(set_to_none=True)
    for name, D, real, fake in (  # noqa: N806
        ("A", D_A, real_b, _earlier(training.pool_b, fake_b, share)),
        ("B", D_B, real_a, _earlier(training.pool_a, fake_a, share)),
    ):
        fake = fake.to(real)
        with activations(options.precision, real):
            judged_real, judged_fake = _together(D, real, fake, training)
        assert judged_fake is not None
        losses[f"D_{name}"] = discriminator_loss(options.gan_mode, judged_real.to(real), judged_fake.to(real))
        total = losses[f"D_{name}"]
        if options.penalty not in (None, "none"):
            seen = real if options.penalty == "r1" else _mixed(real, fake, training)
            penalty = options.penalty_weight * gradient_penalty(D, seen, options.penalty)
            losses[f"penalty_{name}"] = penalty
            total = total + penalty
        training.backward("d", total)
    d_skipped = not training.descend("d", options.max_gradient_norm)
    training.steps += 1
    losses |= training.skipped(real_a, g=g_skipped, d=d_skipped)
    return {name: loss.detach() for name, loss in losses.items()}


def _generators(
    training: CycleGANTraining, real_a: Tensor, real_b: Tensor
) -> tuple[Losses, Tensor, Tensor, bool]:
    """The generators' part of a step: fool the discriminators, find the way back, and leave alone what is there
    already.

    Returns:
        Their losses, their pictures of a and of b, and whether their optimizer's step had to be left out.
    """
    options = training.options
    G_A, G_B, *_ = training.trained  # noqa: N806
    trains = (training.steps + 1) % options.critic_steps == 0
    with frozen(training.discriminators.values()), torch.set_grad_enabled(trains):
        with activations(options.precision, real_a):
            identity = options.lambda_identity > 0
            fake_b, same_b = _together(G_A, real_a, real_b if identity else None, training)
            fake_a, same_a = _together(G_B, real_b, real_a if identity else None, training)
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
        if not trains:
            return losses, fake_a, fake_b, False
        training.optimizer_g.zero_grad(set_to_none=True)
        training.backward("g", torch.stack(list(losses.values())).sum())
    done = training.descend("g", options.max_gradient_norm)
    if done:
        training.average(options.ema_decay, options.critic_steps)
    return losses, fake_a, fake_b, not done


def _together(
    network: nn.Module, first: Tensor, second: Tensor | None, training: CycleGANTraining
) -> tuple[Tensor, Tensor | None]:
    """The network's outputs for both, in one pass unless batch norm would let them see each other, or they
    differ in size, if only in one of several processes: a spectral norm changes with every pass, and is to be
    the same in all."""
    if second is None:
        return network(first), None
    share = training.share
    alike = first.shape == second.shape and (share.alike or share.world == 1)
    if training.options.norm == "batch" or not alike:
        return network(first), network(second)
    both = network(torch.cat([first, second]))
    return both[: len(first)], both[len(first) :]


def _earlier(pool: ImagePool, fake: Tensor, share: Share) -> Tensor:
    """All processes have the same pool, of the fakes of all."""
    if share.alike:
        return share.take(pool.query(share.gather(fake.detach())))
    return [pool.query(each) for each in share.gather_unlike(fake.detach())][share.rank]


def _mixed(real: Tensor, fake: Tensor, training: CycleGANTraining) -> Tensor:
    """All processes draw for all images. Of images that differ in size it is of the part that both have."""
    height, width = (min(sides) for sides in zip(real.shape[2:], fake.shape[2:], strict=True))
    real, fake = (images[..., :height, :width] for images in (real, fake))
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
