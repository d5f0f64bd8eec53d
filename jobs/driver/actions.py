"""What the scheduler is given to do, and what it has others do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from jobs.worker.messages import Cause, Task, WorkerId
from nst.errors import NstError

__all__ = [
    "Abort",
    "Action",
    "Conclude",
    "Drain",
    "GiveUp",
    "Inspect",
    "Seal",
    "Start",
    "Stop",
    "Strike",
    "Submit",
    "Work",
]


@dataclass(frozen=True, slots=True)
class Work:
    """A shard that is to be done, or some rows of one that are to be done again."""

    shard: int
    generation: int = 0
    rows: tuple[int, ...] | None = None
    attempts: int = 1
    sealing: bool = False
    """All rows are in the journal, only the receipt is missing."""


@dataclass(frozen=True, slots=True)
class Start:
    """Ask for one more worker, to be known by this id."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Stop:
    """Do without a worker: at once, whatever it does."""

    worker: WorkerId
    cause: Cause


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell a worker to take no more photographs and finish those in work."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Submit:
    worker: WorkerId
    task: Task


@dataclass(frozen=True, slots=True)
class Inspect:
    """Find out which rows of a task have no result yet, and answer with `inspected`."""

    task: Task
    cause: Cause | None
    """None: the task failed, the worker lives."""
    detail: str
    rows: tuple[int, ...] | None = None
    """That the worker was at when it died, if that is known."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Put a death on record."""

    task: Task
    cause: str


@dataclass(frozen=True, slots=True)
class Conclude:
    """Give a row its result without a picture."""

    task: Task
    status: Literal["failed", "quarantined"]
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class Seal:
    """Publish a shard's receipt from its journal."""

    shard: int
    generation: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave a shard unfinished for this time."""

    shard: int
    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """End the job; what is done is kept."""

    error: NstError


Action: TypeAlias = Start | Stop | Drain | Submit | Inspect | Strike | Conclude | Seal | GiveUp | Abort
