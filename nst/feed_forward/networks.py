"""A painter, which paints a photograph in one pass as a code says, and an encoder, which makes codes of styles.

The painter works at a half and a quarter of the photograph's size: pixels go to channels, which costs nothing.
Its normalizations (conditional instance normalization, Dumoulin et al. 2017) take their statistics from a
reference, so that parts of a photograph come out as they do within the whole. Given these and a code, all that
is left are convolutions: see `Folded`.

The encoder's code is a function of moments of activations, which mix linearly: the moments of two pictures'
mixture are the mixture of their moments, and so are their Gram matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst import check

__all__ = ["Folded", "Painter", "PainterConfig", "Statistics", "StyleEncoder"]

_EPSILON = 1e-5
_REACH = 1.1
"""How far the output goes beyond [0, 1], so that black and white are reached."""

Statistics = Sequence[tuple[Tensor, Tensor]]
"""Means and standard deviations, (N, C, 1, 1), of each normalization, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PainterConfig:
    """Shape of the painter and of its codes."""

    half: int = 32
    """Channels at half the photograph's size."""
    quarter: int = 64
    """Channels at a quarter of it."""
    blocks: int = 4
    """Residual blocks."""
    code: int = 128
    """Length of a style's code."""

    def __post_init__(self) -> None:
        for name, least in (("half", 1), ("quarter", 1), ("blocks", 0), ("code", 1)):
            check.at_least(name, getattr(self, name), least)

    @property
    def margin_px(self) -> int:
        """Pixels around a part of a photograph that it depends on; a multiple of 4."""
        return 16 + 8 * self.blocks


