"""A training's job file: from TOML, to JSON. Importing this loads torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from jobs.config.hints import PUBLIC_NAMES, hints
from jobs.config.tables import (
    apply_overrides,
    later_options,
    parse_table,
    read_toml,
    without_defaults,
)
from jobs.ledger.job_record import JobRecord
from jobs.spec import storage_from_table
from jobs.stores.filesystems import StorageOptions, option_place, refuse_secrets
from jobs.training.changes import Change, with_changes
from jobs.training.recipes import TRAININGS, kind_of, with_kind
from jobs.training.spec import EvaluationSpec, InitSpec, LogSpec, TrainFile, TrainResources, TrainSpec
from nst.errors import OptionError
from nst.gan.parallel import DDPOptions, Share
from nst.gan.sampling import Preprocessing
from nst.gan.schedule import Schedule

__all__ = [
    "HOW",
    "INIT",
    "MODEL",
    "TABLES",
    "OptionTable",
    "option_tables",
    "read_train_file",
    "recorded_fingerprints",
    "train_fingerprint",
    "train_from_table",
    "train_to_table",
]

HOW = ("output", "resources", "storage", "log", "evaluation", "ddp")
"""Parts of a job file on which no trained number depends, but for rounding."""
TABLES: Mapping[str, type[Any]] = {
    "data": Preprocessing,
    "schedule": Schedule,
    "init": InitSpec,
    "log": LogSpec,
    "evaluation": EvaluationSpec,
    "resources": TrainResources,
    "ddp": DDPOptions,
}
"""The tables that all trainings' job files have, by name; and `storage`, and `model`, which is the recipe's."""
INIT = "init."
"""Before the options of files of weights that a training begins with, among the assets in `job.json`."""
MODEL = "model."
"""And before those of files that its recipe needs."""
_NUMBERS = {"seed": 0, "batch_size": 1, "max_pixels": 1}
"""And the least that each may be."""
_RETIRED = {"ddp": {"static_graph": False}}
"""Options that were removed, by table, with the only value that they could have: files that say it are read."""


@dataclass(frozen=True, slots=True)
class OptionTable:
    """Options that stand together in a job file."""

    name: str
    """The name of the table; empty: they stand above all tables."""
    cls: type[Any]
    """A dataclass with a docstring under every field."""
    names: tuple[str, ...]
    """The fields that are options."""
    of_kind: bool = False
    """Whether only trainings of one kind have this table."""


def option_tables(kind: str) -> list[OptionTable]:
    """All options that a training of this kind has, but for `model.kind`, which is its kind.

    Raises:
        OptionError: there is no such kind.
    """
    recipe = TRAININGS[kind]
    model = recipe.model_options()
    own = (name for name in _names(model) if name not in recipe.also_read)
    return [
        OptionTable("", recipe, tuple(recipe.option_names()), of_kind=True),
        OptionTable("", TrainSpec, ("output", *_NUMBERS)),
        OptionTable("model", model, tuple(own), of_kind=True),
        *(OptionTable(name, cls, _names(cls)) for name, cls in {**TABLES, "storage": StorageOptions}.items()),
    ]


def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(cls))


def read_train_file(path: Path, overrides: Sequence[str] = ()) -> TrainFile:
    """Read a TOML job file of a training. Relative paths are taken from the file's folder.

    Raises:
        UsageError: the file is missing or is no TOML.
        OptionError: an option is unknown, missing, or has a value that it cannot take.
    """
    return train_from_table(apply_overrides(read_toml(path), overrides), path.resolve().parent)


def train_from_table(table: Mapping[str, Any], base: Path) -> TrainFile:
    """Resolve a job file's table; see `read_train_file`."""
    for name in ("model", *TABLES, "storage"):
        if not isinstance(table.get(name, {}), Mapping):
            raise OptionError(name, table[name], reason=f"must be a table: [{name}]")
    kind = kind_of(table)
    with hints(_names_by_table(kind), PUBLIC_NAMES):
        return _resolved(table, kind, base)


def _names_by_table(kind: str) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for table in option_tables(kind):
        names.setdefault(table.name, []).extend(table.names)
    return names


def _resolved(table: Mapping[str, Any], kind: str, base: Path) -> TrainFile:
    _check_names(table, kind)
    model = {name: value for name, value in table.get("model", {}).items() if name != "kind"}
    recipe = TRAININGS[kind].read({**table, "model": model}, base)
    what: dict[str, Any] = {"output": option_place("output", table.get("output"), base), **_numbers(table)}
    parts = {name: parse_table(cls, _without_retired(name, table), name) for name, cls in TABLES.items()}
    parts["evaluation"] = parts["evaluation"].with_places(base, recipe.collections)
    what |= {name: parts.pop(name) for name in ("data", "schedule")}
    spec = TrainSpec(kind=kind, recipe=recipe, init=_placed(parts.pop("init"), base), **what)
    file = TrainFile(spec=spec, **parts, storage=storage_from_table(table.get("storage", {})))
    _check_together(file)
    return file


