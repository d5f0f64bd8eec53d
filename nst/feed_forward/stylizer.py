"""Photographs of any size through the painter, in tiles, with the moments of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nst.errors import OptionError, UnknownStyle
from nst.features.tiles import grid
from nst.feed_forward.coloring import Moments
from nst.feed_forward.networks import STRIDE_PX, Folded, Painter
from nst.gan.translate import checked_outcome, mirrored_beyond
from nst.images.codec import resize_image
from nst.style_transfer.color import luminance, match_color, match_luminance, with_luminance
from nst.style_transfer.options import PreserveColor
from nst.stylizer import Outcome, Stylized, asked_styles, mean_change

__all__ = ["FeedForwardPlan", "FeedForwardStylizer", "Look"]

_REFERENCE_PX = 384
"""Long side of what a photograph's moments are taken from."""
_BORDER_PX = 32
"""Pixels that are mirrored around a photograph, painted and cut off; a multiple of `STRIDE_PX`."""
_LEAST_STRENGTH = 0.2
"""Strength under which its picture and the photograph are mixed."""
_PIXEL_BYTES = 220
"""Memory of a pass for each pixel, about."""


@dataclass(frozen=True, slots=True)
class FeedForwardPlan:
    """Options of the method that the stylizer needs."""

    strength: float
    preserve_color: PreserveColor
    stroke_side_px: int | None
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
        self._reference = None if reference is None else _reduced(self._seen(reference), _REFERENCE_PX)
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
        photo = self._seen(image)
        small = _reduced(photo, self.plan.stroke_side_px)
        reference = _reduced(small, _REFERENCE_PX) if self._reference is None else self._reference
        painted, total = torch.zeros_like(small), small.new_zeros(1, *small.shape[1:])
        for look, mask in wanted:
            share = small.new_ones(1, *small.shape[1:]) if mask is None else _mask(mask, small)
            total += share
            painted += share * self._tiled(small, self._folded(reference, look))
        painted /= total.clamp_min(1e-6)
        painted = torch.where(total > 1e-6, painted, small)  # no mask is white there
        if self.plan.strength < _LEAST_STRENGTH:
            painted = torch.lerp(small, painted, self.plan.strength / _LEAST_STRENGTH)
        if small.shape != photo.shape:
            painted = _with_detail(painted, small, photo)
        if self.plan.preserve_color in ("luminance", "original"):
            painted = with_luminance(image.to(painted), painted)
        return painted.clamp_(0, 1)

    def _seen(self, image: Tensor) -> Tensor:
        """A photograph as it is painted."""
        photo = image.to(self._like)
        return luminance(photo) if self.plan.preserve_color == "luminance" else photo

    def _folded(self, reference: Tensor, look: Look) -> Folded:
        wanted, seen = self._wanted(look, reference), _padded(reference)[None]
        strength = max(self.plan.strength, _LEAST_STRENGTH)
        if strength < 1:
            own = self._painter(seen).own
            shares = self._like.new_tensor([[1 - strength, strength]])
            wanted = [Moments.cat(each).mixed(shares) for each in zip(own, wanted, strict=True)]
        return self._painter.folded(wanted, self._painter(seen, wanted).own)

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
        margin = self._painter.config.margin_px
        side = max(padded.shape[-2:])
        if self.plan.pass_memory_mb is not None:
            pixels = self.plan.pass_memory_mb * 1e6 / _PIXEL_BYTES
            side = max(margin, (int(pixels**0.5) - 2 * margin) // STRIDE_PX * STRIDE_PX)
        out = torch.empty_like(padded)
        for tile in grid(padded.shape[1], padded.shape[2], side, margin):
            at = tile.rows.start, tile.columns.start
            out[:, *tile.owned] = tile.pick(folded(tile.cut(padded)[None], at)[0], stride=1)
        return out[:, _BORDER_PX : _BORDER_PX + height, _BORDER_PX : _BORDER_PX + width]


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


def _with_detail(painted: Tensor, small: Tensor, photo: Tensor) -> Tensor:
    """The painted picture (3, h, w) at the photograph's size (3, H, W), with what of the photograph's luminance
    `small` has lost. A few rows at a time would do; what is there at once is two pictures."""
    size = photo.shape[1], photo.shape[2]
    lost = (
        (photo - resize_image(small, size)).mul_(photo.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    )
    return resize_image(painted, size).add_(lost)
