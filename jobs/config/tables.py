"""Job files as tables: read from TOML, changed by `--set`, turned into frozen dataclasses.

Importing this loads no torch, and of jobs its errors and how values are said alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import tomllib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from jobs.config.values import values_of
from jobs.errors import UsageError
from nst.errors import OptionError

__all__ = [
    "apply_overrides",
    "as_words",
    "later_options",
    "parse_table",
    "read_toml",
    "set_words",
    "toml_text",
    "without_defaults",
]

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The table that a TOML job file holds.

    Raises:
        UsageError: the file is missing or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"job file {str(path)!r}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"job file {str(path)!r} is not valid TOML: {error}") from error


def toml_text(table: Mapping[str, Any], within: str = "") -> str:
    """A table of texts, numbers, truth values, lists of these, and tables of all that, as a TOML file. Its
    options have plain names; so have the tables that it is `within`, as `method.`."""
    plain = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    parts = ["".join(f"{name} = {_toml_literal(value)}\n" for name, value in plain.items())]
    for name, value in table.items():
        if isinstance(value, Mapping):
            parts.append(f"[{within}{name}]\n{toml_text(value, f'{within}{name}.')}")
    return "\n".join(part for part in parts if part)


def _toml_literal(value: Any) -> str:
    # JSON's escapes are TOML's, but for one character, and for pairs of them, which are not needed.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `table` with each `method.steps=200` put in; values are TOML, or else plain text.

    Raises:
        OptionError: an override is not NAME=VALUE, or the value of an option is a date or a time.
    """
    result = cast(dict[str, Any], _copy("", table))
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not all(part.strip() for part in name.split(".")):
            raise OptionError("--set", override, reason="expected NAME=VALUE, e.g. method.steps=200")
        *parents, last = name.strip().split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise OptionError("--set", override, reason=f"{parent} is not a table")
        place[last] = _toml_value(text.strip())
    return result


def _copy(name: str, value: Any) -> Any:
    """A deep copy. No option is a date: one that is written without quotes was meant as text."""
    if isinstance(value, Mapping):
        return {key: _copy(f"{name}.{key}" if name else key, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(f"{name}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, datetime.date | datetime.time):
        raise OptionError(name, str(value), reason="is a date or a time in TOML; text stands in quotes")
    return value


def _toml_value(text: str) -> Any:
    """What `text` is in TOML, or else itself; dates too, since a shell has taken the quotes of a text away."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if isinstance(value, datetime.date | datetime.time) else value


def parse_table(cls: type[T], table: Mapping[str, Any], name: str) -> T:
    """A dataclass from a table.

    Raises:
        OptionError: an option (called `name.option`, or without a name `option`) is unknown, missing, or has a
            value that it cannot take.
    """
    known = {item.name: item for item in fields(cast(Any, cls))}
    for option, value in table.items():
        if option not in known:
            raise OptionError(_within(name, option), value, choices=known, reason="unknown option")
    for option, item in known.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and option not in table:
            raise OptionError(_within(name, option), None, reason="is required")
    try:
        result = TypeAdapter(cls).validate_python(dict(table))
    except ValidationError as error:
        raise _option_error(error.errors()[0], cls, table, name) from error
    for option, value in table.items():
        if _has_truth(value) and not _has_truth(getattr(result, option)):  # 1, for whoever reads it
            raise _expected(cls, option, value, name)
    return result


def _has_truth(value: Any) -> bool:
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, bool) or any(map(_has_truth, items))


def without_defaults(options: Any, names: Container[str] | None = None) -> dict[str, Any]:
    """A dataclass as a table, without those of its options, of these names or all, that have their defaults."""
    table = dataclasses.asdict(options)
    return {
        item.name: table[item.name]
        for item in fields(options)
        if (names is not None and item.name not in names) or getattr(options, item.name) != item.default
    }


def set_words(table: str, options: Any) -> list[str]:
    """Words of a command line that give the options of a table those values that are not their defaults."""
    given = without_defaults(options)
    return as_words([f"{table}.{name}={json.dumps(value)}" for name, value in given.items()])


def as_words(overrides: Iterable[str]) -> list[str]:
    """What --set takes, as words of a command line."""
    return [word for each in overrides for word in ("--set", each)]


def later_options(options: Any) -> list[str]:
    """Names of a dataclass's options that came when there were jobs without them: see `nst.stylizer.LATER`."""
    return [item.name for item in fields(options) if item.metadata.get("later")]


def _within(table: str, option: str) -> str:
    return ".".join(part for part in (table, option) if part)


def _option_error(details: ErrorDetails, cls: type[Any], table: Mapping[str, Any], name: str) -> OptionError:
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, OptionError):
        return cause.within(name) if name else cause
    option = str(details["loc"][0])
    expected = details.get("ctx", {}).get("expected")
    if details["type"] == "literal_error" and isinstance(expected, str):
        choices = [choice.strip(" '") for choice in expected.replace(" or ", ",").split(",")]
        return OptionError(_within(name, option), details["input"], choices=choices)
    return _expected(cls, option, table[option], name)


def _expected(cls: type[Any], option: str, value: Any, name: str) -> OptionError:
    """The error for a value of another type than the option has."""
    values = values_of(get_type_hints(cls)[option])
    article = "" if values.startswith(("text", "`")) else "a "
    return OptionError(_within(name, option), value, reason=f"expected {article}{values}")
