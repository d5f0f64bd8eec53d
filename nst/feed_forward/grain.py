"""Noise that is the same at a place whatever part of a picture is seen."""

from __future__ import annotations

import torch
from torch import Tensor

from nst.ops.constant import constant

__all__ = ["CHANNELS", "grain"]

CHANNELS = 4
_MASK = 0xFFFFFFFF


def grain(height: int, width: int, top: int, left: int, stream: int, like: Tensor) -> Tensor:
    """Values of -1 and 1, each as likely: (1, CHANNELS, height, width), on the device of `like` as its type is.

    Args:
        top, left: where the part is within the picture, or before it.
        stream: each has other values.
    """
    rows, columns = (
        torch.arange(start, start + count, device=like.device)
        for start, count in ((top, height), (left, width))
    )
    # Wellons' hash of 32 bits ("hash-prospector"), of which products stay below 2^63; a bit for each channel.
    value = (rows[:, None] * 0x1F123BB5 + columns * 0x2545F491 + (stream + 1) * 0x05491333).bitwise_and_(_MASK)
    value ^= value >> 15
    value.mul_(0x2C1B3C6D).bitwise_and_(_MASK)
    value ^= value >> 12
    value.mul_(0x297A2D39).bitwise_and_(_MASK)
    value ^= value >> 15
    shifts = constant([8 * channel for channel in range(CHANNELS)], value)
    bits = torch.bitwise_right_shift(value, shifts[:, None, None]).bitwise_and_(1)
    return bits.to(like.dtype).mul_(2).sub_(1)[None]
