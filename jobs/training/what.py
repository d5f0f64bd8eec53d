"""WHAT is trained: `TrainSpec`, two generators between two collections, or `StylesSpec`, one between many."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jobs.spec import parse_table
from jobs.stores.filesystems import absolute_url, refuse_secrets
from nst.cyclegan.networks import GENERATORS, size_multiple
from nst.cyclegan.training import CycleGANOptions
from nst.errors import OptionError
from nst.gan.sampling import Preprocessing
from nst.gan.schedule import Schedule
from nst.modulated.method import LEAST, MULTIPLE
from nst.modulated.networks import check_styles
from nst.modulated.training import ManyStylesOptions

__all__ = [
    "MODULATED",
    "StylesSpec",
    "TrainSpec",
    "collections_of",
    "is_modulated",
    "many_styles_of",
    "place_of",
    "two_domains_of",
]

MODULATED = "modulated"
"""`model.generator` of a `StylesSpec`."""
_MAX_NAME = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec:
    """What is trained: everything that the numbers depend on, and where they go."""

    method_option: ClassVar[str] = "weights"
    """By which the batch job's method names the generators."""

    a: str
    """Photographs: a folder, a glob, a bucket prefix, or a manifest."""
    b: str
    """What they are to become, or become photographs from."""
    output: str
    """The job's folder or bucket prefix."""
    seed: int = 0
    """Of parameters, orders, crops, and all else that is drawn."""
    batch_size: int = 1
    """Pairs per step, over all workers."""
    max_pixels: int = 200_000_000
    """Photographs with more are left out."""
    model: CycleGANOptions = field(default_factory=CycleGANOptions)
    data: Preprocessing = field(default_factory=Preprocessing)
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def collections(self) -> dict[str, str]:
        """Places by name, in order."""
        return {"a": self.a, "b": self.b}

    @staticmethod
    def option_of(collection: str) -> str:
        """By which a job file says where it is."""
        return collection

    @property
    def multiple(self) -> int:
        """Of which images' height and width are."""
        return size_multiple(self.model.generator)

    def check_data(self) -> None:
        """Raises OptionError, of `data`: images are not what the networks need."""
        self.data.check_multiple(self.multiple)

    @staticmethod
    def samples_of(photos: int) -> int:
        """After which each of as many photographs in the largest collection was seen."""
        return photos

    def table(self) -> dict[str, Any]:
        """As of a job file. An option that came later is left out while it has its default, so that trainings
        from before it are still the same."""
        table = dataclasses.asdict(self)
        if self.model.upsample == "transposed":
            del table["model"]["upsample"]
        return table


@dataclass(frozen=True, kw_only=True, slots=True)
class StylesSpec:
    """What is trained with model.generator = "modulated": one generator, from every style to every other."""

    method_option: ClassVar[str] = "generator"

    styles: dict[str, str]
    """In place of `a` and `b`, a table [styles]: photographs by the name of their style, of letters, digits and
    `-`; the first are what the others are to be made of: photo = "photos", ukiyo-e = "s3://bucket/prints"."""
    output: str
    seed: int = 0
    batch_size: int = 1
    max_pixels: int = 200_000_000
    model: ManyStylesOptions
    data: Preprocessing = field(default_factory=Preprocessing)
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def collections(self) -> dict[str, str]:
        """As of `TrainSpec`, and so are the others."""
        return self.styles

    @staticmethod
    def option_of(collection: str) -> str:
        return f"styles.{collection}"

    @property
    def multiple(self) -> int:
        return MULTIPLE

    def check_data(self) -> None:
        if not self.data.square:
            choices = ("resize_and_crop", "crop", "scale_width_and_crop")
            reason = "images of two styles share a step, and must have one size"
            raise OptionError("preprocess", self.data.preprocess, choices=choices, reason=reason)
        self.data.check_multiple(MULTIPLE)
        least = max(LEAST, 2 << self.model.discriminator_layers)
        if self.data.crop_size < least:
            reason = (
                f"the networks, with discriminator_layers = {self.model.discriminator_layers}, need {least}"
            )
            raise OptionError("crop_size", self.data.crop_size, reason=reason)

    def samples_of(self, photos: int) -> int:
        """In as many samples as there are directions, each style is translated once to each of the others."""
        others = len(self.styles) - 1
        return math.ceil(photos / others) * others * len(self.styles)

    def table(self) -> dict[str, Any]:
        """`model.styles` has the names in their order, which a table of JSON does not promise to keep."""
        table = dataclasses.asdict(self)
        return {**table, "model": {"generator": MODULATED, **table["model"]}}


