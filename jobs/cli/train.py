"""What commands do with trainings: begin or reopen one, run it, say how it ended."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from jobs.cli.arguments import LogFormat
from jobs.cli.running import lease_options, reach, tell_end, tell_notes
from jobs.cli.work import open_at, tables_of
from jobs.errors import TrainingDiverged, UsageError

if TYPE_CHECKING:
    from jobs.stores.store import Store
    from jobs.training.job import TrainJob
    from nst.stylizer import AssetRef

__all__ = [
    "CHANGEABLE",
    "as_options",
    "begin_training",
    "execute_training",
    "is_training",
    "job_file_of",
    "reopen_training_at",
]

CHANGEABLE = ("resources", "storage", "log", "evaluation", "ddp", "model", "schedule", "data", "init")
"""Tables of a training's job file that are read when it goes on: options of the first five may be others, those
of the rest that its recipe lets change; the others are refused with the difference."""


def job_file_of(words: Sequence[Path]) -> Path:
    """The job file of `nst train JOB.TOML`, and of `nst train cyclegan JOB.TOML`, from when there was one kind.

    Raises:
        UsageError: there is more than one.
    """
    job, *more = words[1:] if len(words) > 1 and words[0] == Path("cyclegan") else words
    if more:
        raise UsageError(f"one job file at a time: {', '.join(str(word) for word in words)}")
    return job


def begin_training(
    job: Path, overrides: Sequence[str], *, dry_run: bool, wait: bool, log_format: LogFormat
) -> None:
    """Train what a job file says, or say what would be trained. Leaves with the exit code."""
    from jobs.training.job import create_or_open_training, plan_training
    from jobs.training.job_file import read_train_file

    file = read_train_file(job, overrides)
    if not dry_run:
        execute_training(lambda: create_or_open_training(file), wait=wait, log_format=log_format)
        return
    planned = plan_training(file)
    print(json.dumps(planned.table, indent=2))
    print("".join(f"note: {note}\n" for note in planned.notes), end="")
    steps = planned.epoch_steps
    total = f"{steps * file.spec.schedule.epochs} steps, {steps} per epoch"
    print(f"{_counted(planned.rows)} photographs, {total}; nothing was written")


def _counted(rows: Mapping[str, int]) -> str:
    """As `11 (photo), 7 (ukiyo-e) and 5 (pastel)`."""
    *most, last = [f"{number} ({name})" for name, number in rows.items()]
    return f"{', '.join(most)} and {last}" if most else last


def is_training(store: Store) -> bool:
    """Whether the job in a store is a training, and not of photographs."""
    from jobs.ledger.job_record import TRAINING, job_kind

    return job_kind(store) == TRAINING


def reopen_training_at(out: str, overrides: list[str]) -> TrainJob:
    """The training at OUT, with other options of `CHANGEABLE` tables as --set says."""
    from jobs.training.job import reopen_training

    tables = tables_of(overrides, CHANGEABLE)
    return reopen_training(open_at(out, tables), overrides=tables)


def execute_training(
    prepare: Callable[[], TrainJob], *, wait: bool = False, log_format: LogFormat = "text"
) -> None:
    """Plan, train, show progress, say how it ended. Leaves with the exit code."""
    from jobs.console.json_log import JsonLog
    from jobs.console.stop import StopSignal
    from jobs.training.display import TrainDisplay
    from jobs.training.driver import run_training
    from jobs.training.report import publish_training_report

    with StopSignal().on_signals() as stop:
        job = prepare()
        url = job.store.url
        log = JsonLog(url, sys.stdout) if log_format == "json" else TrainDisplay(Console())
        with log:
            tell_notes(log, job.notes)
            summary = run_training(job, observe=log, stop=stop, lease=lease_options(log, wait))
    where = url.rstrip("/")
    values = {"exit_code": summary.exit_code, "steps": summary.steps, "done": summary.done}
    if summary.done is None:
        mend = _calmer(job) if isinstance(summary.error, TrainingDiverged) else []
        go_on = shlex.join(["nst", "resume", url, *mend, *reach(job.file.storage)])
        tell_end(log, "", values, summary.error, go_on)
    else:
        made = job.file.spec.recipe.asset(f"{where}/{summary.done['generator']}", summary.done["sha256"])
        lines = (
            f"{summary.steps} steps: {where}",
            *as_options(made),
            f"report: {publish_training_report(job.store)}",
        )
        tell_end(log, "\n".join(lines), values, None, None)
    raise typer.Exit(summary.exit_code)


def as_options(made: AssetRef) -> tuple[str, str]:
    """A file as the options of a method that takes it, in TOML."""
    return f'{made.option} = "{made.url}"', f'{made.option}_sha256 = "{made.sha256}"'


def _calmer(job: TrainJob) -> list[str]:
    """Words of a command line with which a training that diverged most likely goes on: a tenth of its learning
    rate, or what to put in."""
    recipe = job.file.spec.recipe
    options = [name.partition(".") for name in recipe.changeable() if name.endswith("learning_rate")]
    rates = {f"{table}.{option}": getattr(recipe.model, option) for table, _, option in options}
    name, rate = next(iter(rates.items()), ("NAME", None))
    return ["--set", f"{name}=VALUE" if rate is None else f"{name}={rate / 10:g}"]
