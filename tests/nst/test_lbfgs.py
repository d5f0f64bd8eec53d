"""One L-BFGS per photograph: equal to torch's on the same problem, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nst.errors import OptionError
from nst.optim.lbfgs import LBFGS, Adam

Function = Callable[[Tensor], Tensor]


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def quadratic(x: Tensor) -> Tensor:
    scales = torch.linspace(0.1, 30, x.numel(), dtype=x.dtype)
    return (scales * (x - 1) ** 2).sum() / 2


def gradient(function: Function, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(x), x)
    return grad


def points_of_torch(function: Function, start: Tensor, steps: int, **options: float) -> list[Tensor]:
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([x], max_iter=1, tolerance_grad=0, tolerance_change=0, **options)
    found = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = function(x)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        found.append(x.detach().clone())
    return found


@pytest.mark.parametrize("function", [quadratic, rosenbrock])
@pytest.mark.parametrize("history_size", [3, 100])
def test_points_equal_those_of_torch(function: Function, history_size: int) -> None:
    x = torch.linspace(-1.2, 1.0, 6, dtype=torch.float64)
    expected = points_of_torch(function, x, 25, lr=0.5, history_size=history_size)
    optimizer = LBFGS(history_size=history_size, learning_rate=0.5)
    for point in expected:
        x = optimizer.step(x, gradient(function, x))
        torch.testing.assert_close(x, point, rtol=1e-9, atol=1e-9)


def test_minimizes_a_quadratic_to_rounding() -> None:
    x, optimizer = torch.zeros(40, dtype=torch.float64), LBFGS()
    for _ in range(60):
        x = optimizer.step(x, gradient(quadratic, x))
    assert float((x - 1).abs().max()) < 1e-8


def test_a_projected_point_makes_exact_curvature_pairs() -> None:
    """With the minimum outside the box, projected steps still converge to the constrained minimum, which
    they do not when the history holds proposed steps instead of real ones."""
    x, optimizer = torch.full((40,), 0.2, dtype=torch.float64), LBFGS()

    def function(x: Tensor) -> Tensor:
        scales = torch.linspace(0.5, 20, 40, dtype=x.dtype)
        target = torch.linspace(-1, 2, 40, dtype=x.dtype)
        return (scales * (x - target) ** 2).sum() / 2

    for _ in range(150):
        x = optimizer.step(x, gradient(function, x)).clamp(0, 1)
    expected = torch.linspace(-1, 2, 40, dtype=torch.float64).clamp(0, 1)
    assert float((x - expected).abs().max()) < 1e-3


def test_reset_forgets_everything() -> None:
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)
    used, fresh = LBFGS(), LBFGS()
    for _ in range(4):
        x = used.step(x, gradient(rosenbrock, x))
    used.reset()
    for _ in range(4):
        grad = gradient(rosenbrock, x)
        after = used.step(x, grad)
        assert torch.equal(after, fresh.step(x, grad))
        x = after


def test_nothing_moves_where_every_element_is_held_at_its_bound() -> None:
    optimizer = LBFGS(first_step=0.01, bounds=(0.0, 1.0))
    x = torch.zeros(3, 2, 2)
    for _ in range(3):
        x = optimizer.step(x, torch.ones_like(x))
        assert torch.equal(x, torch.zeros_like(x))


def test_adam_equals_that_of_torch() -> None:
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)
    theirs = x.clone().requires_grad_()
    torch_adam, adam = torch.optim.Adam([theirs], lr=0.1), Adam(learning_rate=0.1)
    for _ in range(10):
        torch_adam.zero_grad()
        rosenbrock(theirs).backward()
        torch_adam.step()
        x = adam.step(x, gradient(rosenbrock, x))
        torch.testing.assert_close(x, theirs.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [{"history_size": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}])
def test_refuses_bad_options(bad: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(bad))):
        LBFGS(**bad)  # type: ignore[arg-type]
