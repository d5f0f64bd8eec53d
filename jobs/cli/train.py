"""What `nst train`, and `nst run` with a training's job file, do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.cli.arguments import LogFormat
from jobs.cli.work import execute_training
from jobs.errors import UsageError

__all__ = ["begin_training", "job_file_of"]


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
    from jobs.training.job_file import read_train_file, train_to_table

    file = read_train_file(job, overrides)
    if not dry_run:
        execute_training(lambda: create_or_open_training(file), wait=wait, log_format=log_format)
        return
    planned = plan_training(file)
    print(json.dumps(train_to_table(file), indent=2))
    print("".join(f"note: {note}\n" for note in planned.notes), end="")
    steps = planned.epoch_steps
    total = f"{steps * file.spec.schedule.epochs} steps, {steps} per epoch"
    print(f"{_counted(planned.rows)} photographs, {total}; nothing was written")


def _counted(rows: Mapping[str, int]) -> str:
    """As `11 (photo), 7 (ukiyo-e) and 5 (pastel)`."""
    *most, last = [f"{number} ({name})" for name, number in rows.items()]
    return f"{', '.join(most)} and {last}" if most else last
