"""What discriminators are made of, with the keys, order and shapes of the public implementation."""

from __future__ import annotations

from torch import Tensor, nn

from nst.gan.layers import Norm, normalization
from nst.gan.spectral import SpectralConv2d

__all__ = ["Patches", "Pixels"]


class Patches(nn.Module):
    """A judgment for each of many overlapping patches."""

    def __init__(self, image_channels: int, width: int, norm: Norm, layers: int, spectral: bool) -> None:
        super().__init__()
        convolution = SpectralConv2d if spectral else nn.Conv2d
        model: list[nn.Module] = [
            convolution(image_channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, True),
        ]
        before = width
        for layer in range(1, layers + 1):
            after = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            model += [
                convolution(before, after, 4, stride=stride, padding=1, bias=norm == "instance"),
                normalization(norm, after),
                nn.LeakyReLU(0.2, True),
            ]
            before = after
        self.model = nn.Sequential(*model, convolution(before, 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class Pixels(nn.Module):
    """A judgment for each pixel."""

    def __init__(self, image_channels: int, width: int, norm: Norm, spectral: bool) -> None:
        super().__init__()
        convolution = SpectralConv2d if spectral else nn.Conv2d
        bias = norm == "instance"
        self.net = nn.Sequential(
            convolution(image_channels, width, 1),
            nn.LeakyReLU(0.2, True),
            convolution(width, 2 * width, 1, bias=bias),
            normalization(norm, 2 * width),
            nn.LeakyReLU(0.2, True),
            convolution(2 * width, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out
