"""What the loop trains: two generators between two collections, or one between many styles. Each knows its
step, its file and its samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from jobs.stores.filesystems import StorageOptions
from jobs.training.data import Pairs
from jobs.training.what import StylesSpec, TrainSpec
from nst.cyclegan import training
from nst.cyclegan.method import CycleGAN, Direction, GeneratorConfig, generator_file
from nst.cyclegan.training import CycleGANTraining
from nst.gan.sampling import Domain, stream
from nst.gan.trainer import GANTraining
from nst.images.codec import resize_image
from nst.modulated import training as modulated_training
from nst.modulated.method import Modulated, ModulatedConfig, modulated_file
from nst.modulated.training import ManyStylesTraining

__all__ = ["Learner", "Translation", "learner_of", "pairs_of", "translations"]

Spec = TrainSpec | StylesSpec
Networks = Mapping[str, nn.Module]


class Learner(Protocol):
    """A training, and what goes with it."""

    @property
    def training(self) -> GANTraining: ...

    def step(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """Train on a batch of `Pairs`; the losses, by name."""
        ...

    def generator_file(self) -> bytes:
        """What the batch job takes."""
        ...

    def samples(self, pairs: Pairs, count: int) -> Tensor:
        """The first `count` photographs of each collection and their translations as one picture (3, H, W) in
        [-1, 1]."""
        ...


def learner_of(spec: Spec, device: torch.device) -> Learner:
    if isinstance(spec, StylesSpec):
        return _ManyStyles(spec, device)
    return _TwoDomains(spec, device)


def pairs_of(spec: Spec, urls: Sequence[Any], storage: StorageOptions) -> Pairs:
    """
    Args:
        urls: places of the photographs of each of the spec's collections, in their order.
    """
    return Pairs(
        urls=dict(zip(spec.collections, urls, strict=True)),
        many_styles=isinstance(spec, StylesSpec),
        output=spec.output,
        seed=spec.seed,
        preprocessing=spec.data,
        multiple=spec.multiple,
        max_pixels=spec.max_pixels,
        storage=storage,
    )


@dataclass(frozen=True, slots=True)
class Translation:
    """One of those that a training's generators are for."""

    name: str
    source: str
    """A collection."""
    target: str
    """That which the translated photographs are to be like."""
    translate: Callable[[Tensor], Tensor]
    """(N, 3, H, W) in [0, 1] to the same, on the CPU."""


def translations(spec: Spec, data: bytes, most: int) -> Iterator[Translation]:
    """Of the generators in a file, as they are used.

    Args:
        most: of many styles, so many: from the first one to the others, then from these to it.
    """
    cpu = torch.device("cpu")
    if isinstance(spec, StylesSpec):
        names = list(spec.styles)
        stylizer = Modulated(generator="", style=names[0]).build({"": data}, cpu)
        directions = [(names[0], name) for name in names[1:]] + [(name, names[0]) for name in names[1:]]
        for source, target in directions[:most]:
            yield Translation(f"{source}_to_{target}", source, target, _Towards(stylizer.to_style, target))
        return
    sides: tuple[tuple[Direction, str, str], ...] = (("A2B", "a", "b"), ("B2A", "b", "a"))
    for direction, source, target in sides:
        one = CycleGAN(weights="", direction=direction).build({"": data}, cpu)
        yield Translation(direction, source, target, one.translate)


@dataclass(frozen=True, slots=True)
class _Towards:
    to_style: Callable[[Tensor, str], Tensor]
    style: str

    def __call__(self, images: Tensor) -> Tensor:
        return self.to_style(images, self.style)


class _TwoDomains:
    """CycleGAN (Zhu et al. 2017)."""

    def __init__(self, spec: TrainSpec, device: torch.device) -> None:
        self._spec, self._device = spec, device
        self.training = CycleGANTraining(spec.model, seed=spec.seed, device=device)

    def step(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        return training.train_step(self.training, first, second)

    def generator_file(self) -> bytes:
        model = self._spec.model
        config = GeneratorConfig(
            generator=model.generator,
            norm=model.norm,
            channels=model.generator_channels,
            padding=model.padding,
            dropout=model.dropout,
            upsample=model.upsample,
        )
        return generator_file({"A2B": self.training.best["G_A"], "B2A": self.training.best["G_B"]}, config)

    def samples(self, pairs: Pairs, count: int) -> Tensor:
        """Rows of: a, its translation, that back; b, its translation, that back."""
        sides = [self._translated(pairs, count, domain) for domain in ("A", "B")]
        rows = zip(*sides, strict=False)
        return torch.cat([torch.cat([*of_a, *of_b], dim=2) for of_a, of_b in rows], dim=1)

    @torch.no_grad()
    def _translated(self, pairs: Pairs, count: int, domain: Any) -> list[list[Tensor]]:
        there, back = ("G_A", "G_B") if domain == "A" else ("G_B", "G_A")
        networks, rows = self.training.best, []
        with _evaluating(networks):
            for x in _samples(pairs, domain.lower(), count, domain, self._device, self.training.dtype):
                y = networks[there](x)
                rows.append(_row((x, y, networks[back](y)), self._spec.data.crop_size))
        return rows


class _ManyStyles:
    """One modulated generator."""

    def __init__(self, spec: StylesSpec, device: torch.device) -> None:
        self._spec, self._device = spec, device
        self.training = ManyStylesTraining(spec.model, seed=spec.seed, device=device)

    def step(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        return modulated_training.train_step(self.training, first, second)

    def generator_file(self) -> bytes:
        model = self._spec.model
        config = ModulatedConfig(
            styles=model.styles,
            channels=model.generator_channels,
            blocks=model.blocks,
            latent=model.latent,
            mapping_layers=model.mapping_layers,
            pixel_norm=model.pixel_norm,
            norm=model.norm,
            padding=model.padding,
            form=model.form,
        )
        return modulated_file(self.training.best["G"], config)

    @torch.no_grad()
    def samples(self, pairs: Pairs, count: int) -> Tensor:
        """Rows of: a photograph, its translation to every style, its own included."""
        rows = []
        with _evaluating(self.training.best):
            for name in pairs.urls:
                for x in _samples(pairs, name, count, "A", self._device, self.training.dtype):
                    found = [self.training.best["G"](x, self._index(style)) for style in range(len(pairs.urls))]
                    rows.append(torch.cat(_row((x, *found), self._spec.data.crop_size), dim=2))
        return torch.cat(rows, dim=1)

    def _index(self, style: int) -> Tensor:
        return torch.tensor([style], device=self._device)


def _samples(
    pairs: Pairs, name: str, count: int, domain: Domain, device: torch.device, dtype: torch.dtype
) -> Iterator[Tensor]:
    """(1, 3, h, w), cropped always alike."""
    for _, photo in pairs.first(name, count):
        image = pairs.preprocessing(photo, stream(0, domain, -1), pairs.multiple)
        yield image[None].to(device, dtype)


def _row(images: Sequence[Tensor], side: int) -> list[Tensor]:
    return [resize_image(image[0].cpu().float(), (side, side)) for image in images]


@contextlib.contextmanager
def _evaluating(networks: Networks) -> Iterator[None]:
    before = [network.training for network in networks.values()]
    for network in networks.values():
        network.eval()
    try:
        yield
    finally:
        for network, mode in zip(networks.values(), before, strict=True):
            network.train(mode)
