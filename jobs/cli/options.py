"""The options of every method, from the dataclasses and the docstrings under their fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from nst.stylizer import Method

__all__ = ["Option", "options_of"]


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    type: str
    default: str
    """Empty if the option is required."""
    help: str


def options_of(cls: type[Method] | type[Any]) -> list[Option]:
    """The options of a dataclass, in order."""
    helps = _field_docstrings(cls)
    found = []
    for item in dataclasses.fields(cast(Any, cls)):
        default = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        shown = "" if default is dataclasses.MISSING else repr(default)
        found.append(Option(item.name, str(item.type), shown, helps.get(item.name, "")))
    return found


def _field_docstrings(cls: type[Any]) -> Mapping[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    helps: dict[str, str] = {}
    for field, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            helps[field.target.id] = " ".join(following.value.value.split())
    return helps
