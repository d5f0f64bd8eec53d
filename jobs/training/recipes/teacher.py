"""Where the weights of a painter's teacher are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jobs.stores.filesystems import option_place
from nst.errors import OptionError

if TYPE_CHECKING:
    from nst.feed_forward.options import PainterOptions, StyleTrainingOptions
    from nst.stylizer import AssetRef

__all__ = ["teacher_asset", "with_teacher_place"]

Options = TypeVar("Options", "PainterOptions", "StyleTrainingOptions")


def with_teacher_place(model: Options, base: Path) -> Options:
    """`model`, the place of whose teacher's weights is taken from the folder `base`."""
    from nst.features.weights import is_place

    weights = model.teacher_weights
    assert weights is not None
    if not is_place(weights):
        return model
    return replace(model, teacher_weights=option_place("model.teacher_weights", weights, base))


def teacher_asset(model: PainterOptions | StyleTrainingOptions) -> list[AssetRef]:
    """The file of its teacher's weights, if it needs one. Raises OptionError: there are no such weights."""
    from nst.feed_forward.teacher import teacher_file

    try:
        found = teacher_file(model)
    except OptionError as error:
        raise error.within("model") from error
    return [] if found is None else [found]
