"""Progress for people: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jobs.console.log_events import LogEvent
from jobs.console.progress import Snapshot, Summary
from jobs.console.text import printable, printable_lines
from jobs.ledger.results import Result, Status

__all__ = ["Bar", "Display", "describe_failures", "describe_summary", "duration"]

_LINE_EVERY_S = 10.0
_REASON_LENGTH = 160


class Bar:
    """Log events, and a progress bar, inside a `with`; no bar where the console is no terminal."""

    def __init__(self, console: Console, what: str, rest: str = "starting workers") -> None:
        self.console = console
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rest]}"),
                console=console,
                transient=True,
            )
            self._task = self._progress.add_task(what, total=None, rest=rest)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def emit(self, event: LogEvent) -> None:
        if event.level == "error":
            print(printable_lines(f"error: {event.text}"), file=sys.stderr)
        elif event.shown:
            for line in event.text.splitlines():
                self.say(line)

    def say(self, line: str) -> None:
        # As it is: a path may have [red] in it, or :b:, which would be a color and an emoji.
        self.console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)

    def emit_all(self, events: Iterable[LogEvent]) -> None:
        for event in events:
            self.emit(event)

    def update(self, done: int, total: int, rest: str) -> bool:
        """Show how far the job is; returns whether there is a bar to show it."""
        if self._progress is None:
            return False
        self._progress.update(self._task, total=total, completed=done, rest=escape(rest))
        return True


class Display(Bar):
    """Give it to `run` as its observer, inside a `with`."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "images")
        self._last_line = 0.0

    def __call__(self, snapshot: Snapshot) -> None:
        self.emit_all(snapshot.log_events)
        if self.update(snapshot.done, snapshot.total, _rest(snapshot)):
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            self.say(f"{snapshot.done} of {snapshot.total} images, {_rest(snapshot)}")


def describe_summary(summary: Summary) -> str:
    """One line on how a run ended."""
    counts = summary.counts
    text = f"{counts['ok']} of {summary.total} images ok"
    for status in ("failed", "quarantined"):
        if counts[status]:
            text += f", {counts[status]} {status}"
    if summary.unfinished_shards:
        text += f", {summary.unfinished_shards} shards unfinished"
    return f"{text}, in {duration(summary.seconds['whole'])}"


def describe_failures(
    failures: Sequence[Result], counts: Mapping[Status, int], out: Sequence[str]
) -> list[str]:
    """One line for each of the first failures of a job, and one on where the rest are.

    Args:
        out: words of a command line that say where the job is, and how it is reached.
    """
    lines = [f"{failure.status}: {failure.key}: {_short(failure.error or '')}" for failure in failures]
    rest = counts["failed"] + counts["quarantined"] - len(failures)
    if rest > 0:
        lines.append(f"and {rest} more; all of them: nst status {shlex.join(out)} --failed")
    return lines


def _short(reason: str) -> str:
    return reason if len(reason) <= _REASON_LENGTH else f"{reason[: _REASON_LENGTH - 3]}..."


def _rest(snapshot: Snapshot) -> str:
    """What stands beside the counts: workers, failures, rate, and time left."""
    if snapshot.workers == 0:
        return "waiting for workers"
    parts = [f"{snapshot.workers} worker{'s' if snapshot.workers > 1 else ''}"]
    failures = snapshot.done - snapshot.counts["ok"]
    if failures:
        parts.append(f"{failures} failed")
    done = min(snapshot.done + snapshot.in_work, snapshot.total)
    if snapshot.evaluations_per_image:
        parts.append(f"{snapshot.done_evaluations} of {snapshot.all_evaluations} evaluations")
    mine = done - snapshot.already
    if mine > 0 and snapshot.elapsed_s > 0:
        rate = mine / snapshot.elapsed_s
        parts.append(f"{rate:.2f} images/s" if rate >= 0.1 else f"{60 * rate:.2f} images/min")
        parts.append(f"{duration((snapshot.total - done) / rate)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`seconds` as hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