class _Coded(nn.Module):
    """Convolution, normalization by given statistics, and scale and shift by the code."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.channels = after

    def forward(
        self, x: Tensor, code: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x = self.conv(x)
        if given is None:
            mean = x.mean((2, 3), keepdim=True)
            given = mean, ((x - mean).square().mean((2, 3), keepdim=True) + _EPSILON).sqrt()
        (mean, deviation), (scale, shift) = given, code
        factor = scale / deviation
        return x * factor + (shift - mean * factor), given


class Painter(nn.Module):
    """Paints photographs (N, 3, H, W) in [0, 1], H and W multiples of 4.

    Raises:
        OptionError: a number of the configuration is too small.
    """

    def __init__(self, config: PainterConfig | None = None) -> None:
        super().__init__()
        self.config = config or PainterConfig()
        half, quarter = self.config.half, self.config.quarter
        self.enter = _Coded(12, half)
        self.down = _Coded(half, quarter, stride=2)
        self.blocks = nn.ModuleList(
            nn.ModuleList((_Coded(quarter, quarter), _Coded(quarter, quarter)))
            for _ in range(self.config.blocks)
        )
        self.up = _Coded(quarter, half)
        self.coarse = nn.Conv2d(half, 3, 3, padding=1)
        self.fine = nn.Conv2d(half, 12, 3, padding=1)
        self._widths = [each.channels for each in self.normalized()]
        code = self.config.code
        self.codes = nn.Sequential(nn.Linear(code, code), nn.ReLU(), nn.Linear(code, 2 * sum(self._widths)))
        self._start()

    def normalized(self) -> Iterator[_Coded]:
        """The normalized convolutions, in their order."""
        yield self.enter
        yield self.down
        for block in self.blocks:
            yield from cast(Sequence[_Coded], block)
        yield self.up

    def _start(self) -> None:
        """He et al. 2015; fine detail begins as nothing, and all codes alike."""
        for each in self.normalized():
            nn.init.kaiming_normal_(each.conv.weight)
        nn.init.zeros_(self.fine.weight)
        nn.init.zeros_(cast(Tensor, self.fine.bias))
        last = cast(nn.Linear, self.codes[2])
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)

    def modulations(self, code: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Scales and shifts, (N, C, 1, 1), of each normalization, by codes (N, config.code)."""
        values = self.codes(code)[..., None, None]
        parts = values.split([width for width in self._widths for _ in range(2)], 1)
        return [(1 + scale, shift) for scale, shift in zip(parts[::2], parts[1::2], strict=True)]

    def forward(
        self, photo: Tensor, code: Tensor, given: Statistics | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Paint, and tell the statistics: those that were given, or else the photographs' own.

        Args:
            photo: (N, 3, H, W) in [0, 1].
            code: (N, config.code).

        Returns:
            (N, 3, H, W), a little beyond [0, 1] at most.
        """
        modulations = iter(self.modulations(code))
        known = None if given is None else iter(given)
        seen: list[tuple[Tensor, Tensor]] = []

        def layer(each: _Coded, x: Tensor) -> Tensor:
            x, statistics = each(x, next(modulations), None if known is None else next(known))
            seen.append(statistics)
            return x

        enter = F.relu(layer(self.enter, F.pixel_unshuffle(2 * photo - 1, 2)))
        x = F.relu(layer(self.down, enter))
        for block in self.blocks:
            first, second = cast(Sequence[_Coded], block)
            x = x + layer(second, F.relu(layer(first, x)))
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(layer(self.up, x) + enter)
        return _picture(self.coarse(x), self.fine(x)), seen

    @torch.no_grad()
    def folded(self, code: Tensor, given: Statistics) -> Folded:
        """What is left of the painter for one photograph: (1, config.code) and its statistics."""
        layers = []
        for each, (scale, shift), (mean, deviation) in zip(
            self.normalized(), self.modulations(code), given, strict=True
        ):
            factor = (scale / deviation)[0]
            weight = (each.conv.weight * factor[..., None]).contiguous(memory_format=torch.channels_last)
            layers.append((weight, shift[0].flatten() - (mean[0] * factor).flatten()))
        return Folded(self, layers)


def _picture(coarse: Tensor, fine: Tensor) -> Tensor:
    """(N, 3, h, w) and (N, 12, h, w) to (N, 3, 2h, 2w). Fine detail is blurred by 1, 2, 1: what changes from
    each pixel to the next goes, and with it every grid that blocks of pixels would make."""
    large = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    detail = F.pixel_shuffle(fine, 2)
    across = detail.new_tensor([1.0, 2.0, 1.0]) / 4
    blur = torch.outer(across, across).expand(3, 1, 3, 3)
    return 0.5 + 0.5 * _REACH * torch.tanh(large + F.conv2d(detail, blur, padding=1, groups=3))


class Folded:
    """The painter for one photograph and one style, whose normalizations are part of its convolutions.

    Args:
        layers: weight and bias of each normalized convolution.
    """

    def __init__(self, painter: Painter, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._painter, self._layers = painter, layers

    @torch.no_grad()
    def __call__(self, photo: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] to the same, H and W multiples of 4."""
        layers = iter(self._layers)

        def layer(x: Tensor, stride: int = 1) -> Tensor:
            weight, bias = next(layers)
            return F.conv2d(x, weight, bias, stride, 1)

        start = F.pixel_unshuffle(2 * photo - 1, 2).contiguous(memory_format=torch.channels_last)
        enter = layer(start).relu_()
        x = layer(enter, 2).relu_()
        for _ in self._painter.blocks:
            x += layer(layer(x).relu_())
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = layer(x).add_(enter).relu_()
        return _picture(self._painter.coarse(x), self._painter.fine(x)).clamp_(0, 1)


class StyleEncoder(nn.Module):
    """Moments of a small frozen network's activations, and the code that they give.

    Args:
        code: its length.
        widths: channels of the network's three blocks, of two convolutions each.
        directions: of the channels of each block's end, whose second moments are taken.
    """

    middle: Tensor
    spread: Tensor

    def __init__(
        self, code: int = 128, widths: tuple[int, int, int] = (64, 64, 128), directions: int = 64
    ) -> None:
        super().__init__()
        channels, convolutions = 3, []
        for width in widths:
            for _ in range(2):
                convolutions.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.eyes = nn.ModuleList(convolutions).requires_grad_(False)
        for number, width in enumerate(widths):
            chosen = torch.linalg.qr(torch.randn(width, width))[0][:directions]
            self.register_buffer(f"directions_{number}", chosen)
        count = 9 + sum(width + min(directions, width) for width in widths)
        self.register_buffer("middle", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        self.code = nn.Sequential(nn.Linear(count, 2 * code), nn.ReLU(), nn.Linear(2 * code, code))

    @torch.no_grad()
    def moments(self, style: Tensor) -> Tensor:
        """(N, count) of styles (N, 3, h, w) in [0, 1]; those of mixtures are mixtures of these."""
        found = [style.mean((2, 3))]
        flat = style.flatten(2)
        second = flat @ flat.mT / flat.shape[-1]
        rows, columns = torch.triu_indices(3, 3)
        found.append(second[:, rows, columns])
        x = 2 * style - 1
        for number in range(len(self.eyes) // 2):
            x = F.relu(self.eyes[2 * number + 1](F.relu(self.eyes[2 * number](x))))
            found.append(x.mean((2, 3)))
            along = torch.einsum("nchw,dc->ndhw", x, getattr(self, f"directions_{number}"))
            found.append(along.square().mean((2, 3)))
            x = F.avg_pool2d(x, 2)
        return torch.cat(found, 1)

    def forward(self, moments: Tensor) -> Tensor:
        """(N, count) to (N, code)."""
        found: Tensor = self.code((moments.clamp_min(0).sqrt() - self.middle) / self.spread)
        return found

    @torch.no_grad()
    def settle(self, moments: Tensor) -> None:
        """Have what `forward` sees of these moments, (N, count), mean zero and unit variance."""
        values = moments.clamp_min(0).sqrt()
        self.middle.copy_(values.mean(0))
        self.spread.copy_(values.std(0).clamp_min(1e-4))
