"""Photographs of any size through the painter, in tiles, with statistics and codes of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nst.errors import OptionError, UnknownStyle
from nst.features.tiles import grid
from nst.feed_forward.networks import Folded, Painter, Statistics, StyleEncoder
from nst.gan.translate import checked_outcome, mirrored_beyond
from nst.images.codec import resize_image
from nst.style_transfer.color import luminance, match_color, match_luminance, with_luminance
from nst.style_transfer.options import PreserveColor
from nst.stylizer import Outcome, Stylized, asked_styles, mean_change

__all__ = ["FeedForwardPlan", "FeedForwardStylizer", "Look"]

_REFERENCE_PX = 512
"""Long side of what a photograph's statistics are taken from."""
_BORDER_PX = 32
"""Pixels that are mirrored around a photograph, painted and cut off; a multiple of 4."""
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
        reference: a picture (3, h, w) in [0, 1] from which photographs take their statistics; None: each is its
            own.
    """

    def __init__(
        self,
        plan: FeedForwardPlan,
        painter: Painter,
        encoder: StyleEncoder,
        looks: Mapping[str, Look],
        default: Sequence[tuple[Look, Tensor | None]],
        *,
        reference: Tensor | None = None,
    ) -> None:
        self.plan = plan
        self._painter = painter.requires_grad_(False).eval()
        self._encoder = encoder.requires_grad_(False).eval()
        self._like = painter.coarse.weight
        self._looks, self._default = looks, default
        self._reference = None if reference is None else _reduced(self._seen(reference), _REFERENCE_PX)
        self._moments: dict[int, Tensor] = {}

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
            painted += share * self._tiled(small, self._folded(reference, self._code(look, reference)))
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

    def _code(self, look: Look, reference: Tensor) -> Tensor:
        change = {"match": match_color, "luminance": match_luminance}.get(self.plan.preserve_color)
        moments = None if change else self._moments.get(id(look))
        if moments is None:
            pictures = [load().to(self._like) for load in look.pictures]
            if change:
                pictures = [change(each, reference).clamp(0, 1) for each in pictures]
            each_moments = [self._encoder.moments(each[None]) for each in pictures]
            moments = sum(
                (weight * each for weight, each in zip(look.weights, each_moments, strict=True)),
                torch.zeros_like(each_moments[0]),
            )
            if not change:
                self._moments[id(look)] = moments
        strength = max(self.plan.strength, _LEAST_STRENGTH)
        if strength < 1:
            moments = torch.lerp(self._encoder.moments(reference[None]), moments, strength)
        code: Tensor = self._encoder(moments)
        return code

    def _folded(self, reference: Tensor, code: Tensor) -> Folded:
        given: Statistics = self._painter(_padded(reference)[None], code)[1]
        return self._painter.folded(code, given)

    def _tiled(self, photo: Tensor, folded: Folded) -> Tensor:
        """(3, H, W) painted, tile by tile: equal to painting it whole, but for rounding."""
        height, width = photo.shape[-2:]
        padded = _padded(photo)
        margin = self._painter.config.margin_px
        side = max(padded.shape[-2:])
        if self.plan.pass_memory_mb is not None:
            pixels = self.plan.pass_memory_mb * 1e6 / _PIXEL_BYTES
            side = max(margin, (int(pixels**0.5) - 2 * margin) // 4 * 4)
        out = torch.empty_like(padded)
        for tile in grid(padded.shape[1], padded.shape[2], side, margin):
            out[:, *tile.owned] = tile.pick(folded(tile.cut(padded)[None])[0], stride=1)
        return out[:, _BORDER_PX : _BORDER_PX + height, _BORDER_PX : _BORDER_PX + width]


def _padded(photo: Tensor) -> Tensor:
    """Mirrored around, to sides that are multiples of 4."""
    for dim, length in ((1, photo.shape[1]), (2, photo.shape[2])):
        photo = mirrored_beyond(photo, dim, _BORDER_PX, _BORDER_PX + -length % 4)
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
