"""What discriminators are made of, with the keys, order and shapes of the public implementation."""

from __future__ import annotations

from torch import Tensor, nn

from nst.gan.layers import Norm, normalization

__all__ = ["Patches", "Pixels"]


class Patches(nn.Module):
    """A judgment for each of many overlapping patches."""

    def __init__(self, image_channels: int, width: int, norm: Norm, layers: int) -> None:
        super().__init__()
        model: list[nn.Module] = [
            nn.Conv2d(image_channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, True),
        ]
        before = width
        for layer in range(1, layers + 1):
            after = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            model += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=norm == "instance"),
                normalization(norm, after),
                nn.LeakyReLU(0.2, True),
            ]
            before = after
        self.model = nn.Sequential(*model, nn.Conv2d(before, 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class Pixels(nn.Module):
    """A judgment for each pixel."""

    def __init__(self, image_channels: int, width: int, norm: Norm) -> None:
        super().__init__()
        bias = norm == "instance"
        self.net = nn.Sequential(
            nn.Conv2d(image_channels, width, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width, 2 * width, 1, bias=bias),
            normalization(norm, 2 * width),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * width, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out
