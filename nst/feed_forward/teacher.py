"""The feature network whose activations a painter's training compares, as its options say it."""

from __future__ import annotations

from dataclasses import replace

from nst.errors import OptionError
from nst.features import FeatureNetwork, build_features, read_weights, weights_asset
from nst.feed_forward.options import PainterOptions, StyleTrainingOptions
from nst.stylizer import AssetRef, Assets

__all__ = ["teacher_file", "teacher_of"]


def teacher_file(model: PainterOptions | StyleTrainingOptions) -> AssetRef | None:
    """The file of its weights; None: it needs none.

    Raises:
        OptionError: there is no such weights.
    """
    assert model.teacher is not None
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
            f"teacher_{error.option}", error.value, choices=error.choices, reason=error.reason
        ) from error
    return None if ref is None else replace(ref, option="teacher_weights")


def teacher_of(model: PainterOptions | StyleTrainingOptions, assets: Assets) -> FeatureNetwork:
    """The network, of the bytes in `assets`.

    Raises:
        WeightsError: they do not fit.
    """
    assert model.teacher is not None
    file = teacher_file(model)
    state, convention = read_weights(model.teacher, file, model.teacher_weights_convention, assets)
    return build_features(
        model.teacher, model.layers, state=state, convention=convention, unit_activations=True
    )
