"""The command that trains what methods apply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.arguments import Address, DryRun, Format, Set, Wait, Workers, examples
from jobs.cli.train import begin_training, job_file_of
from jobs.cli.work import errors, resources

__all__ = ["app"]

app = typer.Typer()


@app.command(
    no_args_is_help=True,
    rich_help_panel="Train what methods apply",
    epilog=examples(
        "nst train train.toml",
        "nst train train.toml --dry-run",
        "nst train train.toml --set schedule.n_epochs=20 --workers 4",
    ),
)
def train(
    words: Annotated[
        list[Path], typer.Argument(metavar="JOB.TOML", help="The job file; or `options`, to list them.")
    ],
    set_: Set = None,
    dry_run: DryRun = False,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Train what a job file says with Ray Train, as `nst run` does too.

    Goes on with the training if its output folder holds the same one, begun earlier.
    """
    with errors(log_format):
        job = job_file_of(words)
        if job == Path("options") and not job.exists():
            from jobs.cli.sections import sections
            from jobs.cli.tables import show_sections

            show_sections(sections("training"))
            return
        overrides = [*(set_ or []), *resources(None, address, workers, training=True)]
        begin_training(job, overrides, dry_run=dry_run, wait=wait, log_format=log_format)
