"""The command line. Every command that does not compute loads neither torch nor ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.tables import show_options, show_status, show_training
from jobs.cli.train import begin_training, job_file_of, show_training_options
from jobs.cli.work import (
    CHANGEABLE,
    LogFormat,
    begin,
    begin_quickly,
    errors,
    execute,
    execute_training,
    is_training,
    reopen_at,
    reopen_training_at,
    resources,
    store_at,
    tables_of,
)
from jobs.errors import EXIT_FAULTS
from jobs.stores.store import open_store

if TYPE_CHECKING:
    from jobs.driver.actions import Work
    from jobs.driver.job import Job

__all__ = ["app", "main"]

app = typer.Typer(
    help="Stylize collections of photographs: neural style transfer and DeepDream on pools of workers.",
    epilog="Exit codes: 0 all images ok, 2 asked for wrongly, 3 finished with failed images, 4 shards "
    "unfinished, 5 faults found by `verify`, 75 stopped and resumable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set an option, e.g. method.steps=200.")
]
PoolName = Annotated[str | None, typer.Option("--pool", help="ray or local.")]
Address = Annotated[str | None, typer.Option("--address", help="Of a running Ray cluster.")]
Workers = Annotated[int | None, typer.Option("--workers", help="At most this many workers.")]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The job's folder or bucket prefix.")]
Reach = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="storage.NAME=VALUE", help="How to reach OUT, e.g. storage.endpoint_url=http://..."
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait-for-lease",
        help="If another driver is at this job: wait until it ends, or seems dead for a minute.",
    ),
]
Format = Annotated[
    LogFormat,
    typer.Option("--log-format", help="json: one object per line, for programs, of all that happens."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the resolved job and write nothing.")]


@app.command()
def run(
    job: Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job file.")],
    set_: Set = None,
    dry_run: DryRun = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Run a job file, of either kind; go on with it if its output folder holds the same job, begun earlier."""
    with errors(log_format):
        from jobs.cli.submit import is_training_file
        from jobs.spec import read_job_file

        training = is_training_file(job, set_ or [])
        overrides = [*(set_ or []), *resources(pool, address, workers, training=training)]
        if training:
            begin_training(job, overrides, dry_run=dry_run, wait=wait, log_format=log_format)
        else:
            begin(read_job_file(job, overrides), dry_run, wait=wait, log_format=log_format)


@app.command()
def stylize(
    photos: Annotated[str, typer.Argument(help="A folder, glob, bucket prefix, or manifest.")],
    style: Annotated[
        list[str], typer.Option("--style", help="The style picture, or a folder of them; may be repeated.")
    ],
    out: Annotated[str, typer.Option("--out", help="The job's folder or bucket prefix.")],
    size: Annotated[int | None, typer.Option("--size", help="Long side of the pictures in pixels.")] = None,
    set_: Set = None,
    dry_run: DryRun = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Paint photographs in the style of a picture."""
    with errors(log_format):
        method = {"kind": "style_transfer", "style": style[0] if len(style) == 1 else style}
        overrides = [*(set_ or []), *resources(pool, address, workers)]
        begin_quickly(photos, out, method, size, overrides, dry_run, wait, log_format)


@app.command()
def dream(
    photos: Annotated[str, typer.Argument(help="A folder, glob, bucket prefix, or manifest.")],
    out: Annotated[str, typer.Option("--out", help="The job's folder or bucket prefix.")],
    guide: Annotated[str | None, typer.Option("--guide", help="A picture whose like is to appear.")] = None,
    size: Annotated[int | None, typer.Option("--size", help="Long side of the pictures in pixels.")] = None,
    set_: Set = None,
    dry_run: DryRun = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Let a network dream on photographs."""
    with errors(log_format):
        method = {"kind": "deepdream"} if guide is None else {"kind": "deepdream", "guide": guide}
        overrides = [*(set_ or []), *resources(pool, address, workers)]
        begin_quickly(photos, out, method, size, overrides, dry_run, wait, log_format)


@app.command(no_args_is_help=True)
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
    """Train what a job file says with Ray Train, as `nst run` does too; go on with it if its output folder
    holds the same."""
    with errors(log_format):
        job = job_file_of(words)
        if job == Path("options") and not job.exists():
            show_training_options()
            return
        overrides = [*(set_ or []), *resources(None, address, workers, training=True)]
        begin_training(job, overrides, dry_run=dry_run, wait=wait, log_format=log_format)


@app.command()
def resume(
    out: Out,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    set_: Set = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Go on with a job that was stopped or killed. --set takes options of `resources` and `storage` only; of a
    training also those of `log`, `evaluation` and `ddp`."""
    with errors(log_format):
        given = set_ or []
        tables_of(given, CHANGEABLE)
        training = is_training(store_at(out, [each for each in given if each.startswith("storage.")]))
        overrides = [*given, *resources(pool, address, workers, training=training)]
        if training:
            execute_training(lambda: reopen_training_at(out, overrides), wait=wait, log_format=log_format)
        else:
            execute(lambda: (reopen_at(out, overrides), None), wait=wait, log_format=log_format)


@app.command()
def retry(
    out: Out,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Only this photograph; may be repeated.")
    ] = None,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    set_: Set = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Do the failed and quarantined photographs of a job again."""
    with errors(log_format):
        from jobs.driver.run import retry_work

        def failed_ones() -> tuple[Job, Callable[[], list[Work]]]:
            job = reopen_at(out, [*(set_ or []), *resources(pool, address, workers)])
            return job, lambda: retry_work(job, key)

        execute(failed_ones, wait=wait, log_format=log_format)


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job file, of either kind.")],
    address: Annotated[
        str | None,
        typer.Option("--address", help="The cluster's dashboard, http://HEAD:8265. Else RAY_ADDRESS."),
    ] = None,
    set_: Set = None,
    workers: Workers = None,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="Local paths in the job file are the same on every node.")
    ] = False,
    wait: Wait = False,
    log_format: Format = "text",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow it.")] = False,
    attach: Annotated[bool, typer.Option("--attach", help="Follow what was submitted.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what was submitted, gently.")] = False,
) -> None:
    """Run a job file on a Ray cluster, with the driver there. Ends with the job's exit code, or with 130 if
    Ctrl-C ends the following only. A cluster that asks for a token gets RAY_AUTH_TOKEN, or what is in
    RAY_AUTH_TOKEN_PATH."""
    with errors():
        import jobs.cli.submit as submission
        from nst.errors import OptionError

        if attach + stop + no_wait > 1:
            raise OptionError("--attach", attach, reason="is one of --attach, --stop and --no-wait")
        prepared = submission.prepare(
            job,
            [*(set_ or []), *resources(None, None, workers)],
            shared_paths=shared_paths or attach or stop,
            wait_for_lease=wait,
            log_format=log_format,
        )
        if stop:
            raise typer.Exit(submission.stop(prepared, address))
        if attach:
            raise typer.Exit(submission.follow(prepared, address))
        raise typer.Exit(submission.submit(prepared, address, wait=not no_wait))


