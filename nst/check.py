"""Checks of option values, once, at the door. Each raises `OptionError` naming option, value and choices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from nst.errors import OptionError

__all__ = ["above_zero", "at_least", "at_most", "below_one", "layer_weights", "one_of"]


def one_of(option: str, value: object, choices: Iterable[str]) -> None:
    choices = tuple(choices)
    if value not in choices:
        raise OptionError(option, value, choices=choices)


def at_least(option: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise OptionError(option, value, reason=f"must be a finite number of at least {least}")


def at_most(option: str, value: float, most: float) -> None:
    if not value <= most:
        raise OptionError(option, value, reason=f"must be at most {most}")


def below_one(option: str, value: float) -> None:
    if not 0 <= value < 1:
        raise OptionError(option, value, reason="must be from 0 to below 1")


def above_zero(option: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise OptionError(option, value, reason="must be a finite number above 0")


def layer_weights(option: str, layers: Mapping[str, float]) -> None:
    if not isinstance(layers, Mapping):
        raise OptionError(option, layers, reason="must be a table of layers and their weights")
    if not layers:
        raise OptionError(option, dict(layers), reason="at least one layer is needed")
    for layer, weight in layers.items():
        above_zero(f"{option}.{layer}", weight)
