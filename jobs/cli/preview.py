"""What `nst preview` does: choose photographs, read styles, paint, and say what there is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import typer
from rich.console import Console

from jobs.cli.preview_columns import columns_of, strengths_in, style_places, styles_at
from jobs.cli.work import without_output
from jobs.console.display import Bar, duration
from jobs.console.stop import StopSignal
from jobs.errors import EXIT_FAILED_ROWS, EXIT_STOPPED, Stopped, UsageError
from jobs.ledger.layout import PREVIEW
from jobs.ledger.listing import list_photos
from jobs.preview.choice import LOOKED_AT, Choice, choose, named
from jobs.preview.column import PreviewQuality, Style
from jobs.stores.filesystems import (
    StorageOptions,
    absolute_url,
    is_url,
    read_url,
    refuse_secrets,
    why_unreadable,
)
from jobs.stores.store import LocalStore
from nst.errors import OptionError
from nst.styles import PREFIX, style_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from jobs.preview.run import Preview

__all__ = ["Asked", "preview_at"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The command's options, as they were given."""

    photos: list[str]
    styles: list[str]
    strengths: str
    quality: str
    count: int
    names: list[str]
    size_px: int
    storage: StorageOptions


def preview_at(asked: Asked, out: str) -> None:
    """Make a preview in the folder `out`, and say what there is. Leaves with the exit code if it is not 0."""
    began = time.monotonic()
    quality = _checked_quality(asked.quality)
    strengths = strengths_in(asked.strengths, quality)
    if is_url(out) or not out.isprintable():
        raise OptionError("--out", out, reason="must be a folder of this machine, with a name that prints")
    folder = absolute_url(out, Path.cwd())
    store = LocalStore(folder)
    _check_folder(store)
    try:
        with StopSignal().on_signals(), Bar(Console(), "pictures", "listing") as bar:
            preview = _planned(asked, quality, strengths, folder, bar)
            from jobs.preview.run import PAGE, SHEET, run_preview

            result = run_preview(preview, store, bar)
    except Stopped:
        print("stopped before anything was painted; nothing was written")
        raise typer.Exit(EXIT_STOPPED) from None
    ended = "stopped: " if result.stopped else ""
    print(f"{ended}{result.painted} of {result.wanted} pictures in {duration(time.monotonic() - began)}")
    print(f"look at {folder}/{PAGE} or {folder}/{SHEET}")
    print(f"paint all photographs as in a column: {preview.columns[0].commands[0]}")
    if result.stopped or result.painted < result.wanted:
        raise typer.Exit(EXIT_STOPPED if result.stopped else EXIT_FAILED_ROWS)


def _checked_quality(quality: str) -> PreviewQuality:
    for known in get_args(PreviewQuality):
        if quality == known:
            return cast(PreviewQuality, known)
    reason = None
    if quality == "adapted":
        reason = (
            "learns each style for minutes before the first picture; choose one of drafts, and then "
            "nst stylize ... --quality adapted"
        )
    raise OptionError("--quality", quality, choices=get_args(PreviewQuality), reason=reason)


def _planned(
    asked: Asked, quality: PreviewQuality, strengths: Sequence[float], folder: str, bar: Bar
) -> Preview:
    """Find the styles and the photographs."""
    from jobs.preview.run import Preview

    styles = styles_at(style_places(asked.styles, asked.storage))
    choice = _chosen(asked, folder, bar)
    data, pictures, left_out = _read(styles, asked.storage, bar)
    columns = columns_of(
        [style for style in styles if style.place in pictures],
        strengths,
        quality,
        photos=_places(asked, folder),
        folder=folder,
        size_px=asked.size_px,
        storage=asked.storage,
    )
    bar.say(
        f"{len(choice.photos)} photographs, {len(pictures)} styles: "
        f"{len(choice.photos) * len(columns)} pictures, {asked.size_px} pixels long"
    )
    if quality == "best":
        bar.say(
            "note: best optimizes each picture, which takes up to minutes; draft shows the same styles at once"
        )
    return Preview(
        choice=choice, columns=columns, files=data, styles=pictures, size_px=asked.size_px, notes=left_out
    )


def _places(asked: Asked, folder: str) -> list[str]:
    return [absolute_url(each, Path.cwd()) for each in without_output(asked.photos, folder)]


def _chosen(asked: Asked, folder: str, bar: Bar) -> Choice:
    """The photographs that are named, or those that differ most."""
    places = _places(asked, folder)
    for place in places:
        refuse_secrets("photos", place)
    listing = list_photos(places[0] if len(places) == 1 else places, exclude=folder, storage=asked.storage)
    if asked.names:
        return named(listing, asked.names)
    bar.say(f"listing {', '.join(places)}")
    most = LOOKED_AT // 3 if any(map(is_url, places)) else LOOKED_AT  # which are read whole
    choice = choose(listing, asked.count, asked.storage, lambda n, of: _seen(bar, n, of), most)
    if not choice.listed:
        raise OptionError("photos", asked.photos[0], reason="there is no photograph")
    for photo, reason in choice.unreadable:
        bar.say(f"left out: photograph {photo.key}: {reason}")
    if choice.looked_at:
        keys = ", ".join(photo.key for photo in choice.photos)
        bar.say(f"{choice.listed} photographs; looked at {choice.looked_at}, and chose {keys}")
    return choice


def _seen(bar: Bar, number: int, total: int) -> None:
    bar.update(number, total, "looking at photographs")


def _read(
    styles: Sequence[Style], storage: StorageOptions, bar: Bar
) -> tuple[dict[str, bytes], dict[str, Tensor], list[str]]:
    """Files and pictures of styles, by their places, and what is said of those that cannot be read.

    Raises:
        UsageError: none can.
    """
    from jobs.preview.paint import checked_style

    data, pictures, left_out = {}, {}, []
    for number, style in enumerate(styles):
        bar.update(number, len(styles), f"reading style {style.shown}")
        try:
            file = (
                style_bytes(style.place) if style.place.startswith(PREFIX) else read_url(style.place, storage)
            )
            picture = checked_style(style.place, file)
        except OSError as error:
            picture = why_unreadable(error)
        if isinstance(picture, str):
            left_out.append(f"left out: style {style.place}: {picture}")
            bar.say(left_out[-1])
        else:
            data[style.place], pictures[style.place] = file, picture
    if not pictures:
        raise UsageError("no style can be read: " + "; ".join(left_out))
    return data, pictures, left_out


def _check_folder(store: LocalStore) -> None:
    """Raises OptionError: a folder is neither new, nor empty, nor a preview's."""
    if store.root.exists() and not store.root.is_dir():
        raise OptionError("--out", store.url, reason="is no folder")
    if store.names("") and not store.exists(PREVIEW):
        raise OptionError("--out", store.url, reason="holds something that is no preview; name a new folder")
