"""What a run says: its log events, until the observer is given them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, assert_never

from jobs.console.log_events import Level, LogEvent
from jobs.ledger.results import Result, Status
from jobs.worker.messages import Died, Event, Failed, Finished, Leaving, Progress, Ready, WorkerId

__all__ = ["RunLog"]

_MARKS = {
    "shrunk": "are larger than image.max_side_px, and are painted at that size",
    "no_end_marker": "lack a JPEG's end marker, but no pixel",
    "gain_map": "have a gain map; the picture without it is painted",
    "profile_skipped": "have a color profile that cannot be used; their colors are taken for sRGB",
    "truncated": "lack pixels at their end, and are painted as far as they are there",
}
"""What is said, once, of photographs with a mark."""


class RunLog:
    """Log events that nobody was told yet.

    Args:
        shard_size: rows of a shard.
    """

    def __init__(self, shard_size: int) -> None:
        self._shard_size = shard_size
        self._events: list[LogEvent] = []
        self._marks: set[str] = set()

    def take(self) -> tuple[LogEvent, ...]:
        """What was logged since the last call."""
        events, self._events = tuple(self._events), []
        return events

    def heard(self, event: Event) -> None:
        """Log what a worker reports; of how far it is, only what is odd about photographs, once."""
        who = f"worker {event.worker}"
        match event:
            case Ready(info=info):
                values: dict[str, Any] = {
                    "host": info.host,
                    "pid": info.pid,
                    "device": info.device,
                    "seconds": dict(info.seconds),
                }
                text = f"{who}: {info.host}, {info.device}"
                self._log("worker_ready", text, worker=event.worker, values=values)
            case Failed():
                text = f"{who}: task failed: {event.error}"
                self._log("task_failed", text, "warning", worker=event.worker)
            case Leaving():
                text = f"{who} finishes what is in work: {event.detail}"
                self._log("worker_leaving", text, worker=event.worker)
            case Died():
                if event.cause != "stopped":
                    text, values = f"{who} is gone: {event.cause} ({event.detail})", {"cause": event.cause}
                    self._log("worker_gone", text, "warning", worker=event.worker, values=values)
            case Progress():
                self._note_marks({mark for task in event.tasks for mark in task.spent.marks})
            case Finished():
                self._note_marks(event.report.spent.marks)
            case _:
                assert_never(event)

    def notes(self, notes: Iterable[str]) -> None:
        """Log what the user should know."""
        for note in notes:
            self._log("note", f"note: {note}")

    def adapting(self, text: str) -> None:
        """Log how far the network has learned on photographs of the job."""
        self._log("adapting", text)

    def stopping(self, grace_s: float) -> None:
        self._log("stopping", f"stopping: photographs in work have {grace_s:g} s", "warning")

    def photo_concluded(self, result: Result) -> None:
        """Log that the driver gave a photograph its result, which is no picture."""
        self._log_photo(result, f"{result.key}: {result.status}: {result.error}", shown=True)

    def photo_failed(self, result: Result) -> None:
        """Log that a worker could do no picture of a photograph."""
        self._log_photo(result, f"{result.key}: {result.error}", shown=False)

    def shard_done(self, shard: int, counts: Mapping[Status, int], worker: WorkerId | None) -> None:
        """Log that a shard has its receipt; `worker`: who published it, if it was not the driver."""
        values, text = {"images": dict(counts)}, f"shard {shard} is done"
        self._log("shard_done", text, shard=shard, worker=worker, values=values, shown=False)

    def shard_unfinished(self, shard: int, reason: object) -> None:
        self._log("shard_unfinished", f"shard {shard} stays unfinished: {reason}", "warning", shard=shard)

    def _note_marks(self, marks: AbstractSet[str]) -> None:
        for mark in sorted(marks - self._marks):
            self._marks.add(mark)
            self._log("note", f"note: some photographs {_MARKS[mark]}", values={"mark": mark})

    def _log_photo(self, result: Result, text: str, *, shown: bool) -> None:
        shard = result.row // self._shard_size
        values = {"error_type": result.error_type, "attempts": result.attempts}
        event = f"photo_{result.status}"
        self._log(event, text, "warning", shard=shard, key=result.key, values=values, shown=shown)

    def _log(self, event: str, text: str, level: Level = "info", **fields: Any) -> None:
        self._events.append(LogEvent(event=event, text=text, level=level, **fields))
