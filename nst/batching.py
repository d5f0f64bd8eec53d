"""How photographs share one pass through a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

__all__ = ["by_shape"]


def by_shape(images: Sequence[Tensor]) -> Iterable[list[int]]:
    """Indices of `images` in groups that may be stacked: equal shapes, in order of first appearance.

    On a CPU every image stands alone. Its convolutions round differently for different batch sizes, so that a
    picture's last bits would depend on its neighbors, and sharing a pass saves no time there.
    """
    groups: dict[object, list[int]] = {}
    for index, image in enumerate(images):
        key: object = index if image.device.type == "cpu" else tuple(image.shape)
        groups.setdefault(key, []).append(index)
    return groups.values()
