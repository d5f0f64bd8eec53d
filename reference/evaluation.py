"""Distances of two sets of features, (N, C) and (M, C), by their definitions."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "covariance", "plain_frechet", "plain_kernel"]

Floats: TypeAlias = NDArray[np.float64]


def covariance(x: Floats) -> Floats:
    """Term by term, unbiased."""
    found = np.zeros((x.shape[1], x.shape[1]))
    for row in x - x.mean(axis=0):
        found += np.outer(row, row)
    return found / (len(x) - 1)


def plain_frechet(x: Floats, y: Floats) -> float:
    """The definition, by the eigenvalues of the product, which is not symmetric."""
    a, b = (covariance(each) for each in (x, y))
    eigenvalues = np.linalg.eigvals(a @ b).real
    # It has no more of them than the smaller set has dimensions; the others are rounding.
    rank = min(len(x) - 1, len(y) - 1, x.shape[1])
    roots = np.sqrt(np.sort(eigenvalues)[::-1][:rank].clip(0))
    means = x.mean(axis=0) - y.mean(axis=0)
    return float(means @ means + np.trace(a) + np.trace(b) - 2 * roots.sum())


def plain_kernel(x: Floats, y: Floats) -> float:
    """Term by term."""

    def k(a: Floats, b: Floats) -> float:
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    if n == m:
        apart = [(i, j) for i in range(n) for j in range(n) if i != j]
        terms = [k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i, j in apart]
        return math.fsum(terms) / (n * (n - 1))
    total = math.fsum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    total += math.fsum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return total - 2 * math.fsum(k(a, b) for a in x for b in y) / (n * m)
