"""A trained CycleGAN generator as a method of the batch runner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal, get_args

import safetensors.torch
import torch
from torch import Tensor, nn

from nst import check
from nst.cyclegan.networks import (
    Generator,
    Padding,
    Upsample,
    build_generator,
    check_generator,
    least_size,
    size_multiple,
)
from nst.cyclegan.recognize import recognized_options
from nst.errors import OptionError, WeightsError
from nst.features import read_state_dict
from nst.features.passes import by_shape, stacked
from nst.features.weights import read_metadata
from nst.gan.bands import apply_bounded
from nst.gan.export import Exportable
from nst.gan.layers import Norm, load_published
from nst.gan.precision import Precision, activations, laid_out
from nst.gan.translate import checked_outcomes, translate
from nst.images.codec import as_float
from nst.stylizer import LATER, AssetRef, Assets, Outcome

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
        OptionError: unknown generator, norm, padding or upsample, no channels, or images of other than 1 or 3.
    """

    generator: str = "resnet_9blocks"
    norm: Norm = "instance"
    channels: int = 64
    padding: Padding = "reflect"
    dropout: bool = False
    upsample: Upsample = "transposed"
    input_channels: int = 3
    output_channels: int = 3

    def __post_init__(self) -> None:
        ends = self.input_channels, self.output_channels
        check_generator(self.generator, self.norm, self.channels, self.padding, self.upsample, ends)

    def build(self) -> Generator:
        return build_generator(
            self.generator,
            norm=self.norm,
            channels=self.channels,
            padding=self.padding,
            dropout=self.dropout,
            upsample=self.upsample,
            input_channels=self.input_channels,
            output_channels=self.output_channels,
        )

    @property
    def back(self) -> GeneratorConfig:
        """The generator of the other direction."""
        return replace(self, input_channels=self.output_channels, output_channels=self.input_channels)

    def metadata(self) -> dict[str, str]:
        """The configuration as a file says it. Files from before an option was one stay what they
        were."""
        later = {"upsample": "transposed", "input_channels": 3, "output_channels": 3}
        values = {name: value for name, value in asdict(self).items() if later.get(name) != value}
        return {_CONFIG: json.dumps(values, sort_keys=True)}


