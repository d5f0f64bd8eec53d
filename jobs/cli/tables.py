"""What the command line shows as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.console.text import printable

if TYPE_CHECKING:
    from jobs.cli.sections import Section
    from jobs.inspect.status import JobStatus
    from jobs.stores.store import Store
    from jobs.training.status import TrainStatus

__all__ = ["show_failures", "show_sections", "show_status", "show_training"]

_Told: TypeAlias = "list[tuple[str, str]]"
"""What is said of a job: names, and what they are names of."""


def show_sections(found: Iterable[Section]) -> None:
    """Print tables of options."""
    console = Console()
    for section in found:
        table = Table(
            title=escape(f"{section.title}: {section.about}"),
            title_justify="left",
            title_style="bold",
            box=None,
        )
        for name in ("option", "default", "what it may be", "meaning"):
            table.add_column(name, overflow="fold")
        for option in section.options:
            values = option.shown_values.replace("`", "")
            table.add_row(*map(escape, (option.name, option.shown_default, values, option.help)))
        console.print(table)
        console.print()


def show_status(found: JobStatus, reach: Sequence[str] = ()) -> None:
    """Print how far a job of photographs is.

    Args:
        reach: words of a command line that say how its store is reached.
    """
    from jobs.console.display import describe_failures

    counts = ", ".join(f"{number} {name}" for name, number in found.counts.items())
    told = [
        *_about(found, found.kind),
        ("images", f"{found.done} of {found.rows} done: {counts}"),
        ("shards", f"{found.sealed_shards} of {found.shards} sealed"),
        *(
            (f"part {number}" if number else "", printable(part.describe()))
            for number, part in enumerate(found.parts)
        ),
    ]
    if found.adapting is not None:
        told.append(("the network learns", str(found.adapting)))
    told += _driver(found)
    failures = describe_failures(found.failures, found.counts, [found.output, *reach])
    _print([*told, *(("", printable(line)) for line in failures)], found.notes)


def show_failures(found: JobStatus) -> None:
    """Print every photograph that failed or was quarantined, and why: a line each."""
    for failure in found.failures:
        print(printable(f"{failure.status}: {failure.key}: {failure.error_type}: {failure.error}"))


def show_training(store: Store, as_json: bool) -> None:
    """Print how far a training is, as a table or as one JSON object."""
    from jobs.training.display import describe_losses
    from jobs.training.status import train_status

    found = train_status(store)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    photos = ", ".join(f"{number} of {name}" for name, number in found.photos.items())
    told = [
        *_about(found, f"train {found.training}"),
        ("photos", photos),
        *_driver(found),
        ("step", f"{found.step}; the newest checkpoint is of {found.checkpoint or 'none'}"),
    ]
    if found.losses:
        for group, losses in found.groups.items():
            name = "losses" if group == "loss" else group.replace("_to_", " to ")
            told.append((name, describe_losses(losses)))
    if found.skipped:
        told.append(("left out", f"{found.skipped} photographs that cannot be read"))
    told += [("options", printable(str(change))) for change in found.changes]
    told += [(f"at {step}", describe_losses(distances)) for step, distances in found.evaluations.items()]
    if found.snapshots:
        told.append(("snapshots", f"generators of steps {_listed(found.snapshots)}, in snapshots/"))
    if found.done is not None:
        told.append(("generator", f"{found.done['generator']}, of step {found.done['step']}"))
    _print(told, found.notes)


def _listed(steps: Sequence[int]) -> str:
    """All of a few steps; of more, the first and the last ones, and how many there are."""
    if len(steps) <= 8:
        return ", ".join(map(str, steps))
    return f"{steps[0]}, {steps[1]}, ..., {steps[-2]}, {steps[-1]} ({len(steps)} of them)"


def _about(found: JobStatus | TrainStatus, kind: str) -> _Told:
    return [("job", f"{kind}, begun {found.created}, in {found.output}"), ("state", found.state)]


def _driver(found: JobStatus | TrainStatus) -> _Told:
    return [] if found.driver is None else [("driver", found.driver.describe())]


def _print(told: _Told, notes: Iterable[str]) -> None:
    """Print a line each, whole: what a console breaks, or cuts, can be neither searched nor copied."""
    told = [*told, *(("note", note) for note in notes)]
    width = max(len(name) for name, _ in told)
    for name, text in told:
        for line in text.splitlines():
            print(printable(f"{name:<{width}}  {line}"))
