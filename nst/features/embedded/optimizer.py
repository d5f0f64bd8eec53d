"""How the embedded network's parameters are changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Optimizer"]

_ADAM = 0.9, 0.99
_MOMENTUM = 0.95


class Optimizer:
    """Muon (Jordan et al. 2024) for filters, each as a matrix of all that a channel is made of, in steps as
    large as Adam's (Liu et al. 2025); Adam for everything else."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._filters = [each for each in parameters if each.ndim == 4]
        self._matrices = [nn.Parameter(each.detach().flatten(1).clone()) for each in self._filters]
        others = [each for each in parameters if each.ndim != 4]
        self._optimizers = [
            torch.optim.Muon(
                self._matrices, weight_decay=0.0, momentum=_MOMENTUM, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.Adam(others, betas=_ADAM, fused=True),
        ]

    def zero_grad(self) -> None:
        for each in self._parameters:
            each.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for filters, matrix in zip(self._filters, self._matrices, strict=True):
            assert filters.grad is not None
            matrix.grad = filters.grad.flatten(1)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        for filters, matrix in zip(self._filters, self._matrices, strict=True):
            filters.copy_(matrix.view_as(filters))

    def state_dict(self) -> list[dict[str, Any]]:
        """Averages of gradients and such; parameters are not in it."""
        return [each.state_dict() for each in self._optimizers]

    @torch.no_grad()
    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from these, once the parameters have what they had."""
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        for filters, matrix in zip(self._filters, self._matrices, strict=True):
            matrix.copy_(filters.flatten(1))
