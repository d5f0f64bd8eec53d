"""Commands that train what methods apply, and publish it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.arguments import Address, DryRun, Format, Out, Reach, SetTraining, Wait, Workers, examples
from jobs.cli.train import as_options, begin_training, job_file_of
from jobs.cli.work import errors, resources, store_at

__all__ = ["app"]

app = typer.Typer()
_PANEL = "Train what methods apply"


@app.command(
    no_args_is_help=True,
    rich_help_panel=_PANEL,
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
    set_: SetTraining = None,
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


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples("nst snapshot horse2zebra", "nst snapshot s3://bucket/horse2zebra"),
)
def snapshot(out: Out, set_: Reach = None) -> None:
    """Publish what a training has learned so far: the generators of its newest checkpoint.

    Works while the training runs, when it was stopped, and when it is complete; a method takes the file.
    """
    with errors():
        from jobs.training.snapshot import publish_snapshot

        step, made = publish_snapshot(store_at(out, set_))
        print("\n".join((f"the generators of step {step}, to be used as", *as_options(made))))
