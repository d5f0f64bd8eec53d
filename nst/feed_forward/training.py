"""Training of the painter: any photograph, any picture as its style.

At first it learns to see what a pretrained teacher sees, and to paint pictures as they are. That is most of
what any style needs, since styles come of the moments of what it sees (see `networks`). Then photographs are
painted in the styles of pictures, and losses are those of Gatys et al. 2016 in the teacher, each style layer
relative to the largest value that it can have (Cheng et al. 2021), so that bright and contrasty styles do not
count for more than others. Mixtures of two styles are styles, too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nst.errors import WeightsError
from nst.features import FeatureNetwork
from nst.features.layers import VGG_CHANNELS
from nst.feed_forward.files import painter_config, painter_file
from nst.feed_forward.losses import balanced, content_distance
from nst.feed_forward.networks import STRIDE_PX, Painted, Painter, PainterConfig
from nst.feed_forward.options import SIGHT, PainterOptions
from nst.feed_forward.views import contact_sheet, recolored, resized, square, whole_strides
from nst.gan.parallel import DDPOptions, Share, distributed
from nst.gan.precision import activations
from nst.gan.scaling import descend
from nst.gan.starting import Sides, read_states, start_networks
from nst.gan.trainer import follow, warmed_decay
from nst.losses import gram_matrix
from nst.ops.equalized import at_least_float32

__all__ = ["PainterTraining"]

_WHOLE = 0.3
"""Share of steps in which photographs take their moments from a larger part, as large ones will."""
_MIXED = 0.25
"""Share of samples whose style is a mixture of two pictures'."""
_RECOLORED = 0.5
_PLACES = 10_000
"""Places within a picture that a step may be at, each with noise of its own."""
_DRAWS = 24
"""Random numbers for each sample of a step."""


