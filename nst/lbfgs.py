"""L-BFGS and Adam for one photograph each, so that a batch is many small problems and not one joint one."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import torch
from torch import Tensor

from nst.errors import OptionError

__all__ = ["LBFGS", "Adam", "Optimizer"]


class Optimizer(Protocol):
    """Proposes points; knows nothing of the objective. One instance per photograph."""

    def step(self, x: Tensor, grad: Tensor) -> Tensor:
        """The next point, given the gradient `grad` at `x`. The caller may move it (project it) as it likes."""
        ...

    def reset(self) -> None:
        """Forget everything, as after a step that led nowhere."""
        ...


class LBFGS:
    """Limited-memory BFGS (Nocedal 1980) without line search, one evaluation per step.

    The first step has length min(1, 1 / |g|_1); later ones `learning_rate` times the quasi-Newton direction.
    On the same problem the points equal `torch.optim.LBFGS`'s. One departure: the displacement of a curvature
    pair is where the point really went, x - x_previous, not the step that was proposed, so that a projection
    onto [0, 1] between steps does not corrupt the history.

    Memory: 2 * `history_size` vectors of the photograph's size.
    """

    def __init__(self, *, history_size: int = 100, learning_rate: float = 1.0) -> None:
        if history_size < 1:
            raise OptionError("history_size", history_size, reason="at least 1")
        if not learning_rate > 0:
            raise OptionError("learning_rate", learning_rate, reason="more than 0")
        self.history_size, self.learning_rate = history_size, learning_rate
        self.reset()

    def reset(self) -> None:
        self._pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=self.history_size)  # s, y, 1 / s.y
        self._last: tuple[Tensor, Tensor] | None = None
        self._scale: Tensor | None = None  # of the initial inverse Hessian: s.y / y.y

    def step(self, x: Tensor, grad: Tensor) -> Tensor:
        flat = grad.flatten()
        if self._last is None:
            length = self.learning_rate * torch.clamp(1.0 / flat.abs().sum(), max=1.0)
            self._last = (x, grad)
            return x - length * grad
        s, y = (x - self._last[0]).flatten(), (grad - self._last[1]).flatten()
        self._last = (x, grad)
        sy, yy = s.dot(y), y.dot(y)
        # Positive curvature, beyond what rounding makes of nothing; a relative test, so that the scale of the
        # loss does not matter (torch's is absolute: 1e-10).
        if bool(sy > 1e-10 * s.norm() * yy.sqrt()):
            self._pairs.append((s, y, 1.0 / sy))
            self._scale = sy / yy
        direction = self._two_loops(flat.neg())
        return x + self.learning_rate * direction.view_as(x)

    def _two_loops(self, q: Tensor) -> Tensor:
        """Nocedal and Wright 2006, algorithm 7.4."""
        alphas = []
        for s, y, rho in reversed(self._pairs):
            alpha = rho * s.dot(q)
            q = q - alpha * y
            alphas.append(alpha)
        if self._scale is not None:
            q = q * self._scale
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            q = q + (alpha - rho * y.dot(q)) * s
        return q


class Adam:
    """Adam (Kingma and Ba 2015)."""

    def __init__(
        self, *, learning_rate: float = 0.02, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        if not learning_rate > 0:
            raise OptionError("learning_rate", learning_rate, reason="more than 0")
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self.reset()

    def reset(self) -> None:
        self._steps = 0
        self._moments: tuple[Tensor, Tensor] | None = None

    def step(self, x: Tensor, grad: Tensor) -> Tensor:
        first, second = self._moments or (torch.zeros_like(grad), torch.zeros_like(grad))
        beta1, beta2 = self.betas
        self._steps += 1
        first = beta1 * first + (1 - beta1) * grad
        second = beta2 * second + (1 - beta2) * grad.square()
        self._moments = first, second
        corrected = first / (1 - beta1**self._steps)
        spread = (second / (1 - beta2**self._steps)).sqrt() + self.eps
        return x - self.learning_rate * corrected / spread
