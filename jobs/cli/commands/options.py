"""Commands that list what a job file may say."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.arguments import examples
from jobs.cli.work import errors

__all__ = ["app"]

app = typer.Typer()
_PANEL = "Ask what there is"


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples("nst options", "nst options style_transfer", "nst options resources"),
)
def options(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="A method, a training, or a table: job, image, resources, storage, training; left out: all.",
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown; of all, it is docs/options.md.")
    ] = False,
) -> None:
    """List every option of job files with its default, what it may be, and what it means."""
    with errors():
        from jobs.cli.sections import sections, to_markdown
        from jobs.cli.tables import show_sections

        found = sections(kind)
        if markdown:
            print(to_markdown(found), end="")
        else:
            show_sections(found)


@app.command(rich_help_panel=_PANEL, epilog=examples("nst methods", "nst options deepdream"))
def methods() -> None:
    """List the methods and their options; `nst options` lists all the other tables, too."""
    with errors():
        from jobs.cli.sections import sections
        from jobs.cli.tables import show_sections
        from nst.methods import METHODS

        show_sections([section for kind in METHODS for section in sections(kind) if not section.training])
