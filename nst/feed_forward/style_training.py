"""Fine-tuning of the painter for some styles, on the photographs that it is to paint, or on some like them.

The painter, which paints in any style, gets better at these within minutes, since it has to be good at nothing
else. What training moves is all of it, and of each style the moments that activations get: conditional instance
normalization by style (Dumoulin et al. 2017), with whole covariances. A photograph is seen as it is painted
later: pieces of it at their own size, moments from a smaller view of the whole.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, cast

import torch
from torch import Tensor, nn

from nst.errors import WeightsError
from nst.features import FeatureNetwork
from nst.feed_forward.coloring import Moments
from nst.feed_forward.files import names_in, painter_config, painter_file, read_names, read_painter
from nst.feed_forward.learned import LearnedStyle, StyleName
from nst.feed_forward.losses import balanced, content_distance
from nst.feed_forward.networks import MARGIN_PX, STRIDE_PX, Painter, PainterConfig
from nst.feed_forward.options import StyleTrainingOptions
from nst.feed_forward.pictures import style_picture
from nst.feed_forward.stylizer import padded
from nst.feed_forward.views import contact_sheet, whole_strides
from nst.gan.parallel import DDPOptions, Share, distributed
from nst.gan.precision import activations
from nst.gan.scaling import descend
from nst.gan.starting import Sides, read_states, start_networks
from nst.gan.trainer import follow, warmed_decay
from nst.gan.translate import mirrored_beyond
from nst.images.codec import reduced
from nst.losses import gram_matrix
from nst.ops.equalized import at_least_float32
from nst.ops.muon import Muon
from nst.style_transfer.pictures import names_of
from nst.stylizer import Assets

__all__ = ["StylePicture", "StyleTraining", "pictures_of"]

_PLACES = 10_000
"""Places within a picture that a step may be at, each with noise of its own."""

StylePicture = tuple[StyleName, Tensor]
"""Which picture it is, and it, (3, h, w) in [0, 1], as the method shows it to the network."""


def pictures_of(options: StyleTrainingOptions, assets: Assets) -> list[StylePicture]:
    """The style pictures of the bytes in `assets`.

    Raises:
        OptionError: one is too small.
        DecodeError: one is no picture.
    """
    found = []
    for option, url in zip(names_of("style", options.style), options.styles, strict=True):
        name = StyleName(PurePosixPath(url).stem, hashlib.sha256(assets[url]).hexdigest())
        found.append((name, style_picture(option, url, assets[url], options.style_side_px)))
    return found


class StyleTraining:
    """The painter, the moments of the styles, their averages and the optimizer.

    Args:
        options: the styles, network, losses and the optimizer.
        seed: what random numbers depend on.
    """

    dtype = torch.float32
    """The type of parameters and images."""

    def __init__(
        self, options: StyleTrainingOptions, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.options, self.share, self.steps = options, Share(), 0
        config = PainterConfig(half=options.half, quarter=options.quarter, eighth=options.eighth)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            painter = Painter(config)
        styles = nn.ModuleList(LearnedStyle(config.colored) for _ in options.styles)
        self.networks = nn.ModuleDict({"painter": painter, "styles": styles})
        self.networks.to(device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.networks).requires_grad_(False)
        self._pass: nn.Module = _Pass(self.networks)
        betas = options.beta1, options.beta2
        self.optimizer = Muon(self.networks.parameters(), options.learning_rate, betas)
        self._generator = torch.Generator().manual_seed(seed)
        self._teacher: FeatureNetwork | None = None
        self._pictures: list[StylePicture] = []
        self._names: list[StyleName] = []
        self._wanted: dict[str, Tensor] = {}

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return (self.optimizer,)

    @property
    def _device(self) -> torch.device:
        return next(self.networks.parameters()).device

    # Before the first step

    def learn_from(self, teacher: FeatureNetwork, pictures: Sequence[StylePicture]) -> None:
        """Have the losses compare the activations of `teacher`, which has the options' layers, with those of
        the style pictures."""
        self._teacher, self._pictures = teacher.to(self._device), list(pictures)
        self._names = [name for name, _ in pictures]
        grams: dict[str, list[Tensor]] = {layer: [] for layer in self.options.style_layers}
        with torch.no_grad():
            for _, picture in self._pictures:
                seen = self._seen(picture[None].to(self._device))
                for layer, each in grams.items():
                    each.append(gram_matrix(seen[layer]))
        self._wanted = {layer: torch.cat(each) for layer, each in grams.items()}
        self._begin_styles()

    def begin_with(self, data: bytes, name: str) -> None:
        """Begin with the painter in a file, and the moments that it gives the style pictures.

        Raises:
            WeightsError: it is none, or has other numbers of channels.
        """
        painter, own = read_painter(data, name), _painter(self.networks)
        if painter.config != own.config:
            raise WeightsError(f"the painter in {name} has other channels: {painter.config}, not {own.config}")
        own.load_state_dict(painter.state_dict())
        self._begin_styles()

    def start_from(self, files: Mapping[str, bytes], networks: Sides, *, strict: bool) -> list[str]:
        """Begin with a painter from a file, whatever `networks` says, and with the moments that it has learned
        for styles of the same pictures; other styles begin as it sees them.

        Raises:
            WeightsError: a file is not readable, does not fit, or `networks` is `discriminator`.
        """
        if networks == "discriminator":
            raise WeightsError("this training has no discriminator")
        known = dict(self.networks.named_children())
        states = read_states(files, [*known, "sight"])
        styles = states.pop("styles", {})
        notes = start_networks({"painter": known["painter"]}, states, strict=strict)
        self._begin_styles()
        learned = {
            each.sha256: number for data in files.values() for number, each in enumerate(read_names(data))
        }
        for name, style in zip(self._names, _styles(self.networks), strict=False):
            prefix = f"{learned.get(name.sha256)}."
            found = {key.removeprefix(prefix): each for key, each in styles.items() if key.startswith(prefix)}
            if {key: each.shape for key, each in found.items()} == {
                k: e.shape for k, e in style.state_dict().items()
            }:
                style.load_state_dict(found)
        self.average.load_state_dict(self.networks.state_dict())
        return notes

    @torch.no_grad()
    def _begin_styles(self) -> None:
        painter = self.networks["painter"]
        for style, (_, picture) in zip(_styles(self.networks), self._pictures, strict=False):
            style.begin(painter(padded(picture.to(self._device))[None]).own)
        self.average.load_state_dict(self.networks.state_dict())

    def distribute(self, share: Share, options: DDPOptions = DDPOptions()) -> None:  # noqa: B008  frozen
        self.share, self._pass = share, distributed(_Pass(self.networks), share, options)

    # A step

    def step(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Train on a batch.

        Args:
            images: photographs, (n, 3, h, h) in [-1, 1].

        Returns:
            The loss and its parts: `content`, from 0 to about 2 and `style`, from 0 to 1.
        """
        (photos,) = ((each + 1) / 2 for each in images)
        return self.learn([(photo, photo) for photo in photos])

    def learn(self, photos: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Train on photographs of any size.

        Args:
            photos: for each of this process's part of a batch, itself, (3, H, W) in [0, 1], both sides at least
                `side`; and what its moments are taken from, (3, h, w), which is shrunk to `reference_side`.
        """
        if self._teacher is None:
            raise RuntimeError("learn_from comes first")
        options = self.options
        whole = len(photos) if self.share.world == 1 else self.share.batch_size
        at = STRIDE_PX * int(torch.randint(_PLACES, (), generator=self._generator)), 0
        drawn = torch.rand(whole, 1 + 2 * options.pieces, generator=self._generator)
        rows = self.share.take(drawn).tolist()
        styles = torch.tensor([int(row[0] * len(options.styles)) for row in rows])
        pieces = torch.cat(
            [_pieces(photo, options, row[1:]) for (photo, _), row in zip(photos, rows, strict=True)]
        ).to(self._device, non_blocking=True)
        references = [reduced(each, options.reference_side) for _, each in photos]
        with activations(options.precision, pieces):
            losses = self._losses(pieces, references, styles, at)
        loss = losses["content"] + options.style_weight * losses["style"]
        self.optimizer.zero_grad(set_to_none=True)
        (self.share.weight * loss).backward()  # type: ignore[no-untyped-call]
        descend(self.optimizer, options.max_gradient_norm)
        self.steps += 1
        follow(self.average, self.networks, warmed_decay(options.ema_decay, self.steps))
        return {name: each.detach() for name, each in {"loss": loss, **losses}.items()}

    def _losses(
        self,
        pieces: Tensor,
        references: Sequence[Tensor],
        styles: Tensor,
        at: tuple[int, int],
    ) -> dict[str, Tensor]:
        options = self.options
        shares = nn.functional.one_hot(styles, len(options.styles)).to(pieces, non_blocking=True)
        with torch.no_grad():
            content = self._seen(_inside(pieces))[options.content_layer]
        painted = _inside(self._pass(pieces, references, shares, at))
        found = self._seen(painted)
        styles, many = styles.to(pieces.device, non_blocking=True), len(references)
        distances = []
        with torch.autocast(pieces.device.type, enabled=False):  # losses are float32
            for layer in options.style_layers:  # of all pieces of a photograph together
                grams = gram_matrix(found[layer])
                grams = grams.view(many, options.pieces, *grams.shape[1:]).mean(1)
                distances.append(balanced(grams, self._wanted[layer][styles]).mean())
            return {
                "content": content_distance(found[options.content_layer], content).mean(),
                "style": torch.stack(distances).mean(),
            }

    def _seen(self, pictures: Tensor) -> dict[str, Tensor]:
        assert self._teacher is not None
        return {name: at_least_float32(each) for name, each in self._teacher(pictures).items()}

    # What there is to keep

    @staticmethod
    def plateau_loss(losses: Mapping[str, float]) -> float:
        return losses["loss"]

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "config": painter_config(_painter(self.networks), self._names),
            "networks": {name: each.state_dict() for name, each in self.networks.named_children()},
            "averages": {name: each.state_dict() for name, each in self.average.named_children()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self._names = state["steps"], names_in(state["config"])
        for name in self.networks:
            self.networks[name].load_state_dict(state["networks"][name])
            self.average[name].load_state_dict(state["averages"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])

    def file_bytes(self) -> bytes:
        """The averages, as a file that the method `feed_forward` takes."""
        return painter_file(_painter(self.average), self._names, _styles(self.average))

    @torch.no_grad()
    def samples(self, photos: Mapping[str, Sequence[Tensor]], side: int) -> Tensor:
        """A row for each photograph: itself, and painted in each of the styles, which are the first row.

        Args:
            photos: of one collection, (1, 3, h, w) in [-1, 1] each.

        Returns:
            (3, H, W) in [-1, 1].
        """
        (own,) = ([whole_strides((each + 1) / 2) for each in some] for some in photos.values())
        painter, styles = self.average["painter"], [style() for style in _styles(self.average)]
        rows = [[torch.ones_like(own[0]), *(picture[None] for _, picture in self._pictures)]]
        rows += [[photo, *(painter(photo, style).picture for style in styles)] for photo in own]
        return contact_sheet(rows, side)


class _Pass(nn.Module):
    """What a step has of the networks, as one network."""

    def __init__(self, networks: nn.ModuleDict) -> None:
        super().__init__()
        self.networks = networks

    def forward(
        self, pieces: Tensor, references: Sequence[Tensor], shares: Tensor, at: tuple[int, int]
    ) -> Tensor:
        """Paint.

        Args:
            pieces: (n * m, 3, h, h): m of each photograph.
            references: what each photograph's moments are taken from, (3, h, w).
            shares: (n, K): how much each photograph has of each of the styles.
        """
        painter = self.networks["painter"]
        each_style = [style() for style in _styles(self.networks)]
        wanted = [Moments.cat(parts).mixed(shares) for parts in zip(*each_style, strict=True)]
        own = []
        for number, reference in enumerate(references):
            one = [each.of_one(number) for each in wanted]
            with torch.no_grad():
                seen = padded(reference.to(pieces, non_blocking=True))[None]
                own.append(painter(seen, one, at=at, only_look=True).own)
        times = len(pieces) // len(references)
        given = [Moments.cat(parts).repeated(times) for parts in zip(*own, strict=True)]
        painted: Tensor = painter(pieces, [each.repeated(times) for each in wanted], given, at=at).picture
        return painted


def _painter(networks: nn.ModuleDict) -> Painter:
    return cast(Painter, networks["painter"])


def _styles(networks: nn.ModuleDict) -> list[LearnedStyle]:
    return cast("list[LearnedStyle]", list(cast(nn.ModuleList, networks["styles"])))


def _pieces(photo: Tensor, options: StyleTrainingOptions, row: Sequence[float]) -> Tensor:
    """Squares of a photograph (3, H, W), where tiles of it may begin, and all around them that they depend on:
    (pieces, 3, side + 2 margins, the same). At the border of what is painted the network finds zeros, and would
    learn to make strokes of them."""
    around = photo
    for dim in (1, 2):
        around = mirrored_beyond(around, dim, MARGIN_PX, MARGIN_PX)
    side = options.side + 2 * MARGIN_PX
    cut = []
    for number in range(options.pieces):
        top, left = (
            STRIDE_PX * int(share * ((length - side) // STRIDE_PX + 1))
            for share, length in zip(row[2 * number : 2 * number + 2], around.shape[1:], strict=True)
        )
        cut.append(around[:, top : top + side, left : left + side])
    return torch.stack(cut).contiguous(memory_format=torch.channels_last)


def _inside(pieces: Tensor) -> Tensor:
    return pieces[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
