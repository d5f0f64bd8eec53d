"""How far a job is, and how it ended."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.console.log_events import News
from jobs.errors import EXIT_FAILED_ROWS, EXIT_OK, EXIT_STOPPED, EXIT_UNFINISHED, exit_code_of
from jobs.ledger.results import Status, Tally
from nst.errors import NstError

__all__ = ["Snapshot", "Summary", "end_notes"]

_DECIDE = ("style_weight", "step_size", "network", "weights")
"""Options of methods that decide whether anything is painted."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a running job is."""

    total: int
    """Rows of the job; when some rows are done again, those."""
    counts: Mapping[Status, int]
    already: int
    """Rows of `counts` that were done before this run."""
    workers: int
    elapsed_s: float
    """Since the first worker was ready."""
    news: tuple[News, ...] = ()

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def progress(self) -> Mapping[str, Any]:
        """For a log."""
        return {
            "images": dict(self.counts),
            "done": self.done,
            "total": self.total,
            "workers": self.workers,
            "elapsed_s": round(self.elapsed_s, 3),
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended."""

    total: int
    counts: Mapping[Status, int]
    unfinished_shards: int
    stopped: bool
    error: NstError | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Where the time went until the first result: pool, worker, and first_result, each from the run's start;
    and the whole."""
    driver_cpu_s: float = 0.0
    notes: tuple[str, ...] = ()
    """See `end_notes`."""

    def to_json(self) -> dict[str, Any]:
        """For a log."""
        return {
            "images": dict(self.counts),
            "total": self.total,
            "unfinished_shards": self.unfinished_shards,
            "stopped": self.stopped,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }

    @property
    def exit_code(self) -> int:
        if self.stopped:
            return EXIT_STOPPED
        if self.error is not None:
            return exit_code_of(self.error)
        if self.unfinished_shards:
            return EXIT_UNFINISHED
        return EXIT_OK if self.counts["ok"] == self.total else EXIT_FAILED_ROWS


def end_notes(tally: Tally, options: Container[str]) -> tuple[str, ...]:
    """What the user should know about the pictures of a job: that all are as their photographs, if they are.

    Args:
        tally: of all its rows.
        options: names of its method's options.
    """
    if tally.compared == 0 or tally.unchanged < tally.compared:
        return ()
    several = f"all {tally.compared} pictures are as their photographs"
    text = several if tally.compared > 1 else "the picture is as its photograph"
    see = ", ".join(option for option in _DECIDE if option in options)
    return (f"{text}: nothing was painted" + (f"; see {see}" if see else ""),)
