"""Photographs of any size through the painter, in tiles, with the moments of the whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nst.errors import OptionError, UnknownStyle
from nst.features.tiles import grid
from nst.feed_forward.coloring import Moments
from nst.feed_forward.networks import MARGIN_PX, STRIDE_PX, Folded, Painter
from nst.feed_forward.size import (
    REFERENCE_PX,
    FeedForwardPlan,
    at_its_size,
    outcome_of,
    reference_px,
    seen_as,
)
from nst.gan.translate import mirrored_beyond
from nst.images.codec import reduced, resize_image
from nst.memory import pass_bytes
from nst.ops.constant import constant
from nst.recent import Recent
from nst.style_transfer.color import match_color, match_luminance
from nst.stylizer import Outcome, asked_styles

__all__ = ["FeedForwardStylizer", "Look", "Source", "padded"]

_BORDER_PX = 48
"""Pixels that are mirrored around a photograph, painted and cut off; a multiple of `STRIDE_PX`. In a look that
the network was trained for they are `MARGIN_PX`: its training has not seen what zeros at the border do, and
with less there were frames."""
_LEAST_STRENGTH = 0.2
"""Strength under which its picture and the photograph are mixed."""
_MOST_KEPT = 128
"""Looks whose moments are kept, of some 100 KB each."""
_MOST_FOLDED = 16
"""Looks whose networks are kept, of some MB each, where all photographs have the same reference."""
_PICTURE_BYTES = 64_000_000
"""Memory for style pictures that are kept where their colors change with each photograph."""
_PIXEL_BYTES = 150
"""Memory of a pass for each pixel, about."""


Source = Callable[[], Tensor] | list[Moments]
"""What describes a style: what decodes its picture, (3, h, w) in [0, 1], or its moments at each place."""


@dataclass(frozen=True, slots=True)
class Look:
    """One style, or several blended."""

    sources: Sequence[Source]
    weights: Sequence[float]
    """Their sum is 1."""

    @property
    def learned(self) -> bool:
        """Whether the network was trained for it. Then it has lost what it was, and a weaker style is a mixture
        of photograph and picture."""
        return any(isinstance(source, list) for source in self.sources)


class FeedForwardStylizer:
    """The loaded painter and the styles, ready for photographs.

    A `LevelsStylizer`.

    Args:
        looks: the styles that a photograph may ask for, by name.
        default: for photographs that ask for none; each is painted where its mask is white, (1, h, w), and
            everywhere if that is None.
        reference: a picture (3, h, w) in [0, 1] from which photographs take their moments; None: each is its
            own.
    """

    takes_levels = True

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
        self._like, self._dtype = painter.coarse.weight, getattr(torch, plan.precision)
        self._looks, self._default = looks, default
        self._reference = (
            None if reference is None else seen_as(plan, reduced(reference.to(self._like), REFERENCE_PX))
        )
        self._known = Recent[int, list[Moments]](_MOST_KEPT)
        self._pictures = Recent[int, Tensor](_PICTURE_BYTES, lambda picture: picture.nbytes)
        self._folds = Recent[int, Folded](_MOST_FOLDED)

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

    def at_strength(self, strength: float) -> FeedForwardStylizer:
        """The same at another strength, from 0 to 1; it shares the network, and what is known of styles."""
        other = copy.copy(self)
        other.plan = replace(self.plan, strength=strength)
        other._folds = Recent(_MOST_FOLDED)
        return other

    def in_float64(self) -> FeedForwardStylizer:
        """The same in float64, to compare others with."""
        other = copy.copy(self)
        other._painter = copy.deepcopy(self._painter).double()
        other._like, other._dtype = other._painter.coarse.weight, torch.float64
        other._known, other._folds = Recent(_MOST_KEPT), Recent(_MOST_FOLDED)
        if self._reference is not None:
            other._reference = self._reference.double()
        return other

    def exportable(self, name: str | None = None) -> tuple[nn.Module, int, int]:
        """The network in the look of this name, or the default one, at the plan's strength, (N, 3, H, W) in
        [-1, 1] to the same; of what sides are multiples, and the least.

        Raises:
            UnknownStyle: none has this name, or several have it.
        """
        ((look, _),) = self._named(name)
        wanted = self._wanted(look, torch.zeros(3, STRIDE_PX, STRIDE_PX))
        return _InLook(self._painter, wanted, self.plan.strength, look.learned), STRIDE_PX, STRIDE_PX

    def _outcome(self, image: Tensor, name: str | None) -> Outcome:
        try:
            return outcome_of(*self.paint(image, self._named(name)))
        except UnknownStyle as error:
            return error

    def _named(self, name: str | None) -> Sequence[tuple[Look, Tensor | None]]:
        """What is wanted of photographs that ask for a style of this name, or for none."""
        if name is not None and name not in self._looks:
            raise UnknownStyle(str(OptionError("style", name, choices=self._looks)))
        return self._default if name is None else [(self._looks[name], None)]

    def paint(self, image: Tensor, wanted: Sequence[tuple[Look, Tensor | None]]) -> tuple[Tensor, Tensor]:
        """A photograph in the looks that are wanted, each where its mask is white: see `at_its_size`."""
        return at_its_size(self.plan, image, self._like, lambda small: self._painted(small, wanted))

    def _painted(self, small: Tensor, wanted: Sequence[tuple[Look, Tensor | None]]) -> Tensor:
        reference = reduced(small, reference_px(small)) if self._reference is None else self._reference
        if len(wanted) == 1 and wanted[0][1] is None:
            return self._in_look(small, reference, wanted[0][0])
        painted, total = torch.zeros_like(small), small.new_zeros(1, *small.shape[1:])
        for look, mask in wanted:
            share = small.new_ones(total.shape) if mask is None else _mask(mask, small)
            total += share
            painted += share * self._in_look(small, reference, look)
        return torch.where(total > 1e-6, painted / total.clamp_min(1e-6), small)  # no mask is white there

    def _in_look(self, small: Tensor, reference: Tensor, look: Look) -> Tensor:
        border_px = MARGIN_PX if look.learned else _BORDER_PX
        painted = self._tiled(small, self._folded(reference, look), border_px)
        share = self.plan.strength if look.learned else self.plan.strength / _LEAST_STRENGTH
        return painted if share >= 1 else torch.lerp(small, painted, share)

    def _folded(self, reference: Tensor, look: Look) -> Folded:
        """The network for one look and one reference; once for all photographs, if they share theirs."""
        if self._reference is None:
            return self._fold(reference, look)
        return self._folds.get(id(look), lambda: self._fold(reference, look))

    def _fold(self, reference: Tensor, look: Look) -> Folded:
        wanted, seen = self._wanted(look, reference), padded(reference)[None]
        strength = max(self.plan.strength, _LEAST_STRENGTH)
        if strength < 1 and not look.learned:
            own = self._own(seen)
            shares = constant([[1 - strength, strength]], self._like)
            wanted = [Moments.cat(each).mixed(shares) for each in zip(own, wanted, strict=True)]
        own = self._own(seen, wanted)
        return self._painter.folded(wanted, own, self._dtype)

    def _wanted(self, look: Look, reference: Tensor) -> list[Moments]:
        """What the pictures of a style have at each place; for each photograph anew if its colors count."""
        change = {"match": match_color, "luminance": match_luminance}.get(self.plan.preserve_color)

        def found() -> list[Moments]:
            each_own = [self._moments(source, change, reference) for source in look.sources]
            shares = constant([look.weights], self._like)
            return [Moments.cat(parts).mixed(shares) for parts in zip(*each_own, strict=True)]

        return self._known.get(id(look), found) if change is None else found()

    def _moments(
        self, source: Source, change: Callable[[Tensor, Tensor], Tensor] | None, reference: Tensor
    ) -> list[Moments]:
        if isinstance(source, list):
            return [Moments(each.mean.to(self._like), each.covariance.to(self._like)) for each in source]
        decoded = source() if change is None else self._pictures.get(id(source), source)
        picture = decoded.to(self._like, non_blocking=True)
        if change is not None:
            picture = change(picture, reference).clamp(0, 1)
        return self._own(padded(picture)[None])

    def _own(self, picture: Tensor, wanted: list[Moments] | None = None) -> list[Moments]:
        """The moments of a picture (1, 3, h, w), painted in a style if one is wanted."""
        half = self._dtype == torch.bfloat16
        with torch.autocast(picture.device.type, torch.bfloat16, enabled=half):
            own: list[Moments] = self._painter(picture, wanted, only_look=True).own
        return own

    def _tiled(self, photo: Tensor, folded: Folded, border_px: int) -> Tensor:
        """(3, H, W) painted, tile by tile: equal to painting it whole, but for rounding."""
        height, width = photo.shape[-2:]
        whole = padded(photo, border_px)
        height_px, width_px = whole.shape[1:]
        size = self._tile_size(height_px, width_px, whole.device)
        grain_px = _BORDER_PX - border_px  # which a wider border does not shift
        if size == (height_px, width_px):
            out = folded(whole[None], (grain_px, grain_px))[0]
        else:
            out = torch.empty_like(whole)
            for tile in grid(height_px, width_px, size, MARGIN_PX):
                at = grain_px + tile.rows.start, grain_px + tile.columns.start
                painted = folded(tile.cut(whole)[None], at)
                out[:, *tile.owned] = tile.pick(painted[0], stride=1)
        return out[:, border_px : border_px + height, border_px : border_px + width]

    def _tile_size(self, height: int, width: int, device: torch.device) -> tuple[int, int]:
        """Height and width of tiles: bands as wide as the picture, if they are not too flat, else squares."""
        pixels = pass_bytes(device, self.plan.pass_memory_mb) / _PIXEL_BYTES
        if height * width <= pixels:
            return height, width
        tall, side = (
            (int(each) - 2 * MARGIN_PX) // STRIDE_PX * STRIDE_PX for each in (pixels / width, pixels**0.5)
        )
        return (tall, width) if tall >= 4 * MARGIN_PX else (max(MARGIN_PX, side),) * 2


class _InLook(nn.Module):
    """(N, 3, H, W) in [-1, 1] to the same, in one look; mirrored around, as in jobs, or there are frames.

    Args:
        learned: see `Look`.
    """

    def __init__(self, painter: Painter, wanted: Sequence[Moments], strength: float, learned: bool) -> None:
        super().__init__()
        self.painter = painter.float()
        for place, each in enumerate(wanted):
            self.register_buffer(f"mean{place}", each.mean)
            self.register_buffer(f"covariance{place}", each.covariance)
        self._places = len(wanted)
        self._border_px = MARGIN_PX if learned else _BORDER_PX
        self._own_share = 0.0 if learned else 1 - max(strength, _LEAST_STRENGTH)
        self._share = strength if learned else min(1.0, strength / _LEAST_STRENGTH)

    def forward(self, images: Tensor) -> Tensor:
        photos, border_px = (images + 1) / 2, self._border_px
        whole = photos
        for dim in (2, 3):
            whole = mirrored_beyond(whole, dim, border_px, border_px)
        # As many as images, which broadcasting would not have an exported network take any number of.
        wanted = [
            Moments(
                *(
                    self.get_buffer(f"{what}{place}").expand(images.shape[0], -1, -1)
                    for what in ("mean", "covariance")
                )
            )
            for place in range(self._places)
        ]
        if self._own_share > 0:
            own = self.painter(whole, only_look=True).own
            wanted = [want.towards(each, self._own_share) for want, each in zip(wanted, own, strict=True)]
        grain_px = _BORDER_PX - border_px
        picture: Tensor = self.painter(whole, wanted, at=(grain_px, grain_px)).picture
        inner = [slice(border_px, border_px + length) for length in images.shape[2:]]
        found = picture[:, :, inner[0], inner[1]].clamp(0, 1)
        return 2 * torch.lerp(photos, found, self._share) - 1


def padded(photo: Tensor, border_px: int = _BORDER_PX) -> Tensor:
    """Mirrored around, to sides that are multiples of `STRIDE_PX`."""
    for dim, length in ((1, photo.shape[1]), (2, photo.shape[2])):
        photo = mirrored_beyond(photo, dim, border_px, border_px + -length % STRIDE_PX)
    return photo


def _mask(mask: Tensor, photo: Tensor) -> Tensor:
    return resize_image(mask.to(photo), (photo.shape[1], photo.shape[2])).clamp(0, 1)
