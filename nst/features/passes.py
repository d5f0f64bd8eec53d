"""How photographs share passes through a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["by_shape", "plan_passes", "stacked"]

_WASTE = 0.25
"""Share of a pass's pixels that may be padding."""


def by_shape(
    images: Sequence[Tensor], kinds: Sequence[object] | None = None, *, alone: bool = False
) -> Iterable[list[int]]:
    """Indices of `images` in groups that may be stacked: equal shapes and `kinds`, in order of appearance; if
    `alone`, each for itself.

    On a CPU every image stands alone. Its convolutions round differently for different batch sizes, so that a
    picture's last bits would depend on its neighbors, and sharing a pass saves no time there.
    """
    groups: dict[object, list[int]] = {}
    for index, image in enumerate(images):
        kind = None if kinds is None else kinds[index]
        key: object = index if alone or image.device.type == "cpu" else (image.shape, kind)
        groups.setdefault(key, []).append(index)
    return groups.values()


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Images of one shape as a batch; a single one is not copied, which may be large."""
    return images[0][None] if len(images) == 1 else torch.stack(list(images))


def plan_passes(sizes: Sequence[tuple[int, int]], max_pixels: int | None = None) -> list[list[int]]:
    """Indices of photographs of `sizes` (height, width) in passes, each on a canvas of its greatest height and
    width: at most a quarter of a pass is padding, and no pass has more than `max_pixels`, unless it is a single
    photograph.

    Photographs are taken by falling height, then width, so that like stands beside like.
    """
    passes: list[list[int]] = []
    height = width = pixels = 0
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index][0], -sizes[index][1], index)):
        tall, wide = max(height, sizes[index][0]), max(width, sizes[index][1])
        area = sizes[index][0] * sizes[index][1]
        canvas = (len(passes[-1]) + 1) * tall * wide if passes else 0
        room = max_pixels is None or canvas <= max_pixels
        if passes and room and (pixels + area) >= (1 - _WASTE) * canvas:
            passes[-1].append(index)
            height, width, pixels = tall, wide, pixels + area
        else:
            passes.append([index])
            (height, width), pixels = sizes[index], area
    return passes
