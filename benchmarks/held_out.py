"""Textures of families that the embedded network was never trained on, for its benchmark.

A texture is a structure: drawn again it has other places, and may have other colors, but the same kind and the
same parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FAMILIES", "colored", "structure"]

Floats: TypeAlias = npt.NDArray[np.float64]
Random: TypeAlias = np.random.Generator


def structure(family: str, texture: int, instance: int, side: int) -> Floats:
    """(side, side) in [0, 1]: instance `instance` of texture `texture`; turned and scaled a little."""
    fixed, free = np.random.default_rng([1, texture]), np.random.default_rng([2, texture, instance])
    turn = fixed.uniform(0, np.pi) + free.uniform(-0.25, 0.25)
    scale = free.uniform(0.85, 1.15)
    y, x = np.mgrid[:side, :side] * scale
    y, x = (np.cos(turn) * y + np.sin(turn) * x, np.cos(turn) * x - np.sin(turn) * y)
    y, x = y + free.uniform(0, 500), x + free.uniform(0, 500)
    return np.clip(FAMILIES[family](y, x, fixed, free), 0, 1)


def colored(field: Floats, random: Random | None) -> npt.NDArray[np.uint8]:
    """(H, W, 3): between two colors drawn from `random`, or in gray."""
    low, high = np.full(3, 0.15), np.full(3, 0.85)
    if random is not None:
        low = random.uniform(0, 0.45) + random.normal(0, 0.15, 3)
        high = random.uniform(0.55, 1) + random.normal(0, 0.15, 3)
        if random.random() < 0.3:
            low, high = high, low
    values = np.clip(low + (high - low) * field[..., None], 0, 1) * 255
    return np.asarray(values.round(), dtype=np.uint8)


def _waves(y: Floats, x: Floats, pitch: float, free: Random) -> Floats:
    """A smooth random field of about unit size, with features of `pitch` pixels."""
    field = np.zeros_like(y)
    for _ in range(12):
        angle, phase, octave = free.uniform(0, 2 * np.pi), free.uniform(0, 2 * np.pi), free.uniform(0.6, 1.7)
        field += np.sin((np.cos(angle) * y + np.sin(angle) * x) * 2 * np.pi * octave / pitch + phase)
    return field / 2.5


def _cell(y: Floats, x: Floats) -> npt.NDArray[np.uint64]:
    """A number for each cell of a lattice that looks random."""
    mixed = np.floor(y).astype(np.int64) * 73856093 ^ np.floor(x).astype(np.int64) * 19349663
    return ((mixed.astype(np.uint64) * np.uint64(2654435761)) >> np.uint64(7)) % np.uint64(1024)


def marble(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:
    pitch, warp, sharp = fixed.uniform(8, 26), fixed.uniform(2, 12), fixed.uniform(0.4, 3)
    warped = x + warp * _waves(y, x, fixed.uniform(20, 60), free)
    veins: Floats = np.abs(np.sin(warped * np.pi / pitch)) ** sharp
    return veins


def weave(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:  # noqa: ARG001
    pitch, gap = fixed.uniform(6, 18), fixed.uniform(0.1, 0.4)
    v, u = y / pitch, x / pitch
    over = (np.floor(v) + np.floor(u)) % 2 == 0
    along, across = np.where(over, v, u) % 1, np.where(over, u, v) % 1
    return np.where(np.abs(across - 0.5) > 0.5 - gap / 2, 0, 0.45 + 0.55 * np.sin(np.pi * along))


def arcs(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:
    """Truchet tiles."""
    pitch, width = fixed.uniform(10, 26), fixed.uniform(0.08, 0.25)
    v, u = y / pitch + free.integers(99), x / pitch
    flip = _cell(v, u) % 2 == 0
    a, b = v % 1, np.where(flip, u % 1, 1 - u % 1)
    near = np.minimum(np.abs(np.hypot(a, b) - 0.5), np.abs(np.hypot(1 - a, 1 - b) - 0.5))
    drawn: Floats = np.clip((width - near) * pitch + 0.5, 0, 1)
    return drawn


def rings(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:
    """Wood."""
    pitch, warp, sharp = fixed.uniform(4, 12), fixed.uniform(0.5, 5), fixed.uniform(0.5, 2.5)
    wobble = warp * _waves(y, x * 0.3, fixed.uniform(15, 40), free)
    away = np.hypot(y - y.mean() + 90, (x - x.mean()) * 0.25) + wobble
    ramp: Floats = ((away / pitch) % 1) ** sharp
    return ramp


def bricks(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:
    height, ratio, gap = fixed.uniform(7, 16), fixed.uniform(1.2, 3.5), fixed.uniform(0.06, 0.2)
    v = y / height
    u = x / (height * ratio) + 0.5 * (np.floor(v) % 2)
    tone = 0.45 + 0.5 * _cell(v + free.integers(99), u) / 1024
    joint = (v % 1 < gap) | (u % 1 < gap / ratio)
    return np.where(joint, 0, tone)


def dots(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:
    pitch, radius, soft = fixed.uniform(7, 22), fixed.uniform(0.15, 0.42), fixed.uniform(0.5, 3)
    v, u = y / pitch, x / pitch + 0.5 * (np.floor(y / pitch) % 2) * fixed.integers(0, 2)
    size = radius * (0.7 + 0.5 * _cell(v + free.integers(99), u) / 1024)
    away = np.hypot(v % 1 - 0.5, u % 1 - 0.5)
    return np.clip((size - away) * pitch / soft + 0.5, 0, 1)


def zigzag(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:  # noqa: ARG001
    pitch, period, height = fixed.uniform(5, 14), fixed.uniform(10, 36), fixed.uniform(0.3, 1.2)
    edge = np.abs((x / period) % 1 - 0.5) * 2 * height * period / 2
    return np.clip(4 * np.sin((y + edge) * 2 * np.pi / pitch) * fixed.uniform(0.2, 1) + 0.5, 0, 1)


def scales(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:  # noqa: ARG001
    pitch, squash, power = fixed.uniform(9, 24), fixed.uniform(0.7, 1.3), fixed.uniform(0.5, 3)
    row = np.floor(y / pitch * 2)
    u = (x / pitch + 0.5 * (row % 2)) % 1 - 0.5
    v = (y / pitch * 2) % 1
    away = np.hypot(u, v / 2 * squash)
    return np.where(away < 0.5, (away * 2) ** power, 0.1)


def labyrinth(y: Floats, x: Floats, fixed: Random, free: Random) -> Floats:
    """Waves of one length in all directions, cut at a level."""
    pitch, level, spread = fixed.uniform(6, 20), fixed.uniform(-0.5, 0.5), fixed.uniform(0.3, np.pi)
    field = np.zeros_like(y)
    for _ in range(20):
        angle, phase = free.uniform(-spread, spread), free.uniform(0, 2 * np.pi)
        field += np.sin((np.cos(angle) * y + np.sin(angle) * x) * 2 * np.pi / pitch + phase)
    return np.clip(2 * (field / 3.2 - level) + 0.5, 0, 1)


FAMILIES: dict[str, Callable[[Floats, Floats, Random, Random], Floats]] = {
    each.__name__: each for each in (marble, weave, arcs, rings, bricks, dots, zigzag, scales, labyrinth)
}
