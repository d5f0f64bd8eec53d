"""The one optimization loop: many photographs in lockstep, each with its own optimizer and its own fate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from nst.errors import Diverged
from nst.lbfgs import Optimizer

__all__ = ["Descent", "Evaluation", "Objective", "minimize"]

# A step is exploding when it lands at this many times the best loss so far: quasi-Newton steps without line
# search go up now and then, but by less.
_EXPLODING = 10.0
_MAX_REJECTIONS = 8


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An objective at one point."""

    losses: Mapping[str, float]
    """By name; `loss` is the total that `grad` belongs to."""
    grad: Tensor


Objective: TypeAlias = Callable[[Sequence[int], Sequence[Tensor]], list[Evaluation]]
"""(indices of the photographs, their current pixels) to one evaluation each."""


@dataclass(slots=True)
class Descent:
    """One photograph on its way down."""

    x: Tensor
    """Where the objective is evaluated next: (3, H, W) in [0, 1]."""
    optimizer: Optimizer
    best: Tensor
    """The point with the least loss so far."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """At `best`; empty before the first evaluation."""
    evaluations: int = 0
    start_loss: float = math.nan
    rejections: int = 0
    done: bool = False
    error: Diverged | None = None


def minimize(
    objective: Objective, starts: Sequence[Tensor], optimizers: Sequence[Optimizer], *, evaluations: int
) -> Iterator[list[Descent]]:
    """Descend from each of `starts` (3, H, W) within [0, 1], spending at most `evaluations` on each.

    Yields the photographs' states after every round of evaluations: the same list every time, to be looked at
    and not kept. A step to a non-finite or exploding loss is taken back, and that photograph's optimizer
    starts anew from its best point. After too many of these the photograph stops where it is best, or, if it
    never got better than its start, is given up with `Diverged`.
    """
    descents = [
        Descent(x=start, optimizer=optimizer, best=start)
        for start, optimizer in zip(starts, optimizers, strict=True)
    ]
    for _ in range(evaluations):
        running = [index for index, descent in enumerate(descents) if not descent.done]
        if not running:
            return
        results = objective(running, [descents[index].x for index in running])
        for index, result in zip(running, results, strict=True):
            _advance(descents[index], result)
        yield descents


def _advance(descent: Descent, result: Evaluation) -> None:
    """Take one evaluation in: accept it and move on, or go back."""
    descent.evaluations += 1
    loss = result.losses["loss"]
    best = descent.losses.get("loss")
    usable = math.isfinite(loss) and bool(result.grad.isfinite().all())
    if not usable and best is None:
        descent.done, descent.error = True, Diverged("the loss is not finite at the start")
        return
    if not usable or (best is not None and loss > _EXPLODING * best):
        descent.rejections += 1
        if descent.rejections > _MAX_REJECTIONS:
            descent.done = True
            if descent.losses["loss"] >= descent.start_loss:
                descent.error = Diverged(
                    f"gave up after {descent.evaluations} evaluations: {_MAX_REJECTIONS} steps led to a "
                    f"non-finite or exploding loss (the last to {loss:g})"
                )
            return
        descent.optimizer.reset()
        descent.x = descent.best
        return
    if best is None:
        descent.start_loss = loss
    if best is None or loss < best:
        descent.best, descent.losses = descent.x, result.losses
    if not bool(result.grad.any()):  # a stationary point, e.g. a photograph that is its own style
        descent.done = True
        return
    # The optimizer learns at the next step where the point really is.
    descent.x = descent.optimizer.step(descent.x, result.grad).clamp(0, 1)
