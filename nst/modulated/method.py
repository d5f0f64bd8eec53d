"""A trained generator for many styles as a method of the batch runner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from nst import check
from nst.errors import OptionError, UnknownStyle, WeightsError
from nst.features import read_state_dict
from nst.features.passes import by_shape, stacked
from nst.features.weights import read_metadata
from nst.gan.bands import apply_bounded
from nst.gan.export import Exportable
from nst.gan.layers import Norm, load_published
from nst.gan.precision import Precision, activations, laid_out
from nst.gan.translate import checked_outcomes, translate
from nst.images.codec import as_float
from nst.modulated.networks import ModulatedGenerator
from nst.ops.equalized import Border
from nst.ops.modulated import Form
from nst.stylizer import LATER, AssetRef, Assets, Outcome, asked_styles

__all__ = [
    "LEAST",
    "MULTIPLE",
    "Modulated",
    "ModulatedConfig",
    "ModulatedStylizer",
    "file_styles",
    "modulated_file",
    "styles_in",
]

MULTIPLE, LEAST = 4, 8
"""What an image's height and width are multiples of, and their least: the generator halves them twice, and
mirrors at the border."""
_CONFIG = "nst.modulated"
_PREFIX = "G."
"""How names of the generator's parameters begin in a checkpoint of a training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModulatedConfig:
    """What `ModulatedGenerator` needs to know, and the names of its styles."""

    styles: tuple[str, ...]
    channels: int = 64
    blocks: int = 6
    latent: int = 64
    mapping_layers: int = 2
    pixel_norm: bool = True
    norm: Norm = "instance"
    padding: Border = "reflect"
    form: Form = "scaled"

    def build(self) -> ModulatedGenerator:
        """Raises OptionError: as `ModulatedGenerator`."""
        given = asdict(self)
        return ModulatedGenerator(given.pop("styles"), **given)

    def metadata(self) -> dict[str, str]:
        """The configuration as a file says it."""
        return {_CONFIG: json.dumps(asdict(self), sort_keys=True)}


def modulated_file(generator: nn.Module, config: ModulatedConfig) -> bytes:
    """The bytes of a .safetensors with the generator and its configuration. Equal input, equal bytes."""
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in generator.state_dict().items()}
    return safetensors.torch.save(tensors, metadata=config.metadata())


@dataclass(frozen=True, kw_only=True, slots=True)
class Modulated:
    """Translate photographs to a style, or to one between several, with one trained generator, in one pass."""

    generator: str
    """Path or URL of a generator: a .safetensors or a checkpoint as training here writes it."""
    style: str | dict[str, float]
    """Name of one of the generator's styles, or a blend, e.g. { ukiyo-e = 0.7, pastel = 0.3 }: weights, at
    least 0, which are divided by their sum. A photograph that has a `style` in the manifest gets that one
    instead."""
    generator_sha256: str | None = None
    """Digest that the generator's file must have."""
    deterministic: bool = True
    """Whether each photograph is computed alone on GPUs. Else those of one size share passes, whatever their
    styles, which is faster, and a picture's last bits depend on its neighbors."""
    pass_memory_mb: int | None = field(default=None, metadata=LATER)
    """Memory in MB for activations of one pass through the generator. Larger photographs are computed a few
    layers at a time, in bands, with the same result but for rounding; what does not fit of the activations
    between lies in temporary files. None: half of a GPU's memory, or of the machine's what a worker's threads
    are of its cores, and 2 GB at least."""
    precision: Literal["float32", "bfloat16"] = field(default="float32", metadata=LATER)
    """Precision in which photographs are translated: `float32`, or `bfloat16`, which takes three fifths of the
    time where the hardware has it, and more elsewhere; pictures differ by about one gray level."""

    def __post_init__(self) -> None:
        check.one_of("precision", self.precision, ("float32", "bfloat16"))
        if self.pass_memory_mb is not None:
            check.at_least("pass_memory_mb", self.pass_memory_mb, 1)
        if isinstance(self.style, str):
            if not self.style:
                raise OptionError("style", self.style, reason="a style's name, or a table of weights")
            return
        for name, weight in self.style.items():
            check.at_least(f"style.{name}", weight, 0)
        if not 0 < sum(self.style.values()) < float("inf"):
            raise OptionError("style", self.style, reason="the sum of its weights must be above 0, and finite")

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the styles, whatever their sum."""
        return {self.style: 1.0} if isinstance(self.style, str) else self.style

    def assets(self) -> list[AssetRef]:
        ref = AssetRef(option="generator", url=self.generator, kind="weights", sha256=self.generator_sha256)
        return [ref]

    def notes(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return []

    def style_names(self, assets: Assets) -> tuple[str, ...]:
        return self._config(assets).styles

    def check_style(self, assets: Assets) -> None:
        known = self._config(assets).styles
        for name in self.weights:
            if name not in known:
                raise OptionError("style", self.style, choices=known, reason=f"unknown style {name!r}")

    def build(self, assets: Assets, device: torch.device) -> ModulatedStylizer:
        network = self._loaded(assets)
        return ModulatedStylizer(
            network.to(device),
            self.weights,
            alone=self.deterministic,
            pass_memory_mb=self.pass_memory_mb,
            precision=self.precision,
        )

    def exportable(self, assets: Assets) -> Exportable:
        """The generator in the style that the options say, for good."""
        network = self._loaded(assets).eval().requires_grad_(False)
        return Exportable(_InStyle(network, network.blend(self.weights)), MULTIPLE, LEAST)

    def _loaded(self, assets: Assets) -> ModulatedGenerator:
        self.check_style(assets)
        network = self._config(assets).build()
        state = read_state_dict(assets[self.generator])
        if any(name.startswith(_PREFIX) for name in state):
            state = {
                name.removeprefix(_PREFIX): each for name, each in state.items() if name.startswith(_PREFIX)
            }
        load_published(network, state)
        return network

    def _config(self, assets: Assets) -> ModulatedConfig:
        return _read_config(assets[self.generator], self.generator)


def file_styles(data: bytes) -> tuple[str, ...]:
    """Names of the styles of a generator's file. Raises WeightsError: it is none."""
    return _read_config(data, "it").styles


