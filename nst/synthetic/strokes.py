"""Layered brush strokes that follow swirling flow lines."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["brush_strokes"]

Floats: TypeAlias = npt.NDArray[np.float64]

# A night from dark to light, and the lights that glow around the eddies.
_COOL = np.array(
    [[10, 18, 66], [18, 42, 120], [24, 78, 170], [36, 124, 200], [92, 186, 214], [176, 222, 214]], float
)
_WARM = np.array([[255, 238, 150], [252, 206, 52], [242, 150, 26], [206, 84, 24]], float)

# Per layer: width and length of a stroke as fractions of the short side, and how many times over the strokes
# of the layer would cover the canvas.
_LAYERS = ((0.075, 0.34, 3.5), (0.045, 0.24, 2.5), (0.026, 0.15, 1.3))
_OVERSAMPLE = 3  # drawn larger and reduced, for smooth edges
_PIECES = 12  # straight ones in a stroke


def brush_strokes(size: tuple[int, int], seed: int) -> npt.NDArray[np.uint8]:
    """Paint a picture of `size` (height, width) pixels: uint8 (H, W, 3). Equal seed, equal picture.

    Strokes are fractions of the short side, so that another size is the same picture, larger or smaller.
    """
    height, width = size
    random = np.random.default_rng(seed)
    unit = min(height, width) * _OVERSAMPLE
    extent = np.array([height, width]) / min(height, width)
    flow = _Flow(random, extent)
    canvas = Image.new("RGB", (width * _OVERSAMPLE, height * _OVERSAMPLE), (18, 42, 120))
    draw = ImageDraw.Draw(canvas)
    for thick, length, cover in _LAYERS:
        count = round(cover * float((extent + length).prod()) / (thick * length))
        starts = random.uniform(-0.5 * length, extent + 0.5 * length, (count, 2))
        colors = _stroke_colors(random, flow, starts)
        paths, normals = _trace(flow, starts, length * random.uniform(0.6, 1.2, count))
        for path, normal, color in zip(paths, normals, colors, strict=True):
            _paint(draw, random, path, normal, color, thick, unit)
    return np.asarray(canvas.resize((width, height), Image.Resampling.LANCZOS))


class _Flow:
    """A smooth direction field on the plane, whose short side is 1: a slow wave plus eddies."""

    def __init__(self, random: np.random.Generator, extent: Floats) -> None:
        count = max(3, round(5 * float(extent.prod())))
        # Best-candidate sampling keeps the eddies apart.
        centers = random.uniform(0.05, 0.95, (1, 2)) * extent
        while len(centers) < count:
            tries = random.uniform(0.05, 0.95, (24, 2)) * extent
            gaps = np.linalg.norm(tries[:, None] - centers, axis=2).min(axis=1)
            centers = np.vstack([centers, tries[gaps.argmax()]])
        self.centers = centers
        self.radii = random.uniform(0.12, 0.22, count)
        self.spins = random.choice([-1.0, 1.0], count)
        self.phases = random.uniform(0, 2 * np.pi, 4)
        self.heading = random.uniform(-0.4, 0.4)

    def direction(self, points: Floats) -> Floats:
        """Unit vectors (n, 2), y first, at points (n, 2)."""
        y, x = points.T
        a, b = self.phases[:2]
        angle = self.heading + 0.7 * np.sin(4.1 * x + 1.7 * y + a) + 0.5 * np.sin(5.3 * y - 2.2 * x + b)
        field = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        offsets = points[:, None] - self.centers
        away = np.linalg.norm(offsets, axis=2) + 1e-6
        pull = 4.0 * self.spins * np.exp(-((away / self.radii) ** 2) / 1.6) / away
        turned = np.stack([offsets[..., 1], -offsets[..., 0]], axis=2)
        field += (pull[..., None] * turned).sum(axis=1)
        unit: Floats = field / (np.linalg.norm(field, axis=1, keepdims=True) + 1e-9)
        return unit

    def tone(self, points: Floats) -> tuple[Floats, Floats]:
        """Lightness of the night in [0, 1], and the distance to the nearest eddy in its radii."""
        y, x = points.T
        c, d = self.phases[2:]
        light = 0.42 + 0.26 * np.sin(6.5 * x + 3.1 * y + c) + 0.2 * np.sin(8.3 * y - 3.7 * x + d)
        away = np.linalg.norm(points[:, None] - self.centers, axis=2) / self.radii
        return light, away.min(axis=1)


def _ramp(colors: Floats, position: Floats) -> Floats:
    """Colors (n, 3) at positions in [0, 1] along a list of colors."""
    where = np.clip(position, 0, 1) * (len(colors) - 1)
    low = np.minimum(where.astype(int), len(colors) - 2)
    part = (where - low)[:, None]
    mixed: Floats = colors[low] * (1 - part) + colors[low + 1] * part
    return mixed


def _stroke_colors(random: np.random.Generator, flow: _Flow, points: Floats) -> Floats:
    light, away = flow.tone(points)
    count = len(points)
    cool = _ramp(_COOL, light + random.normal(0, 0.17, count))
    warm = _ramp(_WARM, away / 0.95 + random.normal(0, 0.16, count))
    glows = (away + random.normal(0, 0.12, count) < 0.85) | (random.random(count) < 0.03)
    return np.where(glows[:, None], warm, cool)


def _trace(flow: _Flow, starts: Floats, lengths: Floats) -> tuple[Floats, Floats]:
    """Spines (n, pieces + 1, 2) from each start along the flow, and the normals beside them."""
    spine, normals = [starts], []
    stride = (lengths / _PIECES)[:, None]
    for _ in range(_PIECES):
        way = flow.direction(spine[-1])
        way = flow.direction(spine[-1] + way * stride / 2)  # midpoint rule: eddies stay closed
        normals.append(way[:, ::-1] * (1, -1))
        spine.append(spine[-1] + way * stride)
    normals.append(normals[-1])
    return np.stack(spine, axis=1), np.stack(normals, axis=1)


def _paint(
    draw: ImageDraw.ImageDraw,
    random: np.random.Generator,
    path: Floats,
    normal: Floats,
    color: Floats,
    thick: float,
    unit: int,
) -> None:
    """One stroke: bristles side by side, each of its own shade, in random order."""
    bristles = max(5, round(thick * 150))
    across = np.linspace(-0.5, 0.5, bristles)
    pen = max(1, round(1.5 * thick * unit / bristles))
    opening = np.minimum(
        1, 0.55 + 2.2 * np.sin(np.linspace(0, np.pi, _PIECES + 1))
    )  # the brush lands and lifts
    shade = random.normal(0, 15, bristles) + 26 * across * random.choice([-1, 1])
    first = random.integers(0, 2, bristles)
    last = _PIECES + 1 - random.integers(0, 4, bristles)
    for bristle in random.permutation(bristles):
        line = path + normal * (across[bristle] * thick * opening)[:, None]
        line = line[first[bristle] : last[bristle], ::-1] * unit
        ink = np.clip(color + shade[bristle], 0, 255).astype(int)
        red, green, blue = ink.tolist()
        draw.line([(x, y) for x, y in line.tolist()], fill=(red, green, blue), width=pen, joint="curve")
