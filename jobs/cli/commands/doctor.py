"""The command that looks at a machine."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.arguments import Address, examples
from jobs.cli.work import errors, store_at
from jobs.errors import EXIT_FAILED_CHECKS

if TYPE_CHECKING:
    from jobs.pools.capacity import Capacity

__all__ = ["app"]

app = typer.Typer()


@app.command(
    rich_help_panel="Ask what there is",
    epilog=examples(
        "nst doctor",
        "nst doctor --output s3://bucket/out --set storage.endpoint_url=https://s3.example.org",
        "nst doctor --address auto --json",
    ),
)
def doctor(
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="PLACE",
            help="Folder or bucket prefix that is tried, too: whether a job can be kept there.",
        ),
    ] = None,
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="storage.NAME=VALUE",
            help="Option that says how PLACE is reached, e.g. storage.region=eu-central-1; may be repeated.",
        ),
    ] = None,
) -> None:
    """Say what this machine has, check that it computes right, and say what to set on it.

    GPUs, or else the CPU, are checked against the CPU in float64, on small pictures; nothing is downloaded. It
    takes half a minute, and ends with exit code 1 if a check failed.
    """
    with errors():
        from jobs.console.text import printable
        from jobs.doctor import device
        from jobs.doctor.machine import look_around
        from jobs.doctor.report import examined
        from jobs.pools.capacity import cluster_address

        found_at = cluster_address(address)
        report = examined(
            look_around(),
            device.examine_apart,
            cluster=None if found_at is None else partial(_cluster, found_at),
            store=None if output is None else store_at(output, set_),
            say=(lambda _: None) if as_json else lambda line: print(printable(line), flush=True),
        )
        if as_json:
            print(json.dumps(report.to_json()))
        if not report.ok:
            raise typer.Exit(EXIT_FAILED_CHECKS)


def _cluster(address: str) -> Capacity:
    from jobs.pools.capacity import room_for
    from jobs.spec import Resources

    return room_for(Resources(pool="ray", address=address))
