"""The painter, fine-tuned for some styles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from jobs.stores.filesystems import option_place
from jobs.training.recipes.recipe import Recipe, Trainer
from jobs.training.recipes.teacher import teacher_asset, with_teacher_place
from nst.errors import OptionError
from nst.styles import PREFIX

if TYPE_CHECKING:
    import torch

    from nst.feed_forward.options import StyleTrainingOptions
    from nst.gan.sampling import Preprocessing
    from nst.stylizer import AssetRef, Assets

__all__ = ["StylesRecipe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StylesRecipe(Recipe):
    """The network that paints in any style, fine-tuned for some."""

    photos: str
    """Photographs to learn on, like those that are to be painted: a folder, a glob, a bucket prefix, or a
    manifest."""
    model: StyleTrainingOptions
    """Styles, networks, losses and the optimizer."""

    @classmethod
    def model_options(cls) -> type[StyleTrainingOptions]:
        from nst.feed_forward.options import StyleTrainingOptions

        return StyleTrainingOptions

    @classmethod
    def read(cls, table: Mapping[str, Any], base: Path) -> Self:
        # A dataclass with slots is another class than the one that `super()` alone would look for.
        recipe = super(StylesRecipe, cls).read(table, base)
        model = with_teacher_place(recipe.model, base)
        given = model.style
        style: str | tuple[str, ...]
        if isinstance(given, str):
            style = _place("model.style", given, base)
        else:
            style = tuple(_place(f"model.style[{number}]", each, base) for number, each in enumerate(given))
        painter = model.painter
        if painter not in (None, "embedded"):
            painter = option_place("model.painter", painter, base)
        return replace(recipe, model=replace(model, style=style, painter=painter))

    def assets(self) -> list[AssetRef]:
        from nst.style_transfer.pictures import style_assets

        return [*style_assets(self.model), *self._painter(), *teacher_asset(self.model)]

    def _painter(self) -> list[AssetRef]:
        from nst.feed_forward.method import SHIPPED
        from nst.stylizer import AssetRef

        painter = self.model.painter
        if painter is None:
            return []
        url = SHIPPED if painter == "embedded" else painter
        return [AssetRef(option="painter", url=url, kind="weights")]

    def check_data(self, data: Preprocessing) -> None:
        data.check_square("photographs of a step are pieces of squares")
        if data.crop_size < self.model.side:
            reason = f"model.side = {self.model.side} pixels are cut out of it"
            raise OptionError("crop_size", data.crop_size, reason=reason)

    def build(self, *, seed: int, device: torch.device) -> Trainer:
        from nst.feed_forward.style_training import StyleTraining

        return StyleTraining(self.model, seed=seed, device=device)

    def equip(self, trainer: Any, assets: Assets) -> None:
        from nst.feed_forward.style_training import pictures_of
        from nst.feed_forward.teacher import teacher_of

        trainer.learn_from(teacher_of(self.model, assets), pictures_of(self.model, assets))
        for ref in self._painter():
            trainer.begin_with(assets[ref.url], ref.url)

    def asset(self, url: str, sha256: str | None = None) -> AssetRef:
        from nst.stylizer import AssetRef

        return AssetRef(option="weights", url=url, kind="weights", sha256=sha256)

    @staticmethod
    def samples_caption(collections: Sequence[str]) -> str:  # noqa: ARG004
        return "styles, and below them photographs painted in each"


def _place(option: str, style: str, base: Path) -> str:
    return style if style.startswith(PREFIX) else option_place(option, style, base)
