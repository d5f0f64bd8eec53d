"""Square roots of matrices by products alone, for GPUs.

A GPU takes milliseconds for the eigenvalues of a small matrix, and is waited for; products of it take
microseconds, and can be in a CUDA graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["root_and_inverse"]

_LEAST = 1e-13
"""Share of the largest eigenvalue, or of what bounds it, from which on roots are right."""


def root_and_inverse(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of symmetric (N, C, C) in float64, and its inverse: M^(1/2) and M^(-1/2).

    Eigenvalues must not be negative by more than rounding. Of those below 1e-13 of M's norm, the first is too
    small and the second bounded: both are straight lines in M there, so that nothing becomes infinite.

    The coupled Newton-Schulz iteration (Higham 2008, "Functions of Matrices", (6.35)), each step scaled so that
    the smallest eigenvalue grows most (Chen and Chow 2014, "A stable scaling of Newton-Schulz for improving the
    sign function computation of a Hermitian matrix"): 20 of them, three products each. On ill-conditioned
    matrices traces of the root are right to 1e-11.
    """
    bound = torch.linalg.matrix_norm(matrix, keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny)
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    root, inverse = matrix / bound, one
    for scale in _SCALES:
        step = torch.baddbmm(one, inverse, root, beta=1.5 * scale, alpha=-0.5 * scale**3)
        root, inverse = torch.bmm(root, step), torch.bmm(step, inverse)
    return root * bound.sqrt(), inverse / bound.sqrt()


def _scales(least: float) -> list[float]:
    """What the steps are scaled by, for singular values from `least` to 1, until all are 1."""
    found = []
    while 1 - least > 1e-15:
        scale = math.sqrt(3 / (1 + least + least**2))
        found.append(scale)
        least *= scale * (1.5 - 0.5 * (scale * least) ** 2)
    return found


_SCALES = _scales(math.sqrt(_LEAST))
