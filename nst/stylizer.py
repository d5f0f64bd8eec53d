"""The one seam of the project: a *method* is a small description that *builds* a *stylizer*.

The runner, the notebook and the tests know only these types. Style transfer, DeepDream and a trained
generator look the same through them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor

from nst.errors import ImageError

if TYPE_CHECKING:
    from nst.gan.export import Exportable

__all__ = [
    "LATER",
    "AdaptableMethod",
    "Adaptation",
    "AssetRef",
    "Assets",
    "BoundedMethod",
    "ExportableMethod",
    "Frame",
    "IterativeMethod",
    "IterativeStylizer",
    "LevelsStylizer",
    "Method",
    "Outcome",
    "StyledMethod",
    "StyledStylizer",
    "Stylized",
    "Stylizer",
    "asked_styles",
    "mean_change",
    "row_bands",
    "select",
]

_BAND_PIXELS = 1 << 19


@dataclass(frozen=True, slots=True)
class AssetRef:
    """A file that a method needs besides the photographs: a style picture, a guide, weights.

    The library never opens it: whoever calls `Method.build` reads the bytes, and checks `sha256` if given.
    """

    option: str
    """The method's option that names it, for error messages: `weights`, `style`, or, if it is a list, the place
    in it: `style[1]`."""
    url: str
    """A path or URL as the user wrote it, or `torchvision:NAME` for a published state dict."""
    kind: Literal["image", "weights"]
    sha256: str | None = None


Assets: TypeAlias = Mapping[str, bytes]
"""The bytes of every `AssetRef`, by its `url`."""

LATER: Mapping[str, object] = MappingProxyType({"later": True})
"""Metadata of an option that came when there were jobs without it: it is recorded where it is set, so
that these are still the same."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture on its way, or of a sequence."""

    number: int
    """Number of evaluations of loss and gradient before it, over all scales; of a sequence, its place, from
    0."""
    image: Tensor
    """float32 (3, h, w), RGB in [0, 1], at the size of the scale that was worked on."""
    aligned: bool = True
    """Whether all of the photograph is where it was, so that its transparency fits."""


@dataclass(frozen=True, slots=True)
class Stylized:
    """One image's outcome."""

    image: Tensor
    """float32 (3, H, W), RGB in [0, 1], finite, without gradient; uint8 from a `LevelsStylizer`, of levels."""
    stats: Mapping[str, float] = field(default_factory=dict)
    """Final numbers worth keeping, e.g. `content_loss`, `style_loss`, `evaluations`; where the picture shows
    what the photograph does, `change`, its `mean_change`."""
    curve: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """One number per evaluation, by name, all of one length: `scale`, `loss`, `content_loss`, ...; empty if it
    was not asked for."""
    frames: Sequence[Frame] = ()
    """Intermediate pictures, in order; none if they were not asked for."""


def asked_styles(images: Sequence[Tensor], styles: Sequence[str | None] | None) -> Sequence[str | None]:
    """The style that each image asks for; None: none. Raises ValueError: there are more or fewer."""
    asked = [None] * len(images) if styles is None else styles
    if len(asked) != len(images):
        raise ValueError(f"{len(asked)} styles for {len(images)} images")
    return asked


def mean_change(picture: Tensor, photo: Tensor) -> float:
    """Mean absolute difference over pixels and channels of two (3, H, W), in [0, 1]: 0 where the picture is the
    photograph."""
    bands = row_bands(picture.shape[1], picture.shape[2])
    sums = [(picture[:, rows] - photo[:, rows].to(picture)).abs_().sum() for rows in bands]
    total: float = sum(torch.stack(sums).tolist())
    return total / picture.numel()


