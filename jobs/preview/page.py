"""The page of a preview: one HTML file that opens from disk, loads nothing, and runs nothing.

A picture that is clicked fills the window, and has links to its neighbors; a style that is chosen shows its
job. Both are what the address of the page points to (`:target`). Loads no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from jobs.console.html import page, text
from jobs.console.text import counted
from jobs.preview.column import Column, spans_of
from jobs.view.page import data_url

__all__ = ["Picture", "Shown", "preview_page"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as the page has it."""

    jpeg: bytes
    size: tuple[int, int]
    """Width and height in pixels."""
    path: str | None = None
    """Where it is at full size, relative to the page; None: nowhere."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a preview has, as far as it has come."""

    keys: Sequence[str]
    """Of the photographs."""
    columns: Sequence[Column]
    styles: Mapping[str, Picture]
    """By their names."""
    pictures: Mapping[tuple[int, int], Picture]
    """By number of the photograph and of the column, from 1; column 0 has the photographs."""
    failures: Mapping[tuple[int, int], str]
    """Why there is no picture."""
    notes: Sequence[str] = ()
    """What to say above all."""
    size_px: int = 512


def preview_page(shown: Shown) -> str:
    """The page as HTML. Every name and message in it is escaped."""
    styles = spans_of(shown.columns)
    starts = {span.start for span in styles}
    title = f"Preview: {counted(len(shown.keys), 'photograph')} in {counted(len(styles), 'style')}"
    hint = (
        f"Pictures are {shown.size_px} pixels long at most. Click one to see it large; "
        "<b>choose</b>, below a column, shows the job that paints all photographs so."
    )
    body = "".join(
        [
            f"<header><h1>{text(title)}</h1><p>{hint}</p></header>",
            "".join(f'<p class="note">{text(note)}</p>' for note in shown.notes),
            f'<div class="scroll"><table class="preview"><thead>{_head(shown, styles)}</thead>',
            "<tbody>"
            + "".join(_row(shown, number, starts) for number in range(1, len(shown.keys) + 1))
            + "</tbody>",
            f"<tfoot><tr><th></th>{''.join(_foot(shown.columns))}</tr></tfoot></table></div>",
            *(_job(number, column) for number, column in enumerate(shown.columns, 1)),
        ]
    )
    return page(title, body, _STYLE)


def _head(shown: Shown, styles: Sequence[range]) -> str:
    several = len(styles) < len(shown.columns)
    cells, strengths = [], []
    for span in styles:
        style = shown.columns[span.start].style
        image = _image(shown.styles[style.name], f"style {style.shown}")
        name = f'<span title="{text(style.shown)}">{text(style.shown)}</span>'
        cells.append(f'<th colspan="{len(span)}">{image}{name}</th>')
        strengths += [f"<th>{shown.columns[number].strength:g}</th>" for number in span]
    lines = [f"<tr><th></th>{''.join(cells)}</tr>"]
    if several:
        lines.append(f'<tr class="strengths"><th>strength</th>{"".join(strengths)}</tr>')
    return "".join(lines)


def _foot(columns: Sequence[Column]) -> Iterator[str]:
    for number, column in enumerate(columns, 1):
        yield (
            f'<td id="column-{number}">'
            f'<a href="#job-{number}" title="{text(column.commands[0])}">choose</a></td>'
        )


def _label(column: Column, columns: Sequence[Column]) -> str:
    """What a column is called: its style, and its strength if others have another."""
    several = any(each.strength != column.strength for each in columns) or column.strength != 1
    return f"{column.style.shown} {column.strength:g}" if several else column.style.shown


def _row(shown: Shown, photo: int, starts: Collection[int]) -> str:
    key = text(shown.keys[photo - 1])
    cells = "".join(
        f'<td id="at-{photo}-{number}"{" class=first" if number - 1 in starts else ""}>'
        f"{_cell(shown, photo, number)}</td>"
        for number in range(1, len(shown.columns) + 1)
    )
    first = f'<th id="at-{photo}-0">{_cell(shown, photo, 0)}<span title="{key}">{key}</span></th>'
    return f"<tr>{first}{cells}</tr>"


def _cell(shown: Shown, photo: int, column: int) -> str:
    """A picture, and what it has when it is large: its name, its neighbors, and the way back."""
    picture = shown.pictures.get((photo, column))
    if picture is None:
        failure = shown.failures.get((photo, column))
        return f'<div class="gone">{text(failure)}</div>' if failure is not None else '<div class="gone"></div>'
    key = shown.keys[photo - 1]
    label = "photograph" if column == 0 else _label(shown.columns[column - 1], shown.columns)
    links = [
        _link(shown, photo, column - 1, "&larr;", "column before"),
        _link(shown, photo, column + 1, "&rarr;", "next column"),
        _link(shown, photo - 1, column, "&uarr;", "photograph before"),
        _link(shown, photo + 1, column, "&darr;", "next photograph"),
        "" if column == 0 else f'<a href="#job-{column}">choose</a>',
        "" if picture.path is None else f'<a href="{text(quote(picture.path))}">file</a>',
        f'<a href="#at-{photo}-{column}" title="back">&times;</a>',
    ]
    about = f"<figcaption><b>{text(label)}</b> {text(key)}<nav>{''.join(links)}</nav></figcaption>"
    name = f"picture-{photo}-{column}"
    return f'<figure id="{name}"><a href="#{name}">{_image(picture, f"{key}: {label}")}</a>{about}</figure>'


