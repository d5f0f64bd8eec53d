"""The painter that paints in any style in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from jobs.training.recipes.recipe import Choice, Recipe, Trainer
from jobs.training.recipes.teacher import teacher_asset, with_teacher_place
from nst.errors import OptionError

if TYPE_CHECKING:
    import torch

    from nst.feed_forward.options import PainterOptions
    from nst.gan.sampling import Preprocessing
    from nst.stylizer import AssetRef, Assets

__all__ = ["FeedForwardRecipe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedForwardRecipe(Recipe):
    """A network that paints photographs in the style of any picture."""

    photos: str
    """Photographs to learn on: a folder, a glob, a bucket prefix, or a manifest."""
    pictures: str
    """Pictures whose styles are learned, likewise: paintings, prints, textures, the more the better."""
    model: PainterOptions
    """Networks, losses and the optimizer."""

    @classmethod
    def model_options(cls) -> type[PainterOptions]:
        from nst.feed_forward.options import PainterOptions

        return PainterOptions

    @classmethod
    def read(cls, table: Mapping[str, Any], base: Path) -> Self:
        # A dataclass with slots is another class than the one that `super()` alone would look for.
        recipe = super(FeedForwardRecipe, cls).read(table, base)
        return replace(recipe, model=with_teacher_place(recipe.model, base))

    def assets(self) -> list[AssetRef]:
        return teacher_asset(self.model)

    def check_data(self, data: Preprocessing) -> None:
        data.check_square("photographs and pictures share a step, and must have one size")
        least = 2 * self.model.side
        if data.crop_size < least:
            reason = f"model.side = {self.model.side} needs twice as much, {least}"
            raise OptionError("crop_size", data.crop_size, reason=reason)

    def choose(self, sample: int, photos: Mapping[str, int], seed: int) -> list[Choice]:
        from nst.gan.sampling import photo_index

        streams = (("photos", "photos"), ("pictures", "pictures"), ("pictures", "others"))
        return [
            Choice(name, photo_index(sample, photos[name], seed, stream), stream) for name, stream in streams
        ]

    def build(self, *, seed: int, device: torch.device) -> Trainer:
        from nst.feed_forward.training import PainterTraining

        return PainterTraining(self.model, seed=seed, device=device)

    def equip(self, trainer: Any, assets: Assets) -> None:
        from nst.feed_forward.teacher import teacher_of

        trainer.learn_from(teacher_of(self.model, assets))

    def asset(self, url: str, sha256: str | None = None) -> AssetRef:
        from nst.stylizer import AssetRef

        return AssetRef(option="weights", url=url, kind="weights", sha256=sha256)

    @staticmethod
    def samples_caption(collections: Sequence[str]) -> str:  # noqa: ARG004
        return "pictures, and below them photographs painted like each"
