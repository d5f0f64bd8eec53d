"""Options of a training that were changed after it was begun. Loads no torch.

Each change is an object beside `job.json`, which stays as it was written: numbered, create-only, with the step
after which it holds. What holds now is `job.json` with all changes, in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jobs.errors import JobMismatch, UsageError
from jobs.stores.store import Store
from jobs.training.layout import change_numbers, change_path

__all__ = ["Change", "Changed", "change_at", "fingerprint_at", "read_changes", "with_changes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """An option's values."""

    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Options that got other values at once."""

    number: int
    """The change's place among those of the training, from 1."""
    step: int
    """The last step that was done without the change; 0: none was."""
    created: str
    """When it was recorded, in UTC, as 2026-11-21T03:12:44Z."""
    options: Mapping[str, Changed]
    """Both values of each option, by its name with its table, as `model.learning_rate`."""
    fingerprint: str
    """Digest of all that the trained numbers depend on from then on."""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode()

    def __str__(self) -> str:
        values = ", ".join(f"{name} {each.before!r} -> {each.after!r}" for name, each in self.options.items())
        return f"changed after step {self.step}: {values}"


_ADAPTER = TypeAdapter(Change)


def read_changes(store: Store) -> tuple[Change, ...]:
    """All changes of a training, in order.

    Raises:
        UsageError: one is damaged.
        JobMismatch: one is missing.
    """
    found = []
    for place, number in enumerate(change_numbers(store), 1):
        path = f"{store.url}/{change_path(number)}"
        if number != place:
            raise JobMismatch(f"{store.url}/{change_path(place)} is missing, and {path} is there")
        try:
            change = _ADAPTER.validate_json(store.read(change_path(number)))
        except ValidationError as error:
            raise UsageError(f"{path} is damaged: {error.errors()[0]['msg']}") from error
        if change.number != number:
            raise UsageError(f"{path} is damaged: it says that it is number {change.number}")
        found.append(change)
    return tuple(found)


def with_changes(table: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """A resolved job file's table with the options as they are after these changes."""
    result = dict(table)
    for change in changes:
        for name, each in change.options.items():
            part, _, option = name.rpartition(".")
            result[part] = {**result.get(part, {}), option: each.after}
            if each.after is None:  # its default, with which it is left out
                del result[part][option]
    return result


def change_at(changes: Sequence[Change], step: int) -> int:
    """The number of the change that a step is trained with; 0: it is trained as the training was begun."""
    return max((change.number for change in changes if change.step < step), default=0)


def fingerprint_at(begun: str, changes: Sequence[Change], step: int) -> str:
    """The fingerprint that the checkpoint after a step has.

    Args:
        begun: the fingerprint in `job.json`.
    """
    number = change_at(changes, step)
    return changes[number - 1].fingerprint if number else begun
