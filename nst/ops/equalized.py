"""Layers whose parameters start with variance 1 and are scaled as they are used, so that one learning rate
suits all of them (Karras et al. 2018, "Progressive growing of GANs", section 4.1)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst import check
from nst.errors import OptionError

__all__ = [
    "Border",
    "Equalized",
    "EqualizedConv2d",
    "EqualizedLinear",
    "PixelNorm",
    "draw_normal_",
    "draw_parameters",
]

Border = Literal["reflect", "zero"]
"""What a convolution sees beyond the border: the image mirrored, or nothing."""


class Equalized(nn.Module):
    """A layer with parameters that `draw_parameters` knows to draw."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw its own parameters anew, not those of layers within; None: from torch's own stream."""
        raise NotImplementedError


def draw_parameters(network: nn.Module, generator: torch.Generator) -> None:
    """Draw anew the parameters of the equalized layers of `network`, in their order."""
    for module in network.modules():
        if isinstance(module, Equalized):
            module.reset_parameters(generator)


class PixelNorm(nn.Module):
    """(N, C, ...) with each position's C values divided by their root mean square (Karras et al. 2018,
    section 4.2). Same dtype; the mean is at least float32's."""

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        exact = at_least_float32(x)
        return (exact * (exact.square().mean(1, keepdim=True) + self.eps).rsqrt()).to(x.dtype)


def draw_normal_(x: Tensor, std: float, generator: torch.Generator | None) -> None:
    """Fill `x` with normal numbers of mean 0.

    On the meta device there is nothing to fill, and torch would import its compiler for it, which takes longer
    than all else of a short command.
    """
    if not x.is_meta:
        x.normal_(0, std, generator=generator)


class EqualizedLinear(Equalized):
    """x W^T + b of (..., inputs) to (..., outputs); W is the parameter times rate / sqrt(inputs).

    Args:
        bias: the value that b starts with; None: without.
        rate: of learning, relative to other layers. The function it starts as does not depend on it.

    Raises:
        OptionError: no inputs or outputs, or a rate that is not above 0.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float | None = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        check.at_least("inputs", inputs, 1)
        check.at_least("outputs", outputs, 1)
        check.above_zero("rate", rate)
        self.rate, self._start = rate, bias
        self.scale = rate / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = None if bias is None else nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        draw_normal_(self.weight, 1 / self.rate, generator)
        if self.bias is not None and self._start is not None:
            self.bias.fill_(self._start / self.rate)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else (self.bias * self.rate).to(x.dtype)
        return F.linear(x, (self.weight * self.scale).to(x.dtype), bias)


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
        bias: bool = True,
    ) -> None:
        super().__init__()
        for option, value in (("inputs", inputs), ("outputs", outputs), ("kernel", kernel), ("stride", stride)):
            check.at_least(option, value, 1)
        check.one_of("padding", padding, get_args(Border))
        self.stride, self.padding = stride, padding
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        draw_normal_(self.weight, 1.0, generator)
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight * self.scale).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        rim = (weight.shape[-1] - 1) // 2
        return F.conv2d(padded(x, rim, self.padding), weight, bias, stride=self.stride)


def padded(x: Tensor, rim: int, border: Border) -> Tensor:
    """(N, C, H + 2 rim, W + 2 rim)."""
    if rim == 0:
        return x
    return F.pad(x, (rim,) * 4, mode="reflect" if border == "reflect" else "constant")


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, unless it has fewer bits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def check_odd(option: str, value: int) -> None:
    """Raises OptionError: not odd, or below 1."""
    check.at_least(option, value, 1)
    if value % 2 == 0:
        raise OptionError(option, value, reason="must be odd")
