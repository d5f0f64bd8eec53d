"""Photographs of any size through the painter, in tiles, with the moments of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nst.errors import OptionError, UnknownStyle
from nst.features.tiles import grid
from nst.feed_forward.coloring import Moments
from nst.feed_forward.networks import MARGIN_PX, STRIDE_PX, Folded, Painter
from nst.gan.translate import checked_outcome, mirrored_beyond
from nst.images.codec import resize_image
from nst.style_transfer.color import luminance, match_color, match_luminance, with_luminance
from nst.style_transfer.options import PreserveColor
from nst.stylizer import Outcome, Stylized, asked_styles, mean_change, row_bands

__all__ = ["FeedForwardPlan", "FeedForwardStylizer", "Look", "Precision"]

Precision = Literal["float32", "bfloat16"]

_REFERENCE_PX = 384
"""Long side of what a photograph's moments are taken from."""
_BORDER_PX = 32
"""Pixels that are mirrored around a photograph, painted and cut off; a multiple of `STRIDE_PX`."""
_LEAST_STRENGTH = 0.2
"""Strength under which its picture and the photograph are mixed."""
_PIXEL_BYTES = 150
"""Memory of a pass for each pixel, about."""


@dataclass(frozen=True, slots=True)
class FeedForwardPlan:
    """Options of the method that the stylizer needs."""

    strength: float
    preserve_color: PreserveColor
    stroke_side_px: int | None
    precision: Precision
    pass_memory_mb: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """One style, or several blended."""

    pictures: Sequence[Callable[[], Tensor]]
    """What decodes them: (3, h, w) in [0, 1]"""
    weights: Sequence[float]
    """Their sum is 1."""


