"""A painter, which paints a photograph in one pass with the colors and strokes of a picture.

It looks at pictures, and paints what it sees: on its own, it is an autoencoder. At four places on the way, its
activations get the mean and the covariance that a style's picture has there (whitening and coloring, Li et al.
2017), and what comes out is the photograph in that style. So there is nothing to learn of styles but to see
them and to paint them, and the same network is the encoder of photographs and of styles.

What a flat sky lacks for strokes it gets of noise, which goes into the network with the photograph and depends
on the place alone.

It works at a half, a quarter and an eighth of the photograph's size: pixels go to channels, which costs
nothing. The photograph's own moments are those of a reference, so that parts of it come out as they do within
the whole. Given these, all that is left are convolutions: see `Folded`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst import check
from nst.feed_forward.coloring import Moments, coloring, product
from nst.feed_forward.grain import CHANNELS, grain
from nst.ops.captured import is_captured
from nst.ops.constant import constant

__all__ = ["MARGIN_PX", "STRIDE_PX", "Folded", "Painted", "Painter", "PainterConfig"]

STRIDE_PX = 8
"""Photographs' sides are multiples of it."""
MARGIN_PX = 80
"""Pixels around a part of a photograph that it depends on; a multiple of `STRIDE_PX`."""

_REACH = 1.1
"""How far the output goes beyond [0, 1], so that black and white are reached."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PainterConfig:
    """Channels of the painter at each of the sizes that it works at."""

    half: int = 32
    """Channels at half the photograph's size."""
    quarter: int = 64
    """Channels at a quarter of it."""
    eighth: int = 128
    """Channels at an eighth of it."""

    def __post_init__(self) -> None:
        for name in ("half", "quarter", "eighth"):
            check.at_least(name, getattr(self, name), 1)

    @property
    def colored(self) -> tuple[int, int, int, int]:
        """Channels where activations are colored: at a quarter, an eighth, a quarter and half the size."""
        return self.quarter, self.eighth, self.quarter, self.half


class Painted(NamedTuple):
    """What a pass gives."""

    picture: Tensor
    """(N, 3, H, W), a little beyond [0, 1] at most"""
    own: list[Moments]
    """What was given, or else the photographs' own, at each of the four places"""
    activations: list[Tensor]
    """Those at each of the four places, before they are colored: (N, C, h, w)"""


class Painter(nn.Module):
    """Paints photographs (N, 3, H, W) in [0, 1], H and W multiples of 8.

    Raises:
        OptionError: a number of the configuration is too small.
    """

    def __init__(self, config: PainterConfig | None = None) -> None:
        super().__init__()
        self.config = config or PainterConfig()
        half, quarter, eighth = self.config.half, self.config.quarter, self.config.eighth
        self.enter = _convolution(12 + CHANNELS, half)
        self.halve = _convolution(half, quarter, 2)
        self.look = _convolution(quarter, quarter)
        self.deepen = _convolution(quarter + CHANNELS, eighth, 2)
        self.see = _residual(eighth)
        self.think = _residual(eighth)
        self.rise = _convolution(eighth, quarter)
        self.keep = nn.Conv2d(quarter, quarter, 1)
        self.join = _convolution(quarter, quarter)
        self.work = _residual(quarter)
        self.emerge = _convolution(quarter, half)
        self.finish = _convolution(half, half)
        self.coarse = _convolution(half, 3)
        self.fine = _convolution(half, 12)
        self._start()

    def _start(self) -> None:
        """He et al. 2015; residual blocks begin as little, and fine detail as nothing."""
        for each in self.modules():
            if isinstance(each, nn.Conv2d):
                nn.init.kaiming_normal_(each.weight)
                assert each.bias is not None
                nn.init.zeros_(each.bias)
        with torch.no_grad():
            for last in (self.see[2], self.think[2], self.work[2], self.coarse):
                last.weight.mul_(0.3)  # type: ignore[operator]
        nn.init.zeros_(self.fine.weight)

    def forward(
        self,
        photo: Tensor,
        wanted: Sequence[Moments] | None = None,
        own: Sequence[Moments] | None = None,
        *,
        at: tuple[int, int] = (0, 0),
        only_look: bool = False,
    ) -> Painted:
        """Paint.

        Args:
            photo: (N, 3, H, W) in [0, 1].
            wanted: what a style's own pass gave; None: activations are not colored.
            own: the moments that activations are taken to have; None: those that they have.
            at: top and left, where the photograph is within what it is a part of; multiples of 8.
            only_look: moments are all that is wanted, and the picture is the photograph.
        """
        moments: list[Moments] = []
        activations: list[Tensor] = []

        def colored(x: Tensor) -> Tensor:
            place = len(moments)
            activations.append(x)
            with torch.autocast(x.device.type, enabled=False):
                moments.append(Moments.of(x) if own is None else own[place])
                if wanted is None:
                    return x
                matrix, shift = coloring(moments[place], wanted[place])
                return (product(matrix, x.flatten(2).to(matrix)) + shift).view_as(x).to(x.dtype)

        enter = F.relu(self.enter(_grained(F.pixel_unshuffle(2 * photo - 1, 2), at, 2)))
        looked = F.relu(colored(self.look(F.relu(self.halve(enter)))))
        deep = F.relu(self.deepen(_grained(looked, at, 4)))
        deep = F.relu(colored(deep + self.see(deep)))
        deep = deep + self.think(deep)
        x = _larger(self.rise(deep)) + self.keep(looked)
        x = F.relu(colored(self.join(F.relu(x))))
        x = x + self.work(x)
        x = F.relu(_larger(self.emerge(x)) + enter)
        x = F.relu(colored(self.finish(x)))
        if only_look:
            return Painted(photo, moments, activations)
        return Painted(_picture(self.coarse(x), F.pixel_shuffle(self.fine(x), 2)), moments, activations)

    @torch.no_grad()
    def folded(
        self, wanted: Sequence[Moments], own: Sequence[Moments], dtype: torch.dtype = torch.float32
    ) -> Folded:
        """What is left of the painter for a photograph and a style, each (1, C, ...).

        Args:
            dtype: in which it computes.
        """
        maps = [coloring(each.double(), want.double()) for each, want in zip(own, wanted, strict=True)]
        layers: dict[str, tuple[Tensor, Tensor | None]] = {
            name: (each.weight, each.bias)
            for name, each in self.named_modules()
            if isinstance(each, nn.Conv2d) and name not in ("coarse", "fine")
        }
        for name, (matrix, shift) in zip(("look", "see.2", "join", "finish"), maps, strict=True):
            weight, bias = layers[name]
            assert bias is not None
            matrix = matrix[0]
            layers[name] = (
                torch.einsum("ij,jkhw->ikhw", matrix, weight.to(matrix)),
                matrix @ bias.to(matrix) + shift[0, :, 0],
            )
        layers["past"] = maps[1][0][0][..., None, None], None
        ends = [(each.weight, each.bias) for each in (self.coarse, self.fine)]
        layers["end"] = (
            torch.cat([weight for weight, _ in ends]),
            torch.cat([cast(Tensor, bias) for _, bias in ends]),
        )
        like = self.look.weight
        return Folded(
            {
                name: (
                    weight.to(like.device, dtype).contiguous(memory_format=torch.channels_last),
                    None if bias is None else bias.to(like.device, dtype),
                )
                for name, (weight, bias) in layers.items()
            }
        )


