"""Pictures too large for one pass, in tiles whose sums are exactly those of the whole.

Every position of every layer is *owned* by one tile. A tile is computed with a margin as wide as the network
looks, so that what it owns is what the whole picture would give; what it does not own is thrown away. Sums over
owned positions add up to the sums over the picture, and gradients of owned positions, scattered to the pixels
that they came from and added, to its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nst.errors import OptionError
from nst.features import FeatureNetwork
from nst.features.networks import Geometry
from nst.memory import pass_bytes

__all__ = [
    "Tile",
    "grid",
    "layer_sizes",
    "layer_strides",
    "least_pixels",
    "max_pass_pixels",
    "owned_features",
    "tile_side",
    "tiles",
]


@dataclass(frozen=True, slots=True)
class Tile:
    """Pixels of a picture: what it owns, and what must be seen for that."""

    rows: slice
    columns: slice
    """Rows and columns of the pixels to be seen."""
    owned: tuple[slice, slice]
    """Pixels that are owned, rows and columns; their ends are open at the picture's own."""

    def cut(self, picture: Tensor) -> Tensor:
        """The pixels to be seen, of (..., H, W)."""
        return picture[..., self.rows, self.columns]

    def pick(self, activations: Tensor, stride: int) -> Tensor:
        """The owned positions among the activations (..., h, w) of this tile's pixels."""
        return activations[
            ...,
            _within(self.owned[0], self.rows.start, stride),
            _within(self.owned[1], self.columns.start, stride),
        ]

    def pick_from_whole(self, activations: Tensor, stride: int) -> Tensor:
        """The owned positions among those (..., h, w) of the whole picture."""
        return activations[..., _within(self.owned[0], 0, stride), _within(self.owned[1], 0, stride)]


def _within(owned: slice, origin: int, stride: int) -> slice:
    start = (owned.start - origin) // stride
    return slice(start, None if owned.stop is None else (owned.stop - origin) // stride)


def owned_features(network: FeatureNetwork, pixels: Tensor, tile: Tile) -> dict[str, Tensor]:
    """What `tile` owns of each layer, (C, h, w), given the pixels (3, H, W) that it sees."""
    strides = layer_strides(network)
    return {layer: tile.pick(each[0], strides[layer]) for layer, each in network(pixels[None]).items()}


def layer_strides(network: FeatureNetwork) -> Mapping[str, int]:
    """Pixels from one position of a layer to the next, by layer."""
    return _geometry(network).strides


def layer_sizes(network: FeatureNetwork, picture: Tensor) -> dict[str, tuple[int, int]]:
    """(h, w) of the activations of a picture (..., H, W), by layer; they are not computed."""
    height, width = picture.shape[-2:]
    return {layer: (height // stride, width // stride) for layer, stride in layer_strides(network).items()}


def tile_side(network: FeatureNetwork, max_pixels: int) -> int:
    """The side of square tiles that, margin included, have at most `max_pixels`; 0: even the smallest has
    more."""
    geometry = _geometry(network)
    step = max(geometry.strides.values())
    side = (math.isqrt(max_pixels) - 2 * geometry.margin_px) // step * step
    return side if side >= _least_side(geometry) else 0


def max_pass_pixels(network: FeatureNetwork, memory_mb: int | None, device: torch.device | None) -> int | None:
    """The pixels of a pass of `memory_mb`, the option `pass_memory_mb`; None: those for which half of the
    device's memory suffices, or the smallest tile; without a device, or tiles, as many as there are.

    Raises:
        OptionError: that is too little for the smallest tile, margin included.
    """
    if device is None or network.geometry is None:
        return None
    geometry = network.geometry
    pixels = int(pass_bytes(device, memory_mb) / geometry.bytes_per_pixel)
    if memory_mb is None:
        return max(pixels, least_pixels(network))
    if tile_side(network, pixels) == 0:
        least = math.ceil(least_pixels(network) * geometry.bytes_per_pixel / 1e6)
        reason = f"a tile of {network.network} needs {least}"
        raise OptionError("pass_memory_mb", memory_mb, reason=reason)
    return pixels


def least_pixels(network: FeatureNetwork) -> int:
    """The pixels of the smallest tile, margin included."""
    geometry = _geometry(network)
    return (_least_side(geometry) + 2 * geometry.margin_px) ** 2


def _least_side(geometry: Geometry) -> int:
    """The side of the smallest tile, as wide as the margin: nine times the work of the whole, and more for
    less."""
    return max(geometry.margin_px, *geometry.strides.values())


def tiles(network: FeatureNetwork, height: int, width: int, side: int) -> Iterator[Tile]:
    """Tiles of `side` pixels, a multiple of the network's largest stride, that own all of a picture."""
    yield from grid(height, width, (side, side), _geometry(network).margin_px)


def grid(height: int, width: int, sides: tuple[int, int], margin: int) -> Iterator[Tile]:
    """Tiles of `sides` pixels, down and across, that own all of a picture, and see `margin` pixels more."""
    for rows, owned_rows in spans(height, sides[0], margin):
        for columns, owned_columns in spans(width, sides[1], margin):
            yield Tile(rows, columns, (owned_rows, owned_columns))


def spans(length: int, side: int, margin: int) -> Iterator[tuple[slice, slice]]:
    for start in range(0, length, side):
        stop = start + side
        last = stop >= length
        seen = slice(max(0, start - margin), length if last else min(length, stop + margin))
        yield seen, slice(start, None if last else stop)


def _geometry(network: FeatureNetwork) -> Geometry:
    assert network.geometry is not None, "checked with the options"
    return network.geometry
