"""What crosses between the driver and its workers: small plain records."""

from __future__ import annotations

import threading
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from jobs.ledger.results import Result, Status
from jobs.spec import ImageSpec
from jobs.stores.filesystems import StorageOptions
from jobs.stores.moved import Move
from jobs.stores.store import Part

if TYPE_CHECKING:
    from jobs.ledger.manifest import Row
    from nst.stylizer import Method

__all__ = [
    "GPU_LOST",
    "NOTHING_SPENT",
    "AtWork",
    "Cause",
    "Died",
    "Event",
    "Failed",
    "Finished",
    "Leaving",
    "Progress",
    "Ready",
    "Spent",
    "Task",
    "TaskProgress",
    "TaskReport",
    "WorkerId",
    "WorkerInfo",
    "WorkerSetup",
]

WorkerId: TypeAlias = int

GPU_LOST = 70
"""Exit code of a worker whose GPU refuses everything after an error, such as an illegal access or a memory that
is broken: only another process can use it again."""

Cause = Literal["crash", "time limit", "host lost", "node lost", "preempted", "stopped"]
"""Why a worker is gone. Only the first two may be the fault of a photograph. `host lost`: what runs the
worker's process was ended or cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """All that a worker needs to know once; the bytes of the assets travel beside it."""

    output: str
    storage: StorageOptions
    create_only: bool
    """Whether the job's store honors create-only writes."""
    method: Method
    image: ImageSpec
    seed: int
    fingerprint: str
    batch_size: int
    load_threads: int
    save_threads: int
    threads: int
    """Threads that compute."""
    num_gpus: float
    """Share of a GPU that it has, at most 1; 0: it computes on the CPU."""
    moved: Move | None = None
    """Where the photographs are, if not where the manifest says."""
    adapted: str | None = None
    """Digest of the weights that the method's network has learned on the job's photographs, for receipts."""
    part: Part | None = None
    """Which part of the job in `output` this is; None: it is the job itself."""
    adapt_rows: tuple[Row, ...] = ()
    """Photographs that the method's network is to learn on: the worker does that, and nothing else."""

    @property
    def window(self) -> int:
        """How many of a task's photographs can be in work at once: only these can have done harm.
        A worker takes them in order and goes on when a result is in the journal."""
        return 2 * self.batch_size + self.load_threads + self.save_threads + 24

    @property
    def slots(self) -> int:
        """How many photographs can be in a stage at once."""
        return self.batch_size + self.load_threads + self.save_threads


class AtWork:
    """The rows that a worker's threads are at, kept where others can read it when the worker is gone.

    Args:
        slots: one number for each row that can be at work at once; 0 is nobody. May be shared memory.
    """

    def __init__(self, slots: MutableSequence[int]) -> None:
        self._slots, self._lock = slots, threading.Lock()

    def enter(self, row: int) -> None:
        """Note that a thread is at a row."""
        with self._lock:
            free = next((slot for slot, value in enumerate(self._slots) if value == 0), 0)
            self._slots[free] = row + 1

    def leave(self, row: int) -> None:
        """Note that a thread is done with a row."""
        with self._lock:
            for slot, value in enumerate(self._slots):
                if value == row + 1:
                    self._slots[slot] = 0
                    return

    @staticmethod
    def read(slots: Sequence[int]) -> tuple[int, ...]:
        """The rows in `slots`, as places within the manifest."""
        return tuple(value - 1 for value in slots if value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Rows of one shard, for a worker to do."""

    id: int
    shard: int
    generation: int = 0
    """The number of the retry that it belongs to; 0: the shard has no receipt yet."""
    rows: tuple[int, ...] | None = None
    """Rows, as places within the manifest; None: the whole shard, and the worker publishes its receipt."""
    probe: bool = False
    """Whether it is one row, alone on its worker, after a worker died that may have been running it."""
    attempts: int = 1
    """Attempts at its rows, with this one."""
    sealing: bool = False
    """Whether it is a whole shard that was done in parts: all its results are in the journal, only the receipt
    is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a task did and cost so far, without what was in the journal before it."""

    images: Mapping[Status, int] = field(default_factory=dict)
    """Photographs that got a result, by status."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds that photographs spent in the stages `load`, `compute` and `save`."""
    retries: int = 0
    """Calls of stores that had to be made again."""
    marks: frozenset[str] = frozenset()
    """What was odd about photographs' files; see `nst.images.decode.Photograph`."""

    @property
    def made(self) -> int:
        """How many photographs got a result."""
        return sum(self.images.values())


NOTHING_SPENT = Spent()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """How a task ended that did not fail."""

    shard: int
    counts: Mapping[Status, int]
    """Rows of the task that have a result, whoever made it, by status."""
    complete: bool
    """Whether all its rows have a result; not so if the worker was told to stop taking photographs."""
    sealed: bool
    """Whether the shard's receipt exists."""
    spent: Spent = NOTHING_SPENT
    without_picture: tuple[Result, ...] = ()
    """Results of a sealed shard that failed or were quarantined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProgress:
    """How far a running task is."""

    task: int
    counts: Mapping[Status, int]
    """Rows of the task that have a result, by status."""
    in_flight: int
    """Photographs taken and not yet in the journal."""
    slowest_s: float
    """Seconds for which the slowest photograph is at work, divided by the photographs that share the call."""
    spent: Spent = NOTHING_SPENT


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """Where a worker is, and what its start cost."""

    host: str
    pid: int
    device: str = "cpu"
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the start took, by phase."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its network and waits for work."""

    worker: WorkerId
    info: WorkerInfo


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a worker's running tasks are."""

    worker: WorkerId
    tasks: tuple[TaskProgress, ...]
    gpu_memory_bytes: int = 0
    """GPU memory that the worker's process holds."""
    evaluations: int = 0
    """Evaluations made for the photographs that are being computed, of a method that goes step by step."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A task ended without an error."""

    worker: WorkerId
    task: int
    report: TaskReport


@dataclass(frozen=True, slots=True)
class Failed:
    """A task ended with an error that is no photograph's; the worker lives."""

    worker: WorkerId
    task: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Leaving:
    """A worker's machine is about to be taken away. It lives, and may finish what is in work."""

    worker: WorkerId
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is gone, before or after it was ready."""

    worker: WorkerId
    cause: Cause
    detail: str = ""
    error: Exception | None = None
    """Why it could not start, if so."""
    rows: tuple[int, ...] | None = None
    """Rows that were being loaded, computed or saved, as places within the manifest; None: not known."""


Event: TypeAlias = Ready | Progress | Finished | Failed | Leaving | Died
