"""Commands that list what a job file may say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.arguments import examples
from jobs.cli.work import errors
from jobs.stores.store import LocalStore
from nst.errors import ImageError, OptionError
from nst.styles import STYLES

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


@app.command(
    rich_help_panel=_PANEL, epilog=examples("nst styles photo.jpg", "nst styles photo.jpg --out s.png")
)
def styles(
    photo: Annotated[str, typer.Argument(metavar="PHOTO", help="The photograph: a path or URL.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the picture goes: a .jpg or .png.")
    ] = Path("styles.jpg"),
    size: Annotated[
        int, typer.Option("--size", metavar="PIXELS", help="Long side of the photograph in each style.", min=32)
    ] = 320,
) -> None:
    """Paint one photograph in every style that comes with nst, as one picture."""
    with errors():
        from jobs.stores.filesystems import STANDARD_STORAGE, absolute_url, read_url, why_unreadable

        formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
        if out.suffix.lower() not in formats:
            raise OptionError("--out", str(out), choices=formats, reason="its extension says its format")
        try:
            data = read_url(absolute_url(photo, Path.cwd()), STANDARD_STORAGE)
        except OSError as error:
            raise OptionError("PHOTO", photo, reason=why_unreadable(error)) from error
        from nst.feed_forward.sheet import styles_sheet
        from nst.images.codec import decode_image

        try:
            decoded = decode_image(data)
        except ImageError as error:
            raise OptionError("PHOTO", photo, reason=str(error)) from error
        made = io.BytesIO()
        styles_sheet(decoded, size).save(made, formats[out.suffix.lower()], quality=92)
        store = LocalStore(str(out.resolve().parent))
        try:
            store.publish(out.name, made.getvalue())
        finally:
            store.clean()
        print(f"{out}: give a name to --style: nst stylize PHOTOS --style {next(iter(STYLES))} --out OUT")
