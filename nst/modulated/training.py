"""The training step of one generator for many styles: CycleGAN's (Zhu et al. 2017), in every direction at once.

G translates an image of style a to style b; D judges pictures of style b by a map of its own. Every image of a
batch has its own direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nst import check
from nst.errors import WeightsError
from nst.gan.layers import MOST_LAYERS, Norm
from nst.gan.losses import GANMode, check_penalty, discriminator_losses, generator_losses, gradient_penalty
from nst.gan.sampling import style_pair
from nst.gan.starting import Sides, States
from nst.gan.trainer import (
    GANTraining,
    Precision,
    activations,
    evaluating,
    frozen,
    parameter_dtype,
    side_by_side,
)
from nst.modulated.directions import direction_means
from nst.modulated.method import ModulatedConfig, file_styles, modulated_file
from nst.modulated.networks import StyleDiscriminator, check_styles
from nst.modulated.starting import by_style
from nst.ops.equalized import Border, draw_parameters
from nst.ops.modulated import Form

__all__ = ["ManyStylesOptions", "ManyStylesTraining", "direction_means", "train_step"]

Losses = dict[str, Tensor]
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
    """Precision of activations: `float32`, `bfloat16`, or, for GPUs without it, `float16`, with losses scaled
    so that gradients are in its range; parameters, losses and optimizers stay float32. `float64`, for proofs,
    is that of everything."""

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
        check.at_least("penalty_every", self.penalty_every, 1)
        for option in ("blocks", "mapping_layers", "penalty_weight", "lambda_cycle", "lambda_identity"):
            check.at_least(option, getattr(self, option), 0)
        check.above_zero("learning_rate", self.learning_rate)
        if self.discriminator_learning_rate is not None:
            check.above_zero("discriminator_learning_rate", self.discriminator_learning_rate)
        for option in ("beta1", "beta2", "ema_decay"):
            check.below_one(option, getattr(self, option))


class ManyStylesTraining(GANTraining):
    """Everything that training changes: networks, the generator's average, optimizers, the number of steps.

    Args:
        seed: of parameters, and of which image is translated to what.
        form: how modulated convolutions are computed. `scaled` is the faster one; they differ by rounding.
    """

    def __init__(
        self,
        options: ManyStylesOptions,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        form: Form = "scaled",
    ) -> None:
        self.options, self.seed = options, seed
        self._config = ModulatedConfig(
            styles=options.styles,
            channels=options.generator_channels,
            blocks=options.blocks,
            latent=options.latent,
            mapping_layers=options.mapping_layers,
            pixel_norm=options.pixel_norm,
            norm=options.norm,
            padding=options.padding,
            form=form,
        )
        generator = torch.Generator().manual_seed(seed)
        self.G: nn.Module = self._made(self._config.build(), generator, device)
        self.D: nn.Module = self._made(
            StyleDiscriminator(
                len(options.styles),
                channels=options.discriminator_channels,
                layers=options.discriminator_layers,
                norm=options.discriminator_norm,
                blur=options.blur,
            ),
            generator,
            device,
        )
        rates = (options.learning_rate, options.discriminator_learning_rate or options.learning_rate)
        super().__init__(
            {"G": self.G},
            {"D": self.D},
            (self._adam(self.G, rates[0]), self._adam(self.D, rates[1])),
            averaged=options.ema_decay > 0,
            precision=options.precision,
            config=self._config.metadata(),
        )

    def directions(self, count: int) -> tuple[Tensor, Tensor]:
        """The styles that the next step's `count` images have, and that they get: this process's part."""
        whole = count if self.share.world == 1 else self.share.batch_size
        samples = range(self.steps * whole, (self.steps + 1) * whole)
        pairs = [style_pair(sample, len(self.options.styles), self.seed) for sample in samples]
        device = next(self.G.parameters()).device
        sources, targets = self.share.take(torch.tensor(pairs)).to(device).unbind(1)
        return sources, targets

    def step(self, images: Sequence[Tensor]) -> Losses:
        """`train_step` with images of the styles that are translated, and of those that these get."""
        real_a, real_b = images
        return train_step(self, real_a, real_b)

    def start_from(self, files: Mapping[str, bytes], networks: Sides, *, strict: bool) -> list[str]:
        if len(files) > 1:
            raise WeightsError("one file at a time: generator and discriminator are in the same checkpoint")
        notes = super().start_from(files, networks, strict=strict)
        known = [style for data in files.values() for style in file_styles(data)]
        new = [style for style in self.options.styles if style not in known]
        return [*notes, f"styles begun at random: {', '.join(new)}"] if new else notes

    def fitted(self, states: States, files: Mapping[str, bytes], *, strict: bool) -> States:
        """Styles are taken by their names, wherever they stand."""
        known = [style for data in files.values() for style in file_styles(data)]
        if strict and {*known} != {*self.options.styles}:
            raise WeightsError(f"its styles are {', '.join(known)}; strict = false takes those that are wanted")
        return by_style(states, known, self.G, self.D, self.options.styles)

    def file_bytes(self) -> bytes:
        """The generator, as `nst.modulated.method.Modulated` takes it."""
        return modulated_file(self.best["G"], self._config)

    @torch.no_grad()
    def samples(self, photos: Mapping[str, Sequence[Tensor]], side: int) -> Tensor:
        """Rows of: a photograph, its translation to every style, its own included.

        Args:
            photos: of each style, (1, 3, h, w) in [-1, 1] each.
            side: of each image in the rows, in pixels.

        Returns:
            One picture, (3, H, W) in [-1, 1].
        """
        G = self.best["G"]  # noqa: N806
        device = next(G.parameters()).device
        styles = [torch.tensor([style], device=device) for style in range(len(self.options.styles))]
        rows = []
        with evaluating([G]):
            for x in (x for name in self.options.styles for x in photos[name]):
                rows.append(side_by_side([x, *(G(x, style) for style in styles)], side))
        return torch.cat(rows, dim=1)

    def _made(self, network: nn.Module, generator: torch.Generator, device: str | torch.device) -> nn.Module:
        draw_parameters(network, generator)
        return network.to(device, parameter_dtype(self.options.precision)).to(memory_format=torch.channels_last)

    def _adam(self, network: nn.Module, rate: float) -> torch.optim.Adam:
        betas = (self.options.beta1, self.options.beta2)
        return torch.optim.Adam(network.parameters(), rate, betas=betas, fused=True)


def train_step(
    training: ManyStylesTraining,
    real_a: Tensor,
    real_b: Tensor,
    directions: tuple[Tensor, Tensor] | None = None,
) -> Losses:
    """One step of the generator, and one of the discriminator.

    Args:
        real_a: (N, 3, H, W) in [-1, 1], of the styles that are translated; of a distributed training, its part.
        real_b: as many, unpaired, of the styles that they are translated to.
        directions: these styles, (N,) each. None: `training.directions`, by which the images were chosen.

    Returns:
        The losses by name, detached, always the same ones. Those of a direction or a style are its images'
        part of the mean over all images: they sum up to the whole, and their mean over processes is that over
        all. `gan_photo_to_ukiyo-e`, `cycle_photo_to_ukiyo-e`, `identity_photo` (if asked for), weighted;
        `D_ukiyo-e`; `images_photo_to_ukiyo-e`, the direction's share of the images (see `direction_means`).
        `penalty` (if there is one) is weighted, and 0 in the steps that leave it out. Of float16 `skipped_G`,
        `skipped_D`: see `GANTraining.skipped`.

    Raises:
        ValueError: not equally many.
    """
    if real_a.shape != real_b.shape:
        raise ValueError(f"expected equal shapes, got {tuple(real_a.shape)} and {tuple(real_b.shape)}")
    options = training.options
    sources, targets = training.directions(len(real_a)) if directions is None else directions
    real_a, real_b = (x.contiguous(memory_format=torch.channels_last) for x in (real_a, real_b))
    G, D = training.trained  # noqa: N806

    # The generator: fool the discriminator, find the way back, and leave alone what is there already.
    with frozen(training.discriminators.values()):
        with activations(options.precision, real_a):
            fake, same = G(real_a, targets), None
            back = G(fake, sources)
            if options.lambda_identity:
                same = G(real_a, sources)
            judged = training.D(fake, targets)
        each = {
            "gan": _per_image(generator_losses(options.gan_mode, judged.to(real_a))),
            "cycle": options.lambda_cycle * _per_image((back.to(real_a) - real_a).abs()),
        }
        if same is not None:
            weight = options.lambda_identity * options.lambda_cycle
            each["identity"] = weight * _per_image((same.to(real_a) - real_a).abs())
        training.optimizer_g.zero_grad(set_to_none=True)
        # The mean over images, and not over directions: a process may have no image of one.
        training.backward("g", sum(each.values()).mean())  # type: ignore[union-attr]
    g_done = training.descend("g")
    if g_done:
        training.average(options.ema_decay)

    # The discriminator: tell real pictures of a style from fakes of it.
    training.optimizer_d.zero_grad(set_to_none=True)
    fake = fake.detach().to(real_b)
    with activations(options.precision, real_b):
        if options.discriminator_norm == "batch":  # through which they would see each other
            judged_real, judged_fake = D(real_b, targets), D(fake, targets)
        else:
            judged_real, judged_fake = D(torch.cat([real_b, fake]), targets.repeat(2)).chunk(2)
    told = discriminator_losses(options.gan_mode, judged_real.to(real_b), judged_fake.to(real_b))
    each["D"] = _per_image(told[0]) + _per_image(told[1])
    total = each["D"].mean()
    penalty = torch.zeros_like(total)
    if options.penalty == "r1" and training.steps % options.penalty_every == 0:
        # Of one logit per image, so that the sum that is taken over them is that mean.
        found = gradient_penalty(lambda seen: _per_image(D(seen, targets)), real_b, "r1")
        penalty = options.penalty_every * options.penalty_weight / 2 * found
    training.backward("d", total + penalty)
    d_done = training.descend("d")
    training.steps += 1
    losses = _by_direction(options.styles, sources, targets, each)
    losses |= training.skipped(total, g=not g_done, d=not d_done)
    return losses if options.penalty == "none" else {**losses, "penalty": penalty.detach()}


def _by_direction(
    styles: tuple[str, ...], sources: Tensor, targets: Tensor, each: Mapping[str, Tensor]
) -> Losses:
    """Losses of images (N,) as those of directions and styles."""
    losses: Losses = {}
    count = len(styles)
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    values = {**each, "images": torch.ones_like(each["gan"])}
    for name, of_images in values.items():
        if name in ("gan", "cycle", "images"):
            table = _parts(of_images, sources * count + targets, count**2)
            losses |= {f"{name}_{styles[a]}_to_{styles[b]}": table[a * count + b] for a, b in pairs}
        else:
            table = _parts(of_images, sources if name == "identity" else targets, count)
            losses |= {f"{name}_{style}": table[place] for place, style in enumerate(styles)}
    return losses


def _parts(of_images: Tensor, places: Tensor, count: int) -> Tensor:
    values = of_images.detach() / len(of_images)
    return values.new_zeros(count).index_add(0, places, values)


def _per_image(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)
