"""Networks of one style as PyTorch's examples publish them (fast_neural_style: mosaic, candy, udnie,
rain_princess): the transformation network of Johnson et al. 2016, "Perceptual Losses for Real-Time Style
Transfer and Super-Resolution", with instance normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.errors import OptionError, UnknownStyle
from nst.feed_forward.size import FeedForwardPlan, at_its_size, outcome_of
from nst.gan.layers import load_published
from nst.gan.translate import mirrored_beyond
from nst.stylizer import Outcome, asked_styles

__all__ = ["STRIDE_PX", "PublishedStylizer", "TransformationNetwork"]

STRIDE_PX = 4
"""Photographs' sides are multiples of it."""
_LEAST_PX = 8
"""Least side: a quarter of it is what the residual blocks mirror one pixel of."""
_CHANNELS = 32, 64, 128
_BLOCKS = 5


class TransformationNetwork(nn.Module):
    """Photographs (N, 3, H, W) to pictures of the same size, H and W multiples of 4, both from 0 to 255 about.

    The names of its parameters are those of the published files.
    """

    def __init__(self) -> None:
        super().__init__()
        few, some, many = _CHANNELS
        self.conv1, self.in1 = _Mirrored(3, few, 9), _norm(few)
        self.conv2, self.in2 = _Mirrored(few, some, 3, 2), _norm(some)
        self.conv3, self.in3 = _Mirrored(some, many, 3, 2), _norm(many)
        for number in range(_BLOCKS):
            self.add_module(f"res{number + 1}", _Residual(many))
        self.deconv1, self.in4 = _Mirrored(many, some, 3), _norm(some)
        self.deconv2, self.in5 = _Mirrored(some, few, 3), _norm(few)
        self.deconv3 = _Mirrored(few, 3, 9)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Raises WeightsError: they do not fit."""
        load_published(self, state)

    def forward(self, photos: Tensor) -> Tensor:
        x = F.relu(self.in1(self.conv1(photos)))
        x = F.relu(self.in2(self.conv2(x)))
        x = F.relu(self.in3(self.conv3(x)))
        for number in range(_BLOCKS):
            x = self.get_submodule(f"res{number + 1}")(x)
        x = F.relu(self.in4(self.deconv1(_twice(x))))
        x = F.relu(self.in5(self.deconv2(_twice(x))))
        found: Tensor = self.deconv3(x)
        return found


class PublishedStylizer:
    """The loaded network, ready for photographs. Each is painted whole, since its norms are of all of it.

    A `LevelsStylizer`.
    """

    takes_levels = True

    def __init__(self, plan: FeedForwardPlan, network: TransformationNetwork) -> None:
        self.plan = plan
        self._network = network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self._like = network.deconv3.conv2d.weight

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

    def exportable(self, name: str | None = None) -> tuple[nn.Module, int, int]:
        """The network, (N, 3, H, W) in [-1, 1] to the same; what sides are multiples of, and the least.

        Raises:
            UnknownStyle: a name is given, and its style has none.
        """
        if name is not None:
            raise _without_names(name)
        network = self._network.to(memory_format=torch.contiguous_format)
        return _InRange(network, self.plan.strength), STRIDE_PX, _LEAST_PX

    def _outcome(self, image: Tensor, name: str | None) -> Outcome:
        if name is not None:
            return _without_names(name)
        return outcome_of(*at_its_size(self.plan, image, self._like, self._painted))

    def _painted(self, photo: Tensor) -> Tensor:
        height, width = photo.shape[1:]
        padded = photo
        for dim, length in ((1, height), (2, width)):
            wanted = max(_LEAST_PX, length + -length % STRIDE_PX)
            padded = mirrored_beyond(padded, dim, 0, wanted - length)
        half = self.plan.precision == "bfloat16"
        with torch.autocast(photo.device.type, torch.bfloat16, enabled=half):
            found = self._network((255 * padded)[None].contiguous(memory_format=torch.channels_last))
        picture = (found[0, :, :height, :width].to(photo) / 255).clamp(0, 1)
        return torch.lerp(photo, picture, self.plan.strength)


def _without_names(name: str) -> UnknownStyle:
    return UnknownStyle(str(OptionError("style", name, reason="the network has one style only")))


class _InRange(nn.Module):
    """(N, 3, H, W) in [-1, 1] to the same."""

    def __init__(self, network: TransformationNetwork, strength: float) -> None:
        super().__init__()
        self.network = network
        self._strength = strength

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(127.5 * (images + 1))
        return torch.lerp(images, (found / 127.5 - 1).clamp(-1, 1), self._strength)


class _Mirrored(nn.Module):
    """A convolution whose border is mirrored: (N, before, h, w) to (N, after, h / stride, w / stride)."""

    def __init__(self, before: int, after: int, side: int, stride: int = 1) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(before, after, side, stride)
        self._border = (side // 2,) * 4

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv2d(F.pad(x, self._border, mode="reflect"))
        return found


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.in1 = _Mirrored(channels, channels, 3), _norm(channels)
        self.conv2, self.in2 = _Mirrored(channels, channels, 3), _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.in2(self.conv2(F.relu(self.in1(self.conv1(x)))))
        return x + found


def _norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
