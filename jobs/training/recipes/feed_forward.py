"""The painter that paints in any style in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from jobs.stores.filesystems import option_place
from jobs.training.recipes.recipe import Choice, Recipe, Trainer
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
        from nst.features.weights import is_place

        # A dataclass with slots is another class than the one that `super()` alone would look for.
        recipe = super(FeedForwardRecipe, cls).read(table, base)
        weights = recipe.model.teacher_weights
        assert weights is not None
        if is_place(weights):
            place = option_place("model.teacher_weights", weights, base)
            recipe = replace(recipe, model=replace(recipe.model, teacher_weights=place))
        return recipe

    def assets(self) -> list[AssetRef]:
        found = self._teacher_file()
        return [] if found is None else [found]

    def _teacher_file(self) -> AssetRef | None:
        from nst.features import weights_asset

        model = self.model
        assert model.teacher_weights is not None
        try:
            ref = weights_asset(
                model.teacher,
                model.teacher_weights,
                model.teacher_weights_sha256,
                model.teacher_weights_convention,
            )
        except OptionError as error:
            raise OptionError(
                f"model.teacher_{error.option}", error.value, choices=error.choices, reason=error.reason
            ) from error
        return None if ref is None else replace(ref, option="teacher_weights")

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
        from nst.features import build_features, read_weights

        model = self.model
        file = self._teacher_file()
        state, convention = read_weights(model.teacher, file, model.teacher_weights_convention, assets)
        teacher = build_features(
            model.teacher, model.layers, state=state, convention=convention, unit_activations=True
        )
        trainer.learn_from(teacher)

    def asset(self, url: str, sha256: str | None = None) -> AssetRef:
        from nst.stylizer import AssetRef

        return AssetRef(option="weights", url=url, kind="weights", sha256=sha256)

    @staticmethod
    def samples_caption(collections: Sequence[str]) -> str:  # noqa: ARG004
        return "pictures, and below them photographs painted like each"
