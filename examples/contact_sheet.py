"""Style transfer's options side by side, each on two photographs, with the embedded network.

    python -m examples.contact_sheet options.png        # from the repository; some minutes on one core
    python examples/contact_sheet.py options.png

The photographs are scikit-image's (`pip install 'nst[demo]'`); the style pictures are rendered here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import nst
from jobs.demo import sample_photographs
from nst.features import read_state_dict
from nst.features.weights import published_bytes
from nst.images.codec import picture_tensor
from nst.style_transfer.method import StyleTransfer
from nst.stylizer import Stylized, Stylizer
from nst.synthetic import brush_strokes, hatching, voronoi_mosaic

PHOTOS = ("chelsea.png", "coffee.png")
SIDE_PX, STYLE_PX, LABEL_PX, GAP_PX, COLUMNS = 184, 256, 16, 4, 4

STROKES, HATCHING, MOSAIC = "strokes", "hatching", "mosaic"
# Fewer than the preset has, which is enough at this size.
STEPS = {"steps": 25, "coarse_steps": 20}
LEFT, RIGHT = "left half", "right half"
# Normalized gradients do not depend on how losses are scaled: their weights count among themselves alone.
NORMALIZED = {"normalize_gradients": True, "content_weight": 1.0, "style_weight": 30.0}

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "plain (pooling = average)": {},
    "style_scale = 0.5": {"style_scale": 0.5},
    "style_scale = 2": {"style_scale": 2.0},
    "preserve_color = luminance": {"preserve_color": "luminance"},
    "preserve_color = match": {"preserve_color": "match"},
    "style = [strokes, mosaic]": {"style": (STROKES, MOSAIC)},
    "style_masks: strokes | hatching": {"style": (STROKES, HATCHING), "style_masks": (LEFT, RIGHT)},
    "pooling = max": {"pooling": "max"},
    "pooling = l2": {"pooling": "l2"},
    "preset = gatys": {"preset": "gatys"},
    "normalize_gradients": NORMALIZED,
    "tv_weight = 100": {"tv_weight": 100.0},
    "init = noise, content_weight = 3": {"init": "noise", "content_weight": 3.0},
    "optimizer = adam": {"optimizer": "adam"},
    "precision = bfloat16": {"precision": "bfloat16"},
    "pass_memory_mb = 40 (tiles)": {"pass_memory_mb": 40},
}


def main(target: Path) -> None:
    torch.set_num_threads(1)
    state = read_state_dict(published_bytes("nst:embedded"))
    styles = {
        name: picture_tensor(draw((STYLE_PX, STYLE_PX), seed=0))
        for name, draw in ((STROKES, brush_strokes), (HATCHING, hatching), (MOSAIC, voronoi_mosaic))
    }
    photos = [photograph(name) for name in PHOTOS]
    tiles = [("photograph", photos), *(("style: " + name, [style]) for name, style in styles.items())]
    for label, options in OPTIONS.items():
        tiles.append((label, list(painted(photos, styles, state, options))))
        print(label, flush=True)
    sheet(tiles, [(photo.shape[1], photo.shape[2]) for photo in photos]).save(target, quality=82)


def painted(
    photos: list[Tensor], styles: Mapping[str, Tensor], state: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterator[Tensor]:
    method = StyleTransfer(**{"style": STROKES, "network": "embedded", **STEPS, **options})
    names = [method.style] if isinstance(method.style, str) else method.style
    left = (torch.arange(100) < 50).float().expand(1, 100, 100).contiguous()
    halves = {LEFT: left, RIGHT: 1 - left}
    masks = None if method.style_masks is None else [halves[name] for name in method.style_masks]
    stylizer = method.build_from([styles[name] for name in names], state, torch.device("cpu"), masks=masks)
    return (each.image for each in stylized(stylizer, photos))


def stylized(stylizer: Stylizer, photos: list[Tensor]) -> Iterator[Stylized]:
    for outcome in stylizer(photos, [torch.Generator().manual_seed(0) for _ in photos]):
        if not isinstance(outcome, Stylized):
            raise outcome
        yield outcome


def photograph(name: str) -> Tensor:
    return nst.decode_image((sample_photographs() / name).read_bytes(), max_side_px=SIDE_PX)


def sheet(tiles: list[tuple[str, list[Tensor]]], sizes: list[tuple[int, int]]) -> Image.Image:
    """Rows of tiles; a tile is a label over a picture of each photograph."""
    width = sum(size[1] for size in sizes) + GAP_PX * len(sizes)
    height = max(size[0] for size in sizes) + LABEL_PX + GAP_PX
    rows = -(-len(tiles) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * width + GAP_PX, rows * height + GAP_PX), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for number, (label, images) in enumerate(tiles):
        x, y = GAP_PX + number % COLUMNS * width, GAP_PX + number // COLUMNS * height
        draw.text((x, y), label, fill="black", font=font)
        for image, (tall, wide) in zip(images, sizes, strict=False):  # a style stands alone
            levels = image.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            tile = Image.fromarray(levels)
            tile.thumbnail((wide, tall))
            page.paste(tile, (x, y + LABEL_PX))
            x += wide + GAP_PX
    return page


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
