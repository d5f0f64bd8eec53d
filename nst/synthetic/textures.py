"""Families of textures, each drawn from a seed: material for a feature network to learn from.

Every function takes `size` (height, width) in pixels and a seed and gives uint8 (H, W, 3). That networks learn
from pictures nobody took: Baradad et al. 2021 ("Learning to See by Looking at Noise"), Kataoka et al. 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["TEXTURES", "dead_leaves", "fractal", "hatching", "noise", "voronoi_mosaic"]

Floats: TypeAlias = npt.NDArray[np.float64]
Picture: TypeAlias = npt.NDArray[np.uint8]


def dead_leaves(size: tuple[int, int], seed: int) -> Picture:
    """Opaque discs and boxes of all sizes, plain, shaded or striped, each hiding what lies below (Lee, Mumford,
    Huang 2001)."""
    random = np.random.default_rng(seed)
    y, x = _grid(size)
    palette = _palette(random, 6)
    picture = np.broadcast_to(palette[0], (*size, 3)).copy()
    short = min(size)
    smallest = random.uniform(1.5, 5.0)
    for _ in range(round(random.uniform(60, 220))):
        radius = smallest * (short / 3 / smallest) ** random.random() ** 2
        center = random.uniform(0, 1, 2) * size
        turned = _turned(y - center[0], x - center[1], random.uniform(0, np.pi))
        if random.random() < 0.6:
            inside = np.hypot(turned[0], turned[1] * random.uniform(1, 2)) < radius
        else:
            inside = (np.abs(turned[0]) < radius) & (np.abs(turned[1]) < radius * random.uniform(0.4, 1))
        color = palette[random.integers(len(palette))] + random.normal(0, 0.05, 3)
        kind = random.random()
        if kind < 0.4:
            fill = np.broadcast_to(color, (*size, 3))
        elif kind < 0.7:
            fill = color + (0.4 * turned[0] / radius * random.uniform(-1, 1))[..., None]
        else:
            stripes = np.sin(turned[0] * 2 * np.pi / random.uniform(2.5, 9) + random.uniform(0, 6)) > 0
            fill = np.where(stripes[..., None], color, palette[random.integers(len(palette))])
        picture[inside] = fill[inside]
    return _bytes(picture)


def fractal(size: tuple[int, int], seed: int) -> Picture:
    """The attractor of a random iterated function system, its density as brightness (Barnsley 1988)."""
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 6))
    maps = random.uniform(-1, 1, (count, 2, 2))
    for index in range(count):  # contracting, but not to a point
        left, values, right = np.linalg.svd(maps[index])
        maps[index] = left @ np.diag(np.clip(values, 0.3, 0.85)) @ right
    shifts = random.uniform(-1, 1, (count, 2))
    chance = np.abs(np.linalg.det(maps)) + 0.05
    points = random.uniform(-1, 1, (512, 2))
    orbit, which = [], []
    for step in range(140):
        chosen = random.choice(count, len(points), p=chance / chance.sum())
        points = np.einsum("nij,nj->ni", maps[chosen], points) + shifts[chosen]
        if step >= 20:
            orbit.append(points)
            which.append(chosen)
    places, marks = np.concatenate(orbit), np.concatenate(which)
    low, high = np.percentile(places, 2, axis=0), np.percentile(places, 98, axis=0)
    pixels = ((places - low) / (high - low + 1e-9) * (np.array(size) - 1)).round().astype(int)
    seen = ((pixels >= 0) & (pixels < size)).all(axis=1)
    flat = pixels[seen, 0] * size[1] + pixels[seen, 1]
    palette = _palette(random, count + 1)
    density = np.stack([np.bincount(flat[marks[seen] == n], minlength=size[0] * size[1]) for n in range(count)])
    light = np.log1p(density) / np.log1p(density.max())
    cover = np.clip(light.sum(axis=0) * 2, 0, 1)[:, None]
    ink = light.T @ palette[1:] / (light.sum(axis=0)[:, None] + 1e-9)
    return _bytes((palette[0] * (1 - cover) + ink * cover).reshape(*size, 3))


def voronoi_mosaic(size: tuple[int, int], seed: int) -> Picture:
    """Tiles: the cells of scattered points, each of one color, with grout between."""
    random = np.random.default_rng(seed)
    y, x = _grid(size)
    pitch = random.uniform(7, 30)
    rows, columns = (round(side / pitch) + 3 for side in size)
    lattice = np.moveaxis(np.mgrid[-1 : rows - 1, -1 : columns - 1], 0, -1).reshape(-1, 2) + 0.5
    points = (lattice + random.normal(0, random.uniform(0.05, 0.4), lattice.shape)) * pitch
    stretch = random.uniform(0.6, 1.6)
    first = np.full(size, np.inf)
    second, cell = first.copy(), np.zeros(size, int)
    for index, (py, px) in enumerate(points):
        distance = np.hypot(y - py, (x - px) * stretch)
        nearer = distance < first
        second = np.where(nearer, first, np.minimum(second, distance))
        cell[nearer] = index
        first = np.where(nearer, distance, first)
    palette = _palette(random, 5)
    colors = palette[random.integers(1, 5, len(points))] + random.normal(0, 0.06, (len(points), 3))
    grout = second - first < random.uniform(0.8, 3.0)
    shade = 1 - random.uniform(0, 0.5) * (first / pitch)[..., None]
    return _bytes(np.where(grout[..., None], palette[0], colors[cell] * shade))


def hatching(size: tuple[int, int], seed: int) -> Picture:
    """Pen lines in a few directions, wavering and broken, darker where a hidden tone is."""
    random = np.random.default_rng(seed)
    y, x = _grid(size)
    paper, ink = _palette(random, 2)
    tone = _spectrum(random, size, 2.5)
    cover = np.zeros(size)
    base = random.uniform(0, np.pi)
    for layer in range(int(random.integers(1, 4))):
        angle = base + layer * random.uniform(0.5, 1.6)
        across, _ = _turned(y, x, angle)
        waver = _spectrum(random, size, 2.5) * random.uniform(0, 2)
        pitch = random.uniform(3, 12)
        line = np.abs((across + waver) / pitch % 1 - 0.5) * pitch
        width = random.uniform(0.5, 0.3 * pitch) * np.clip(1 + 0.5 * tone, 0.3, 2)
        drawn = np.clip(width - line + 0.5, 0, 1) * (tone > random.uniform(-2, 0.5) - 0.3 * layer)
        cover = np.maximum(cover, drawn)
    return _bytes(paper + (ink - paper) * cover[..., None])


def noise(size: tuple[int, int], seed: int) -> Picture:
    """Gaussian noise with a power-law spectrum, stretched along a direction, through a ramp of colors."""
    random = np.random.default_rng(seed)
    power, stretch, angle = random.uniform(0.2, 2.2), random.uniform(1, 5), random.uniform(0, np.pi)
    field = _spectrum(random, size, power, stretch, angle)
    if random.random() < 0.4:
        field = np.abs(field) if random.random() < 0.5 else np.sin(field * random.uniform(2, 6))
    palette = _palette(random, 4)
    place = np.clip((field + 2) / 4, 0, 1 - 1e-9) * 3
    low = place.astype(int)
    part = (place - low)[..., None]
    picture = palette[low] * (1 - part) + palette[low + 1] * part
    return _bytes(picture + random.uniform(0, 0.1) * _spectrum(random, size, 0.0)[..., None])


TEXTURES: Mapping[str, Callable[[tuple[int, int], int], Picture]] = MappingProxyType(
    {
        "dead_leaves": dead_leaves,
        "fractal": fractal,
        "hatching": hatching,
        "noise": noise,
        "voronoi_mosaic": voronoi_mosaic,
    }
)


def _grid(size: tuple[int, int]) -> tuple[Floats, Floats]:
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    return y, x


def _turned(y: Floats, x: Floats, angle: float) -> tuple[Floats, Floats]:
    c, s = np.cos(angle), np.sin(angle)
    return c * y + s * x, c * x - s * y


def _palette(random: np.random.Generator, count: int) -> Floats:
    """(count, 3) in about [0, 1]: a random base and range, so that some are vivid and some nearly gray."""
    light = random.permutation(np.linspace(random.uniform(0, 0.35), random.uniform(0.65, 1), count))
    return light[:, None] + random.normal(0, random.uniform(0.02, 0.3), (count, 3))


def _spectrum(
    random: np.random.Generator, size: tuple[int, int], power: float, stretch: float = 1.0, angle: float = 0.0
) -> Floats:
    """Noise (H, W) of zero mean and unit variance whose amplitude falls as frequency^-power."""
    fy, fx = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij")
    along, across = _turned(fy, fx, angle)
    frequency = np.hypot(along, across * stretch)
    frequency[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(random.normal(size=size)) * np.maximum(frequency, 0.01) ** -power).real
    field -= field.mean()
    unit: Floats = field / (field.std() + 1e-9)
    return unit


def _bytes(picture: Floats) -> Picture:
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
