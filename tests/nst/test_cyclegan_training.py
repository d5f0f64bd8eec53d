"""The training step is the paper's, written out; and it goes on to the bit from what was saved."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.cyclegan.training import CycleGANOptions, CycleGANTraining, train_step
from nst.errors import OptionError
from nst.gan.losses import gradient_penalty
from reference.cyclegan import plain_step


def options(**changes: Any) -> CycleGANOptions:
    small = {"generator": "resnet_6blocks", "generator_channels": 4, "discriminator_channels": 4}
    return CycleGANOptions(**{**small, "discriminator": "n_layers", "discriminator_layers": 1, **changes})


def double(training: CycleGANTraining) -> CycleGANTraining:
    for network in [
        *training.generators.values(),
        *training.discriminators.values(),
        *training.averages.values(),
    ]:
        network.double()
    return training


def batches(steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(steps, 2, N, 3, H, W)"""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(steps, 2, 2, 3, 16, 16, generator=generator, dtype=dtype) * 2 - 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gan_mode": "vanilla", "lambda_identity": 0.0, "pool_size": 3},
        {"gan_mode": "hinge", "penalty": "r1", "norm": "none"},
        {"gan_mode": "wgangp"},
        pytest.param({"norm": "batch", "discriminator": "pixel"}, marks=pytest.mark.slow),
        {"generator": "unet_128", "generator_channels": 1, "norm": "none", "penalty": "zero_centered"},
    ],
    ids=str,
)
def test_ten_steps_equal_the_plain_procedure(changes: dict[str, Any]) -> None:
    """In float64: losses to 1e-9, parameters to 1e-8."""
    ours, plain = (double(CycleGANTraining(options(**changes), seed=1)) for _ in range(2))
    size = 128 if changes.get("generator") == "unet_128" else 16
    for real_a, real_b in batches(3 if size == 128 else 10):
        a, b = (F.interpolate(x, size=(size, size)) for x in (real_a, real_b))
        found, expected = train_step(ours, a, b), plain_step(plain, a, b)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9, msg=name)
    for name in ("G_A", "G_B", "D_A", "D_B"):
        pairs = zip(
            getattr(ours, name).state_dict().items(), getattr(plain, name).state_dict().items(), strict=True
        )
        for (key, mine), (_, theirs) in pairs:
            if (
                "running" not in key
            ):  # of discriminators with batch norm, the public order updates them once more
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-8, msg=f"{name}.{key}")


def test_the_generators_step_leaves_the_discriminators_gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    training = CycleGANTraining(options())
    seen: list[list[bool]] = []
    step = training.optimizer_g.step

    def look(*arguments: Any) -> Any:
        networks = training.discriminators.values()
        seen.append([parameter.grad is None for network in networks for parameter in network.parameters()])
        return step(*arguments)

    monkeypatch.setattr(training.optimizer_g, "step", look)
    train_step(training, *batches(1, torch.float32)[0])
    assert all(seen[0])
    parameters = [
        parameter for network in training.discriminators.values() for parameter in network.parameters()
    ]
    assert all(parameter.requires_grad for parameter in parameters)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gan_mode": "wgangp", "ema_decay": 0.9, "pool_size": 4},
        pytest.param({"dropout": True}, marks=pytest.mark.slow),
        {"precision": "float16", "ema_decay": 0.9},
        {"critic_steps": 3, "spectral_norm": True},
    ],
    ids=str,
)
def test_goes_on_to_the_bit_from_what_was_saved(changes: dict[str, Any]) -> None:
    data = batches(8, torch.float32)
    training = CycleGANTraining(options(**changes), seed=5)
    for batch in data[:4]:
        train_step(training, *batch)
    saved = io.BytesIO()
    torch.save(training.state_dict(), saved)
    saved.seek(0)
    resumed = CycleGANTraining(options(**changes), seed=6)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for batch in data[4:]:
        found, expected = train_step(resumed, *batch), train_step(training, *batch)
        assert found == expected
    for name, average in training.averages.items():
        for mine, theirs in zip(average.parameters(), resumed.averages[name].parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_averages_follow_over_a_tenth_of_the_steps_and_then_as_asked() -> None:
    """So that what a short training ends with has nothing of its random start."""
    training = CycleGANTraining(options(ema_decay=0.6))
    expected = copy.deepcopy(training.G_A)
    for step, batch in enumerate(batches(15, torch.float32), 1):
        train_step(training, *batch)
        decay = min(0.6, 1 - 10 / step) if step > 10 else 0.0
        with torch.no_grad():
            for own, new in zip(expected.parameters(), training.G_A.parameters(), strict=True):
                own.copy_(decay * own + (1 - decay) * new)
    for mine, theirs in zip(training.averages["G_A"].parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_training_from_before_there_was_a_count_averages_as_it_began() -> None:
    training = CycleGANTraining(options(ema_decay=0.75))
    state = training.state_dict()
    del state["steps"]
    again = CycleGANTraining(options(ema_decay=0.75))
    again.load_state_dict(state)
    before = copy.deepcopy(again.averages["G_A"])
    train_step(again, *batches(1, torch.float32)[0])
    moved = (before.parameters(), again.G_A.parameters(), again.averages["G_A"].parameters())
    for old, new, found in zip(*moved, strict=True):
        torch.testing.assert_close(found, 0.75 * old + 0.25 * new)


def test_bfloat16_trains_float32_parameters() -> None:
    training = CycleGANTraining(options(precision="bfloat16", penalty="r1"))
    plain = CycleGANTraining(options(penalty="r1"))
    batch = batches(1, torch.float32)[0]
    found, expected = train_step(training, *batch), train_step(plain, *batch)
    for name, loss in expected.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(found[name], loss, rtol=0.05, atol=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in training.G_A.parameters())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"generator": "resnet"}, "resnet_9blocks"),
        ({"discriminator": "patch"}, "basic, n_layers, pixel"),
        ({"gan_mode": "wgan"}, "lsgan, vanilla, wgangp, hinge"),
        ({"penalty": "r2"}, "none, wgangp, r1, zero_centered"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"beta1": 1.0}, r"^beta1 = 1\.0"),
        ({"discriminator_layers": 10**9}, "discriminator_layers = 1000000000: must be at most 12"),
        ({"ema_decay": -0.1}, r"^ema_decay = -0\.1"),
        ({"lambda_a": -1.0}, "lambda_a"),
        ({"precision": "float8"}, "float32, bfloat16, float16, float64"),
        ({"norm": "batch", "gan_mode": "wgangp"}, r"penalty = 'wgangp'.*batch norm"),
    ],
    ids=str,
)
def test_bad_options_name_option_and_value(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        CycleGANTraining(options(**changes))


def test_a_penalty_reaches_every_parameter() -> None:
    """Data-parallel training waits for the gradient of each."""
    for mode in ("r1", "wgangp", "zero_centered"):
        training = CycleGANTraining(options(penalty=mode))
        network: nn.Module = training.D_A
        gradient_penalty(network, batches(1, torch.float32)[0, 0], mode).backward()  # type: ignore[arg-type, no-untyped-call]
        assert all(parameter.grad is not None for parameter in network.parameters())