def row_bands(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture, some at a time, so that large ones are not copied whole."""
    rows = max(16, _BAND_PIXELS // width)
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


P = TypeVar("P")


def select(plan: type[P], method: object, **others: Any) -> P:
    """Make a plan, a frozen dataclass, of a method's options of the same names: what a stylizer gets instead of
    its method.

    Args:
        others: values of fields that are no options of the method.
    """
    names = [item.name for item in fields(plan) if item.name not in others]  # type: ignore[arg-type]
    return plan(**{name: getattr(method, name) for name in names}, **others)


Outcome: TypeAlias = Stylized | ImageError
"""An image that cannot be done is a value, not an exception: its batch mates go on."""


@runtime_checkable
class Stylizer(Protocol):
    """A heavy function from images to images, made once per process.

    Images are float32 (3, H, W), RGB in [0, 1], of any sizes, and are not modified. One CPU generator per
    image is the only source of randomness, so an image's result never depends on its neighbors in the batch.
    Outcomes come back in the order of the images.
    """

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]: ...


@runtime_checkable
class LevelsStylizer(Stylizer, Protocol):
    """A `Stylizer` that takes levels as well: of a photograph of uint8 (3, H, W) it makes a picture of uint8,
    the one that rounding would give, without a photograph or a picture of float32 in memory."""

    takes_levels: bool


@runtime_checkable
class StyledStylizer(Stylizer, Protocol):
    """A `Stylizer` that can be told a style for each image.

    `styles` are names, one per image; None, of all or of one: what the method's options say. A name that it
    does not know makes that image's outcome an `UnknownStyle`.
    """

    def __call__(
        self,
        images: Sequence[Tensor],
        generators: Sequence[torch.Generator],
        styles: Sequence[str | None] | None = None,
    ) -> list[Outcome]: ...


@runtime_checkable
class IterativeStylizer(Stylizer, Protocol):
    """A `Stylizer` that goes step by step, and counts."""

    evaluations: int
    """Evaluations of its objective so far, over all images; other threads may read it."""

    def iterate(self, image: Tensor, generator: torch.Generator) -> Iterator[object]:
        """Do one image and look on: yields after every evaluation.

        Raises:
            ImageError: the image cannot be done.
        """
        ...


class Method(Protocol):
    """A frozen description: it comes out of a job file and crosses the network.

    Every implementation is a `@dataclass(frozen=True, kw_only=True, slots=True)` of plain values that checks
    them in `__post_init__` and raises `OptionError`.
    """

    def assets(self) -> Sequence[AssetRef]:
        """The files that `build` will ask for."""
        ...

    def notes(self, assets: Assets) -> Sequence[str]:
        """What the user should know before and after, e.g. that the network is not pretrained."""
        ...

    def build(self, assets: Assets, device: torch.device) -> Stylizer:
        """Load the networks.

        Raises:
            WeightsError: the weights do not fit the network.
            DecodeError: a style or guide picture is not a picture.
        """
        ...


@runtime_checkable
class StyledMethod(Method, Protocol):
    """A method that builds a `StyledStylizer`."""

    def style_names(self, assets: Assets) -> Sequence[str]:
        """Names of the styles that a photograph may ask for, in order; of pictures, those without folder and
        suffix, which may be equal. None: it has one style, which has no name.

        Raises:
            WeightsError: as of `build`.
        """
        ...

    def check_style(self, assets: Assets) -> None:
        """Said before any work.

        Raises:
            OptionError: the method's own style is none that its assets know.
            WeightsError: as of `build`.
        """
        ...

    def build(self, assets: Assets, device: torch.device) -> StyledStylizer: ...


class Adaptation(Protocol):
    """Training of a method's network on photographs of the job that it is for."""

    steps: int
    """Steps that were done"""

    def prepared(self, photo: Tensor) -> object:
        """What a step needs of a photograph, uint8 (3, H, W)."""
        ...

    def step(self, photos: Sequence[Any]) -> dict[str, float]:
        """Learn from some photographs, prepared. Returns losses by name, the first one of which falls."""
        ...

    def state_bytes(self) -> bytes:
        """All that it takes to go on."""
        ...

    def restore(self, state: bytes) -> None:
        """Go on from there."""
        ...

    def file_bytes(self) -> bytes:
        """The weights that it ends with, for `AdaptableMethod.adapted`."""
        ...


@runtime_checkable
class AdaptableMethod(Method, Protocol):
    """A method whose network may first learn on photographs of the job."""

    adapt_steps: int
    """Steps of that; 0: it does not."""
    adapt_photos: int
    """How many photographs it learns on."""

    def adaptation(self, assets: Assets, device: torch.device, seed: int) -> Adaptation:
        """The training, to be begun or restored.

        Raises:
            OptionError, WeightsError: as of `build`.
        """
        ...

    def adapted(self, url: str, sha256: str) -> AdaptableMethod:
        """The same method with the weights that the training ended with, an asset of this URL."""
        ...


@runtime_checkable
class IterativeMethod(Method, Protocol):
    """A method that builds an `IterativeStylizer`."""

    @property
    def schedule(self) -> Sequence[tuple[float, int]]:
        """Sizes relative to the photograph's own, in order, and how many evaluations each gets at most."""
        ...

    def kept_bytes(self, pixels: int, device: torch.device) -> int:
        """Memory in bytes that is gathered from step to step, of a photograph of so many pixels."""
        ...

    def build(self, assets: Assets, device: torch.device) -> IterativeStylizer: ...


@runtime_checkable
class BoundedMethod(Method, Protocol):
    """A method whose passes through its network can be bounded in memory."""

    @property
    def pass_memory_mb(self) -> int | None:
        """Memory in MB for activations of one pass; None: see `nst.memory.pass_bytes`."""
        ...


@runtime_checkable
class ExportableMethod(Method, Protocol):
    """A method whose network makes a picture in one pass, so that other programs can run it."""

    def exportable(self, assets: Assets) -> Exportable:
        """Load the network.

        Raises:
            OptionError, WeightsError: as of `build` and `check_style`.
        """
        ...
