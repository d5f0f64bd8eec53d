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

    Args:
        history_size: curvature pairs that are kept; each costs two vectors of the photograph's size.
        learning_rate: of the quasi-Newton steps.
        first_step: mean absolute change of an element in the first step. Every later one may go twice as far
            as the one before was allowed to, so that the first curvature pairs, which know little, cannot
            throw the photograph out of the picture. After a reset it starts from half of that. None: torch's
            rule, a gradient step of length min(1, 1 / |g|_1) and no limit afterwards.
        bounds: of every element. At a bound, elements that the gradient pushes outward take no part in the
            step (Bertsekas 1982). The caller projects.

    Without `first_step` and `bounds` the points equal `torch.optim.LBFGS`'s on the same problem. The
    displacement of a curvature pair is where the point really went, x - x_previous, not the step that was
    proposed, so that the projection does not corrupt the history.
    """

    def __init__(
        self,
        *,
        history_size: int = 100,
        learning_rate: float = 1.0,
        first_step: float | None = None,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        if history_size < 1:
            raise OptionError("history_size", history_size, reason="at least 1")
        if not learning_rate > 0:
            raise OptionError("learning_rate", learning_rate, reason="more than 0")
        self.history_size, self.learning_rate = history_size, learning_rate
        self.first_step, self.bounds = first_step, bounds
        self._forget()

    def reset(self) -> None:
        if self.first_step is not None:
            self.first_step /= 2
        self._forget()

    def _forget(self) -> None:
        self._pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=self.history_size)  # s, y, 1 / s.y
        self._last: tuple[Tensor, Tensor] | None = None
        self._scale: Tensor | None = None  # of the initial inverse Hessian: s.y / y.y
        self._reach = self.first_step  # how far, in mean absolute change, the next step may go

    def step(self, x: Tensor, grad: Tensor) -> Tensor:
        free = self._free(x, grad)
        descent = -grad if free is None else -grad * free
        if self._last is None:
            self._last = (x, grad)
            return x + self._first(descent)
        s, y = (x - self._last[0]).flatten(), (grad - self._last[1]).flatten()
        self._last = (x, grad)
        sy, yy = s.dot(y), y.dot(y)
        # Positive curvature, beyond what rounding makes of nothing; a relative test, so that the scale of the
        # loss does not matter (torch's is absolute: 1e-10).
        if bool(sy > 1e-10 * s.norm() * yy.sqrt()):
            self._pairs.append((s, y, 1.0 / sy))
            self._scale = sy / yy
        direction = self._two_loops(descent.flatten()).view_as(x)
        if free is not None:
            direction = direction * free
        return x + self._limited(self.learning_rate * direction)

    def _first(self, descent: Tensor) -> Tensor:
        if self.first_step is None:
            return self.learning_rate * torch.clamp(1.0 / descent.abs().sum(), max=1.0) * descent
        return self.first_step / descent.abs().mean() * descent

    def _limited(self, step: Tensor) -> Tensor:
        if self._reach is None:
            return step
        self._reach *= 2
        return step * torch.clamp(self._reach / step.abs().mean(), max=1.0)

    def _free(self, x: Tensor, grad: Tensor) -> Tensor | None:
        """1 where an element may move, 0 where it is held at a bound."""
        if self.bounds is None:
            return None
        low, high = self.bounds
        return ~(((x <= low) & (grad > 0)) | ((x >= high) & (grad < 0)))

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
