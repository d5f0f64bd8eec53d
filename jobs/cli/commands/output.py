"""Commands that look into a job's output, or tidy it up. They need its store alone, not ray, and torch only to
verify a training."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from jobs.cli.arguments import Out, Reach, examples
from jobs.cli.tables import show_failures, show_status, show_training
from jobs.cli.train import is_training
from jobs.cli.work import errors, store_at
from jobs.config.tables import as_words
from jobs.errors import EXIT_FAULTS
from nst.errors import OptionError

__all__ = ["app"]

app = typer.Typer()
_PANEL = "Look into a job"


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples(
        "nst status holiday-painted --json",
        "nst status holiday-painted --failed",
        "nst status s3://bucket/out --set storage.endpoint_url=https://s3.example.org",
    ),
)
def status(
    out: Out,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Print every photograph without a picture, and the reason.")
    ] = False,
    set_: Reach = None,
) -> None:
    """Say how far a job is, from its store alone."""
    with errors():
        from jobs.inspect.status import job_status

        store = store_at(out, set_)
        if is_training(store):
            if failed:
                raise OptionError("--failed", True, reason="is for photographs, and this is a training")
            show_training(store, as_json)
            return
        found = job_status(store, all_failures=failed)
        if as_json:
            print(json.dumps(found.to_json()))
        elif failed:
            show_failures(found)
        else:
            show_status(found, as_words(set_ or []))


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples("nst report holiday-painted", "nst report s3://bucket/out"),
)
def report(out: Out, set_: Reach = None) -> None:
    """Write OUT/report.html, a page of a job that opens from disk: its pictures beside their photographs.

    It has all of some thousand photographs, and needs neither a server nor a network.
    """
    with errors():
        from rich.console import Console

        from jobs.console.display import Bar
        from jobs.inspect.report import publish_report
        from jobs.training.report import publish_training_report

        store = store_at(out, set_)
        if is_training(store):
            print(publish_training_report(store))
            return
        with Bar(Console(stderr=True), "thumbnails", "") as bar:
            place = publish_report(store, lambda done, total: bar.update(done, total, ""))
        print(place)


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples("nst view holiday-painted", "nst view s3://bucket/out --port 8000 --no-open"),
)
def view(
    out: Out,
    port: Annotated[
        int, typer.Option("--port", metavar="NUMBER", help="Port of the page on this machine; 0: any free one.")
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the page's address, and open no browser.")
    ] = False,
    set_: Reach = None,
) -> None:
    """Show a job in a browser, while it runs or after: compare, search, sort, and mark its pictures.

    The page is for this machine alone, and ends with Ctrl-C. Marks are kept in OUT/marks.json.
    """
    with errors():
        from jobs.view.server import serve

        serve(store_at(out, set_), port=port, browser=not no_open, reach=as_words(set_ or []))


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples("nst verify holiday-painted", "nst verify s3://bucket/out --json"),
)
def verify(
    out: Out,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per fault.")] = False,
    set_: Reach = None,
) -> None:
    """Read a job again, every row, picture and curve, and list what is not as it must be.

    Reads a training's manifests, checkpoints, metrics and generator.
    """
    with errors():
        from dataclasses import asdict

        from jobs.console.text import counted, printable
        from jobs.inspect.verify import verify
        from jobs.training.verify import verify_training

        store, found = store_at(out, set_), 0
        training = is_training(store)
        for fault in verify_training(store) if training else verify(store):
            found += 1
            about = "" if fault.key is None else f" ({fault.key})"
            print(json.dumps(asdict(fault)) if as_json else printable(f"{fault.path}{about}: {fault.problem}"))
        if not as_json:
            fine = "every checkpoint and step" if training else "every row once, every picture as it was made"
            print(counted(found, "fault") if found else f"no faults: {fine}")
        if found:
            raise typer.Exit(EXIT_FAULTS)


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples(
        "nst explain holiday-painted 2019/rome/0042",
        "nst explain holiday-painted holiday/2019/rome/0042.jpg",
        "nst explain s3://bucket/out 0042 --set storage.region=eu-central-1",
    ),
)
def explain(
    out: Out,
    key: Annotated[
        str,
        typer.Argument(
            metavar="PHOTO",
            help="The photograph: its key, which is its picture's name below images/, its path or URL, its "
            "file name, or its picture's path.",
        ),
    ],
    set_: Reach = None,
) -> None:
    """Tell what became of one photograph: attempts, workers, errors, times."""
    with errors():
        from jobs.console.text import printable
        from jobs.inspect.explain import explain

        for line in explain(store_at(out, set_), key):
            print(printable(line))


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples("nst gc holiday-painted --dry-run", "nst gc holiday-painted"),
)
def gc(
    out: Out,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only count.")] = False,
    set_: Reach = None,
) -> None:
    """Remove journals of finished shards and half-made leftovers; not while the job runs."""
    with errors():
        from jobs.inspect.garbage import collect_garbage

        garbage = collect_garbage(store_at(out, set_), remove=not dry_run)
        done = "would be removed" if dry_run else "removed"
        orphans = f"{len(garbage.pictures)} orphaned pictures and curves"
        print(f"{len(garbage.journals)} journal parts and {orphans} {done}")
