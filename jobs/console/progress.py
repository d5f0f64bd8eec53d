"""How far a job is, and how it ended."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.console.log_events import LogEvent
from jobs.errors import EXIT_FAILED_ROWS, EXIT_OK, EXIT_STOPPED, EXIT_UNFINISHED, exit_code_of
from jobs.ledger.results import Result, Status, Tally
from nst.errors import NstError

__all__ = ["SHOWN_FAILURES", "Snapshot", "Summary", "end_notes"]

SHOWN_FAILURES = 10
"""Failed photographs that are named where a job is described."""

_DECISIVE_OPTIONS = ("style_weight", "step_size", "network", "weights")
"""Options of methods that decide whether anything is painted."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a running job is."""

    total: int
    """How many rows there are to do: the job's or, when some are done again, those."""
    counts: Mapping[Status, int]
    """Rows that have a result, by status."""
    already: int
    """How many rows of `counts` were done before this run."""
    workers: int
    """How many workers are ready."""
    elapsed_s: float
    """Seconds since the first worker was ready."""
    evaluations: int = 0
    """Evaluations made for photographs that are being computed, of a method that goes step by step."""
    evaluations_per_image: int = 0
    """Evaluations that a photograph gets at most; 0: the method does not go step by step."""
    in_work: float = 0.0
    """Photographs' worth of work that was done for those that are being computed."""
    log_events: tuple[LogEvent, ...] = ()
    """What happened since the last snapshot."""

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def all_evaluations(self) -> int:
        """Evaluations that all photographs get at most."""
        return self.total * self.evaluations_per_image

    @property
    def done_evaluations(self) -> int:
        """Evaluations that are done: a photograph that has a result had all of its."""
        return min(self.done * self.evaluations_per_image + self.evaluations, self.all_evaluations)

    def progress(self) -> Mapping[str, Any]:
        """The values of a log event, as JSON takes them."""
        steps = {"evaluations": self.done_evaluations, "all_evaluations": self.all_evaluations}
        return {
            **(steps if self.evaluations_per_image else {}),
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
    """Seconds from the run's start to the pool, the first worker (`worker`), the first result (`first_result`),
    and the end (`whole`)."""
    notes: tuple[str, ...] = ()
    """What to tell the user at the end: see `end_notes`."""
    failures: tuple[Result, ...] = ()
    """The first rows that failed or were quarantined, at most `SHOWN_FAILURES`."""
    unfinished_retries: int = 0
    """How many of the unfinished shards were to be done again in part, and still have the receipt of before."""

    def to_json(self) -> dict[str, Any]:
        """The values of a log event, as JSON takes them."""
        return {
            "images": dict(self.counts),
            "total": self.total,
            "unfinished_shards": self.unfinished_shards,
            "stopped": self.stopped,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }

    @property
    def go_on(self) -> Literal["resume", "retry"] | None:
        """The command that goes on where the run ended; None: it came to its end."""
        if not self.stopped and self.exit_code != EXIT_UNFINISHED:
            return None
        return "retry" if self.unfinished_retries else "resume"

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
    """Notes to the user about a job's pictures: that all are as their photographs, if they are.

    Args:
        tally: counts over all its rows.
        options: the names of its method's options.
    """
    if tally.compared == 0 or tally.unchanged < tally.compared:
        return ()
    several = f"all {tally.compared} pictures are as their photographs"
    text = several if tally.compared > 1 else "the picture is as its photograph"
    see = ", ".join(option for option in _DECISIVE_OPTIONS if option in options)
    return (f"{text}: nothing was painted" + (f"; see {see}" if see else ""),)
