"""Layers of generators and discriminators, how parameters begin, and how published ones are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst import check
from nst.errors import WeightsError
from nst.features.weights import plain_names
from nst.gan.spectral import SPECTRAL_STATE, SpectralConv2d, settle
from nst.ops.blur import blur
from nst.ops.captured import is_captured
from nst.ops.winograd import conv3x3

__all__ = [
    "MOST_LAYERS",
    "BlurredUp",
    "Conv3x3",
    "Init",
    "Norm",
    "initialize",
    "load_published",
    "normalization",
]

Norm = Literal["instance", "batch", "none"]
Init = Literal["normal", "xavier", "kaiming", "orthogonal"]

MOST_LAYERS = 12
"""Strided layers of a discriminator at most: with more there is no picture left of 8192 px."""
_WINOGRAD_CHANNELS = 128


@torch.no_grad()
def initialize(
    network: nn.Module, init: Init = "normal", *, gain: float = 0.02, generator: torch.Generator | None = None
) -> None:
    """Fill the parameters of `network`: convolutions by `init`, biases with 0, batch norms around 1.

    Raises:
        OptionError: unknown `init`.
    """
    check.one_of("init", init, get_args(Init))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if init == "normal":
                nn.init.normal_(module.weight, 0.0, gain, generator=generator)
            elif init == "xavier":
                nn.init.xavier_normal_(module.weight, gain=gain, generator=generator)
            elif init == "kaiming":
                nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in", generator=generator)
            else:
                nn.init.orthogonal_(module.weight, gain=gain, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
            if isinstance(module, SpectralConv2d):
                module.draw(generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain, generator=generator)
            module.bias.zero_()


def load_published(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict of the public layout, whatever wrappers put into its names (see `plain_names`), and
    without the running statistics that instance norms had in old files. Spectral norms begin anew where it has
    none.

    Raises:
        WeightsError: a parameter is missing, is one too many, or has another shape.
    """
    wanted = network.state_dict()
    given = plain_names(state)
    old = ("running_mean", "running_var", "num_batches_tracked", SPECTRAL_STATE)
    given = {name: tensor for name, tensor in given.items() if name in wanted or not name.endswith(old)}
    for what, names in (
        ("lacks", wanted.keys() - given.keys()),
        ("has an unknown", given.keys() - wanted.keys()),
    ):
        names = {name for name in names if not name.endswith(("num_batches_tracked", SPECTRAL_STATE))}
        if names:
            raise WeightsError(f"the state dict does not fit: it {what} {min(names)} (of {len(names)})")
    for name in (name for name in wanted if name in given):
        if wanted[name].shape != given[name].shape:
            shapes = f"{tuple(given[name].shape)}, expected {tuple(wanted[name].shape)}"
            raise WeightsError(f"the state dict does not fit: {name} is {shapes}")
    network.load_state_dict({name: given.get(name, tensor) for name, tensor in wanted.items()})
    settle(network, given)


def normalization(norm: Norm, channels: int) -> nn.Module:
    """The layer that normalizes (N, channels, H, W)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return _InstanceNorm(channels) if norm == "instance" else nn.Identity()


class _InstanceNorm(nn.InstanceNorm2d):
    """An instance norm like torch's, whose gradient of a single image in channels_last is wrong (2.15); on CPUs
    it also takes several times as long as batch norm of one image after the other."""

    def forward(self, x: Tensor) -> Tensor:
        # One by one is for gradients; a network that is exported takes any number of images.
        if is_captured() or (len(x) > 1 and x.device.type != "cpu"):
            return super().forward(x)
        each = [F.batch_norm(image, None, None, training=True, eps=self.eps) for image in torch.split(x, 1)]
        return torch.cat(each) if len(each) > 1 else each[0]


class Conv3x3(nn.Conv2d):
    """A 3 x 3 convolution of stride 1. On CPUs in float32 it is computed by Winograd's algorithm, which rounds
    otherwise, if it is wide enough for that to be faster."""

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if plain or self.in_channels < _WINOGRAD_CHANNELS or is_captured():
            return super().forward(x)
        rim = int(self.padding[0])
        return conv3x3(F.pad(x, (rim,) * 4) if rim else x, self.weight, self.bias)


class BlurredUp(nn.Conv2d):
    """(N, C, H, W) to (N, outputs, 2 H, 2 W): every output pixel is of as many input pixels, unlike those of a
    transposed convolution."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, 3, padding=1, padding_mode="reflect", bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return blur(super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest")))
