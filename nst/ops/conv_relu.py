"""A convolution, its bias and ReLU in one kernel, as inference engines have it, with a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["conv_relu", "has_conv_relu"]

_aten = torch.ops.aten
_ONE = (1, 1)  # stride, padding and dilation


def has_conv_relu(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `conv_relu` takes these: it is cuDNN's, and gives no gradient by parameters."""
    fixed = bias is not None and not (weight.requires_grad or bias.requires_grad)
    return x.is_cuda and torch.version.hip is None and fixed


def conv_relu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """ReLU of a convolution with zeros around, and its gradient by x.

    Args:
        x: (N, C, H, W).
        weight: (K, C, 3, 3).
        bias: (K,).

    Returns:
        (N, K, H, W), which is not to be changed in place.
    """
    out: Tensor = _ConvReLU.apply(x, weight, bias)
    return out


class _ConvReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = torch.cudnn_convolution_relu(x, weight, bias, _ONE, _ONE, _ONE, 1)
        ctx.size = x.shape
        ctx.save_for_backward(weight, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, out = ctx.saved_tensors
        grad = _aten.threshold_backward(grad, out, 0)
        sized = grad.new_empty(1).expand(ctx.size)  # of which nothing but the size counts
        wanted = [True, False, False]
        through, *_ = _aten.convolution_backward(
            grad, sized, weight, None, _ONE, _ONE, _ONE, False, (0, 0), 1, wanted
        )
        return through, None, None