def _placed(init: InitSpec, base: Path) -> InitSpec:
    """Its paths as absolute ones."""
    if isinstance(init.weights, str):
        return replace(init, weights=option_place("init.weights", init.weights, base))
    places = (option_place(f"init.weights[{place}]", each, base) for place, each in enumerate(init.weights))
    return replace(init, weights=tuple(places))


def _check_names(table: Mapping[str, Any], kind: str) -> None:
    """Raises OptionError: an option that trainings of this kind do not have, or a place with a secret in it."""
    recipe = TRAININGS[kind]
    choices = (*recipe.option_names(), "output", *_NUMBERS, "model", *TABLES, "storage")
    for name, value in table.items():
        if name not in TABLES:  # errors repeat values
            _refuse_secrets_in(name, value)
    for name, value in table.items():
        if name not in choices:
            others = (other for other, cls in TRAININGS.items() if name in cls.option_names())
            raise OptionError(name, value, choices=choices, reason=_reason(others))
    known = ("kind", *(name for name in _names(recipe.model_options()) if name not in recipe.also_read))
    for name, value in table.get("model", {}).items():
        if name not in known and name not in recipe.also_read:
            others = (other for other, cls in TRAININGS.items() if name in _names(cls.model_options()))
            raise OptionError(f"model.{name}", value, choices=known, reason=_reason(others))


def _reason(others: Iterator[str]) -> str:
    other = next(others, None)
    return "unknown option" if other is None else f"is an option of trainings with model.kind = {other!r}"


def _refuse_secrets_in(name: str, value: Any) -> None:
    if isinstance(value, str):
        refuse_secrets(name, value)
    elif isinstance(value, Mapping) and name != "storage":  # which has stricter rules of its own
        for key, each in value.items():
            _refuse_secrets_in(f"{name}.{key}", each)


def _numbers(table: Mapping[str, Any]) -> dict[str, int]:
    numbers = {}
    for item in dataclasses.fields(TrainSpec):
        if item.name in _NUMBERS:
            least, value = _NUMBERS[item.name], table.get(item.name, item.default)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
                reason = f"must be a whole number from {least} to 2^63 - 1"
                raise OptionError(item.name, value, reason=reason)
            numbers[item.name] = value
    return numbers


def _without_retired(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    retired = _RETIRED.get(name, {})
    return {
        option: value
        for option, value in table.get(name, {}).items()
        if option not in retired or value is not retired[option]
    }


def _check_together(file: TrainFile) -> None:
    spec = file.spec
    try:
        spec.recipe.check_data(spec.data)
    except OptionError as error:
        raise error.within("data") from error
    Share(spec.batch_size, 0, file.resources.max_workers)
    if not spec.data.square and spec.batch_size > file.resources.min_workers:
        reason = "images of several sizes make no batch; data.preprocess can crop them"
        raise OptionError("batch_size", spec.batch_size, reason=reason)


def train_to_table(file: TrainFile) -> dict[str, Any]:
    """The inverse of `train_from_table`, of JSON types only."""
    spec = file.spec
    table: dict[str, Any] = {
        **spec.recipe.table(),
        **{name: getattr(spec, name) for name in ("output", *_NUMBERS)},
    }
    for part in (spec, file):
        for item in dataclasses.fields(part):
            if item.name in (*TABLES, "storage"):
                options = getattr(part, item.name)
                table[item.name] = without_defaults(options, later_options(options))
    if not spec.init.places:  # trainings from before there was this table are still the same
        del table["init"]
    return cast(dict[str, Any], json.loads(json.dumps(with_kind(table, spec.kind))))


def train_fingerprint(
    table: Mapping[str, Any], manifests: Mapping[str, str], weights: Mapping[str, str] | None = None
) -> str:
    """Digest of all that the trained numbers depend on: the resolved job but for `HOW`, and the digests of its
    manifests and of the weights that it begins with, by option."""
    what = {name: value for name, value in table.items() if name not in HOW}
    begun_with = {"weights": weights} if weights else {}
    text = json.dumps({"train": what, "manifests": manifests, **begun_with}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def recorded_fingerprints(
    record: JobRecord, changes: Sequence[Change], manifests: Mapping[str, str]
) -> list[str]:
    """Fingerprints of a training as it was begun, and then after each of its changes.

    Args:
        manifests: digests of the listings of its collections, by name.
    """
    weights = {name: asset.sha256 for name, asset in record.assets.items() if name.startswith((INIT, MODEL))}
    return [
        train_fingerprint(with_changes(record.job, changes[:end]), manifests, weights)
        for end in range(len(changes) + 1)
    ]
