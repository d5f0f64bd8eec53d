"""Training of the painter: any photograph, any picture as its style.

Losses are those of Gatys et al. 2016 in a pretrained teacher, each style layer relative to the largest value
that it can have (Cheng et al. 2021), so that bright and contrasty styles do not count for more than others.
Mixtures of styles are styles, too, also such with the photograph's own: weaker ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.errors import WeightsError
from nst.features import FeatureNetwork, read_state_dict
from nst.features.weights import published_bytes
from nst.feed_forward.method import painter_config, painter_file
from nst.feed_forward.networks import Painter, PainterConfig, StyleEncoder
from nst.feed_forward.options import PainterOptions
from nst.gan.parallel import DDPOptions, Share, distributed
from nst.gan.scaling import descend
from nst.gan.starting import Sides, read_states, start_networks
from nst.gan.trainer import activations, follow, warmed_decay
from nst.images.codec import resize_image
from nst.losses import gram_matrix

__all__ = ["PainterTraining", "balanced", "content_distance"]

_WHOLE = 0.5
"""Share of steps in which photographs take their statistics from a larger part, as large ones will."""
_OWN_STYLE = 0.075
"""Share of samples whose style is the photograph itself."""
_MIXED = 0.4
"""Share of samples whose style is a mixture: half of them with the photograph's own."""
_RECOLORED = 0.5
_SETTLING = 400
"""Steps in which the encoder learns the mean and the spread of what it sees."""
_DRAWS = 24
"""Random numbers for each sample of a step."""


