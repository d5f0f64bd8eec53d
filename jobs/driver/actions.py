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
    """The number of the retry that this belongs to; 0: the shard has no receipt yet."""
    rows: tuple[int, ...] | None = None
    """The rows, as places within the manifest; None: the whole shard."""
    attempts: int = 1
    """Attempts at the rows, with this one."""
    sealing: bool = False
    """Whether all rows are in the journal, and only the receipt is missing."""


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
    """Give a worker a task."""

    worker: WorkerId
    task: Task


@dataclass(frozen=True, slots=True)
class Inspect:
    """Find out which rows of a task have no result yet, and answer with `inspected`."""

    task: Task
    cause: Cause | None
    """Why the worker is gone; None: the task failed, the worker lives."""
    detail: str
    rows: tuple[int, ...] | None = None
    """Rows that the worker was at when it died; None: that is not known."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Put a worker's death on record, which a row alone on it may have caused."""

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
