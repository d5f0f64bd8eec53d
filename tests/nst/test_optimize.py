"""The loop rejects bad steps, keeps the best point, and lets every photograph have its own fate."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import pytest
import torch
from torch import Tensor

from nst.optim.descent import Descent, Evaluation
from nst.optim.lbfgs import LBFGS, Adam, Optimizer
from nst.optim.rounds import run_together


def run(
    function: Callable[[Tensor], Tensor],
    starts: Sequence[Tensor],
    optimizers: Sequence[Optimizer],
    evaluations: int,
) -> list[Descent]:
    def objective(points: Sequence[Tensor]) -> list[Evaluation]:
        found = []
        for point in points:
            x = point.clone().requires_grad_()
            loss = function(x)
            (grad,) = torch.autograd.grad(loss, x)
            found.append(Evaluation({"loss": loss.item()}, grad, (float(grad.min()), float(grad.max()))))
        return found

    def task(descent: Descent) -> Generator[Tensor, Evaluation, None]:
        while not descent.done and descent.evaluations < evaluations:
            descent.advance((yield descent.x))

    descents = [Descent(start, optimizer) for start, optimizer in zip(starts, optimizers, strict=True)]
    for _ in run_together([task(descent) for descent in descents], objective):
        pass
    return descents


def bowl(x: Tensor) -> Tensor:
    return ((x - 0.7) ** 2).sum()


def test_finds_the_minimum_and_stays_in_range() -> None:
    (descent,) = run(bowl, [torch.zeros(3, 4, 4)], [LBFGS()], 30)
    assert descent.error is None
    torch.testing.assert_close(descent.best, torch.full((3, 4, 4), 0.7), atol=1e-4, rtol=0)
    (descent,) = run(lambda x: ((x - 3) ** 2).sum(), [torch.zeros(3, 4, 4)], [LBFGS()], 30)
    assert torch.equal(descent.best, torch.ones(3, 4, 4))


def test_a_photograph_in_a_batch_equals_its_solo_run() -> None:
    starts = [torch.rand(3, 4, 5, dtype=torch.float64), torch.rand(3, 9, 2, dtype=torch.float64)]

    def wavy(x: Tensor) -> Tensor:
        return (torch.sin(7 * x) + (x - 0.4) ** 2).sum()

    together = run(wavy, starts, [LBFGS(), LBFGS()], 12)
    for start, descent in zip(starts, together, strict=True):
        (alone,) = run(wavy, [start], [LBFGS()], 12)
        assert torch.equal(alone.best, descent.best)


def test_keeps_the_best_point_not_the_last() -> None:
    (descent,) = run(bowl, [torch.full((3, 2, 2), 0.69)], [Adam(learning_rate=0.3)], 4)
    assert descent.losses["loss"] == pytest.approx(float(bowl(descent.best)))
    assert descent.losses["loss"] <= float(bowl(torch.full((3, 2, 2), 0.69)))


@pytest.mark.parametrize("away", [1e-3, 1e-4])
def test_adam_gets_nearer_to_what_is_near(away: float) -> None:
    """Its first steps lead far beyond: each that is taken back halves the next."""
    (descent,) = run(bowl, [torch.full((3, 2, 2), 0.7 + away)], [Adam(learning_rate=0.02)], 40)
    assert descent.error is None
    assert descent.rejections > 0
    assert float((descent.best - 0.7).abs().max()) < away / 2


def test_stops_at_a_stationary_point() -> None:
    (descent,) = run(bowl, [torch.full((3, 2, 2), 0.7)], [LBFGS()], 50)
    assert descent.done
    assert descent.evaluations < 5


class _Jumps:
    """Proposes a point where the loss is not finite, now and then."""

    descends = False

    def __init__(self, every: int) -> None:
        self.every, self.steps, self.resets = every, 0, 0

    def step(self, x: Tensor, grad: Tensor) -> Tensor:
        self.steps += 1
        if self.steps % self.every == 0:
            return torch.full_like(x, float("nan"))
        return x - 0.2 * grad

    def reset(self) -> None:
        self.resets += 1

    def rebase(self, *_: Tensor) -> None:
        raise AssertionError("nothing was restarted")


def test_a_non_finite_step_is_taken_back() -> None:
    optimizer = _Jumps(every=4)
    (descent,) = run(bowl, [torch.zeros(3, 2, 2)], [optimizer], 20)
    assert descent.error is None
    assert optimizer.resets == descent.rejections > 0
    assert bool(descent.best.isfinite().all())
    assert float(bowl(descent.best)) < 1e-2


def test_gives_up_with_a_typed_error_and_spares_the_others() -> None:
    lost, fine = run(bowl, [torch.zeros(3, 2, 2)] * 2, [_Jumps(every=1), LBFGS()], 40)
    assert lost.error is not None
    assert "non-finite" in str(lost.error)
    assert fine.error is None
    torch.testing.assert_close(fine.best, torch.full((3, 2, 2), 0.7), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_it_leaves_where_nothing_is_bent_upward(scale: float) -> None:
    """As Gram matrices of a flat photograph are not: in steps of the first one's size, whatever the loss's."""

    def far(x: Tensor) -> Tensor:
        return scale * torch.log1p(100 * (x - 0.9) ** 2).mean()

    (descent,) = run(far, [torch.full((3, 8, 8), 0.1)], [LBFGS(first_step=0.05, bounds=(0.0, 1.0))], 30)
    assert float((descent.best - 0.9).abs().max()) < 1e-3


def test_what_got_better_before_a_restart_is_not_given_up_after_it() -> None:
    """Though nothing better is found then, as may be in another precision."""

    class Fails(_Jumps):
        def rebase(self, *_: Tensor) -> None:
            self.every = 1

    descent = Descent(torch.zeros(3, 2, 2), Fails(every=100))
    for number in range(40):
        if number == 4:
            better = descent.best
            descent.restart_from_best()
        if not descent.done:
            grad, loss = 2 * (descent.x - 0.7), float(bowl(descent.x))
            descent.advance(Evaluation({"loss": loss}, grad, (float(grad.min()), float(grad.max()))))
    assert descent.done
    assert descent.error is None
    assert torch.equal(descent.best, better)
    assert float(bowl(better)) < 0.1 * float(bowl(torch.zeros(3, 2, 2)))


def test_a_start_that_is_not_finite_is_an_error() -> None:
    (descent,) = run(lambda x: (x / 0).sum(), [torch.zeros(3, 2, 2)], [LBFGS()], 5)
    assert descent.error is not None
    assert descent.evaluations == 1


def test_an_exploding_step_is_taken_back() -> None:
    class Leaps(_Jumps):
        def step(self, x: Tensor, grad: Tensor) -> Tensor:
            self.steps += 1
            return torch.zeros_like(x) if self.steps == 3 else x - 0.2 * grad

    optimizer = Leaps(every=0)
    (descent,) = run(bowl, [torch.full((3, 2, 2), 0.6)], [optimizer], 12)
    assert descent.rejections == 1
    assert float(bowl(descent.best)) < 1e-3


@pytest.mark.parametrize("descends", [True, False])
def test_a_step_that_goes_up_is_shortened_to_the_minimum_of_a_parabola(descends: bool) -> None:
    """Which a quadratic's own minimum is. Optimizers that do not descend are left alone."""

    class TooLong(_Jumps):
        def step(self, x: Tensor, grad: Tensor) -> Tensor:
            return x - 1.5 * grad

    optimizer = TooLong(every=0)
    optimizer.descends = descends
    (descent,) = run(bowl, [torch.full((3, 2, 2), 0.6)], [optimizer], 3)
    assert (float(bowl(descent.best)) < 1e-9) == descends
    assert (descent.rejections == 0) == descends


def test_a_step_that_cannot_be_mended_is_accepted_in_the_end() -> None:
    """The function goes up wherever one turns: the optimizer is not asked for ever for less."""

    class Up(_Jumps):
        def step(self, x: Tensor, grad: Tensor) -> Tensor:
            self.steps += 1
            return x + 0.1 * grad.sign()

    optimizer = Up(every=0)
    optimizer.descends = True
    (descent,) = run(bowl, [torch.full((3, 2, 2), 0.5)], [optimizer], 30)
    assert 3 < optimizer.steps < 10
    assert torch.equal(descent.best, torch.full((3, 2, 2), 0.5))
