"""The training step of one generator for many styles: CycleGAN's (Zhu et al. 2017), in every direction at once.

G translates an image of style a to style b; D judges pictures of style b by a map of its own. Every image of a
batch has its own direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nst.errors import WeightsError
from nst.gan.losses import discriminator_losses, generator_losses, gradient_penalty
from nst.gan.precision import activations, parameter_dtype
from nst.gan.sampling import style_pair
from nst.gan.starting import Sides, States
from nst.gan.trainer import (
    GANTraining,
    cell_side,
    evaluating,
    frozen,
    side_by_side,
)
from nst.modulated.directions import direction_means
from nst.modulated.method import ModulatedConfig, file_styles, modulated_file
from nst.modulated.networks import StyleDiscriminator
from nst.modulated.options import ManyStylesOptions
from nst.modulated.starting import by_style
from nst.ops.equalized import draw_parameters
from nst.ops.modulated import Form

__all__ = ["ManyStylesOptions", "ManyStylesTraining", "direction_means", "train_step"]

Losses = dict[str, Tensor]


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
        if options.compile:
            self.G.compile()

    def directions(self, count: int) -> tuple[Tensor, Tensor]:
        """The styles that the next step's `count` images have, and that they get: this process's part."""
        whole = count if self.share.world == 1 else self.share.batch_size
        samples = range(self.steps * whole, (self.steps + 1) * whole)
        pairs = [style_pair(sample, len(self.options.styles), self.seed) for sample in samples]
        device = next(self.G.parameters()).device
        sources, targets = self.share.take(torch.tensor(pairs)).to(device, non_blocking=True).unbind(1)
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
        side = cell_side(side, sum(map(len, photos.values())), 1 + len(styles))
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
    """One step of the generator, unless `critic_steps` leaves it out, and one of the discriminator.

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
    _, D = training.trained  # noqa: N806
    each, fake, g_skipped = _generator(training, real_a, sources, targets)

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
    d_done = training.descend("d", options.max_gradient_norm)
    training.steps += 1
    losses = _by_direction(options.styles, sources, targets, each)
    losses |= training.skipped(total, g=g_skipped, d=not d_done)
    return losses if options.penalty == "none" else {**losses, "penalty": penalty.detach()}


def _generator(
    training: ManyStylesTraining, real_a: Tensor, sources: Tensor, targets: Tensor
) -> tuple[Losses, Tensor, bool]:
    """The generator's part of a step: fool the discriminator, find the way back, and leave alone what is there
    already.

    Returns:
        Its losses by kind, (N,) each; its pictures; and whether its optimizer's step had to be left out.
    """
    options = training.options
    G, _ = training.trained  # noqa: N806
    trains = (training.steps + 1) % options.critic_steps == 0
    with frozen(training.discriminators.values()), torch.set_grad_enabled(trains):
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
        if not trains:
            return each, fake, False
        training.optimizer_g.zero_grad(set_to_none=True)
        # The mean over images, and not over directions: a process may have no image of one.
        training.backward("g", sum(each.values()).mean())  # type: ignore[union-attr]
    done = training.descend("g", options.max_gradient_norm)
    if done:
        training.average(options.ema_decay, options.critic_steps)
    return each, fake, not done


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
