"""Running the jobs of a command, one after the other: progress, how each ended, what comes next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias

import typer
from rich.console import Console

from jobs.cli.arguments import LogFormat
from jobs.console.log_events import LogEvent, LogSink
from jobs.errors import EXIT_FAILED_ROWS, EXIT_OK
from nst.errors import NstError

if TYPE_CHECKING:
    from jobs.console.display import Display
    from jobs.console.json_log import JsonLog
    from jobs.console.progress import Summary
    from jobs.console.stop import StopSignal
    from jobs.driver.actions import Work
    from jobs.driver.job import Job
    from jobs.ledger.lease import LeaseOptions
    from jobs.stores.filesystems import StorageOptions

__all__ = ["ToRun", "execute", "lease_options", "log_of", "reach", "tell_end", "tell_notes"]

ToRun: TypeAlias = "tuple[Job, Callable[[], list[Work]] | None]"
"""A job, or a part of one, and what is to be done of it; None: all that is left."""


def execute(
    prepare: Callable[[], ToRun],
    more: Callable[[Job, LogSink], Generator[ToRun, None, None]] | None = None,
    *,
    leave: bool = True,
    wait: bool = False,
    log_format: LogFormat = "text",
    later: bool = True,
    quiet: bool = False,
) -> None:
    """Plan, run, show progress, say how it ended. Leaves with the exit code; with 0 only if `leave`.

    Args:
        more: what is to be run after it, each when the one before has come to its end: parts of a job that was
            begun earlier.
        later: whether to say which photographs came after the job was begun.
        quiet: nothing is said of a job that is finished but for its notes.
    """
    from jobs.console.stop import StopSignal
    from jobs.driver.todo import shards_to_do

    with StopSignal().on_signals(last=leave) as stop:
        job, work = prepare()
        log = log_of(job, log_format)
        if quiet and work is None and not shards_to_do(job):
            tell_notes(log, job.notes)
            summaries = []
        else:
            summaries = [_run(job, work, stop, wait, log_format)]
        if more is not None and not job.fresh and _may_go_on(summaries):
            stop.planning()
            with closing(more(job, log)) as parts:
                for part, its_work in parts:
                    summaries.append(_run(part, its_work, stop, wait, log_format))
                    if not _may_go_on(summaries):
                        break
                    stop.planning()
            stop.running()
    if work is None and _may_go_on(summaries) and (later or job.fresh):
        _tell_later_photos(log, job)
    code = _code([summary.exit_code for summary in summaries])
    if leave or code:
        raise typer.Exit(code)


def _code(codes: Sequence[int]) -> int:
    """The exit code of several runs, all but the last of which came to their ends."""
    ended = (EXIT_OK, EXIT_FAILED_ROWS)
    return codes[-1] if codes and codes[-1] not in ended else max(codes, default=EXIT_OK)


def _may_go_on(summaries: Sequence[Summary]) -> bool:
    """Whether the last run came to its end."""
    return not summaries or (summaries[-1].go_on is None and summaries[-1].error is None)


def log_of(job: Job, log_format: LogFormat) -> JsonLog | Display:
    """What tells the user of `job`."""
    from jobs.console.display import Display
    from jobs.console.json_log import JsonLog

    return JsonLog(job.store.url, sys.stdout) if log_format == "json" else Display(Console())


def _run(
    job: Job, work: Callable[[], list[Work]] | None, stop: StopSignal, wait: bool, log_format: LogFormat
) -> Summary:
    """Run a job, or a part of one, and say how it ended."""
    from jobs.console.display import describe_failures, describe_summary
    from jobs.driver.estimate import describe_evaluations
    from jobs.driver.run import run

    log = log_of(job, log_format)
    with log:
        tell_notes(log, [*job.notes, *describe_evaluations(job.spec.method)])
        summary = run(job, work, observe=log, stop=stop, lease=lease_options(log, wait))
    lines = [
        f"{describe_summary(summary)}: {job.store.place('').rstrip('/')}",
        *describe_failures(summary.failures, summary.counts, [job.store.url, *reach(job.storage)]),
    ]
    values = {"exit_code": summary.exit_code, **summary.to_json()}
    go_on = None if summary.go_on is None else _go_on(summary.go_on, job)
    tell_end(log, "\n".join(lines), values, summary.error, go_on)
    tell_notes(log, summary.notes)
    return summary


def tell_notes(log: LogSink, notes: Iterable[str]) -> None:
    """Say what the user should know."""
    for note in notes:
        log.emit(LogEvent(event="note", text=f"note: {note}"))


def _tell_later_photos(log: LogSink, job: Job) -> None:
    """Say which photographs came after the job was begun, and how to do them."""
    from jobs.driver.photos import later_photos

    later = later_photos(job)
    if later is None:
        return
    names = ", ".join(later.keys) + (", ..." if later.count > len(later.keys) else "")
    one = later.count == 1
    text = (
        f"{later.count} photograph{'' if one else 's'} of {', '.join(job.spec.places)} "
        f"{'is' if one else 'are'} not in this job, which was begun before: {names}"
    )
    command = _go_on("resume", job, "--new", later.output)
    how = f"the command that began the job adds {'it' if one else 'them'} to it; or, in another folder,"
    values = {"count": later.count, "command": command}
    text = f"{text}\n{how}\ndo with: {command}"
    log.emit(LogEvent(event="later_photos", level="warning", text=text, values=values))


def tell_end(
    log: LogSink, text: str, values: Mapping[str, Any], error: NstError | None, go_on: str | None
) -> None:
    log.emit(LogEvent(event="ended", text=text, values=values))
    if error is not None:
        log.emit(LogEvent(event="error", level="error", text=str(error)))
    if go_on is not None:
        log.emit(LogEvent(event="go_on", text=f"go on with: {go_on}"))


def _go_on(command: str, job: Job, *more: str) -> str:
    """The command line that goes on with a job from anywhere on this machine; `more`: words of its own."""
    moved = () if job.moved is None else ("--photos", job.moved.now)
    return shlex.join(["nst", command, job.store.url, *moved, *more, *reach(job.storage)])


def reach(storage: StorageOptions) -> list[str]:
    """Words of a command line that say how a store is reached, where that is not the standard way."""
    from jobs.config.tables import set_words

    return set_words("storage", storage)


def lease_options(log: LogSink, wait: bool) -> LeaseOptions:
    from jobs.ledger.lease import LeaseOptions

    return LeaseOptions(wait=wait, say=lambda text: log.emit(LogEvent(event="waiting_for_lease", text=text)))