def _link(shown: Shown, photo: int, column: int, sign: str, title: str) -> str:
    if (photo, column) not in shown.pictures:
        return f"<i>{sign}</i>"
    return f'<a href="#picture-{photo}-{column}" title="{title}">{sign}</a>'


def _image(picture: Picture, alt: str) -> str:
    width, height = picture.size
    source = data_url(picture.jpeg, "image/jpeg")
    return f'<img alt="{text(alt)}" width="{width}" height="{height}" src="{source}">'


def _job(number: int, column: Column) -> str:
    run, stylize = column.commands
    where = f"jobs/{column.name}.toml"
    strength = "" if column.strength == 1 else f", strength {column.strength:g}"
    return (
        f'<section class="job" id="job-{number}">'
        f'<a class="close" href="#column-{number}" title="close">&times;</a>'
        f"<h2>{text(column.style.shown)}{strength}</h2><p>All photographs, with "
        f'<a href="{text(quote(where))}">the job file</a>:</p><pre>{text(run)}</pre>'
        f"<p>Or without it:</p><pre>{text(stylize)}</pre>"
        f"<details><summary>The job file</summary><pre>{_lines(column.text)}</pre></details>"
        "<p><small>A click selects a whole line to copy.</small></p></section>"
    )


def _lines(plain: str) -> str:
    return "\n".join(text(line) for line in plain.splitlines())


_STYLE = """
body { max-width: none; } header p { margin: .3rem 0 .8rem; }
.scroll { overflow: auto; max-height: max(24rem, calc(100vh - 9.5rem));
  border: 1px solid #8884; border-radius: 8px; --w: clamp(104px, 13vw, 220px); }
.preview { border-collapse: separate; border-spacing: 0; }
.preview th, .preview td { border: 0; padding: 3px; text-align: center; font-weight: normal; }
.preview th { background: Canvas; z-index: 1; }
.preview tbody td, .preview tbody th { vertical-align: top; }
.preview thead th { vertical-align: bottom; }
.preview .first { border-left: 1px solid #8884; }
.preview thead { position: sticky; top: 0; z-index: 3; }
.preview tfoot { position: sticky; bottom: 0; z-index: 3; background: Canvas; }
.preview th:first-child { position: sticky; left: 0; }
.preview th span { display: block; margin: 0 auto; max-width: var(--w); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; font-size: .8rem; }
.preview thead img { width: auto; height: auto; max-width: calc(var(--w) * .6); max-height: 84px;
  border-radius: 3px; display: block; margin: 0 auto; }
.preview .strengths th { font-size: .8rem; padding-top: 0; }
.preview figure { margin: 0; }
.preview figure img { display: block; width: var(--w); height: auto; max-height: calc(var(--w) * 1.5);
  object-fit: contain; border-radius: 3px; }
.preview figcaption { display: none; }
.preview .gone { width: var(--w); box-sizing: border-box; min-height: 4rem; }
.preview :has(> figure:target) { z-index: 20; }
.preview figure:target { position: fixed; inset: 0; z-index: 20; background: #111; color: #eee; display: flex;
  flex-direction: column; align-items: center; justify-content: center; gap: .5rem; padding: .5rem; }
.preview figure:target > a { pointer-events: none; min-height: 0; flex: 1; display: flex; }
.preview figure:target img { width: min(96vw, 1400px); height: 100%; max-height: none; }
.preview figure:target figcaption { display: block; text-align: center; overflow-wrap: anywhere; }
figcaption nav { display: flex; gap: .3rem; justify-content: center; margin-top: .3rem; }
figcaption nav > * { padding: .35rem .7rem; border: 1px solid #666; border-radius: 6px; color: #eee;
  text-decoration: none; font-style: normal; }
figcaption nav > i { opacity: .3; }
.job { display: none; }
.job:target { display: block; position: fixed; left: 0; right: 0; bottom: 0; z-index: 15; max-height: 80vh;
  overflow: auto; background: Canvas; border-top: 3px solid #d90; padding: .8rem 1.5rem;
  box-shadow: 0 0 2rem #0008; }
.job h2 { margin: 0; } .job p { margin: .5rem 0 .2rem; }
.job pre { margin: 0; padding: .5rem; background: #8882; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; user-select: all; }
.job .close { float: right; font-size: 1.6rem; line-height: 1; text-decoration: none; padding: 0 .4rem; }
@media (max-width: 600px) { body { padding: .6rem; } .scroll { --w: 104px; }
  .preview th span { font-size: .7rem; } }
"""
