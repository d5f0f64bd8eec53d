"""Generators and discriminators, by the names, with the keys, order and shapes of the public implementation.

So that published files load: https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix, `models/networks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nst import check
from nst.cyclegan.discriminators import Patches, Pixels
from nst.errors import ImageTooSmall, OptionError
from nst.gan.bands import Bands
from nst.gan.layers import BlurredUp, Conv3x3, Norm, normalization

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "Generator",
    "Padding",
    "Upsample",
    "build_discriminator",
    "build_generator",
    "check_generator",
    "check_image_size",
    "least_size",
    "size_multiple",
]

Padding = Literal["reflect", "replicate", "zero"]
Upsample = Literal["transposed", "blur"]

_RESNET_BLOCKS = {"resnet_9blocks": 9, "resnet_6blocks": 6}
_UNET_DOWNS = {"unet_256": 8, "unet_128": 7}
GENERATORS = (*_RESNET_BLOCKS, *_UNET_DOWNS)
DISCRIMINATORS = ("basic", "n_layers", "pixel")
_PADS: Mapping[str, Callable[[int], nn.Module]] = {
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
}


def build_generator(
    name: str,
    *,
    norm: Norm = "instance",
    channels: int = 64,
    input_channels: int = 3,
    output_channels: int = 3,
    padding: Padding = "reflect",
    dropout: bool = False,
    upsample: Upsample = "transposed",
) -> Generator:
    """A generator: (N, input_channels, H, W) in [-1, 1] to (N, output_channels, H, W).

    Args:
        name: `resnet_9blocks`, `resnet_6blocks`, `unet_256`, `unet_128`. H and W are multiples of
            `size_multiple`.
        norm: after convolutions, which have a bias of their own if it is `instance`.
        channels: those of the first layer.
        padding: at the borders of the residual blocks; of the ResNets.
        dropout: whether there is one of a half, within the residual blocks or the U-Net's inner ones.
        upsample: how the ResNets enlarge. `transposed`: convolutions, as in the paper. `blur`: zoom by nearest
            neighbor, convolve, blur, which leaves no checkerboards (Odena et al. 2016). The parameters' names
            are the same; a transposed convolution's weights have input and output channels the other way round.

    Raises:
        OptionError: unknown name, norm, padding or upsample, or one that a U-Net does not have.
    """
    ends = input_channels, output_channels
    check_generator(name, norm, channels, padding, upsample, ends)
    if name in _RESNET_BLOCKS:
        return _ResNet(_RESNET_BLOCKS[name], ends, channels, norm, padding, dropout, upsample)
    return _UNet(_UNET_DOWNS[name], ends, channels, norm, dropout)


def check_generator(
    name: str,
    norm: str,
    channels: int,
    padding: str,
    upsample: str = "transposed",
    ends: tuple[int, int] = (3, 3),
) -> None:
    """Raise `OptionError` for the first of these that `build_generator` does not know."""
    check.one_of("generator", name, GENERATORS)
    check.one_of("norm", norm, get_args(Norm))
    check.one_of("padding", padding, get_args(Padding))
    check.at_least("channels", channels, 1)
    check.one_of("upsample", upsample, get_args(Upsample) if name in _RESNET_BLOCKS else ("transposed",))
    for option, count in zip(("input_channels", "output_channels"), ends, strict=True):
        if count not in (1, 3):
            raise OptionError(option, count, choices=("1", "3"))


def build_discriminator(
    name: str,
    *,
    norm: Norm = "instance",
    channels: int = 64,
    image_channels: int = 3,
    layers: int = 3,
    spectral_norm: bool = False,
) -> nn.Module:
    """A discriminator: (N, image_channels, H, W) in [-1, 1] to a map of logits (N, 1, h, w).

    Args:
        name: `basic`, which judges patches of 70 x 70 (PatchGAN: Isola et al. 2017); `n_layers`, which does so
            with `layers`; or `pixel`.
        norm: as in `build_generator`.
        channels: those of the first layer.
        spectral_norm: whether each convolution's weight is divided by its largest singular value (Miyato et al.
            2018). The parameters' names are the same.

    Raises:
        OptionError: unknown name or norm.
    """
    check.one_of("discriminator", name, DISCRIMINATORS)
    check.one_of("norm", norm, get_args(Norm))
    check.at_least("channels", channels, 1)
    check.at_least("layers", layers, 1)
    if name == "pixel":
        return Pixels(image_channels, channels, norm, spectral_norm)
    return Patches(image_channels, channels, norm, 3 if name == "basic" else layers, spectral_norm)


def size_multiple(name: str) -> int:
    """What height and width must be multiples of for a generator."""
    check.one_of("generator", name, GENERATORS)
    return 4 if name in _RESNET_BLOCKS else 1 << _UNET_DOWNS[name]


def least_size(name: str) -> int:
    """The least height and width: an instance norm needs more than one pixel, and the ResNets end with one."""
    return 2 * size_multiple(name) if name in _RESNET_BLOCKS else size_multiple(name)


@lru_cache(maxsize=4096)
def check_image_size(
    generator: str, discriminator: str, height: int, width: int, *, norm: Norm, padding: Padding, layers: int
) -> None:
    """Send nothing but a size through both networks; arguments are theirs.

    Raises:
        ImageTooSmall: they cannot be trained on images of this size.
    """
    with torch.device("meta"):  # sizes are the same with any channels
        first = build_generator(generator, norm=norm, channels=1, padding=padding)
        second = build_discriminator(discriminator, norm=norm, channels=1, layers=layers)
        try:
            second(first(torch.empty(2, 3, height, width)))
        except (RuntimeError, ValueError) as error:
            names = f"generator = {generator!r}, discriminator = {discriminator!r}"
            names += f", discriminator_layers = {layers}" if discriminator == "n_layers" else ""
            raise ImageTooSmall(f"{width} x {height} pixels are too few for {names}") from error


class Generator(nn.Module):
    """See `build_generator`."""

    model: nn.Module
    pixel_bytes: int
    mirrored: int
    """See `nst.gan.bands.BandedNetwork`."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out

    def in_bands(self, bands: Bands, x: Tensor) -> Tensor:
        """What `forward` gives for one image, but for rounding."""
        raise NotImplementedError


