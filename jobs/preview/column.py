"""What is tried: each style at each strength, and the job that would paint all photographs so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from jobs.spec import JobFile

__all__ = ["Column", "PreviewQuality", "Style", "spans_of"]

PreviewQuality: TypeAlias = Literal["draft", "best"]


@dataclass(frozen=True, slots=True)
class Style:
    """A style picture."""

    place: str
    """As a job file may say it."""
    shown: str
    """Its name for people."""
    name: str
    """Its name in names of files; no other style has it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A style at a strength."""

    style: Style
    strength: float
    name: str
    """Its name in names of files; no other column has it."""
    job: JobFile
    """The job that paints so."""
    text: str
    """What is in it."""
    commands: tuple[str, str]
    """Lines for a shell that run it: `nst run`, and, without the file, `nst stylize`."""


def spans_of(columns: Sequence[Column]) -> list[range]:
    """The columns of each style."""
    starts = [
        number
        for number, column in enumerate(columns)
        if number == 0 or column.style.name != columns[number - 1].style.name
    ]
    return [range(*each) for each in zip(starts, [*starts[1:], len(columns)], strict=True)]
