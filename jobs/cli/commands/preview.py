"""The command that tries styles on a few photographs."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.arguments import Photos, examples
from jobs.cli.work import errors, storage_of
from nst.styles import STYLES

__all__ = ["app"]

app = typer.Typer()

Styles = Annotated[
    list[str] | None,
    typer.Option(
        "--styles",
        metavar="STYLES",
        help="The styles: a folder or bucket prefix of pictures, a picture, or the name of one that comes "
        f"with nst: {', '.join(STYLES)}; may be repeated. Left out: all that come with nst.",
    ),
]
Strengths = Annotated[
    str,
    typer.Option("--strengths", metavar="NUMBERS", help="Strengths that are shown side by side, as 0.4,0.7,1."),
]
How = Annotated[
    str,
    typer.Option(
        "--quality",
        metavar="[draft|best]",
        help="How photographs are painted, as by `nst stylize`: draft, which takes a second a picture "
        "at most, or best, which takes up to minutes.",
    ),
]
Count = Annotated[
    int,
    typer.Option("--count", metavar="NUMBER", min=1, help="Number of photographs, chosen to be different."),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--photo",
        metavar="KEY",
        help="Photograph to take instead: its path, or its key, the path within PHOTOS without extension; "
        "may be repeated.",
    ),
]
Side = Annotated[
    int, typer.Option("--size", metavar="PIXELS", min=32, help="Long side that photographs are shrunk to.")
]
Folder = Annotated[
    str,
    typer.Option("--out", metavar="FOLDER", help="Folder for the page: a new one, or an earlier preview's."),
]
Reached = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="storage.NAME=VALUE",
        help="Option that says how photographs and styles are reached, e.g. "
        "storage.endpoint_url=http://...; may be repeated.",
    ),
]


@app.command(
    rich_help_panel="Ask what there is",
    epilog=examples(
        "nst preview holiday",
        "nst preview holiday --styles paintings --strengths 0.4,0.7,1 --out try",
        "nst preview holiday --photo 2019/rome/0042 --styles swirls --styles wave.jpg --size 1024",
    ),
)
def preview(
    photos: Photos,
    styles: Styles = None,
    strengths: Strengths = "1",
    quality: How = "draft",
    count: Count = 6,
    photo: Names = None,
    size: Side = 512,
    out: Folder = "preview",
    set_: Reached = None,
) -> None:
    """Try styles on a few photographs: a page with all of them side by side, and a job file for each."""
    with errors():
        from jobs.cli.preview import Asked, preview_at

        preview_at(
            Asked(
                photos=photos,
                styles=styles or [],
                strengths=strengths,
                quality=quality,
                count=count,
                names=photo or [],
                size_px=size,
                storage=storage_of(set_ or []),
            ),
            out,
        )
