"""What the command line shows as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

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

    table = _about(found, found.kind)
    counts = ", ".join(f"{number} {name}" for name, number in found.counts.items())
    table.add_row("images", f"{found.done} of {found.rows} done: {counts}")
    table.add_row("shards", f"{found.sealed_shards} of {found.shards} sealed")
    for number, part in enumerate(found.parts):
        table.add_row(f"part {number}" if number else "", escape(printable(part.describe())))
    if found.adapting is not None:
        table.add_row("the network learns", str(found.adapting))
    _add_driver(table, found)
    for line in describe_failures(found.failures, found.counts, [found.output, *reach]):
        table.add_row("", escape(printable(line)))
    _print(table, found.notes)


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
    table = _about(found, f"train {found.training}")
    table.add_row("photos", ", ".join(f"{number} of {name}" for name, number in found.photos.items()))
    _add_driver(table, found)
    table.add_row("step", f"{found.step}; the newest checkpoint is of {found.checkpoint or 'none'}")
    if found.losses:
        for group, losses in found.groups.items():
            name = "losses" if group == "loss" else group.replace("_to_", " to ")
            table.add_row(name, describe_losses(losses))
    if found.skipped:
        table.add_row("left out", f"{found.skipped} photographs that cannot be read")
    for change in found.changes:
        table.add_row("options", escape(printable(str(change))))
    for step, distances in found.evaluations.items():
        table.add_row(f"at {step}", describe_losses(distances))
    if found.snapshots:
        table.add_row("snapshots", f"generators of steps {_listed(found.snapshots)}, in snapshots/")
    if found.done is not None:
        table.add_row("generator", escape(f"{found.done['generator']}, of step {found.done['step']}"))
    _print(table, found.notes)


def _listed(steps: Sequence[int]) -> str:
    """All of a few steps; of more, the first and the last ones, and how many there are."""
    if len(steps) <= 8:
        return ", ".join(map(str, steps))
    return f"{steps[0]}, {steps[1]}, ..., {steps[-2]}, {steps[-1]} ({len(steps)} of them)"


def _about(found: JobStatus | TrainStatus, kind: str) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("job", escape(f"{kind}, begun {found.created}, in {found.output}"))
    table.add_row("state", found.state)
    return table


def _add_driver(table: Table, found: JobStatus | TrainStatus) -> None:
    if found.driver is not None:
        table.add_row("driver", escape(found.driver.describe()))


def _print(table: Table, notes: Iterable[str]) -> None:
    for note in notes:
        table.add_row("note", escape(note))
    Console().print(table, highlight=False)
