"""The command that has a job file run on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.arguments import Changed, Format, JobPath, NoNew, Set, Wait, Workers, examples
from jobs.cli.growing import growth_of
from jobs.cli.work import errors, resources

__all__ = ["app"]

app = typer.Typer()


@app.command(
    rich_help_panel="Use a cluster",
    epilog=examples(
        "nst submit job.toml --address http://127.0.0.1:8265",
        "nst submit job.toml --address http://127.0.0.1:8265 --attach",
        "nst submit job.toml --address http://127.0.0.1:8265 --stop",
    ),
)
def submit(
    job: JobPath,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="URL",
            help="Address of the cluster's dashboard, http://HEAD:8265; left out: RAY_ADDRESS.",
        ),
    ] = None,
    set_: Set = None,
    workers: Workers = None,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="Local paths in the job file are the same on every node.")
    ] = False,
    no_new: NoNew = False,
    changed: Changed = False,
    wait: Wait = False,
    log_format: Format = "text",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow what is submitted.")] = False,
    attach: Annotated[
        bool, typer.Option("--attach", help="Follow what was submitted, and submit nothing.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what was submitted, gently.")] = False,
) -> None:
    """Run a job file, of photographs or of a training, on a Ray cluster, with the driver there.

    Ends with the job's exit code, or with 130 if Ctrl-C ends the following only.

    A cluster that asks for a token gets RAY_AUTH_TOKEN, or what is in RAY_AUTH_TOKEN_PATH.
    """
    with errors():
        import jobs.cli.submit as submission
        from nst.errors import OptionError

        if attach + stop + no_wait > 1:
            raise OptionError("--attach", attach, reason="is one of --attach, --stop and --no-wait")
        overrides = [*(set_ or []), *resources(None, None, workers)]
        growth = growth_of(no_new, changed, training=submission.is_training_file(job, overrides))
        prepared = submission.prepare(
            job,
            overrides,
            shared_paths=shared_paths or attach or stop,
            growth=growth.words(),
            wait_for_lease=wait,
            log_format=log_format,
        )
        if stop:
            raise typer.Exit(submission.stop(prepared, address))
        if attach:
            raise typer.Exit(submission.follow(prepared, address))
        raise typer.Exit(submission.submit(prepared, address, wait=not no_wait))
