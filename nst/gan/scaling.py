"""Loss scaling, with which activations and their gradients fit into float16 (Micikevicius et al. 2018, section
3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LossScale", "descend"]

_FIRST, _MOST = 2.0**16, 2.0**24
_LEAST = 2.0**-14
"""The least factor: gradients that are no numbers even with it are none for another reason."""
_PATIENCE = 2000


class LossScale:
    """A power of two that a loss is multiplied by before its gradients are computed, and that these are divided
    by afterwards. It is halved when a gradient was not finite, and doubled after 2000 steps without one.
    """

    def __init__(self) -> None:
        self.factor = _FIRST
        self._steps = 0
        """Steps since the factor was changed."""

    def unscale(self, parameters: Sequence[Tensor]) -> bool:
        """Divide gradients by the factor, and adapt it. Where several processes train, gradients are the mean
        of those of all by then, so that all come to the same answer.

        Returns:
            Whether the gradients can be used: all are finite. Where the factor is as small as it gets they are
            used in any case: the training has diverged, and parameters that are no numbers say so.
        """
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for grad in grads:
            grad.mul_(1 / self.factor)  # exact, unless it is tiny
        if bool(nn.utils.get_total_norm(grads).isfinite()):
            self._steps += 1
            if self._steps == _PATIENCE:
                self.factor, self._steps = min(_MOST, 2 * self.factor), 0
            return True
        at_least = self.factor <= _LEAST
        self.factor, self._steps = max(_LEAST, self.factor / 2), 0
        return at_least

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self._steps = state["factor"], state["steps"]


def descend(optimizer: torch.optim.Optimizer, max_norm: float = 0.0, scale: LossScale | None = None) -> bool:
    """An optimizer's step.

    Args:
        max_norm: what the gradients of all its parameters together are clipped to; 0: they are not.
        scale: what the loss was multiplied by; None: nothing.

    Returns:
        Whether it was done; else a scaled gradient was not finite.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    if scale is not None and not scale.unscale(parameters):
        return False
    if max_norm:
        nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()
    return True
