"""Distances of activations from those of a style and of a content."""

from __future__ import annotations

from torch import Tensor

__all__ = ["balanced", "content_distance"]


def balanced(found: Tensor, wanted: Tensor) -> Tensor:
    """(N,) squared distances of matrices (N, C, C), over the sum of their squares: from 0 to 1."""
    over = found.square().sum((1, 2)) + wanted.square().sum((1, 2))
    return (found - wanted).square().sum((1, 2)) / over.clamp_min(1e-20)


def content_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """(N,) mean squared differences of instance-normalized activations (N, C, h, w)."""
    return (_normalized(found) - _normalized(wanted)).square().mean((1, 2, 3))


def _normalized(features: Tensor) -> Tensor:
    mean = features.mean((2, 3), keepdim=True)
    return (features - mean) / (features.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
