"""Precisions that a device computes fast in."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["Precision", "has_bfloat16", "resolved"]

Precision = Literal["float32", "bfloat16"]
"""Precision of activations."""


def resolved(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> Precision:
    """What a precision is on a device: `auto` is bfloat16 where that is faster."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether its arithmetic in bfloat16 is faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
