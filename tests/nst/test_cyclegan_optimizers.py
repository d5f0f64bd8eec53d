"""What CycleGAN's optimizers are told."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nst.cyclegan.options import CycleGANOptions
from nst.cyclegan.training import CycleGANTraining
from nst.errors import OptionError
from nst.gan.scaling import descend

SMALL = {
    "generator": "resnet_6blocks",
    "generator_channels": 1,
    "discriminator": "pixel",
    "discriminator_channels": 1,
}


def images() -> list[Tensor]:
    return [2 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(n)) - 1 for n in (1, 2)]


def test_each_side_has_its_rate_and_both_their_decays() -> None:
    plain = CycleGANTraining(CycleGANOptions(**SMALL))  # type: ignore[arg-type]
    own = CycleGANTraining(CycleGANOptions(**SMALL, discriminator_learning_rate=1e-3, beta2=0.9))  # type: ignore[arg-type]
    for training, rates, betas in ((plain, [2e-4, 2e-4], (0.5, 0.999)), (own, [2e-4, 1e-3], (0.5, 0.9))):
        groups = [optimizer.param_groups[0] for optimizer in training.optimizers]
        assert [group["lr"] for group in groups] == rates
        assert all(group["betas"] == betas for group in groups)


def test_gradients_are_clipped_to_a_norm_of_each_side() -> None:
    training = CycleGANTraining(CycleGANOptions(**SMALL, max_gradient_norm=1e-3))  # type: ignore[arg-type]
    training.step(images())
    for optimizer in training.optimizers:
        means = torch.cat([state["exp_avg"].flatten() for state in optimizer.state.values()])
        assert float(means.norm()) == pytest.approx(0.5 * 1e-3, rel=1e-3), "by beta1, of one step"


def test_a_step_without_a_norm_is_the_optimizers() -> None:
    for norm, moved in ((0.0, 5.0), (1.0, 1.0), (10.0, 5.0)):
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([3.0, 4.0])
        assert descend(torch.optim.SGD([parameter], 1.0), norm)
        assert float(parameter.detach().norm()) == pytest.approx(moved, rel=1e-4)


def test_generators_are_trained_in_every_so_many_steps_and_discriminators_in_all() -> None:
    options = CycleGANOptions(**SMALL, critic_steps=3, ema_decay=0.5)  # type: ignore[arg-type]
    training = CycleGANTraining(options)
    names = None
    for step in range(1, 8):
        before = copy.deepcopy(training.state_dict())
        losses = training.step(images())
        assert names in (None, [*losses])
        names = [*losses]
        after = training.state_dict()
        for kind, network in (("networks", "G_A"), ("averages", "G_A"), ("networks", "D_A")):
            same = all(
                torch.equal(tensor, before[kind][network][name])
                for name, tensor in after[kind][network].items()
            )
            assert same == (network == "G_A" and step % 3 != 0), (step, kind)
    assert [int(next(iter(each.state.values()))["step"]) for each in training.optimizers] == [2, 7]


def test_a_step_of_the_critics_alone_measures_what_it_does_not_train() -> None:
    """With the losses that the generators would be trained by."""
    plain, critic = (
        CycleGANTraining(CycleGANOptions(**SMALL, critic_steps=steps))  # type: ignore[arg-type]
        for steps in (1, 2)
    )
    assert plain.step(images()) == critic.step(images())
    assert not critic.optimizer_g.state
    for mine, theirs in zip(critic.D_A.parameters(), plain.D_A.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_averages_of_few_updates_are_over_few() -> None:
    """Updates count, not steps: else the average would hold on to the start."""
    training = CycleGANTraining(CycleGANOptions(**SMALL, critic_steps=10, ema_decay=0.9))  # type: ignore[arg-type]
    for _ in range(20):
        training.step(images())
    for mine, theirs in zip(training.averages["G_A"].parameters(), training.G_A.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_bad_options_are_named() -> None:
    for option, value in (
        ("beta2", 1.0),
        ("discriminator_learning_rate", 0.0),
        ("max_gradient_norm", -1.0),
        ("critic_steps", 0),
    ):
        with pytest.raises(OptionError, match=f"{option} = {value}"):
            CycleGANOptions(**{option: value})  # type: ignore[arg-type]
