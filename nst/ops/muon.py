"""Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks")."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon"]

_MOMENTUM = 0.95
_POLYNOMIAL = 3.4445, -4.775, 2.0315
_ITERATIONS = 5
_SIZE = 0.2
"""Root mean square of what Adam changes parameters by, over its learning rate (Liu et al. 2025, "Muon is
scalable for LLM training", section 2.2)."""


class Muon(torch.optim.Optimizer):
    """Muon for filters, each as a matrix of all that a channel is made of, in steps as large as Adam's; Adam
    for all else.

    torch has Muon for matrices alone, and multiplies in bfloat16 also for float64, where several processes are
    to do what one does, and on CPUs, of which many take ten times as long for that.

    Args:
        parameters: of which (O, I, h, w) are filters; some are, and some are not.
        lr: the learning rate of both.
        betas: of Adam.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float]) -> None:
        every = list(parameters)
        filters, others = ([each for each in every if (each.ndim == 4) is is_one] for is_one in (True, False))
        super().__init__([{"params": filters}, {"params": others}], {"lr": lr})
        self._adam = torch.optim.Adam(others, lr, betas, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change what has a gradient."""
        assert closure is None, "gradients are there"
        filters, others = self.param_groups
        for each in filters["params"]:
            if each.grad is None:
                continue
            if each not in self.state:
                self.state[each]["momentum"] = torch.zeros_like(each)
            momentum = self.state[each]["momentum"].lerp_(each.grad, 1 - _MOMENTUM)
            way = _orthogonal(each.grad.lerp(momentum, _MOMENTUM).flatten(1))
            each.add_(way.reshape(each.shape), alpha=-filters["lr"] * _SIZE * math.sqrt(max(way.shape)))
        for group in self._adam.param_groups:
            group["lr"] = others["lr"]
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = dict(state_dict)
        self._adam.load_state_dict(own.pop("adam"))
        super().load_state_dict(own)


def _orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are one: they are from 0.7 to 1.2."""
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide.bfloat16() if wide.is_cuda and wide.dtype == torch.float32 else wide
    x = x / x.norm().clamp_min(1e-7)
    a, b, c = _POLYNOMIAL
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if matrix.shape[0] > matrix.shape[1] else x
