"""One photograph in every style that comes with the package, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nst.features.weights import published_bytes
from nst.feed_forward.method import SHIPPED, FeedForward
from nst.images.codec import decode_image, picture_of, reduced, resize_image
from nst.styles import PREFIX, STYLES, style_bytes
from nst.stylizer import Stylized

__all__ = ["styles_sheet"]

_COLUMNS = 4
_TEXT_PX = 20
_STYLE_SHARE = 0.3
"""Side of the style picture in a corner, relative to the photograph's."""


def styles_sheet(photo: Tensor, side_px: int = 320) -> Image.Image:
    """Paint a photograph (3, H, W) in [0, 1] in each style, `side_px` long, with the style in a corner and its
    name below."""
    small = reduced(photo, side_px)
    assets = {PREFIX + name: style_bytes(PREFIX + name) for name in STYLES}
    method = FeedForward(style=tuple(assets))
    stylizer = method.build({**assets, SHIPPED: published_bytes(SHIPPED)}, torch.device("cpu"))
    names = list(STYLES)
    painted = stylizer([small] * len(names), [torch.Generator()] * len(names), names)
    cells = []
    for name, outcome in zip(names, painted, strict=True):
        assert isinstance(outcome, Stylized)
        cells.append(_cell(name, outcome.image, decode_image(assets[PREFIX + name])))
    return _together(cells)


def _cell(name: str, picture: Tensor, style: Tensor) -> Image.Image:
    side = max(8, round(_STYLE_SHARE * min(picture.shape[1:])))
    corner = resize_image(style, (side, side))
    picture = picture.clone()
    picture[:, -side:, -side:] = corner[:, : picture.shape[1], : picture.shape[2]]
    image = picture_of(picture)
    cell = Image.new("RGB", (image.width, image.height + _TEXT_PX), "white")
    cell.paste(image, (0, 0))
    font = ImageFont.load_default(0.7 * _TEXT_PX)
    ImageDraw.Draw(cell).text((2, image.height + 2), name, fill="black", font=font)
    return cell


def _together(cells: Sequence[Image.Image]) -> Image.Image:
    width, height = cells[0].size
    rows = -(-len(cells) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % _COLUMNS * width, number // _COLUMNS * height))
    return sheet
