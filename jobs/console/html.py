"""Text, tables and curves as HTML, and pages that open from disk, load nothing, and run nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["chart", "curve_line", "page", "settings", "table", "text"]

_MAX_POINTS = 300


def page(title: str, body: str, style: str = "") -> str:
    """A whole page.

    Args:
        title: plain text, which is escaped.
        body: HTML.
        style: CSS of its own, after that of all pages.
    """
    return _PAGE.format(title=text(title), style=_STYLE + style, body=body)


def curve_line(
    losses: Sequence[tuple[int, float]], what: str, unit: str = "evaluation", most: int = _MAX_POINTS
) -> tuple[str, str]:
    """A line through (place, loss), on a logarithmic scale unless a loss is not positive: an SVG polyline's
    points, 300 wide and 50 high, at most `most` and the last; and what it shows."""
    step = math.ceil(len(losses) / most)
    points = [*losses[:-1:step], losses[-1]]
    logarithmic = all(loss > 0 for _, loss in points)
    heights = [math.log(loss) if logarithmic else loss for _, loss in points]
    (first, before), (last, after) = points[0], points[-1]
    width, low, high = max(1, last - first), min(heights), max(heights)
    drawn = " ".join(
        f"{300 * (number - first) / width:.1f},{50 * (high - height) / ((high - low) or 1):.1f}"
        for (number, _), height in zip(points, heights, strict=True)
    )
    scale = "logarithmic" if logarithmic else "linear"
    return drawn, f"loss of {what}: {before:.4g} at {unit} {first}, {after:.4g} at {last}; {scale} scale"


def _curve(losses: Sequence[tuple[int, float]], what: str, unit: str = "evaluation") -> str:
    """A `curve_line` as SVG."""
    drawn, title = curve_line(losses, what, unit)
    return (
        '<svg class="curve" role="img" viewBox="0 0 300 50" preserveAspectRatio="none">'
        f'<title>{text(title)}</title><polyline points="{drawn}"/></svg>'
    )


def chart(points: Sequence[tuple[int, float]], what: str, place: str, unit: str) -> str:
    """A curve with axes: its least and greatest value, and its first and last place.

    Args:
        place: what the places are numbers of, as `step`.
        unit: that of the values, as `s`; empty: they have none.
    """
    values = [value for _, value in points]
    end = f" {text(unit)}" if unit else ""
    (first, _), (last, _) = points[0], points[-1]
    return (
        f'<div class="chart"><div class="scale"><span>{max(values):.4g}{end}</span>'
        f"<span>{min(values):.4g}{end}</span></div>{_curve(points, what, place)}"
        f'<div class="places"><span>{text(place)} {first}</span><span>{last}</span></div></div>'
    )


def settings(options: Mapping[str, Any]) -> str:
    """A section with all options, those of inner tables under the names of these."""
    return f"<section><h2>Settings</h2>{table(('option', 'value'), _flat(options))}</section>"


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of plain text, which is escaped."""
    header = "".join(f"<th>{text(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table>"


def text(plain: str) -> str:
    """`plain`, escaped for HTML text and attributes; characters that do not print are shown, not obeyed."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain)
    return escape(shown.encode("utf-8", "backslashreplace").decode(), quote=True)


# The policy lets the page use its own style and embedded pictures, and nothing else.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>{body}</body></html>
"""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1560px; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
.note { border-left: 3px solid #d90; padding-left: .7rem; }
.gone { border: 1px dashed #888; padding: .5rem; overflow-wrap: anywhere; font-size: .85rem; }
table { border-collapse: collapse; } th { text-align: left; }
th, td { border-bottom: 1px solid #8884; padding: .2rem .8rem .2rem 0; vertical-align: top; }
td { overflow-wrap: anywhere; }
"""
