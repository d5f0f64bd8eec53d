"""What an option's value may be, and what one is, in the words of a job file: those of TOML."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from typing import Any

__all__ = ["as_toml", "values_of"]

_KINDS = {int: "whole number", float: "number", str: "text"}


def as_toml(value: Any) -> str:
    """`value` as TOML writes it; long numbers are rounded."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {as_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 100_000 else str(value)
    if isinstance(value, float) and len(repr(value)) > 12:
        return f"{value:.4g}"
    return repr(value)


def values_of(hint: Any) -> str:
    """What a value of type `hint` is in TOML."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(values_of(each) for each in arguments if each is not types.NoneType)
    if origin is typing.Literal:
        return ", ".join(f"`{as_toml(each)}`" for each in arguments)
    if hint is bool:
        return "`true`, `false`"
    if origin is tuple:
        number = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {number}{values_of(arguments[0])}s"
    if origin in (dict, Mapping):
        return f"table of {values_of(arguments[1])}s"
    return _KINDS.get(hint, getattr(hint, "__name__", str(hint)))
