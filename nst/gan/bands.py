"""Photographs of any size through a generator at bounded memory: a few layers at a time, in bands of rows.

Activations are kept whole at the generator's lowest resolutions only; those of higher ones are computed band by
band, as often as they are needed. A band is computed with a margin as wide as its layers look, so that what it
owns is what the whole picture would give. What an instance norm needs to know of the whole picture is gathered
from all bands before any is normalized.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.features.tiles import spans
from nst.memory import pass_bytes
from nst.ops.equalized import at_least_float32

__all__ = ["BandedNetwork", "Bands", "apply_bounded"]

Layer = Callable[[Tensor], Tensor]

_BAND, _WHOLE = 1 / 8, 3 / 4
"""Shares of the memory: of a band, two of which are there at once, and of activations that are kept whole."""
_FEW = 8192
_COUNTED = 2_000_000_000
"""Elements at most that a GPU's kernel mirrors at the border, which counts them in 32 bits."""


class BandedNetwork(Protocol):
    """A network that can be applied in bands."""

    pixel_bytes: int
    """Memory that a pass takes for activations in float32, about, in bytes for each pixel of an image."""
    mirrored: int
    """Channels at the image's own size that it mirrors at the border; 0: none."""

    def __call__(self, x: Tensor, /, *more: Tensor) -> Tensor: ...

    @property
    def in_bands(self) -> Callable[..., Tensor]:
        """What gives the same for `Bands` and one image, but for rounding."""
        ...


def apply_bounded(network: BandedNetwork, x: Tensor, *more: Tensor, memory_mb: int | None) -> Tensor:
    """`network(x, *more)` for images (N, C, H, W), in one pass if the memory allows it, else one by one, and in
    bands those that are too large for that.

    Args:
        more: other inputs, with a row for each image.
        memory_mb: for activations, in MB; None: half of the memory. On a GPU no more than its kernels count.
    """
    memory = pass_bytes(x.device, memory_mb)
    if x.device.type != "cpu" and network.mirrored:
        memory = min(memory, _COUNTED // network.mirrored * network.pixel_bytes)
    if len(x) * math.prod(x.shape[-2:]) * network.pixel_bytes <= memory:
        return network(x, *more)
    if len(x) > 1:
        each = zip(*(torch.split(tensor, 1) for tensor in (x, *more)), strict=True)
        return torch.cat([apply_bounded(network, *one, memory_mb=memory_mb) for one in each])
    return network.in_bands(Bands(x, int(memory), network.pixel_bytes), x, *more).contiguous()


class Bands:
    """The bands of one image across its longer side, and the memory for what is kept whole.

    Args:
        image: (1, C, H, W), of which size and device matter.
        memory: bytes for activations. A band has at least as many rows as its margin, whatever they take; what
            does not fit of the activations that are kept whole lies in temporary files.
        pixel_bytes: activations that a pass takes, in bytes for each pixel of the image.
    """

    def __init__(self, image: Tensor, memory: int, pixel_bytes: int) -> None:
        self._dim = 2 if image.shape[2] >= image.shape[3] else 3
        self._rows = int(memory * _BAND) // (min(image.shape[2:]) * pixel_bytes)
        self._room = int(memory * _WHOLE)
        self._device = image.device

    @torch.no_grad()
    def apply(
        self,
        layers: Sequence[Layer],
        *sources: Tensor,
        margin: int = 0,
        step: int = 1,
        up: int = 1,
        into: Tensor | None = None,
        add: bool = False,
    ) -> Tensor:
        """What `layers`, one after the other, make of activations (1, C, H, W), or of several side by side.

        They may change height and width by a factor. Instance norms among them see the whole image. There is no
        gradient.

        Args:
            margin: rows of the sources that the result's rows depend on, above and below.
            step: what the bands' first rows are multiples of: the product of the layers' strides.
            up: rows of the result for each of the sources.
            into: where the result goes, which may be one of the sources; None: into a new tensor.
            add: whether it is added to what is there.
        """
        length = sources[0].shape[self._dim]
        rows = max(1, margin, self._rows // up)
        places = list(spans(length, math.ceil(rows / step) * step, margin))
        known: list[Layer] = []
        for layer in layers:
            if isinstance(layer, nn.InstanceNorm2d):
                mean, variance = self._moments(known, sources, places)
                known.append(partial(F.batch_norm, running_mean=mean, running_var=variance, eps=layer.eps))
            else:
                known.append(layer)
        waiting: tuple[Tensor, Tensor] | None = None
        for begin, total, band in self._computed(known, sources, places):
            if into is None:
                into = self._empty(band, total)
            if waiting is not None:  # the next band has seen what is overwritten
                _write(*waiting, add)
            waiting = into.narrow(self._dim, begin, band.shape[self._dim]), band
        assert into is not None
        assert waiting is not None
        _write(*waiting, add)
        return into

    def _computed(
        self, layers: Sequence[Layer], sources: Sequence[Tensor], places: Sequence[tuple[slice, slice]]
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Of each band the first row that it owns of the result, how many the result has, and the rows."""
        dim, length = self._dim, sources[0].shape[self._dim]
        for seen, owned in places:
            count = seen.stop - seen.start
            x = torch.cat([each.narrow(dim, seen.start, count).to(self._device) for each in sources], dim=1)
            for layer in layers:
                x = layer(x)
            stop = length if owned.stop is None else owned.stop
            first, begin, end, total = (
                row * x.shape[dim] // count for row in (seen.start, owned.start, stop, length)
            )
            yield begin, total, x.narrow(dim, begin - first, end - begin)

    def _moments(
        self, layers: Sequence[Layer], sources: Sequence[Tensor], places: Sequence[tuple[slice, slice]]
    ) -> tuple[Tensor, Tensor]:
        """Means and variances (C,) of what `layers` make, over the whole image.

        Those of a few thousand positions each are put together in float64 (Chan, Golub, LeVeque 1979).
        """
        count = 0
        mean = spread = torch.zeros((), dtype=torch.float64, device=self._device)
        for _, _, band in self._computed(layers, sources, places):
            for part in torch.split(band, max(1, _FEW // band.shape[5 - self._dim]), self._dim):
                own = part.shape[2] * part.shape[3]
                # Its sums are of few, or off by 1e-5.
                found = torch.batch_norm_update_stats(at_least_float32(part), None, None, 0.0)
                own_mean, own_variance = (each.double() for each in found)
                off = own_mean - mean
                spread = spread + own * own_variance + off.square() * (count * own / (count + own))
                count += own
                mean = mean + off * (own / count)
        dtype = torch.promote_types(band.dtype, torch.float32)
        return mean.to(dtype), (spread / count).to(dtype)

    def _empty(self, band: Tensor, rows: int) -> Tensor:
        """Room for as many rows like those of `band`; in a file that is gone when nothing refers to it, if
        there is none in memory."""
        shape = list(band.shape)
        shape[self._dim] = rows
        size = math.prod(shape) * band.element_size()
        if size <= self._room:
            self._room -= size
            return torch.empty(shape, dtype=band.dtype, device=band.device, memory_format=torch.channels_last)
        with tempfile.NamedTemporaryFile(prefix="nst-") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # an error now, and not a signal when it is written
            flat = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=band.dtype)
        _, channels, height, width = shape
        return flat.view(1, height, width, channels).permute(0, 3, 1, 2)


def _write(place: Tensor, band: Tensor, add: bool) -> None:
    if add:
        place.add_(band.to(place.device))
    else:
        place.copy_(band)