class _InStyle(nn.Module):
    """(N, 3, H, W) in [-1, 1] to the same, in one style."""

    latent: Tensor

    def __init__(self, network: ModulatedGenerator, latent: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("latent", latent)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images, self.latent)
        return found


def styles_in(data: bytes) -> tuple[str, ...] | None:
    """Names of the styles of the generator in a file; None: it is not one for many.

    Raises:
        WeightsError: its header is damaged.
    """
    return _read_config(data, "the file").styles if _CONFIG in read_metadata(data) else None


def _read_config(data: bytes, name: str) -> ModulatedConfig:
    """The configuration in the header of a .safetensors, or in a checkpoint.

    Raises:
        WeightsError: there is none, or it is not one of a generator.
    """
    text = read_metadata(data).get(_CONFIG)
    if text is None:
        raise WeightsError(
            f"{name} is no generator for many styles: it does not say which. `nst train` makes one with "
            f'model.kind = "modulated"; the method kind = "cyclegan" takes other generators'
        )
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"{values!r} is no table")
        known: dict[str, Any] = {item.name: values[item.name] for item in fields(ModulatedConfig)}
        for option, value in known.items():
            kind = list if option == "styles" else type(getattr(_EXAMPLE, option))
            if type(value) is not kind or (kind is list and not all(type(each) is str for each in value)):
                raise ValueError(f"{option} = {value!r} is of another type")
        known["styles"] = tuple(known["styles"])
        with torch.device("meta"):
            ModulatedConfig(**known).build()
    except (ValueError, TypeError, KeyError, OptionError) as error:
        raise WeightsError(f"the configuration in {name} is not one of a generator: {error}") from error
    return ModulatedConfig(**known)


_EXAMPLE = ModulatedConfig(styles=())


class ModulatedStylizer:
    """The loaded generator, ready for photographs. A `LevelsStylizer`.

    Args:
        weights: those of the styles, for photographs that ask for none.
        alone: every photograph has a pass of its own; on a CPU it always has.
        pass_memory_mb, precision: see `Modulated`.
    """

    takes_levels = True

    def __init__(
        self,
        network: ModulatedGenerator,
        weights: Mapping[str, float],
        *,
        alone: bool,
        pass_memory_mb: int | None,
        precision: Precision = "float32",
    ) -> None:
        self.network = laid_out(network.requires_grad_(False).eval(), precision)
        self._apply = partial(apply_bounded, self.network, memory_mb=pass_memory_mb)
        self._alone = alone
        self._like, self._precision = next(network.parameters()), precision
        self._looks = {name: self._look({name: 1.0}) for name in network.styles}
        self._default = self._look(weights)

    @torch.no_grad()
    def _look(self, weights: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
        """A latent (1, latent), and what of it to keep with a picture."""
        total = sum(weights.values())
        return self.network.blend(weights), {f"style:{name}": each / total for name, each in weights.items()}

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[Tensor],
        generators: Sequence[torch.Generator],  # noqa: ARG002
        styles: Sequence[str | None] | None = None,
    ) -> list[Outcome]:
        """It needs no randomness. The shares of the styles are in a picture's stats, as `style:ukiyo-e`."""
        asked = asked_styles(images, styles)
        outcomes: dict[int, Outcome] = {}
        for index, name in enumerate(asked):
            if name is not None and name not in self._looks:
                outcomes[index] = UnknownStyle(str(OptionError("style", name, choices=self._looks)))
        todo = [index for index in range(len(images)) if index not in outcomes]
        photos = [images[index].to(self._like.device, non_blocking=True) for index in todo]
        for group in by_shape(photos, alone=self._alone):
            places = [todo[place] for place in group]
            looks = [
                self._default if name is None else self._looks[name] for name in (asked[i] for i in places)
            ]
            found = self.translate(
                stacked([photos[place] for place in group]), torch.cat([latent for latent, _ in looks])
            )
            checked = checked_outcomes(found, images[places[0]], [stats for _, stats in looks])
            outcomes.update(zip(places, checked, strict=True))
        return [outcomes[index] for index in range(len(images))]

    def translate(self, images: Tensor, latents: Tensor) -> Tensor:
        """(N, 3, H, W), in [0, 1] or uint8, and (N, latent) to pictures of the same sizes in [0, 1]. Padded by
        mirroring to what the generator needs, and cropped back."""
        images = as_float(images, self._like.dtype)
        with activations(self._precision, images):
            return translate(lambda x: self._apply(x, latents), images, MULTIPLE, LEAST)

    def to_style(self, images: Tensor, style: str) -> Tensor:
        """Translate `images` as `translate` does, to one of the styles."""
        return self.translate(images, self._looks[style][0].expand(len(images), -1))
