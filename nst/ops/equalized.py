"""Layers whose parameters start with variance 1 and are scaled as they are used, so that one learning rate
suits all of them (Karras et al. 2018, "Progressive growing of GANs", section 4.1)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst import check

__all__ = [
    "Border",
    "Equalized",
    "EqualizedConv2d",
    "EqualizedLinear",
    "PixelNorm",
    "draw_parameters",
]

Border = Literal["reflect", "zero"]
"""What a convolution sees beyond the border: the image mirrored, or nothing."""


class Equalized(nn.Module):
    """A layer with parameters that `draw_parameters` knows to draw."""

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw its own weights anew, not those of layers within, and have its biases 0; None: from torch's own
        stream."""
        for name, parameter in self.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            # On the meta device there is nothing to fill, and torch would import its compiler for it, which
            # takes longer than all else of a short command.
            elif not parameter.is_meta:
                parameter.normal_(generator=generator)


def draw_parameters(network: nn.Module, generator: torch.Generator) -> None:
    """Draw anew the parameters of the equalized layers of `network`, in their order."""
    for module in network.modules():
        if isinstance(module, Equalized):
            module.reset_parameters(generator)


class PixelNorm(nn.Module):
    """(N, C, ...) with each position's C values divided by their root mean square (Karras et al. 2018,
    section 4.2). Same dtype; the mean is at least float32's."""

    def forward(self, x: Tensor) -> Tensor:
        exact = at_least_float32(x)
        return (exact * (exact.square().mean(1, keepdim=True) + 1e-8).rsqrt()).to(x.dtype)


class EqualizedLinear(Equalized):
    """x W^T + b of (..., inputs) to (..., outputs); W is the parameter divided by sqrt(inputs).

    Raises:
        OptionError: no inputs or outputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        check.at_least("inputs", inputs, 1)
        check.at_least("outputs", outputs, 1)
        self.scale = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, (self.weight * self.scale).to(x.dtype), self.bias.to(x.dtype))


class EqualizedConv2d(Equalized):
    """A convolution of (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride)), of one pixel less
    of H and W if the kernel is even; its weights are the parameter times 1 / sqrt(inputs * kernel^2).

    Raises:
        OptionError: unknown padding, or a size that is not at least 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: Border = "reflect",
    ) -> None:
        super().__init__()
        for option, value in (("inputs", inputs), ("outputs", outputs), ("kernel", kernel), ("stride", stride)):
            check.at_least(option, value, 1)
        check.one_of("padding", padding, get_args(Border))
        self.stride, self.padding = stride, padding
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight * self.scale).to(x.dtype)
        rim = (weight.shape[-1] - 1) // 2
        return F.conv2d(padded(x, rim, self.padding), weight, self.bias.to(x.dtype), stride=self.stride)


def padded(x: Tensor, rim: int, border: Border) -> Tensor:
    """(N, C, H + 2 rim, W + 2 rim)."""
    if rim == 0:
        return x
    return F.pad(x, (rim,) * 4, mode="reflect" if border == "reflect" else "constant")


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, unless it has fewer bits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
