"""Patches that the embedded network is taught on: of photographs, of pictures, and rendered ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from nst.synthetic import TEXTURES, brush_strokes

__all__ = ["Picture", "cut_patches", "is_held_out", "rendered_patches"]

Picture: TypeAlias = npt.NDArray[np.uint8]

_STROKES = 0.4  # of the rendered patches; textures are the others
_HELD_OUT_OF = 12
_LEAST_PX = 80  # of a square that becomes a patch
_STROKE_PATCHES = 16  # of one painting


def is_held_out(name: str) -> bool:
    """Whether a file, by its name without the folder, is kept from trainings for measuring: one of twelve."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % _HELD_OUT_OF == 0


def cut_patches(pictures: Sequence[Picture], *, count: int, side: int, seed: int) -> Picture:
    """Random squares of `pictures` (H, W, 3), of each in turn: uint8 (count, side, side, 3). Squares of less
    than `side` pixels are enlarged."""
    random = np.random.default_rng(seed)
    start = int(random.integers(len(pictures)))
    return np.stack(
        [_square(pictures[(start + index) % len(pictures)], random, side) for index in range(count)]
    )


def rendered_patches(*, count: int, side: int, seed: int) -> Picture:
    """Painted strokes and textures: uint8 (count, side, side, 3)."""
    random = np.random.default_rng(seed)
    strokes = round(_STROKES * count)
    found = []
    for index in range(strokes):
        if index % _STROKE_PATCHES == 0:
            painting = np.asarray(brush_strokes((3 * side, 3 * side), seed=seed + index))
        found.append(_square(painting, random, side))
    families = tuple(TEXTURES.values())
    for index in range(count - strokes):
        found.append(np.asarray(families[index % len(families)]((side, side), seed + index)))
    return np.stack(found)


def _square(picture: Picture, random: np.random.Generator, side: int) -> Picture:
    """A random square, at most four times as large as what it is seen as, resized to (side, side, 3)."""
    shorter = min(picture.shape[:2])
    most = min(shorter, 4 * side)
    size = int(np.exp(random.uniform(np.log(min(_LEAST_PX, most)), np.log(most + 1))))
    top, left = (int(random.integers(length - size + 1)) for length in picture.shape[:2])
    square = Image.fromarray(picture[top : top + size, left : left + size])
    return np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))
