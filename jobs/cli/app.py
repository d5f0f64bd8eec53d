"""The command line. Every command that does not compute loads neither torch nor ray."""

from __future__ import annotations

import typer

from jobs.cli.commands import cluster, job, options, output, training

__all__ = ["app", "main"]

app = typer.Typer(
    help="Stylize collections of photographs: neural style transfer and DeepDream on pools of workers.",
    epilog="Exit codes: 0 all images ok, 2 asked for wrongly, 3 finished with failed images, 4 shards "
    "unfinished, 5 faults found by `verify`, 75 stopped and resumable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

for _commands in (job, training, output, cluster, options):
    app.add_typer(_commands.app)


def main() -> None:
    """Run the command line: the console script's entry."""
    app()