def is_modulated(model: Mapping[str, Any]) -> bool:
    """Which of both the table `[model]` is of.

    Raises:
        OptionError: no such generator.
    """
    name = model.get("generator", CycleGANOptions().generator)
    choices = (*GENERATORS, MODULATED)
    if name not in choices:
        raise OptionError("model.generator", name, choices=choices)
    return bool(name == MODULATED)


def collections_of(table: Mapping[str, Any], modulated: bool, base: Path) -> dict[str, str]:
    """Where a job file says that photographs are, by collection.

    Raises:
        OptionError: it says nothing, or what goes with another generator.
    """
    wanted, others = (("styles",), ("a", "b")) if modulated else (("a", "b"), ("styles",))
    styles: Mapping[str, Any] = table.get("styles", {})
    for name, value in {**{side: table.get(side) for side in ("a", "b")}, **styles}.items():
        if isinstance(value, str):  # errors below repeat it
            refuse_secrets(name if name in ("a", "b") and name not in styles else f"styles.{name}", value)
    for name in others:
        if name in table:
            needs = f"model.generator = {MODULATED!r}"
            reason = f"{needs} takes [styles] instead" if modulated else f"needs {needs}; others take a and b"
            raise OptionError(name, table[name], choices=wanted, reason=reason)
    if not modulated:
        return {side: place_of(side, table.get(side), base) for side in wanted}
    if "styles" not in table:
        reason = f"a table of photographs by style is required with model.generator = {MODULATED!r}"
        raise OptionError("styles", None, reason=reason)
    _check_names(styles)
    return {name: place_of(f"styles.{name}", value, base) for name, value in styles.items()}


def place_of(name: str, value: Any, base: Path) -> str:
    """Absolute. Raises OptionError: none, or one with a secret in it."""
    if not isinstance(value, str) or not value:
        raise OptionError(name, value, reason="a path or URL is required")
    refuse_secrets(name, value)
    return absolute_url(value, base)


def two_domains_of(table: Mapping[str, Any]) -> CycleGANOptions:
    """Raises OptionError: as `parse_table`; also for options of the other generator."""
    _refuse_others(
        table, ManyStylesOptions, CycleGANOptions, f"is an option of model.generator = {MODULATED!r}"
    )
    return parse_table(CycleGANOptions, table, "model")


def many_styles_of(table: Mapping[str, Any], styles: tuple[str, ...]) -> ManyStylesOptions:
    """Names of styles may be repeated in `model`, where a resolved job has them. Raises OptionError: as
    `two_domains_of`."""
    given = {name: value for name, value in table.items() if name != "generator"}
    _refuse_others(
        given, CycleGANOptions, ManyStylesOptions, f"is no option of model.generator = {MODULATED!r}"
    )
    said = given.setdefault("styles", list(styles))
    if said != list(styles):
        raise OptionError("model.styles", said, reason=f"[styles] has {list(styles)}, in this order")
    return parse_table(ManyStylesOptions, given, "model")


def _refuse_others(table: Mapping[str, Any], others: type[Any], kind: type[Any], reason: str) -> None:
    """Raises OptionError: an option of `others` that `kind` does not have."""
    known = {item.name for item in dataclasses.fields(kind)}
    foreign = {item.name for item in dataclasses.fields(others)} - known
    choices = ("generator", *sorted(known - {"generator", "styles"}))
    for option, value in table.items():
        if option in foreign:
            raise OptionError(f"model.{option}", value, choices=choices, reason=reason)


def _check_names(styles: Mapping[str, Any]) -> None:
    """Raises OptionError: fewer than two, or a name that could not be part of those of losses and files."""
    check_styles(list(styles))
    for name in styles:
        # Not `_`, which stands between the parts of a loss's name.
        if len(name) > _MAX_NAME or not re.fullmatch(r"[^\W_]+(-[^\W_]+)*", name):
            reason = f"a style's name has letters, digits and -, at most {_MAX_NAME} of them"
            raise OptionError(f"styles.{name}", styles[name], reason=reason)
        if sum(name.casefold() == other.casefold() for other in styles) > 1:
            raise OptionError(f"styles.{name}", styles[name], reason="two names differ in case only")
