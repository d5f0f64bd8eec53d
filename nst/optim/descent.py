"""One photograph on its way down: which steps of its optimizer are accepted, and which are taken back."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from nst.errors import Diverged
from nst.optim.lbfgs import Optimizer

__all__ = ["Descent", "Evaluation"]

# A step is exploding when it lands at this many times the best loss so far: quasi-Newton steps without line
# search go up now and then, but by less.
_EXPLODING = 10.0
_MAX_REJECTIONS = 8
# A step goes up when it gains this share of the loss: less is rounding, e.g. of bfloat16.
_UPHILL = 0.01
_MAX_SHORTENINGS = 5


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An objective at one point."""

    losses: Mapping[str, float]
    """Losses by name; `loss` is the total that `grad` belongs to."""
    grad: Tensor
    """The gradient of `loss`, of the point's shape."""
    extremes: tuple[float, float]
    """Least and largest element of `grad`; NaN if there is one."""
    moved: float = math.nan
    """Mean change of an element since the point before; NaN where that was not asked for."""


@dataclass(slots=True)
class Descent:
    """One photograph on its way down within [0, 1].

    A step that goes up is shortened to where a parabola through what is known has its minimum, if the optimizer
    descends; at most five times, and then it is accepted. A step to a non-finite or exploding loss is taken
    back, and the optimizer starts anew from the best point. After too many of these the photograph stops where
    it is best, or, if it never got better than its start, is given up with `Diverged`.
    """

    x: Tensor
    """Where the objective is evaluated next: (3, H, W) in [0, 1]."""
    optimizer: Optimizer
    tolerance: float = 0.0
    """Share of itself by which the best loss must fall over the last `patience` accepted steps to go on."""
    patience: int = 20
    best: Tensor = field(init=False)
    """The point with the least loss so far."""
    taken: Tensor | None = None
    """The last point that was taken, not taken back."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Losses at `best`, by name; empty before the first evaluation."""
    evaluations: int = 0
    start_loss: float = math.nan
    rejections: int = 0
    done: bool = False
    error: Diverged | None = None
    _recent: deque[float] = field(default_factory=deque)
    _accepted: tuple[Tensor, float, Tensor] | None = None
    """Point, loss and gradient that the optimizer took its last step from."""
    _shortenings: int = 0
    _restarted: bool = False

    def __post_init__(self) -> None:
        self.best = self.x

    def restart_from_best(self) -> None:
        """Go on from the best point, whose loss is not known anymore, as when the objective changes a little,
        e.g. its precision. The optimizer keeps what it has learned."""
        self.x, self.losses, self._restarted, self.done = self.best, {}, True, self.error is not None
        self._recent.clear()
        self._accepted = None

    def advance(self, result: Evaluation) -> None:
        """Take the evaluation at `x` in: accept it and move on, or go back."""
        self.evaluations += 1
        loss = result.losses["loss"]
        best = self.losses.get("loss")
        usable = all(map(math.isfinite, (loss, *result.extremes)))
        if not usable and best is None:
            self.done, self.error = True, Diverged("the loss is not finite at the start")
            return
        if usable and self._shorten(loss):
            return
        if not usable or (best is not None and loss > _EXPLODING * best):
            self._reject(loss)
            return
        self.taken = self.x
        if math.isnan(self.start_loss):
            self.start_loss = loss
        if best is None or loss < best:
            self.best, self.losses = self.x, result.losses
        # A stationary point, e.g. a photograph that is its own style; or one that is as good as that.
        if not any(result.extremes) or self._stalls():
            self.done = True
            return
        if self._restarted:
            self.optimizer.rebase(self.x, result.grad)
            self._restarted = False
        if self.optimizer.descends:
            self._accepted, self._shortenings = (self.x, loss, result.grad), 0
        # The optimizer learns at the next step where the point really is.
        self.x = self.optimizer.step(self.x, result.grad).clamp_(0, 1)

    def _shorten(self, loss: float) -> bool:
        """Whether the last step went up and is to be tried at a part of its length."""
        if self._accepted is None or self._shortenings == _MAX_SHORTENINGS:
            return False
        start, low, grad = self._accepted
        if loss <= low + _UPHILL * abs(low):
            return False
        step = self.x - start
        slope = min(0.0, float((grad * step).sum()))
        part = -slope / (2 * (loss - low - slope))
        self.x = start + min(max(part, 0.1), 0.5) * step
        self._shortenings += 1
        return True

    def _reject(self, loss: float) -> None:
        self.rejections += 1
        self._accepted, self._shortenings = None, 0
        if self.rejections > _MAX_REJECTIONS:
            self.done = True
            if self.losses["loss"] >= self.start_loss:
                self.error = Diverged(
                    f"gave up after {self.evaluations} evaluations: {_MAX_REJECTIONS} steps led to a "
                    f"non-finite or exploding loss (the last to {loss:g})"
                )
            return
        self.optimizer.reset()
        self.x = self.best

    def _stalls(self) -> bool:
        self._recent.append(self.losses["loss"])
        if len(self._recent) <= self.patience:
            return False
        before = self._recent.popleft()
        return before - self._recent[-1] < self.tolerance * before