class PainterTraining:
    """The painter and the encoder, their averages and the optimizer.

    Args:
        options: networks, losses and the optimizer.
        seed: what random numbers depend on.
    """

    dtype = torch.float32
    """The type of parameters and images."""

    def __init__(self, options: PainterOptions, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.options, self.share, self.steps = options, Share(), 0
        config = PainterConfig(
            half=options.half, quarter=options.quarter, blocks=options.blocks, code=options.code
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = StyleEncoder(options.code)
            self.networks = nn.ModuleDict({"painter": Painter(config), "encoder": encoder})
        encoder.eyes.load_state_dict(_embedded_convolutions(len(encoder.eyes)))
        encoder.eyes.requires_grad_(False)
        self.networks.to(device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.networks).requires_grad_(False)
        self._pass: nn.Module = _Pass(self.networks)
        trained = [each for each in self.networks.parameters() if each.requires_grad]
        self.optimizer = torch.optim.Adam(
            trained, options.learning_rate, betas=(options.beta1, options.beta2), fused=True
        )
        self._teacher: FeatureNetwork | None = None
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return (self.optimizer,)

    @property
    def encoder(self) -> StyleEncoder:
        return self.networks["encoder"]  # type: ignore[return-value]

    def learn_from(self, teacher: FeatureNetwork) -> None:
        """Before the first step: the network whose activations the losses compare, with the options' layers."""
        self._teacher = teacher.to(next(self.networks.parameters()).device)

    def start_from(self, files: Mapping[str, bytes], networks: Sides, *, strict: bool) -> list[str]:
        """Begin with weights from files: of the painter and its encoder, whatever `networks` says.

        Raises:
            WeightsError: a file is not readable, does not fit, or `networks` is `discriminator`.
        """
        if networks == "discriminator":
            raise WeightsError("this training has no discriminator")
        wanted: dict[str, nn.Module] = dict(self.networks.named_children())
        notes = start_networks(wanted, read_states(files, list(wanted)), strict=strict)
        self.average.load_state_dict(self.networks.state_dict())
        self.steps = max(self.steps, _SETTLING)  # they have learned the mean and the spread
        return notes

    def distribute(self, share: Share, options: DDPOptions = DDPOptions()) -> None:  # noqa: B008  frozen
        self.share, self._pass = share, distributed(_Pass(self.networks), share, options)

    # A step

    def step(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Train on a batch.

        Args:
            images: (n, 3, h, h) in [-1, 1]: photographs, and for each two pictures whose styles it may get.

        Returns:
            The loss and its parts, `content` and `style`: from 0 to about 2, and from 0 to 1.
        """
        if self._teacher is None:
            raise RuntimeError("learn_from comes first")
        photos, *pictures = ((each + 1) / 2 for each in images)
        options, whole = self.options, len(photos) if self.share.world == 1 else self.share.batch_size
        shared = torch.rand(2, generator=self._generator)
        drawn = torch.rand(whole, _DRAWS, generator=self._generator)
        normal = torch.randn(whole, 2, 4, 3, generator=self._generator)
        draws = self.share.take(drawn).tolist()
        larger, photo = self._photographs(photos, draws)
        with torch.no_grad():
            moments, grams = self._styles(larger, pictures, draws, self.share.take(normal))
        self._settle(moments)
        with activations(options.precision, photo):
            given = larger if float(shared[0]) < _WHOLE else None
            painted = self._pass(photo, given, moments)
            seen = self._teacher(painted)
            with torch.no_grad():
                wanted = self._teacher(photo)[options.content_layer].float()
        content = content_distance(seen[options.content_layer].float(), wanted)
        style = torch.stack(
            [
                balanced(gram_matrix(seen[layer].float()), want)
                for layer, want in zip(options.style_layers, grams, strict=True)
            ]
        ).mean(0)
        loss = (content + options.style_weight * style).mean()
        self.optimizer.zero_grad(set_to_none=True)
        (self.share.weight * loss).backward()  # type: ignore[no-untyped-call]
        descend(self.optimizer, options.max_gradient_norm)
        self.steps += 1
        follow(self.average, self.networks, warmed_decay(options.ema_decay, self.steps))
        return {"loss": loss.detach(), "content": content.detach().mean(), "style": style.detach().mean()}

    def _photographs(self, crops: Tensor, draws: list[list[float]]) -> tuple[Tensor, Tensor]:
        """(n, 3, side, side) each: a square of every crop, and of this a square of half its side."""
        side, most = self.options.side, crops.shape[-1]
        larger, photo = [], []
        for crop, row in zip(crops, draws, strict=True):
            whole = _square(crop, 2 * side, most, row[1:4])
            half = _square(whole, whole.shape[-1] // 2, whole.shape[-1] // 2, row[4:7])
            larger.append(_resized(whole, side))
            photo.append(_resized(half, side))
        return torch.stack(larger), torch.stack(photo)

    def _styles(
        self, own: Tensor, pictures: Sequence[Tensor], draws: list[list[float]], normal: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Moments (n, count) and, for each of the style layers, Gram matrices (n, c, c): those of a picture, of
        the photograph itself, or a mixture of two pictures'."""
        first, second = (
            torch.stack([self._view(crop, row[at : at + 8], each[number]) for crop, row, each in rows])
            for number, at, rows in (
                (number, 8 + 8 * number, list(zip(crops, draws, normal, strict=True)))
                for number, crops in enumerate(pictures)
            )
        )
        first, second = (
            torch.where(torch.tensor(is_own, device=own.device)[:, None, None, None], own, views)
            for views, is_own in (
                (first, [row[7] < _OWN_STYLE for row in draws]),
                (second, [row[0] < 0.5 for row in draws]),
            )
        )
        described = self._described(first)
        shares = {number: 1 - row[8] / _MIXED for number, row in enumerate(draws) if row[8] < _MIXED}
        if shares:
            for values, others in zip(described, self._described(second[list(shares)]), strict=True):
                for (number, share), other in zip(shares.items(), others, strict=True):
                    values[number].lerp_(other, share)
        return described[0], described[1:]

    def _view(self, crop: Tensor, row: list[float], normal: Tensor) -> Tensor:
        """A square of a picture, turned, with other colors at times: (3, side, side)."""
        side = self.options.side
        view = _resized(_square(crop, side, crop.shape[-1], row[1:4]), side)
        view = view.rot90(int(row[4] * 4) if row[5] < 0.3 else 0, (1, 2))
        return _recolored(view, row[7] / _RECOLORED, normal) if row[6] < _RECOLORED else view

    def _described(self, pictures: Tensor) -> list[Tensor]:
        assert self._teacher is not None
        with activations(self.options.precision, pictures):
            seen = self._teacher(pictures)
        moments = self.encoder.moments(pictures)
        return [moments, *(gram_matrix(seen[layer].float()) for layer in self.options.style_layers)]

    @torch.no_grad()
    def _settle(self, moments: Tensor) -> None:
        """Have what the encoder sees mean zero and unit variance, about, going by the first steps."""
        if self.steps >= _SETTLING:
            return
        values = moments.clamp_min(0).sqrt()
        encoder, share = self.encoder, 1 / (self.steps + 1)
        mean = self.share.mean(values.mean(0))
        square = encoder.spread.square() + encoder.middle.square() if self.steps else torch.zeros_like(mean)
        square = square.lerp(self.share.mean(values.square().mean(0)), share)
        encoder.middle.lerp_(mean, share)
        encoder.spread.copy_((square - encoder.middle.square()).clamp_min(1e-8).sqrt())

    # What there is to keep

    @staticmethod
    def plateau_loss(losses: Mapping[str, float]) -> float:
        return losses["loss"]

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "config": painter_config(self.networks["painter"]),  # type: ignore[arg-type]
            "networks": {name: each.state_dict() for name, each in self.networks.named_children()},
            "averages": {name: each.state_dict() for name, each in self.average.named_children()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, network in self.networks.named_children():
            network.load_state_dict(state["networks"][name])
        for name, network in self.average.named_children():
            network.load_state_dict(state["averages"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])

    def file_bytes(self) -> bytes:
        """The averages, as a file that the method `feed_forward` takes."""
        return painter_file(self.average["painter"], self.average["encoder"])  # type: ignore[arg-type]

    @torch.no_grad()
    def samples(self, photos: Mapping[str, Sequence[Tensor]], side: int) -> Tensor:
        """A row for each photograph: itself, and painted like each of the pictures, which are the first row.

        Args:
            photos: of each collection, photographs first, (1, 3, h, w) in [-1, 1] each.

        Returns:
            (3, H, W) in [-1, 1].
        """
        own, pictures = ([(each + 1) / 2 for each in some] for some in photos.values())
        painter, encoder = self.average["painter"], self.average["encoder"]
        codes = [encoder(encoder.moments(picture)) for picture in pictures]  # type: ignore[operator]
        rows = [[torch.ones_like(own[0]), *pictures]]
        for photo in own:
            rows.append([photo, *(painter(photo, code)[0] for code in codes)])
        cells = [
            torch.cat([resize_image(each[0].cpu().float().clamp(0, 1), (side, side)) for each in row], 2)
            for row in rows
        ]
        return 2 * torch.cat(cells, 1) - 1


class _Pass(nn.Module):
    """What a step has of the networks, as one network."""

    def __init__(self, networks: nn.ModuleDict) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, photo: Tensor, larger: Tensor | None, moments: Tensor) -> Tensor:
        painter, code = self.networks["painter"], self.networks["encoder"](moments)
        given = None if larger is None else painter(larger, code)[1]
        painted: Tensor = painter(photo, code, given)[0]
        return painted


def balanced(found: Tensor, wanted: Tensor) -> Tensor:
    """(N,) squared distances of matrices (N, C, C), over the sum of their squares: from 0 to 1."""
    over = found.square().sum((1, 2)) + wanted.square().sum((1, 2))
    return (found - wanted).square().sum((1, 2)) / over.clamp_min(1e-20)


def content_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """(N,) mean squared differences of instance-normalized activations (N, C, h, w)."""
    return (_normalized(found) - _normalized(wanted)).square().mean((1, 2, 3))


def _normalized(features: Tensor) -> Tensor:
    mean = features.mean((2, 3), keepdim=True)
    return (features - mean) / (features.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()


def _square(image: Tensor, least: int, most: int, row: Sequence[float]) -> Tensor:
    """A random square of an image (3, h, h): all ratios of its sides are alike.

    Args:
        row: three numbers in [0, 1).
    """
    side = round(math.exp(math.log(least) + row[0] * (math.log(most) - math.log(least))))
    top, left = (int(each * (image.shape[-1] - side + 1)) for each in row[1:3])
    return image[:, top : top + side, left : left + side]


def _resized(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image[None], (side, side), mode="bilinear", antialias=True, align_corners=False)[0]


def _recolored(image: Tensor, share: float, normal: Tensor) -> Tensor:
    """An image (3, h, w) with its channels mixed about their means, which move.

    Args:
        share: from 0, the image's own, to 1, the directions of a random rotation.
        normal: (4, 3), numbers of a normal distribution.
    """
    normal = normal.to(image)
    mean = image.mean((1, 2), keepdim=True)
    rotation = torch.linalg.qr(normal[:3])[0]
    mixing = (1 - share) * torch.eye(3).to(image) + share * rotation
    mixed = torch.einsum("ij,jhw->ihw", mixing, image - mean)
    return (mixed + mean + 0.1 * normal[3].view(3, 1, 1)).clamp(0, 1)


def _embedded_convolutions(count: int) -> dict[str, Tensor]:
    """The first ones of the embedded network, which are the encoder's."""
    state = read_state_dict(published_bytes("nst:embedded"))
    layers = sorted({int(name.split(".")[1]) for name in state if name.startswith("features.")})[:count]
    return {
        f"{number}.{kind}": state[f"features.{layer}.{kind}"].float()
        for number, layer in enumerate(layers)
        for kind in ("weight", "bias")
    }
