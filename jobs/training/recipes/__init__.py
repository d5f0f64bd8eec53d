"""The registry of trainings: `[model] kind` in a job file to its recipe. Adding a training is one file and one
line here.

Importing this loads no torch. Nothing outside this folder asks which kind a training is: it asks its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.training.recipes.recipe import Choice, Recipe, Trainer, Translation
from nst.errors import OptionError
from nst.methods import Registry

__all__ = ["TRAININGS", "Choice", "Recipe", "Trainer", "Translation", "is_training", "kind_of", "with_kind"]

TRAININGS: Registry[Recipe] = Registry(
    {
        "cyclegan": "jobs.training.recipes.cyclegan:CycleGANRecipe",
        "feed_forward": "jobs.training.recipes.feed_forward:FeedForwardRecipe",
        "feed_forward_styles": "jobs.training.recipes.styles:StylesRecipe",
        "modulated": "jobs.training.recipes.modulated:ModulatedRecipe",
    }
)


def kind_of(table: Mapping[str, Any]) -> str:
    """The kind of the training in a job file's table, or in that of a begun training.

    Raises:
        OptionError: there is no such kind.
    """
    model = table.get("model", {})
    if "kind" not in model:  # as files were before there was this option
        return "modulated" if model.get("generator") == "modulated" else "cyclegan"
    kind = model["kind"]
    if not isinstance(kind, str) or kind not in TRAININGS:
        raise OptionError("model.kind", kind, choices=TRAININGS)
    return kind


def with_kind(table: dict[str, Any], kind: str) -> dict[str, Any]:
    """A resolved table that says its kind. Where the rest of it does, `kind` is left out: trainings from before
    there was this option are still the same."""
    if kind_of(table) == kind:
        return table
    return {**table, "model": {"kind": kind, **table["model"]}}


def is_training(table: Mapping[str, Any]) -> bool:
    """Whether a job file's table is that of a training, and not of photographs to be stylized."""
    if "method" in table:
        return False
    model = table.get("model")
    if isinstance(model, Mapping) and "kind" in model:
        return True
    return "photos" not in table and ({"a", "b"} <= table.keys() or "styles" in table)
