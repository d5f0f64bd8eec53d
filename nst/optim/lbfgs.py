"""L-BFGS and Adam for one photograph each, so that a batch is many small problems and not one joint one."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from nst.errors import OptionError

__all__ = ["LBFGS", "Adam", "Optimizer"]


class Optimizer(Protocol):
    """Proposes points; knows nothing of the objective. One instance per photograph."""

    descends: bool
    """Whether its steps are meant to go down, so that one that goes up is too long."""

    def step(self, x: Tensor, grad: Tensor) -> Tensor:
        """The next point, a tensor of its own, given the gradient `grad` at `x`. The caller may move it
        (project it) as it likes, in place too."""
        ...

    def reset(self) -> None:
        """Forget everything, as after a step that led nowhere, and begin with shorter ones."""
        ...

    def rebase(self, x: Tensor, grad: Tensor) -> None:
        """Take `grad` at `x` for where the next step starts, and learn nothing from how it got there, as when
        the objective has changed a little."""
        ...


class LBFGS:
    """Limited-memory BFGS (Nocedal 1980) without line search, one evaluation per step.

    Args:
        history_size: curvature pairs that are kept; each costs two vectors of the photograph's size.
        learning_rate: factor of the quasi-Newton steps.
        first_step: mean absolute change of an element in the first step. Every later one may go twice as far
            as the one before was allowed to, so that the first curvature pairs, which know little, cannot
            throw the photograph out of the picture. After a reset it starts from half of that. None: torch's
            rule, a gradient step of length min(1, 1 / |g|_1) and no limit afterwards.
        bounds: least and largest value of an element. At a bound, elements that the gradient pushes outward
            take no part in the step (Bertsekas 1982). The caller projects.

    Without `first_step` and `bounds` the points equal `torch.optim.LBFGS`'s on the same problem. The
    displacement of a curvature pair is where the point really went, x - x_previous, not the step that was
    proposed, so that the projection does not corrupt the history.
    """

    descends = True

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
        self._last: tuple[Tensor, Tensor] | None = None
        self._forget()

    def reset(self) -> None:
        if self.first_step is not None:
            self.first_step /= 2
        self._forget()

    def rebase(self, x: Tensor, grad: Tensor) -> None:
        if self._last is not None:
            self._last = (x, grad)

    def _forget(self) -> None:
        self._history: _History | None = None
        self._last = None
        self._reach = self.first_step  # how far, in mean absolute change, the next step may go

    def step(self, x: Tensor, grad: Tensor) -> Tensor:
        free = self._free(x, grad)
        descent = -grad if free is None else -grad * free
        if self._last is None:
            self._last = (x, grad)
            return x + self._first(descent)
        if self._history is None:
            self._history = _History(self.history_size, x)
        s, y = (x - self._last[0]).flatten(), (grad - self._last[1]).flatten()
        self._last = (x, grad)
        direction = self._history.direction(s, y, descent.flatten())
        if direction is None:
            # Nothing was bent upward so far, as Gram matrices of flat photographs are not: the gradient's own
            # size, which is that of the loss, says nothing.
            return x + (self.learning_rate * descent if self.first_step is None else self._first(descent))
        direction = direction.view_as(x)
        if free is not None:
            direction = direction * free
        return x + self._limited(self.learning_rate * direction)

    def _first(self, descent: Tensor) -> Tensor:
        if self.first_step is None:
            return self.learning_rate * torch.clamp(1.0 / descent.abs().sum(), max=1.0) * descent
        size = descent.abs().mean().clamp_min(torch.finfo(descent.dtype).tiny)  # 0 where nothing may move
        return self.first_step / size * descent

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


class _History:
    """Curvature pairs s, y as rows of two matrices, with their inner products.

    The inverse Hessian in its compact form (Byrd, Nocedal, Schnabel 1994, theorem 2.2): the same as the
    two-loop recursion, but each step reads the matrices twice, in a few large products instead of four hundred
    small ones. What is left is a triangular system as large as the history, in float64.
    """

    def __init__(self, size: int, like: Tensor) -> None:
        self._size = size
        self._order: list[int] = []  # rows in use, oldest pair first
        self._s = self._y = like.new_empty((0, like.numel()))
        self._sy = torch.zeros(size, size, dtype=torch.float64)  # s_i . y_j
        self._yy = torch.zeros(size, size, dtype=torch.float64)  # y_i . y_j

    def direction(self, s: Tensor, y: Tensor, descent: Tensor) -> Tensor | None:
        """Take in a pair, if it shows positive curvature, and apply the inverse Hessian to `descent`, (M,).
        None: no pair has shown it yet."""
        row, curved = self._place(s, y)
        rows = max(row + 1, len(self._order))
        all_s, all_y = self._s[:rows], self._y[:rows]
        of_all_s = all_s @ torch.stack([descent, y], 1)
        of_all_y = all_y @ torch.stack([descent, y, s], 1)
        # A GPU is waited for here only.
        found = torch.cat([of_all_s.flatten(), of_all_y.flatten(), curved[None]]).cpu().double()
        from_s, from_y = found[: 2 * rows].view(rows, 2), found[2 * rows : -1].view(rows, 3)
        if found[-1]:
            self._order = [*(each for each in self._order if each != row), row]
            self._sy[:rows, row], self._sy[row, :rows] = from_s[:, 1], from_y[:, 2]
            self._yy[:rows, row] = self._yy[row, :rows] = from_y[:, 1]
        if not self._order:
            return None
        order = torch.tensor(self._order)
        inner_sy, inner_yy = self._sy[order][:, order], self._yy[order][:, order]
        upper = inner_sy.triu()
        scale = inner_sy[-1, -1] / inner_yy[-1, -1]
        b = torch.linalg.solve_triangular(upper, from_s[order, :1], upper=True)
        right = inner_sy.diagonal()[:, None] * b - scale * (from_y[order, :1] - inner_yy @ b)
        a = torch.linalg.solve_triangular(upper.T, right, upper=False)
        by_row = torch.empty(2, len(order), dtype=torch.float64)
        by_row[:, order] = torch.cat([a.T, -scale * b.T])
        of_s, of_y = by_row.to(descent, non_blocking=True)
        all_s, all_y = all_s[: len(order)], all_y[: len(order)]
        direction: Tensor = float(scale) * descent + of_s @ all_s + of_y @ all_y
        return direction

    def _place(self, s: Tensor, y: Tensor) -> tuple[int, Tensor]:
        """Store a pair, if it shows positive curvature, in the place of the oldest if there are enough; else
        leave what is there. Gives the row, and whether it does."""
        row = len(self._order)
        if row == self._size:
            row = self._order[0]
        elif row == len(self._s):  # twice as many rows as before: few photographs need them all
            more = min(max(8, 2 * row), self._size) - row
            self._s = torch.cat([self._s, self._s.new_empty((more, self._s.shape[1]))])
            self._y = torch.cat([self._y, self._y.new_empty((more, self._y.shape[1]))])
        # Positive curvature, beyond what rounding makes of nothing; a relative test, so that the scale of the
        # loss does not matter (torch's is absolute: 1e-10). A GPU decides by itself, and is not waited for.
        curved = s.dot(y) > 1e-10 * s.norm() * y.norm()
        for pairs, new in ((self._s, s), (self._y, y)):
            torch.where(curved, new, pairs[row], out=pairs[row])
        return row, curved


class Adam:
    """Adam (Kingma and Ba 2015). After each reset its learning rate is half of what it was: its first step has
    that length, however close the goal is."""

    descends = False

    def __init__(
        self, *, learning_rate: float = 0.02, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        if not learning_rate > 0:
            raise OptionError("learning_rate", learning_rate, reason="more than 0")
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self._forget()

    def reset(self) -> None:
        self.learning_rate /= 2
        self._forget()

    def _forget(self) -> None:
        self._steps = 0
        self._moments: tuple[Tensor, Tensor] | None = None

    def rebase(self, x: Tensor, grad: Tensor) -> None:
        """Nothing: it does not look back at points."""

    def step(self, x: Tensor, grad: Tensor) -> Tensor:
        if self._moments is None:
            self._moments = torch.zeros_like(grad), torch.zeros_like(grad)
        first, second = self._moments
        beta1, beta2 = self.betas
        self._steps += 1
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        # The moments' corrections are moved into the numbers: one large temporary less each.
        root = math.sqrt(1 - beta2**self._steps)
        spread = second.sqrt().add_(self.eps * root)
        return torch.addcdiv(x, first, spread, value=-self.learning_rate * root / (1 - beta1**self._steps))