class _ResNet(Generator):
    """Johnson et al. 2016, as the CycleGAN paper's appendix has it: c7s1-64, d128, d256, R256 ..., u128, u64,
    c7s1-3."""

    model: nn.Sequential

    def __init__(
        self,
        blocks: int,
        image_channels: tuple[int, int],
        width: int,
        norm: Norm,
        padding: Padding,
        dropout: bool,
        upsample: Upsample,
    ) -> None:
        super().__init__()
        self.pixel_bytes, self.mirrored = 16 * width, width
        bias = norm == "instance"
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(image_channels[0], width, 7, bias=bias),
            normalization(norm, width),
            nn.ReLU(inplace=True),
        ]
        for _ in range(2):
            layers += [
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias),
                normalization(norm, 2 * width),
                nn.ReLU(inplace=True),
            ]
            width *= 2
        layers += [_Block(width, norm, padding, dropout) for _ in range(blocks)]
        for _ in range(2):
            layers += [
                BlurredUp(width, width // 2, bias)
                if upsample == "blur"
                else nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=bias),
                normalization(norm, width // 2),
                nn.ReLU(inplace=True),
            ]
            width //= 2
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, image_channels[1], 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def in_bands(self, bands: Bands, x: Tensor) -> Tensor:
        """Two activations are kept whole, at a quarter of the image's sides: what the blocks add to, and what
        they add."""
        layers = list(self.model)
        blocks = [layer for layer in layers if isinstance(layer, _Block)]
        begin = layers.index(blocks[0])
        kept = bands.apply(layers[: begin - 2], x, margin=8, step=4)
        kept = bands.apply(layers[begin - 2 : begin], kept, into=kept)
        inner = None
        for block in blocks:
            *layers_of, last = block.conv_block
            first = 1 + next(index for index, layer in enumerate(layers_of) if isinstance(layer, nn.Conv2d))
            inner = bands.apply(layers_of[:first], kept, margin=1, into=inner)
            inner = bands.apply(layers_of[first:], inner, margin=1, into=inner)
            kept = bands.apply([last], inner, into=kept, add=True)
        del inner
        return bands.apply(layers[begin + len(blocks) :], kept, margin=3, up=4)


class _Block(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int, norm: Norm, padding: Padding, dropout: bool) -> None:
        super().__init__()
        pads = [_PADS[padding](1)] if padding in _PADS else []

        def convolution() -> list[nn.Module]:
            rim = 0 if pads else 1
            return [
                *pads,
                Conv3x3(width, width, 3, padding=rim, bias=norm == "instance"),
                normalization(norm, width),
            ]

        between = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(*convolution(), nn.ReLU(inplace=True), *between, *convolution())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class _UNet(Generator):
    """Isola et al. 2017: halves down to one pixel, and up again with what was there on the way down."""

    model: _Outermost

    def __init__(
        self, downs: int, image_channels: tuple[int, int], width: int, norm: Norm, dropout: bool
    ) -> None:
        super().__init__()
        self.pixel_bytes, self.mirrored = 8 * width, 0
        block = _Down(8 * width, 8 * width, None, norm)
        for _ in range(downs - 5):
            block = _Down(8 * width, 8 * width, block, norm, dropout)
        for factor in (4, 2, 1):
            block = _Down(factor * width, 2 * factor * width, block, norm)
        self.model = _Outermost(image_channels, width, block, norm)

    def in_bands(self, bands: Bands, x: Tensor) -> Tensor:
        """All that a level hands on is kept whole."""
        first, below, *up = self.model.model
        assert isinstance(below, _Down)
        kept = bands.apply([first], x, margin=2, step=2)
        return bands.apply(up, *below.in_bands(bands, kept), margin=1, up=2)


class _Down(nn.Module):
    """A level of the U-Net: its input beside what the levels below make of it."""

    def __init__(
        self, outer: int, inner: int, below: nn.Module | None, norm: Norm, dropout: bool = False
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        down: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=bias)]
        if below is not None:
            down += [normalization(norm, inner), below]
        wide = inner if below is None else 2 * inner
        up = [
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(wide, outer, 4, stride=2, padding=1, bias=bias),
            normalization(norm, outer),
        ]
        self.model = nn.Sequential(*down, *up, *([nn.Dropout(0.5)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        # In the public implementation the leaky ReLU is in place, and so what is passed on is its output.
        x = self.model[0](x)
        return torch.cat([x, self.model[1:](x)], dim=1)

    def in_bands(self, bands: Bands, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` puts side by side; the first takes the place of `x`."""
        leaky, down, *more = self.model
        x = bands.apply([leaky], x, into=x)
        inner = bands.apply([down], x, margin=2, step=2)
        sides: tuple[Tensor, ...] = (inner,)
        if isinstance(below := more[1], _Down):
            norm, _, *more = more
            sides = below.in_bands(bands, bands.apply([norm], inner, into=inner))
        relu, up, *more = more
        outer = bands.apply([relu, up], *sides, margin=1, up=2)
        return x, bands.apply(more, outer, into=outer)


class _Outermost(nn.Module):
    def __init__(self, image_channels: tuple[int, int], width: int, below: nn.Module, norm: Norm) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(image_channels[0], width, 4, stride=2, padding=1, bias=norm == "instance"),
            below,
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * width, image_channels[1], 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out
