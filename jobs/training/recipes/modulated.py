"""One modulated generator between many styles, from each to every other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

from jobs.config.tables import later_options, parse_table, without_defaults
from jobs.stores.filesystems import option_place
from jobs.training.recipes.recipe import Choice, Recipe, Trainer, Translation
from nst import check
from nst.errors import OptionError
from nst.modulated.directions import direction_means, style_means

if TYPE_CHECKING:
    import torch

    from nst.gan.sampling import Preprocessing
    from nst.modulated.training import ManyStylesOptions
    from nst.ops.modulated import Form
    from nst.stylizer import AssetRef

__all__ = ["ModulatedRecipe"]

_MAX_NAME = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ModulatedRecipe(Recipe):
    """One generator for many styles, from each of them to every other."""

    also_read: ClassVar[frozenset[str]] = frozenset({"generator", "styles", "form"})

    styles: dict[str, str]
    """The table [styles]: photographs by the name of their style, of letters, digits and `-`; the first are
    what the others are to be made of: photo = "photos", ukiyo-e = "s3://bucket/prints"."""
    model: ManyStylesOptions
    """Networks, losses and optimizers."""
    form: Form = "scaled"
    """How modulated convolutions are computed: by rounding, another training. It was an option of [model]."""

    @classmethod
    def model_options(cls) -> type[ManyStylesOptions]:
        from nst.modulated.training import ManyStylesOptions

        return ManyStylesOptions

    @classmethod
    def option_names(cls) -> list[str]:
        return ["styles"]

    @classmethod
    def read(cls, table: Mapping[str, Any], base: Path) -> Self:
        from nst.ops.modulated import Form

        if "styles" not in table:
            raise OptionError("styles", None, reason="a table of photographs by style is required")
        if not isinstance(table["styles"], Mapping):
            raise OptionError("styles", table["styles"], reason="must be a table: [styles]")
        _check_names(table["styles"])
        styles = {name: option_place(f"styles.{name}", place, base) for name, place in table["styles"].items()}
        # The model of a resolved job says its generator, and its styles, whose order JSON's tables do not keep.
        given = dict(table["model"])
        check.one_of("model.generator", given.pop("generator", "modulated"), ["modulated"])
        form = given.pop("form", "scaled")
        check.one_of("model.form", form, get_args(Form))
        said = given.setdefault("styles", list(styles))
        if said != list(styles):
            raise OptionError("model.styles", said, reason=f"[styles] has {list(styles)}, in this order")
        return cls(styles=styles, model=parse_table(cls.model_options(), given, "model"), form=form)

    def table(self) -> dict[str, Any]:
        given = without_defaults(self.model, later_options(self.model))
        model = {"generator": "modulated", **given, "form": self.form}
        return {"styles": dict(self.styles), "model": model}

    def check_data(self, data: Preprocessing) -> None:
        from nst.modulated.method import LEAST

        data.check_square("images of two styles share a step, and must have one size")
        data.check_multiple(self.multiple)
        least = max(LEAST, 2 << self.model.discriminator_layers)
        if data.crop_size < least:
            reason = (
                f"the networks, with discriminator_layers = {self.model.discriminator_layers}, need {least}"
            )
            raise OptionError("crop_size", data.crop_size, reason=reason)

    @property
    def collections(self) -> Mapping[str, str]:
        return self.styles

    @staticmethod
    def option_of(collection: str) -> str:
        return f"styles.{collection}"

    @property
    def multiple(self) -> int:
        from nst.modulated.method import MULTIPLE

        return MULTIPLE

    def epoch_samples(self, photos: int) -> int:
        """In as many samples as there are directions, each style is translated once to each of the others."""
        others = len(self.styles) - 1
        return math.ceil(photos / others) * others * len(self.styles)

    @staticmethod
    def stream_of(collection: str) -> str:  # noqa: ARG004
        return "A"

    def choose(self, sample: int, photos: Mapping[str, int], seed: int) -> list[Choice]:
        """A photograph of the style that the sample is translated from, and one of that it is translated to. Of
        each style, the photographs that are translated come in an order, and those that are shown to the
        discriminator in another."""
        from nst.gan.sampling import photo_index, style_pair, style_turns

        names = list(photos)
        styles = style_pair(sample, len(names), seed)
        turns = style_turns(sample, len(names), seed)
        return [
            Choice(names[style], photo_index(turn, photos[names[style]], seed, f"{role} {style}"), role)
            for style, turn, role in zip(styles, turns, ("A", "B"), strict=True)
        ]

    def build(self, *, seed: int, device: torch.device) -> Trainer:
        from nst.modulated.training import ManyStylesTraining

        return ManyStylesTraining(self.model, seed=seed, device=device, form=self.form)

    def asset(self, url: str, sha256: str | None = None) -> AssetRef:
        from nst.stylizer import AssetRef

        return AssetRef(option="generator", url=url, kind="weights", sha256=sha256)

    def translations(self, data: bytes, most: int, device: torch.device) -> Iterator[Translation]:
        """Those from the first style to the others, then those to it."""
        from nst.modulated.method import Modulated

        first, *others = self.styles
        stylizer = Modulated(generator="", style=first).build({"": data}, device)
        directions = [*((first, name) for name in others), *((name, first) for name in others)]
        for source, target in directions[:most]:
            translate = partial(stylizer.to_style, style=target)
            yield Translation(f"{source}_to_{target}", source, target, translate)

    @staticmethod
    def grouped(losses: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """`loss` has the whole of each kind; every direction and style is a group with the means over its own
        images, if it has any: `photo_to_ukiyo-e` with `gan` and `cycle`, `ukiyo-e` with `D` and `identity`."""
        whole: dict[str, list[float]] = {}
        for name, loss in losses.items():
            whole.setdefault(name.partition("_")[0], []).append(loss)
        whole.pop("images", None)
        groups = {"loss": {kind: math.fsum(parts) for kind, parts in whole.items()}}
        for name, mean in [*direction_means(losses).items(), *sorted(style_means(losses).items())]:
            kind, _, group = name.partition("_")
            groups.setdefault(group, {})[kind] = mean
        return groups

    @staticmethod
    def samples_caption(collections: Sequence[str]) -> str:
        return f"photographs of each style, and these as {', '.join(collections)}"


def _check_names(styles: Mapping[str, Any]) -> None:
    """Raises OptionError: fewer than two, or a name that could not be part of those of losses and files."""
    from nst.modulated.networks import check_styles

    check_styles(list(styles))
    for name in styles:
        # Not `_`, which stands between the parts of a loss's name.
        if len(name) > _MAX_NAME or not re.fullmatch(r"[^\W_]+(-[^\W_]+)*", name):
            reason = f"a style's name has letters, digits and -, at most {_MAX_NAME} of them"
            raise OptionError(f"styles.{name}", styles[name], reason=reason)
        if sum(name.casefold() == other.casefold() for other in styles) > 1:
            raise OptionError(f"styles.{name}", styles[name], reason="two names differ in case only")