class FeedForwardStylizer:
    """The loaded painter and the styles, ready for photographs.

    Args:
        looks: the styles that a photograph may ask for, by name.
        default: for photographs that ask for none; each is painted where its mask is white, (1, h, w), and
            everywhere if that is None.
        reference: a picture (3, h, w) in [0, 1] from which photographs take their moments; None: each is its
            own.
    """

    def __init__(
        self,
        plan: FeedForwardPlan,
        painter: Painter,
        looks: Mapping[str, Look],
        default: Sequence[tuple[Look, Tensor | None]],
        *,
        reference: Tensor | None = None,
    ) -> None:
        self.plan = plan
        self._painter = painter.requires_grad_(False).eval()
        self._like = painter.coarse.weight
        self._looks, self._default = looks, default
        self._reference = (
            None if reference is None else self._seen(_reduced(reference.to(self._like), _REFERENCE_PX))
        )
        self._known: dict[int, list[Moments]] = {}

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[Tensor],
        generators: Sequence[torch.Generator],  # noqa: ARG002
        styles: Sequence[str | None] | None = None,
    ) -> list[Outcome]:
        """It needs no randomness, and paints one photograph after the other."""
        asked = asked_styles(images, styles)
        return [self._outcome(image, name) for image, name in zip(images, asked, strict=True)]

    def _outcome(self, image: Tensor, name: str | None) -> Outcome:
        if name is not None and name not in self._looks:
            return UnknownStyle(str(OptionError("style", name, choices=self._looks)))
        wanted = self._default if name is None else [(self._looks[name], None)]
        picture = self.paint(image, wanted).to("cpu", torch.float32)
        outcome = checked_outcome(picture)
        if isinstance(outcome, Stylized):
            return Stylized(image=picture, stats={"change": mean_change(picture, image)})
        return outcome

    def paint(self, image: Tensor, wanted: Sequence[tuple[Look, Tensor | None]]) -> Tensor:
        """A photograph (3, H, W) in [0, 1] in the looks that are wanted, each where its mask is white."""
        if self.plan.strength == 0:
            return image.clone()
        image = image.to(self._like)
        small = self._seen(_reduced(image, self.plan.stroke_side_px))
        reference = _reduced(small, _REFERENCE_PX) if self._reference is None else self._reference
        if len(wanted) == 1 and wanted[0][1] is None:
            painted = self._tiled(small, self._folded(reference, wanted[0][0]))
        else:
            painted, total = torch.zeros_like(small), small.new_zeros(1, *small.shape[1:])
            for look, mask in wanted:
                share = small.new_ones(total.shape) if mask is None else _mask(mask, small)
                total += share
                painted += share * self._tiled(small, self._folded(reference, look))
            painted = torch.where(
                total > 1e-6, painted / total.clamp_min(1e-6), small
            )  # no mask is white there
        if self.plan.strength < _LEAST_STRENGTH:
            painted = torch.lerp(small, painted, self.plan.strength / _LEAST_STRENGTH)
        return self._finished(image, small, painted)

    def _finished(self, image: Tensor, small: Tensor, painted: Tensor) -> Tensor:
        """The painted picture (3, h, w) at the photograph's size (3, H, W), with what of the photograph's
        luminance `small` has lost, and in its colors if they are kept. Some rows at a time: photographs may be
        large."""
        larger = small.shape != image.shape
        change = painted - luminance(small) if larger else painted
        out = torch.empty_like(image)
        for rows in row_bands(image.shape[1]):
            band = _enlarged(change, (image.shape[1], image.shape[2]), rows)
            if larger:
                band = band + luminance(image[:, rows])
            if self.plan.preserve_color in ("luminance", "original"):
                band = with_luminance(image[:, rows], band)
            torch.clamp(band, 0, 1, out=out[:, rows])
        return out

    def _seen(self, photo: Tensor) -> Tensor:
        """A photograph as it is painted."""
        return luminance(photo) if self.plan.preserve_color == "luminance" else photo

    def _folded(self, reference: Tensor, look: Look) -> Folded:
        wanted, seen = self._wanted(look, reference), _padded(reference)[None]
        strength = max(self.plan.strength, _LEAST_STRENGTH)
        if strength < 1:
            own = self._painter(seen).own
            shares = self._like.new_tensor([[1 - strength, strength]])
            wanted = [Moments.cat(each).mixed(shares) for each in zip(own, wanted, strict=True)]
        own = self._painter(seen, wanted).own
        return self._painter.folded(wanted, own, getattr(torch, self.plan.precision))

    def _wanted(self, look: Look, reference: Tensor) -> list[Moments]:
        """What the pictures of a style have at each place; for each photograph anew if its colors count."""
        change = {"match": match_color, "luminance": match_luminance}.get(self.plan.preserve_color)
        if change is None and id(look) in self._known:
            return self._known[id(look)]
        pictures = [load().to(self._like) for load in look.pictures]
        if change is not None:
            pictures = [change(each, reference).clamp(0, 1) for each in pictures]
        each_own = [self._painter(_padded(each)[None]).own for each in pictures]
        shares = self._like.new_tensor([look.weights])
        wanted = [Moments.cat(parts).mixed(shares) for parts in zip(*each_own, strict=True)]
        if change is None:
            self._known[id(look)] = wanted
        return wanted

    def _tiled(self, photo: Tensor, folded: Folded) -> Tensor:
        """(3, H, W) painted, tile by tile: equal to painting it whole, but for rounding."""
        height, width = photo.shape[-2:]
        padded = _padded(photo)
        height_px, width_px = padded.shape[1:]
        out = torch.empty_like(padded)
        for tile in grid(height_px, width_px, self._tile_size(height_px, width_px), MARGIN_PX):
            painted = folded(tile.cut(padded)[None], (tile.rows.start, tile.columns.start))
            out[:, *tile.owned] = tile.pick(painted[0], stride=1)
        return out[:, _BORDER_PX : _BORDER_PX + height, _BORDER_PX : _BORDER_PX + width]

    def _tile_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of tiles: bands as wide as the picture, if they are not too flat, else squares."""
        if self.plan.pass_memory_mb is None:
            return height, width
        pixels = self.plan.pass_memory_mb * 1e6 / _PIXEL_BYTES
        if height * width <= pixels:
            return height, width
        tall, side = (
            (int(each) - 2 * MARGIN_PX) // STRIDE_PX * STRIDE_PX for each in (pixels / width, pixels**0.5)
        )
        return (tall, width) if tall >= 4 * MARGIN_PX else (max(MARGIN_PX, side),) * 2


def _padded(photo: Tensor) -> Tensor:
    """Mirrored around, to sides that are multiples of `STRIDE_PX`."""
    for dim, length in ((1, photo.shape[1]), (2, photo.shape[2])):
        photo = mirrored_beyond(photo, dim, _BORDER_PX, _BORDER_PX + -length % STRIDE_PX)
    return photo


def _reduced(photo: Tensor, side_px: int | None) -> Tensor:
    """The photograph, at most this long."""
    height, width = photo.shape[-2:]
    if side_px is None or max(height, width) <= side_px:
        return photo
    scale = side_px / max(height, width)
    return resize_image(photo, (max(1, round(height * scale)), max(1, round(width * scale))))


def _mask(mask: Tensor, photo: Tensor) -> Tensor:
    return resize_image(mask.to(photo), (photo.shape[1], photo.shape[2])).clamp(0, 1)


def _enlarged(image: Tensor, size: tuple[int, int], rows: slice) -> Tensor:
    """These rows of an image (3, h, w) at a size, as `resize_image` enlarges."""
    (height, width), (before, _) = size, image.shape[1:]
    if (height, width) == tuple(image.shape[1:]):
        return image[:, rows]
    places = (np.arange(rows.start, rows.stop) + 0.5) * before / height - 0.5
    places = places.clip(0, before - 1)
    above = places.astype(np.int64)
    first, last = int(above[0]), min(int(above[-1]) + 2, before)
    below = (above + 1).clip(max=before - 1)
    wide = resize_image(image[:, first:last], (last - first, width))
    one, other = (wide[:, torch.from_numpy(each - first).to(image.device)] for each in (above, below))
    return torch.lerp(one, other, torch.from_numpy(places - above).to(image)[:, None])
