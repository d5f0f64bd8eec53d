"""Loss scaling: what float16 trainings leave out, and that nothing else is changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nst.gan import scaling
from nst.gan.scaling import LossScale, descend
from nst.gan.trainer import GANTraining
from nst.modulated.training import ManyStylesOptions, ManyStylesTraining
from tests.nst.test_cyclegan_training import CycleGANTraining, batches, options


def stepped(scale: LossScale, gradient: float, max_norm: float = 0.0) -> tuple[bool, list[float]]:
    """A step of size 1 by a gradient of (3, 4) times this: whether it was done, and where it led."""
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = gradient * scale.factor * torch.tensor([-3.0, -4.0])
    done = descend(torch.optim.SGD([parameter], 1.0), max_norm, scale)
    return done, parameter.tolist()


def test_a_step_is_that_of_the_loss_itself() -> None:
    assert stepped(LossScale(), 1.0) == (True, [3.0, 4.0])
    done, moved = stepped(LossScale(), 1.0, max_norm=1.0)
    assert done
    assert moved == pytest.approx([0.6, 0.8], rel=1e-5), "the norm is that of gradients without the factor"


def test_the_factor_is_halved_by_what_is_not_finite_and_doubled_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaling, "_PATIENCE", 3)
    scale = LossScale()
    factors = []
    for gradient in (1.0, 1.0, float("inf"), float("nan"), 1.0, 1.0, 1.0, 1.0, 1.0):
        again = LossScale()
        again.load_state_dict(scale.state_dict())
        assert stepped(again, gradient) == stepped(scale, gradient)
        assert again.state_dict() == scale.state_dict()
        factors.append(scale.factor / 2**16)
    assert factors == [1, 1, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 1 / 2]
    assert stepped(scale, float("inf")) == (False, [0.0, 0.0])


def test_what_no_factor_helps_against_shows_in_the_parameters() -> None:
    """So that the training ends as one that diverged, and does not go on without a step."""
    parameter, scale = nn.Parameter(torch.zeros(2)), LossScale()
    optimizer = torch.optim.Adam([parameter])
    steps = 0
    while steps < 100:
        steps += 1
        parameter.grad = torch.full((2,), float("nan"))
        if descend(optimizer, scale=scale):
            break
        assert parameter.tolist() == [0.0, 0.0]
        assert not optimizer.state
    assert steps == 31, "from 2^16 to 2^-14"
    assert not parameter.isfinite().any()


def test_the_factor_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_PATIENCE", 1)
    scale = LossScale()
    for _ in range(50):
        assert scale.unscale([])
    assert scale.factor == 2.0**24


def cyclegan() -> tuple[GANTraining, list[list[Tensor]]]:
    training = CycleGANTraining(options(precision="float16", ema_decay=0.5, penalty="r1"), seed=1)
    return training, [list(batch) for batch in batches(12, torch.float32)]


def many_styles() -> tuple[GANTraining, list[list[Tensor]]]:
    small: dict[str, Any] = {"generator_channels": 4, "blocks": 1, "latent": 4, "discriminator_channels": 4}
    given = ManyStylesOptions(styles=("photo", "print"), discriminator_layers=1, precision="float16", **small)
    return ManyStylesTraining(given, seed=1), [list(batch) for batch in batches(12, torch.float32)]


@pytest.mark.parametrize("made", [cyclegan, many_styles], ids=lambda made: made.__name__)
def test_steps_that_are_left_out_move_nothing_and_say_so(made: Any) -> None:
    training, data = made()
    training.steps = 100
    for average in training.averages.values():  # so that it would move
        for parameter in average.parameters():
            parameter.mul_(0.5)
    seen: set[tuple[str, float]] = set()
    for batch in data:
        before = copy.deepcopy(training.state_dict())
        losses = training.step(batch)
        after = training.state_dict()
        assert all(loss.dtype == torch.float32 and bool(loss.isfinite()) for loss in losses.values())
        for side in ("G", "D"):
            skipped = float(losses[f"skipped_{side}"])
            seen.add((side, skipped))
            halved = after["scales"][side.lower()]["factor"] / before["scales"][side.lower()]["factor"]
            assert halved == (0.5 if skipped else 1.0)
            counts = [
                [float(each["step"]) for each in state["optimizers"][side.lower()]["state"].values()]
                for state in (before, after)
            ]
            assert (counts[0] == counts[1]) == bool(skipped)
            for kind in ("networks", "averages"):
                for name in (name for name in after[kind] if name.startswith(side)):
                    parameters = {name for name, _ in training._networks()[name].named_parameters()}
                    still = all(
                        torch.equal(tensor, before[kind][name][key])
                        for key, tensor in after[kind][name].items()
                        if key in parameters
                    )
                    assert still == bool(skipped)
    assert {("G", 0.0), ("G", 1.0), ("D", 0.0)} <= seen


def test_another_precision_has_no_factor_and_goes_on_with_one() -> None:
    training, (batch, *_) = cyclegan()
    plain = CycleGANTraining(options(ema_decay=0.5, penalty="r1"), seed=1)
    assert plain.state_dict()["scales"] == {}
    expected, found = plain.step(batch), training.step(batch)
    assert found.keys() - expected.keys() == {"skipped_G", "skipped_D"}
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=0.02, atol=0.005)
    state = plain.state_dict()
    training.load_state_dict(state)
    del state["scales"]  # as it was before there was this precision
    training.load_state_dict(state)
    training.step(batch)
    plain.load_state_dict(training.state_dict())
    assert "skipped_G" not in plain.step(batch)
