"""A trained CycleGAN generator as a method of the batch runner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import safetensors.torch
import torch
from torch import Tensor, nn

from nst import check
from nst.cyclegan.networks import (
    Padding,
    Upsample,
    build_generator,
    check_generator,
    least_size,
    size_multiple,
)
from nst.errors import OptionError, WeightsError
from nst.features import read_state_dict
from nst.features.passes import by_shape
from nst.features.weights import read_metadata
from nst.gan.layers import Norm, load_published
from nst.gan.translate import checked_outcome, translate
from nst.stylizer import AssetRef, Assets, Outcome

__all__ = [
    "CycleGAN",
    "CycleGANStylizer",
    "Direction",
    "GeneratorConfig",
    "generator_file",
]

Direction = Literal["A2B", "B2A"]
_CONFIG = "nst.cyclegan"
_PREFIXES: Mapping[Direction, tuple[str, str]] = {"A2B": ("A2B.", "G_A."), "B2A": ("B2A.", "G_B.")}
"""How names of parameters begin: in a file of both generators, and in a checkpoint of a training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorConfig:
    """What `build_generator` needs to know.

    Raises:
        OptionError: unknown generator, norm, padding or upsample, or no channels.
    """

    generator: str = "resnet_9blocks"
    norm: Norm = "instance"
    channels: int = 64
    padding: Padding = "reflect"
    dropout: bool = False
    upsample: Upsample = "transposed"

    def __post_init__(self) -> None:
        check_generator(self.generator, self.norm, self.channels, self.padding, self.upsample)

    def build(self) -> nn.Module:
        return build_generator(
            self.generator,
            norm=self.norm,
            channels=self.channels,
            padding=self.padding,
            dropout=self.dropout,
            upsample=self.upsample,
        )

    def metadata(self) -> dict[str, str]:
        """The configuration as a file says it. Files from before `upsample` was an option stay what they
        were."""
        values = asdict(self)
        if self.upsample == "transposed":
            del values["upsample"]
        return {_CONFIG: json.dumps(values, sort_keys=True)}


def generator_file(generators: Mapping[Direction, nn.Module], config: GeneratorConfig) -> bytes:
    """The bytes of a .safetensors with one or both generators and their configuration. Equal input, equal
    bytes."""
    tensors = {
        f"{direction}.{name}": tensor.detach().to("cpu").contiguous()
        for direction, network in sorted(generators.items())
        for name, tensor in network.state_dict().items()
    }
    return safetensors.torch.save(tensors, metadata=config.metadata())


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleGAN:
    """Translate photographs with a trained CycleGAN generator, in one pass."""

    weights: str
    """Path or URL of a generator: a .safetensors or a checkpoint as training here writes it, or a .pth of the
    public PyTorch implementation, e.g. latest_net_G_A.pth."""
    weights_sha256: str | None = None
    """Digest that the weights file must have."""
    direction: Direction = "A2B"
    """Which generator of a file that has both; a file of the public implementation has one."""
    generator: str | None = None
    """The generator's network: `resnet_9blocks`, `resnet_6blocks`, `unet_256` or `unet_128`. None: what the
    file says, else `resnet_9blocks`."""
    norm: Norm | None = None
    """The generator's normalization: `instance`, `batch` or `none`. None: what the file says, else
    `instance`."""
    channels: int | None = None
    """Channels of the generator's first layer. None: what the file says, else 64."""
    padding: Padding | None = None
    """How the ResNets' blocks pad: `reflect`, `replicate` or `zero`. None: what the file says, else
    `reflect`."""
    dropout: bool | None = None
    """Whether the generator was trained with dropout, which moves its parameters' names. None: what the file
    says, else not."""

    def __post_init__(self) -> None:
        check.one_of("direction", self.direction, get_args(Direction))
        self._over(GeneratorConfig())

    def _over(self, config: GeneratorConfig) -> GeneratorConfig:
        """`config`, but for what the options say. Only files of training here may have another `upsample`, and
        these say so."""
        given = {name: getattr(self, name) for name in asdict(config) if name != "upsample"}
        return replace(config, **{name: value for name, value in given.items() if value is not None})

    def assets(self) -> list[AssetRef]:
        return [AssetRef(option="weights", url=self.weights, kind="weights", sha256=self.weights_sha256)]

    def notes(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return []

    def build(self, assets: Assets, device: torch.device) -> CycleGANStylizer:
        data = assets[self.weights]
        state = read_state_dict(data)
        config = self._over(_read_config(data))
        network = config.build()
        if any(name.startswith((*_PREFIXES["A2B"], *_PREFIXES["B2A"])) for name in state):
            mine = _PREFIXES[self.direction]
            state = {name[4:]: each for name, each in state.items() if name.startswith(mine)}
            if not state:
                raise WeightsError(f"{self.weights} has no generator for direction = {self.direction!r}")
        try:
            load_published(network, state)
        except WeightsError as error:
            said = ", ".join(f"{option} = {value!r}" for option, value in asdict(config).items())
            raise WeightsError(f"{error}; it was read as {said}") from error
        return CycleGANStylizer(
            network.to(device), size_multiple(config.generator), least_size(config.generator)
        )


def _read_config(data: bytes) -> GeneratorConfig:
    """The configuration in the header of a .safetensors, or in a checkpoint; of other files the default."""
    text = read_metadata(data).get(_CONFIG)
    if text is None:
        return GeneratorConfig()
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"{values!r} is no table")
        known = {name: type(default) for name, default in asdict(GeneratorConfig()).items()}
        config = GeneratorConfig(**{name: values[name] for name in known if name in values})
        if any(type(getattr(config, name)) is not kind for name, kind in known.items()):
            raise ValueError(f"{values} has a value of another type")
    except (ValueError, TypeError, OptionError) as error:
        raise WeightsError(f"the configuration in the file is not one of a generator: {error}") from error
    return config


class CycleGANStylizer:
    """The loaded generator, ready for photographs."""

    def __init__(self, network: nn.Module, multiple: int, least: int) -> None:
        self.network = network.requires_grad_(False).eval()
        self._multiple, self._least = multiple, least
        self._like = next(network.parameters())

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG002
        """It needs no randomness."""
        outcomes: dict[int, Outcome] = {}
        photos = [image.to(self._like) for image in images]
        for group in by_shape(photos):
            found = self.translate(torch.stack([photos[index] for index in group]))
            for index, image in zip(group, found.to("cpu", torch.float32), strict=True):
                outcomes[index] = checked_outcome(image)
        return [outcomes[index] for index in range(len(images))]

    def translate(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the same. Padded by mirroring to what the generator needs, and cropped
        back."""
        return translate(self.network, images, self._multiple, self._least)