class Folded:
    """The painter for one photograph and one style: its coloring is part of its convolutions.

    Args:
        layers: weights and biases; what goes past the residual of `see` has a matrix of its own.
    """

    def __init__(self, layers: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        self._layers = layers

    @torch.no_grad()
    def __call__(self, photo: Tensor, at: tuple[int, int] = (0, 0)) -> Tensor:
        """(1, 3, H, W) in [0, 1] to the same, H and W multiples of 8, as is `at`: top and left."""

        def layer(name: str, x: Tensor, stride: int = 1) -> Tensor:
            weight, bias = self._layers[name]
            return F.conv2d(x, weight, bias, stride, weight.shape[2] // 2)

        def residual(name: str, x: Tensor) -> Tensor:
            return layer(f"{name}.2", layer(f"{name}.0", x).relu_())

        centered = photo.mul(2).sub_(1).to(self._layers["end"][0].dtype)
        start = _grained(F.pixel_unshuffle(centered, 2), at, 2)
        enter = layer("enter", start.contiguous(memory_format=torch.channels_last)).relu_()
        looked = layer("look", layer("halve", enter, 2).relu_()).relu_()
        deep = layer("deepen", _grained(looked, at, 4), 2).relu_()
        deep = residual("see", deep).add_(layer("past", deep)).relu_()
        deep = residual("think", deep).add_(deep)
        x = _larger(layer("rise", deep)).add_(layer("keep", looked)).relu_()
        x = layer("join", x).relu_()
        x = residual("work", x).add_(x)
        x = _larger(layer("emerge", x)).add_(enter).relu_()
        del centered, start, enter, looked, deep
        x = layer("end", layer("finish", x).relu_())
        return _picture(x[:, :3].to(photo), F.pixel_shuffle(x[:, 3:], 2).to(photo)).clamp_(0, 1)


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, 1)


def _residual(channels: int) -> nn.Sequential:
    return nn.Sequential(_convolution(channels, channels), nn.ReLU(), _convolution(channels, channels))


def _grained(x: Tensor, at: tuple[int, int], stride_px: int) -> Tensor:
    """(N, C, h, w) and channels of noise."""
    noise = grain(x.shape[2], x.shape[3], at[0] // stride_px, at[1] // stride_px, stride_px, x)
    noise = noise.expand(x.shape[0], -1, -1, -1)  # not len: an exported network takes any number
    if not is_captured() and x.is_contiguous(memory_format=torch.channels_last):  # two formats take long
        noise = noise.contiguous(memory_format=torch.channels_last)
    return torch.cat([x, noise], 1)


def _larger(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _picture(coarse: Tensor, detail: Tensor) -> Tensor:
    """(N, 3, h, w) and (N, 3, 2h, 2w) to (N, 3, 2h, 2w). Fine detail is blurred by 1, 2, 1: what changes from
    each pixel to the next goes, and with it every grid that blocks of pixels would make."""
    across = constant([1.0, 2.0, 1.0], detail) / 4
    blur = torch.outer(across, across).expand(3, 1, 3, 3)
    x = F.conv2d(detail, blur, padding=1, groups=3)
    x = x.add_(F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)).tanh_()
    return x.mul(0.5 * _REACH).add_(0.5)
