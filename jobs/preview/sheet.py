"""The contact sheet of a preview: photographs are rows, styles are columns. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from jobs.preview.column import Column, spans_of

__all__ = ["Cells", "cell_px", "contact_sheet"]

Cells = Mapping[tuple[int, int], Image.Image]
"""Pictures by row and column, from 0."""

_GAP_PX = 6
_TEXT_PX = 16
_LINE_PX = 22
_WIDEST_PX = 9000
_CELL_PX, _LEAST_CELL_PX = 240, 96
_TALLEST = 1.5
"""Height of a cell at most, relative to its width."""


def cell_px(columns: int) -> int:
    """Width of pictures on a sheet with so many columns besides the photographs'."""
    return max(_LEAST_CELL_PX, min(_CELL_PX, _WIDEST_PX // (columns + 1) - _GAP_PX))


def contact_sheet(
    photos: Sequence[tuple[str, Image.Image]],
    columns: Sequence[Column],
    styles: Mapping[str, Image.Image],
    cells: Cells,
) -> Image.Image:
    """Draw photographs, with their keys, and what has been painted of them in each column.

    Args:
        styles: style pictures by their names.
        cells: what is missing stays gray.
    """
    side = cell_px(len(columns))
    heights = [_fitted(photo.size, side)[1] for _, photo in photos]
    spans = spans_of(columns)
    strengths = len(columns) > len(spans)
    thumbs = [_small(styles[columns[span.start].style.name], side, 0.5) for span in spans]
    head = max(thumb.height for thumb in thumbs) + (3 if strengths else 2) * _GAP_PX
    head += _LINE_PX * (2 if strengths else 1)
    step = side + _GAP_PX
    size = (_GAP_PX + (len(columns) + 1) * step, head + sum(heights) + len(photos) * (_LINE_PX + _GAP_PX))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for span, thumb in zip(spans, thumbs, strict=True):
        left, width = _GAP_PX + (span.start + 1) * step, len(span) * step - _GAP_PX
        bottom = head - _GAP_PX - _LINE_PX * (2 if strengths else 1)
        sheet.paste(thumb, (left + (width - thumb.width) // 2, bottom - thumb.height))
        _write(draw, columns[span.start].style.shown, left, bottom, width, center=True)
        for column in span if strengths else ():
            place = _GAP_PX + (column + 1) * step
            _write(draw, f"{columns[column].strength:g}", place, bottom + _LINE_PX, side, center=True)
    top = head
    for row, ((key, photo), height) in enumerate(zip(photos, heights, strict=True)):
        _put(sheet, photo, _GAP_PX, top, side, height)
        _write(draw, key, _GAP_PX, top + height, side)
        for column in range(len(columns)):
            place = _GAP_PX + (column + 1) * step
            picture = cells.get((row, column))
            if picture is None:
                draw.rectangle((place, top, place + side - 1, top + height - 1), "#dddddd")
            else:
                _put(sheet, picture, place, top, side, height)
        top += height + _LINE_PX + _GAP_PX
    for span in spans if strengths else ():
        across = (span.start + 1) * step + _GAP_PX // 2 - 1
        draw.line((across, 0, across, size[1]), "#bbbbbb")
    return sheet


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height of a picture in its cell."""
    scale = min(side / size[0], _TALLEST * side / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _small(picture: Image.Image, side: int, share: float) -> Image.Image:
    """A picture within a square of this share of a cell."""
    found = picture.copy()
    found.thumbnail((round(share * side),) * 2, Image.Resampling.LANCZOS)
    return found


def _put(sheet: Image.Image, picture: Image.Image, left: int, top: int, side: int, height: int) -> None:
    """Put a picture in the middle of its cell."""
    width, own = _fitted(picture.size, side)
    small = picture.resize((width, own), Image.Resampling.LANCZOS)
    sheet.paste(small, (left + (side - width) // 2, top + (height - own) // 2))


def _write(
    draw: ImageDraw.ImageDraw, text: str, left: int, top: int, width: int, *, center: bool = False
) -> None:
    """Write a line, cut to a width."""
    font = ImageFont.load_default(_TEXT_PX)
    shown = text = "".join(c if c.isprintable() else "?" for c in text)
    while draw.textlength(shown, font=font) > width and text:
        text = text[:-1]
        shown = f"{text.rstrip()}..."
    if center:
        left += round((width - draw.textlength(shown, font=font)) / 2)
    draw.text((left, top + 1), shown, fill="black", font=font)