def generator_file(generators: Mapping[Direction, nn.Module], config: GeneratorConfig) -> bytes:
    """The bytes of a .safetensors with one or both generators, and the configuration of A2B. Equal input, equal
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
    file says or its parameters show, else `resnet_9blocks`."""
    norm: Norm | None = None
    """The generator's normalization: `instance`, `batch` or `none`. None: what the file says
    or its parameters show, else `instance`."""
    channels: int | None = None
    """Channels of the generator's first layer. None: what the file says or its parameters
    show, else 64."""
    padding: Padding | None = None
    """How the ResNets' blocks pad: `reflect`, `replicate` or `zero`. None: what the file says or its
    parameters show, else `reflect`."""
    dropout: bool | None = None
    """Whether the generator was trained with dropout, which moves its parameters' names. None: what the file
    says or its parameters show, else not."""
    pass_memory_mb: int | None = field(default=None, metadata=LATER)
    """Memory in MB for activations of one pass through the generator. Larger photographs are computed a few
    layers at a time, in bands, with the same result but for rounding; what does not fit of the activations
    between lies in temporary files. None: half of a GPU's memory, or of the machine's what a worker's threads
    are of its cores, and 2 GB at least."""
    precision: Literal["float32", "bfloat16"] = field(default="float32", metadata=LATER)
    """Precision in which photographs are translated: `float32`, or `bfloat16`, which takes three fifths of the
    time where the hardware has it, and more elsewhere; pictures differ by about one gray level."""
    deterministic: bool = field(default=True, metadata=LATER)
    """Whether each photograph is computed alone on GPUs, so that no byte of its picture depends on what else is
    in work. Else those of one size share passes, which is faster for small ones."""

    def __post_init__(self) -> None:
        check.one_of("direction", self.direction, get_args(Direction))
        check.one_of("precision", self.precision, ("float32", "bfloat16"))
        if self.pass_memory_mb is not None:
            check.at_least("pass_memory_mb", self.pass_memory_mb, 1)
        self._over({})

    def _over(self, values: Mapping[str, Any]) -> GeneratorConfig:
        """The generator of these values, but for what the options say; the rest only files say."""
        names = {item.name for item in fields(GeneratorConfig)} & {item.name for item in fields(self)}
        given = {name: getattr(self, name) for name in names}
        return GeneratorConfig(
            **{**values, **{name: value for name, value in given.items() if value is not None}}
        )

    def assets(self) -> list[AssetRef]:
        return [AssetRef(option="weights", url=self.weights, kind="weights", sha256=self.weights_sha256)]

    def notes(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return []

    def build(self, assets: Assets, device: torch.device) -> CycleGANStylizer:
        network, config = self._loaded(assets)
        return CycleGANStylizer(
            network.to(device), config, self.pass_memory_mb, alone=self.deterministic, precision=self.precision
        )

    def exportable(self, assets: Assets) -> Exportable:
        network, config = self._loaded(assets)
        return Exportable(
            network.eval(),
            size_multiple(config.generator),
            least_size(config.generator),
            config.input_channels,
        )

    def _loaded(self, assets: Assets) -> tuple[Generator, GeneratorConfig]:
        data = assets[self.weights]
        state = read_state_dict(data)
        if any(name.startswith((*_PREFIXES["A2B"], *_PREFIXES["B2A"])) for name in state):
            mine = _PREFIXES[self.direction]
            state = {name[4:]: each for name, each in state.items() if name.startswith(mine)}
            if not state:
                raise WeightsError(f"{self.weights} has no generator for direction = {self.direction!r}")
        config = self._config(data, state)
        network = config.build()
        try:
            load_published(network, state)
        except WeightsError as error:
            said = ", ".join(f"{option} = {value!r}" for option, value in asdict(config).items())
            raise WeightsError(f"{error}; it was read as {said}") from error
        return network, config

    def _config(self, data: bytes, state: Mapping[str, Tensor]) -> GeneratorConfig:
        """Raises WeightsError: the parameters are of a generator that is not known here."""
        said = _read_config(data)
        if said is not None:
            return self._over(asdict(said.back if self.direction == "B2A" else said))
        try:
            return self._over(recognized_options(state))
        except OptionError as error:
            raise WeightsError(f"{self.weights} is of another generator: {error}") from error


def _read_config(data: bytes) -> GeneratorConfig | None:
    """The configuration in the header of a .safetensors, or in a checkpoint; None: it has none."""
    text = read_metadata(data).get(_CONFIG)
    if text is None:
        return None
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
    """The loaded generator, ready for photographs. A `LevelsStylizer`.

    Args:
        pass_memory_mb, precision: see `CycleGAN`.
        alone: whether each photograph has its pass for itself.
    """

    takes_levels = True

    def __init__(
        self,
        network: Generator,
        config: GeneratorConfig,
        pass_memory_mb: int | None,
        *,
        alone: bool = True,
        precision: Precision = "float32",
    ) -> None:
        self.network = laid_out(network.requires_grad_(False).eval(), precision)
        self._multiple, self._least = size_multiple(config.generator), least_size(config.generator)
        self._channels, self._alone = config.input_channels, alone
        self._apply = partial(apply_bounded, self.network, memory_mb=pass_memory_mb)
        self._like, self._precision = next(network.parameters()), precision

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG002
        """It needs no randomness."""
        outcomes: dict[int, Outcome] = {}
        photos = [image.to(self._like.device, non_blocking=True) for image in images]
        for group in by_shape(photos, alone=self._alone):
            found = self.translate(stacked([photos[index] for index in group]))
            outcomes.update(zip(group, checked_outcomes(found, images[group[0]]), strict=True))
        return [outcomes[index] for index in range(len(images))]

    def translate(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), in [0, 1] or uint8, to the same in [0, 1]. Padded by mirroring to what the generator
        needs, and cropped back."""
        images = as_float(images, self._like.dtype)
        with activations(self._precision, images):
            return translate(self._apply, images, self._multiple, self._least, self._channels)
