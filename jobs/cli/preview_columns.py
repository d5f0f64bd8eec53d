"""The styles that `nst preview` shows, and the job that each of them would be."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.cli.quality import stylize_table
from jobs.cli.running import reach
from jobs.config.styles import style_place
from jobs.config.tables import toml_text, without_defaults
from jobs.ledger.listing import pictures_in
from jobs.ledger.names import file_keys, folded
from jobs.preview.column import Column, PreviewQuality, Style
from jobs.spec import job_from_table
from jobs.stores.filesystems import StorageOptions, absolute_url, local_path, refuse_secrets
from nst.errors import OptionError
from nst.styles import PREFIX, STYLES

__all__ = ["columns_of", "strengths_in", "style_places", "styles_at"]

_BEST_PX = 512
"""Long side of photographs in jobs of this quality, if nothing else is said."""


def stored(place: str) -> str:
    """An absolute path or a URL as it may stand in a job file and on a command line: what does not print, such
    as bytes that are no UTF-8, is escaped in a `file://` URL."""
    path = local_path(place)
    return (
        place
        if path is None or path.isprintable()
        else "file://" + quote(path.encode("utf-8", "surrogateescape"))
    )


def strengths_in(text: str, quality: PreviewQuality) -> list[float]:
    """Strengths as `0.4,0.7,1`.

    Raises:
        OptionError: they are none, or this quality has none.
    """
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= each <= 1 for each in found):
        raise OptionError("--strengths", text, reason="are numbers from 0 to 1, with commas between them")
    if quality == "best" and found != [1.0]:
        raise OptionError("--strengths", text, reason="go with --quality draft; of best, style_weight is one")
    return list(dict.fromkeys(found))


def style_places(given: Sequence[str], storage: StorageOptions) -> list[str]:
    """Places of style pictures: all of a folder, sorted, single ones, or those that come with nst, which none
    given means, too.

    Raises:
        OptionError: a style is nothing of these.
    """
    places: list[str] = []
    for each in given or STYLES:
        place = PREFIX + each if not given else style_place(each, option="--styles")
        if place.startswith(PREFIX):
            places.append(place)
            continue
        refuse_secrets("--styles", place)
        place = absolute_url(place, Path.cwd())
        try:
            found = pictures_in(place, storage=storage)
        except OSError as error:
            raise OptionError("--styles", each, reason=f"cannot be listed: {error}") from error
        if found == []:
            raise OptionError("--styles", each, reason="there is no picture in this folder")
        places += [place] if found is None else found
    return list(dict.fromkeys(stored(place) for place in places))


def styles_at(places: Sequence[str]) -> list[Style]:
    """Styles with names that are different from each other."""
    files = [posixpath.basename(absolute_url(place, Path("/")).rstrip("/")) for place in places]
    names = _different(file_keys("", files))
    shown = [posixpath.splitext(file)[0] for file in files]
    return [Style(*each) for each in zip(places, shown, names, strict=True)]


def _different(names: Sequence[str]) -> Iterator[str]:
    """Names, with numbers where a name would come again."""
    taken: set[str] = set()
    for name in names:
        number, new = 1, name
        while folded(new) in taken:
            number += 1
            new = f"{name}-{number}"
        taken.add(folded(new))
        yield new


def columns_of(
    styles: Sequence[Style],
    strengths: Sequence[float],
    quality: PreviewQuality,
    *,
    photos: Sequence[str],
    folder: str,
    size_px: int,
    storage: StorageOptions,
) -> list[Column]:
    """Every style at every strength.

    Args:
        photos: their places, absolute.
        folder: the preview's, absolute. Jobs are in folders beside it.
        size_px: long side in pixels of what is shown.

    Raises:
        OptionError: no job can be made of these.
    """
    found = []
    places = [stored(place) for place in photos]
    for style in styles:
        for strength in strengths:
            name = style.name if len(strengths) == 1 else f"{style.name}-{strength:g}"
            output = f"{posixpath.dirname(folder).rstrip('/')}/painted-{name}"
            tables = _tables(style.place, quality, strength, size_px, always=len(strengths) > 1)
            table = {"photos": places[0] if len(places) == 1 else places, "output": output, **tables}
            if more := without_defaults(storage):
                table["storage"] = more
            words = _stylize(places, style.place, output, tables, quality, storage)
            commands = shlex.join(["nst", "run", f"{folder}/jobs/{name}.toml"]), shlex.join(words)
            head = _head(quality, size_px, strength, commands[0])
            job = job_from_table(table, Path("/"))
            found.append(Column(style, strength, name, job, head + toml_text(table), commands))
    return found


def _tables(
    place: str, quality: PreviewQuality, strength: float, size_px: int, *, always: bool
) -> dict[str, Any]:
    """The tables `method` and `image`."""
    tables = stylize_table([place], quality, [], first_frame=None)
    if quality == "draft" and (always or strength != 1):
        tables["method"]["strength"] = strength
    if quality == "best" and size_px != _BEST_PX:
        tables["image"] = {"max_side_px": size_px}
    return tables


def _stylize(
    photos: Sequence[str],
    style: str,
    output: str,
    tables: Mapping[str, Any],
    quality: PreviewQuality,
    storage: StorageOptions,
) -> list[str]:
    """The same job's command line."""
    words = ["nst", "stylize", *photos, "--style", style, "--out", output]
    if quality != "draft":
        words += ["--quality", quality]
        if "image" in tables:
            words += ["--size", str(tables["image"]["max_side_px"])]
    if "strength" in tables["method"]:
        words += ["--set", f"method.strength={tables['method']['strength']:g}"]
    return [*words, *reach(storage)]


def _head(quality: PreviewQuality, size_px: int, strength: float, command: str) -> str:
    """Comments at a job file's beginning."""
    lines = ["What the preview shows, for all photographs. It runs with", f"  {command}"]
    if quality == "draft" and strength > 0:
        lines += [
            f"Photographs longer than {size_px} px get finer strokes than here. To have them as coarse:",
            f"  [method] stroke_side_px = {size_px}",
        ]
    return "".join(f"# {line}\n" for line in lines) + "\n"