@app.command()
def status(
    out: Out,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    set_: Reach = None,
) -> None:
    """Say how far a job is, from its store alone."""
    with errors():
        from jobs.inspect.status import job_status

        store = store_at(out, set_)
        if is_training(store):
            show_training(store, as_json)
            return
        found = job_status(store)
        if as_json:
            print(json.dumps(found.to_json()))
            return
        show_status(found)


@app.command()
def report(out: Out, set_: Reach = None) -> None:
    """Write a contact sheet of a job, OUT/report.html, that opens from disk."""
    with errors():
        from jobs.inspect.report import publish_report
        from jobs.training.report import publish_training_report

        store = store_at(out, set_)
        print(publish_training_report(store) if is_training(store) else publish_report(store))


@app.command()
def verify(
    out: Out,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per fault.")] = False,
    set_: Reach = None,
) -> None:
    """Read a job again, every row and every picture and curve, and list what is not as it must be."""
    with errors():
        from dataclasses import asdict

        from jobs.console.text import printable
        from jobs.inspect.verify import verify

        found = 0
        for fault in verify(store_at(out, set_)):
            found += 1
            about = "" if fault.key is None else f" ({fault.key})"
            print(json.dumps(asdict(fault)) if as_json else printable(f"{fault.path}{about}: {fault.problem}"))
        if not as_json:
            print(f"{found} faults" if found else "no faults: every row once, every picture as it was made")
        if found:
            raise typer.Exit(EXIT_FAULTS)


@app.command()
def gc(
    out: Out,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only count.")] = False,
    set_: Reach = None,
) -> None:
    """Remove journals of finished shards and half-made leftovers; not while the job runs."""
    with errors():
        from jobs.inspect.verify import collect_garbage

        garbage = collect_garbage(store_at(out, set_), remove=not dry_run)
        done = "would be removed" if dry_run else "removed"
        orphans = f"{len(garbage.pictures)} orphaned pictures and curves"
        print(f"{len(garbage.journals)} journal parts and {orphans} {done}")


@app.command()
def explain(
    out: Out, key: Annotated[str, typer.Argument(help="Of the photograph.")], set_: Reach = None
) -> None:
    """Tell what became of one photograph: attempts, workers, errors, times."""
    with errors():
        from jobs.console.text import printable
        from jobs.inspect.verify import explain

        for line in explain(store_at(out, set_), key):
            print(printable(line))


@app.command()
def methods() -> None:
    """List the methods and their options."""
    with errors():
        from nst.methods import METHODS

        for kind, cls in METHODS.items():
            show_options(kind, cls)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for photographs, pictures and reports.")] = Path(
        "demo-out"
    ),
    pool: PoolName = None,
) -> None:
    """Stylize and dream on a few public-domain photographs, offline, with two Ray actors."""
    with errors():
        from jobs.demo import demo_jobs
        from jobs.inspect.report import publish_report

        reports = []
        for job_file in demo_jobs(out.resolve(), pool or "ray"):
            begin(job_file, dry_run=False, leave=False)
            reports.append(publish_report(open_store(job_file.spec.output)))
        for path in reports:
            print(f"report: {path}")


def main() -> None:
    """Entry point of the console script."""
    app()
