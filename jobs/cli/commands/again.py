"""The command that does photographs of a job again, as they are wanted now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from jobs.cli.arguments import (
    Address,
    Format,
    Out,
    PhotosNow,
    PoolName,
    SetAgain,
    Wait,
    Workers,
    examples,
)
from jobs.cli.growing import execute_redo
from jobs.cli.work import errors, place_now, reopen_at, resources
from jobs.config.tables import apply_overrides
from nst.errors import OptionError

__all__ = ["app"]

app = typer.Typer()
_PANEL = "Begin a job, or go on with it"
_HOW = ("resources", "storage")
_WHAT = ("method", "image", "seed")


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples(
        "nst redo holiday-painted --marked again --set method.strength=0.5",
        "nst redo holiday-painted --key 2019/rome/0042 --key 0007 --set method.style=reeds.jpg",
    ),
)
def redo(
    out: Out,
    marked: Annotated[
        str | None,
        typer.Option("--marked", metavar="MARK", help="Mark of the photographs to do: again, keep or reject."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="Key of a photograph to do; may be repeated."),
    ] = None,
    photos: PhotosNow = None,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    set_: SetAgain = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Do some photographs of a job again, with other options; the former pictures are kept.

    --set takes options of `method`, `image`, `resources` and `storage`, and `seed`.
    """
    with errors(log_format):
        how = [each for each in set_ or [] if each.startswith(tuple(f"{table}." for table in _HOW))]
        options = _options([each for each in set_ or [] if each not in how])
        overrides = [*how, *resources(pool, address, workers)]
        execute_redo(
            lambda: reopen_at(out, overrides, photos),
            marked,
            key,
            options,
            place_now(photos),
            wait=wait,
            log_format=log_format,
        )


def _options(overrides: Sequence[str]) -> dict[str, Any]:
    """What the photographs are done again with, by table."""
    options = apply_overrides({}, overrides)
    for name, value in options.items():
        if name not in _WHAT or isinstance(value, dict) == (name == "seed"):
            choices = ("method.*", "image.*", "seed", *(f"{table}.*" for table in _HOW))
            raise OptionError(name, value, choices=choices, reason="is the same for all photographs of a job")
    return options
