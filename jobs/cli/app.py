"""The command line. Every command that does not compute loads neither torch nor ray."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.commands import again, cluster, doctor, export, job, options, output, preview, training

__all__ = ["app", "main"]

app = typer.Typer(
    help="Stylize collections of photographs: neural style transfer and DeepDream on pools of workers.",
    epilog="Exit codes: 0 all images ok, 1 a check of `doctor` failed, 2 asked for wrongly, 3 finished with "
    "failed images, 4 shards unfinished, 5 faults found by `verify`, "
    "6 a training diverged, 75 stopped and resumable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

for _commands in (job, again, training, export, output, cluster, doctor, preview, options):
    app.add_typer(_commands.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"nst {importlib.metadata.version('nst')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print nst's version.")
    ] = False,
) -> None:
    """Options of `nst` itself, which have done their work."""


def main() -> None:
    """Run the command line."""
    app()