class PainterTraining:
    """The painter, its average and the optimizer.

    Args:
        options: network, losses and the optimizer.
        seed: what random numbers depend on.
    """

    dtype = torch.float32
    """The type of parameters and images."""

    def __init__(self, options: PainterOptions, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.options, self.share, self.steps = options, Share(), 0
        config = PainterConfig(half=options.half, quarter=options.quarter, eighth=options.eighth)
        assert options.teacher is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.networks = nn.ModuleDict(
                {"painter": Painter(config), "sight": _Sight(config.colored, options.teacher)}
            )
        self.networks.to(device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.networks["painter"]).requires_grad_(False)
        self._pass: nn.Module = _Pass(self.networks)
        self.optimizer = torch.optim.Adam(
            self.networks.parameters(),
            options.learning_rate,
            betas=(options.beta1, options.beta2),
            fused=True,
        )
        self._teacher: FeatureNetwork | None = None
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return (self.optimizer,)

    def learn_from(self, teacher: FeatureNetwork) -> None:
        """Before the first step: the network whose activations the losses compare, with the options' layers."""
        self._teacher = teacher.to(next(self.networks.parameters()).device)

    def start_from(self, files: Mapping[str, bytes], networks: Sides, *, strict: bool) -> list[str]:
        """Begin with a painter from a file, and with the maps of its sight, if these are there, whatever
        `networks` says; and behind the warmup.

        Raises:
            WeightsError: a file is not readable, does not fit, or `networks` is `discriminator`.
        """
        if networks == "discriminator":
            raise WeightsError("this training has no discriminator")
        known = dict(self.networks.named_children())
        states = read_states(files, list(known))
        wanted = {name: each for name, each in known.items() if name == "painter" or name in states}
        notes = start_networks(wanted, states, strict=strict)
        self.average.load_state_dict(self.networks["painter"].state_dict())
        self.steps = max(self.steps, self.options.warmup_steps)
        return notes

    def distribute(self, share: Share, options: DDPOptions = DDPOptions()) -> None:  # noqa: B008  frozen
        self.share, self._pass = share, distributed(_Pass(self.networks), share, options)

    # A step

    def step(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Train on a batch.

        Args:
            images: (n, 3, h, h) in [-1, 1]: photographs, and for each two pictures whose styles it may get.

        Returns:
            The loss and its parts: `content`, from 0 to about 2, and `style`, from 0 to 1, both 0 in the
            warmup; `reconstruction`, the mean squared error of pictures painted as they are; and `sight`.
        """
        if self._teacher is None:
            raise RuntimeError("learn_from comes first")
        photos, *pictures = ((each + 1) / 2 for each in images)
        whole = len(photos) if self.share.world == 1 else self.share.batch_size
        shared = float(torch.rand((), generator=self._generator))
        at = STRIDE_PX * int(torch.randint(_PLACES, (), generator=self._generator)), 0
        drawn = torch.rand(whole, _DRAWS, generator=self._generator)
        normal = self.share.take(torch.randn(whole, 2, 4, 3, generator=self._generator))
        draws = self.share.take(drawn).tolist()
        larger, photo = self._photographs(photos, draws)
        views = [
            torch.stack(
                [
                    self._view(*each)
                    for each in zip(crops, (row[at : at + 8] for row in draws), turns, strict=True)
                ]
            )
            for at, crops, turns in zip((8, 16), pictures, normal.unbind(1), strict=True)
        ]
        with activations(self.options.precision, photo):
            if self.steps < self.options.warmup_steps:
                losses = self._warmup(torch.cat([photo, views[0]]), at)
            else:
                shares = [1 - row[0] / _MIXED if row[0] < _MIXED else 0.0 for row in draws]
                losses = self._styled(photo, larger if shared < _WHOLE else None, views, shares, at)
        weights = self.options
        loss = (
            losses["content"]
            + weights.style_weight * losses["style"]
            + weights.reconstruction_weight * losses["reconstruction"]
            + weights.sight_weight * losses["sight"]
        )
        self.optimizer.zero_grad(set_to_none=True)
        (self.share.weight * loss).backward()  # type: ignore[no-untyped-call]
        descend(self.optimizer, weights.max_gradient_norm)
        self.steps += 1
        follow(self.average, self.networks["painter"], warmed_decay(weights.ema_decay, self.steps))
        return {name: each.detach() for name, each in {"loss": loss, **losses}.items()}

    def _warmup(self, pictures: Tensor, at: tuple[int, int]) -> dict[str, Tensor]:
        """Losses of pictures that are painted as they are."""
        with torch.no_grad():
            seen = self._seen(pictures)
        (itself, told), _ = self._pass(None, None, pictures, None, at)
        none = pictures.new_zeros(())
        return {"content": none, "style": none, **_own_losses(pictures, itself, told, seen)}

    def _styled(
        self,
        photo: Tensor,
        larger: Tensor | None,
        views: Sequence[Tensor],
        shares: Sequence[float],
        at: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Losses of photographs in the styles of pictures.

        Args:
            larger: what photographs take their moments from; None: from themselves.
            views: two pictures for each photograph.
            shares: how much of the second one is mixed to the first.
        """
        options, (first, second) = self.options, views
        mixed = [number for number, share in enumerate(shares) if share]
        styles = torch.cat([first, second[mixed]])
        # For each photograph, how much it has of each of the styles.
        mixture = torch.eye(len(first), len(styles)) * (1 - torch.tensor(shares))[:, None]
        for number, index in enumerate(mixed):
            mixture[index, len(first) + number] = shares[index]
        mixture = mixture.to(photo, non_blocking=True)
        with torch.no_grad():
            seen = self._seen(styles)
            content = self._seen(photo)[options.content_layer]
        (itself, told), painted = self._pass(photo, larger, styles, mixture, at)
        found = self._seen(painted)
        # The first pictures, of which each sample has one: so that the mean is that over samples.
        own = slice(len(first))
        with torch.autocast(photo.device.type, enabled=False):  # losses are float32
            distances = [
                balanced(
                    gram_matrix(found[layer]),
                    torch.einsum("nk,kij->nij", mixture, gram_matrix(seen[layer])),
                )
                for layer in options.style_layers
            ]
            return {
                "content": content_distance(found[options.content_layer], content).mean(),
                "style": torch.stack(distances).mean(),
                **_own_losses(
                    first, itself[own], [each[own] for each in told], {n: each[own] for n, each in seen.items()}
                ),
            }

    def _seen(self, pictures: Tensor) -> dict[str, Tensor]:
        assert self._teacher is not None
        return {name: at_least_float32(each) for name, each in self._teacher(pictures).items()}

    def _photographs(self, crops: Tensor, draws: list[list[float]]) -> tuple[Tensor, Tensor]:
        """(n, 3, side, side) each: a square of every crop, and of this a square of half its side."""
        side, most = self.options.side, crops.shape[-1]
        larger, photo = [], []
        for crop, row in zip(crops, draws, strict=True):
            whole = square(crop, 2 * side, most, row[1:4])
            half = square(whole, whole.shape[-1] // 2, whole.shape[-1] // 2, row[4:7])
            larger.append(resized(whole, side))
            photo.append(resized(half, side))
        return torch.stack(larger), torch.stack(photo)

    def _view(self, crop: Tensor, row: list[float], normal: Tensor) -> Tensor:
        """A square of a picture, turned, with other colors at times: (3, side, side)."""
        side = self.options.side
        view = resized(square(crop, side, crop.shape[-1], row[1:4]), side)
        view = view.rot90(int(row[4] * 4) if row[5] < 0.3 else 0, (1, 2))
        return recolored(view, row[6] / _RECOLORED, normal) if row[6] < _RECOLORED else view

    # What there is to keep

    @staticmethod
    def plateau_loss(losses: Mapping[str, float]) -> float:
        return losses["loss"]

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "config": painter_config(self.networks["painter"]),  # type: ignore[arg-type]
            "networks": {name: each.state_dict() for name, each in self.networks.named_children()},
            "averages": {"painter": self.average.state_dict()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, network in self.networks.named_children():
            network.load_state_dict(state["networks"][name])
        self.average.load_state_dict(state["averages"]["painter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])

    def file_bytes(self) -> bytes:
        """The average, as a file that the method `feed_forward` takes."""
        return painter_file(self.average)  # type: ignore[arg-type]

    @torch.no_grad()
    def samples(self, photos: Mapping[str, Sequence[Tensor]], side: int) -> Tensor:
        """A row for each photograph: itself, and painted like each of the pictures, which are the first row.

        Args:
            photos: of each collection, photographs first, (1, 3, h, w) in [-1, 1] each.

        Returns:
            (3, H, W) in [-1, 1].
        """
        own, pictures = ([whole_strides((each + 1) / 2) for each in some] for some in photos.values())
        styles = [self.average(picture).own for picture in pictures]
        rows = [[torch.ones_like(own[0]), *pictures]]
        for photo in own:
            rows.append([photo, *(self.average(photo, style).picture for style in styles)])
        return contact_sheet(rows, side)


class _Sight(nn.Module):
    """What a teacher sees, told by the painter's activations where these are colored: linear maps, so that
    their moments tell those of the teacher's activations."""

    def __init__(self, channels: Sequence[int], teacher: str) -> None:
        super().__init__()
        blocks = (int(layer[4]) for layer in SIGHT)
        self.maps = nn.ModuleList(
            nn.Conv2d(before, VGG_CHANNELS[teacher][block - 1], 1)
            for before, block in zip(channels, blocks, strict=True)
        )
        for each in self.maps:
            nn.init.normal_(each.weight, std=0.05)  # type: ignore[arg-type]

    def forward(self, activations: Sequence[Tensor]) -> list[Tensor]:
        return [each(x) for each, x in zip(self.maps, activations, strict=True)]


class _Pass(nn.Module):
    """What a step has of the networks, as one network."""

    def __init__(self, networks: nn.ModuleDict) -> None:
        super().__init__()
        self.networks = networks

    def forward(
        self,
        photo: Tensor | None,
        larger: Tensor | None,
        pictures: Tensor,
        mixture: Tensor | None,
        at: tuple[int, int],
    ) -> tuple[tuple[Tensor, list[Tensor]], Tensor | None]:
        painter = self.networks["painter"]
        itself: Painted = painter(pictures, at=at)
        own = itself.picture, self.networks["sight"](itself.activations)
        if photo is None or mixture is None:
            return own, None
        wanted = [each.mixed(mixture) for each in itself.own]
        with torch.no_grad():
            given = None if larger is None else painter(larger, wanted, at=at).own
        painted: Painted = painter(photo, wanted, given, at=at)
        return own, painted.picture


def _own_losses(
    pictures: Tensor, itself: Tensor, told: Sequence[Tensor], seen: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Losses of pictures (N, 3, h, w) that are painted as they are."""
    sight = [
        (at_least_float32(found) - seen[layer]).square().mean()
        for found, layer in zip(told, SIGHT, strict=True)
    ]
    return {"reconstruction": (itself - pictures).square().mean(), "sight": torch.stack(sight).mean()}
