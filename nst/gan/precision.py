"""Precision in which generators and discriminators compute."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Precision", "activations", "laid_out", "parameter_dtype"]

Precision = Literal["float32", "bfloat16", "float16", "float64"]
N = TypeVar("N", bound=nn.Module)
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def parameter_dtype(precision: Precision) -> torch.dtype:
    """The type of parameters and images."""
    return torch.float64 if precision == "float64" else torch.float32


def activations(precision: Precision, like: Tensor) -> torch.autocast:
    """A context in which activations have this precision."""
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(like.device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def laid_out(network: N, precision: Precision) -> N:
    """The network, its filters as is fastest in this precision: with channels last, if it is a half."""
    return network.to(memory_format=torch.channels_last) if precision in _AUTOCAST else network
