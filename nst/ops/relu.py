"""ReLUs that are the same forward and differ in what they let back through.

Swapped into a trained network for the way back only, they make visible what a plain gradient hides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nst.errors import OptionError

__all__ = ["ReLUBackward", "relu", "relu_backward"]

ReLUBackward = Literal["standard", "guided", "deconv", "redirected"]
"""What a ReLU of input x lets through of a gradient g:

- standard: g where x > 0.
- guided: g where x > 0 and g > 0 (Springenberg et al. 2015, "Striving for simplicity").
- deconv: g where g > 0 (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks").
- redirected: as standard; but for a sample of the batch for which all of that is zero, g where a step against
  it does not push a negative x lower: where x >= 0 or g <= 0 (lucid, Olah et al. 2017, "Feature
  visualization"). It takes g for the gradient of a loss, which is stepped against.
"""


def relu(x: Tensor, backward: ReLUBackward = "standard") -> Tensor:
    """max(x, 0) of (N, ...), any shape, with a gradient as `ReLUBackward` says.

    Raises:
        OptionError: unknown `backward`.
    """
    return _FUNCTIONS[_checked(backward)].apply(x)  # type: ignore[no-any-return]


@contextmanager
def relu_backward(network: nn.Module, backward: ReLUBackward) -> Iterator[None]:
    """A context in which every `nn.ReLU` of `network` lets back through what `backward` says; after, it is as
    before, also after an exception. Its parameters and modules are not touched. Not for use by several threads
    at once.

    Raises:
        OptionError: unknown `backward`.
    """
    function = _FUNCTIONS[_checked(backward)].apply
    if backward == "standard":
        yield
        return
    swapped = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    try:
        for module in swapped:
            module.__dict__["forward"] = function  # before the class's own
        yield
    finally:
        for module in swapped:
            module.__dict__.pop("forward", None)


def _checked(backward: ReLUBackward) -> ReLUBackward:
    if backward not in _FUNCTIONS:
        raise OptionError("backward", backward, choices=get_args(ReLUBackward))
    return backward


class _ReLU(torch.autograd.Function):
    """The output is kept, which later layers keep anyway; x > 0 is the same as relu(x) > 0."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp_min(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return grad.masked_fill(output <= 0, 0)


class _GuidedReLU(_ReLU):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return grad.masked_fill((output <= 0) | (grad <= 0), 0)


class _DeconvReLU(_ReLU):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        return grad.masked_fill(grad <= 0, 0)


class _RedirectedReLU(_ReLU):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        usual = grad.masked_fill(x <= 0, 0)
        dead = ~usual.reshape(len(x), -1).any(1).view(-1, *[1] * (x.ndim - 1))
        return torch.where(dead, grad.masked_fill((x < 0) & (grad > 0), 0), usual)


_FUNCTIONS: dict[str, Any] = {
    "standard": _ReLU,
    "guided": _GuidedReLU,
    "deconv": _DeconvReLU,
    "redirected": _RedirectedReLU,
}
