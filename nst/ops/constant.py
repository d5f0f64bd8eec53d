"""Numbers that a program says, where they are needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["constant"]


def constant(values: Sequence[float] | Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """A tensor of these numbers, of the type and on the device of `like`. Unlike `like.new_tensor`, it does not
    wait for all that a GPU has to do."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)
