"""Render the pictures beside this file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nst.styles import STYLES
from nst.synthetic import strokes, textures

__all__ = ["main"]

_SIDE_PX = 256


def main() -> None:
    for name, (kind, seed) in STYLES.items():
        render = getattr(strokes if kind == "brush_strokes" else textures, kind)
        picture = Image.fromarray(np.asarray(render((_SIDE_PX, _SIDE_PX), seed=seed)))
        picture.save(Path(__file__).parent / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
