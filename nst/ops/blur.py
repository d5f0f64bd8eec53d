"""A small blur before strides and after zooms that can be differentiated twice, at the cost of nine numbers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.ops.captured import is_captured

__all__ = ["Blur", "blur"]


class Blur(nn.Module):
    """`blur` as a module; its kernel moves with it and is not part of its state dict."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", _kernel(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _blurred(x, self.kernel)


def blur(x: Tensor) -> Tensor:
    """(N, C, H, W) convolved with [1 2 1] x [1 2 1] / 16, channel by channel, mirrored at the border, so that
    a constant stays constant up to it. Same shape and dtype."""
    return _blurred(x, _kernel())


def _kernel() -> Tensor:
    line = (1.0, 2.0, 1.0)
    return torch.tensor([[above * left / 16 for left in line] for above in line])


def _blurred(x: Tensor, kernel: Tensor) -> Tensor:
    apply = _Blur.forward if is_captured() else _Blur.apply
    return apply(x, kernel.to(x, non_blocking=True))


class _Linear(torch.autograd.Function):
    """A linear function of an image, so that only the kernel is kept for the way back."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])


class _Blur(_Linear):
    """Autocast is kept out."""

    @staticmethod
    def forward(x: Tensor, kernel: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(_mirrored(x), _depthwise(kernel, x), groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(grad, *ctx.saved_tensors), None


class _Spread(_Linear):
    """The transpose of `_Blur`: its gradient, whose gradient is `_Blur` again."""

    @staticmethod
    def forward(grad: Tensor, kernel: Tensor) -> Tensor:
        with torch.autocast(grad.device.type, enabled=False):
            spread = F.conv_transpose2d(grad, _depthwise(kernel, grad), groups=grad.shape[1])
            return _folded(_folded(spread, -1), -2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Blur.apply(grad, *ctx.saved_tensors), None


def _depthwise(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.to(x.dtype).expand(x.shape[1], 1, 3, 3)


def _mirrored(x: Tensor) -> Tensor:
    """(N, C, H + 2, W + 2); a side of one pixel has nothing to mirror and is repeated."""
    for padding, length in (((1, 1, 0, 0), x.shape[-1]), ((0, 0, 1, 1), x.shape[-2])):
        x = F.pad(x, padding, mode="reflect" if length > 1 else "replicate")
    return x


def _folded(x: Tensor, dim: int) -> Tensor:
    """What was mirrored over the two ends of `dim`, added to where it came from."""
    length = x.shape[dim] - 2
    inner = x.narrow(dim, 1, length).clone()
    inner.narrow(dim, min(1, length - 1), 1).add_(x.narrow(dim, 0, 1))
    inner.narrow(dim, max(length - 2, 0), 1).add_(x.narrow(dim, length + 1, 1))
    return inner
