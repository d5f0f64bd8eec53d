"""The options of a dataclass: its fields, with what they may be, and the docstrings under them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from jobs.config.values import as_toml, values_of

__all__ = ["Option", "options_of"]

_UNITS = {
    "_px": "pixels",
    "_pixels": "pixels",
    "_s": "seconds",
    "_mb": "MB",
    "_gb": "GiB",
    "_per_second": "per second",
}
"""Units by the ends of names: house rule is that a name says its unit."""


@dataclass(frozen=True, slots=True)
class Option:
    """What a job file may say in one line."""

    name: str
    default: str
    """The default as TOML writes it; `None`: the option is left out; empty: the option is required."""
    values: str
    """The choices, in backquotes, or what else the value may be."""
    unit: str
    """The unit of the value; empty: it has none, or the text says it."""
    help: str

    @property
    def shown_default(self) -> str:
        return self.default or "required"

    @property
    def shown_values(self) -> str:
        return f"{self.values}, {self.unit}" if self.unit else self.values


def options_of(cls: type[Any], names: Container[str] | None = None) -> list[Option]:
    """The options of a dataclass, or those of these names, in order. Fields that are tables of their own are
    left out."""
    helps = _field_docstrings(cls)
    found = []
    for item in dataclasses.fields(cast(Any, cls)):
        if names is not None and item.name not in names:
            continue
        default = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        hint = _hint(cls, item.name)
        if _is_table(hint) or dataclasses.is_dataclass(default):
            continue
        shown = "" if default is dataclasses.MISSING else as_toml(default)
        ends = [unit for end, unit in _UNITS.items() if item.name.endswith(end)]
        found.append(
            Option(item.name, shown, values_of(hint), "".join(ends[:1]), helps.get(item.name, "").strip())
        )
    return found


def _hint(cls: type[Any], name: str) -> Any:
    """The type of a field, with what its module's names stand for; a name that is for the type checker only
    stays as text."""
    for base in cls.__mro__:
        hint = inspect.get_annotations(base).get(name)
        if hint is not None:
            try:
                return eval(hint, vars(sys.modules[base.__module__])) if isinstance(hint, str) else hint
            except NameError:
                return hint
    raise AssertionError(f"{cls.__name__} has no {name}")


def _is_table(hint: Any) -> bool:
    return isinstance(hint, str) or dataclasses.is_dataclass(hint)


def _field_docstrings(cls: type[Any]) -> Mapping[str, str]:
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            helps.update(_own_field_docstrings(base))
    return helps


def _own_field_docstrings(cls: type[Any]) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    for field, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            yield field.target.id, " ".join(following.value.value.split())
