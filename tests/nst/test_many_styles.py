"""One generator for many styles: its step against the plain procedure, resumed, and in two processes."""

from __future__ import annotations

import copy
import io
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nst.errors import OptionError
from nst.feed_forward.views import contact_sheet
from nst.gan import trainer
from nst.gan.losses import gradient_penalty
from nst.gan.parallel import Share
from nst.gan.sampling import style_pair
from nst.modulated.training import ManyStylesOptions, ManyStylesTraining, direction_means, train_step
from nst.ops.modulated import Form
from reference.modulated import plain_step
from tests.two import check_as_one, in_two_processes

STYLES = ("photo", "ukiyo-e", "pastel")
SIDE = 16
CASES: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "identity and hinge": {"lambda_identity": 0.5, "gan_mode": "hinge", "form": "grouped"},
    "lsgan without a penalty": {"gan_mode": "lsgan", "penalty": "none", "discriminator_norm": "instance"},
    "batch norm": {"norm": "batch", "penalty": "none", "discriminator_norm": "batch"},
    "critic": {"critic_steps": 2, "max_gradient_norm": 0.5},
}


def training(seed: int = 1, *, form: Form = "scaled", **changes: Any) -> ManyStylesTraining:
    small = {"generator_channels": 2, "blocks": 1, "latent": 4, "discriminator_channels": 2}
    given = {**small, "discriminator_layers": 1, "penalty_every": 2, "precision": "float64", **changes}
    return ManyStylesTraining(ManyStylesOptions(styles=STYLES, **given), seed=seed, form=form)


def batches(steps: int, batch_size: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """(steps, 2, N, 3, H, W)"""
    generator = torch.Generator().manual_seed(3)
    shape = (steps, 2, batch_size, 3, SIDE, SIDE)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype) * 2 - 1


def total(losses: dict[str, Tensor], kind: str) -> Tensor:
    return torch.stack([loss for name, loss in losses.items() if name.startswith(kind)]).sum()


# Directions


def test_every_direction_comes_once_before_any_comes_again() -> None:
    for styles in (2, 3, 5):
        count = styles * (styles - 1)
        epochs = [
            [style_pair(epoch * count + place, styles, 7) for place in range(count)] for epoch in range(4)
        ]
        wanted = {(a, b) for a in range(styles) for b in range(styles) if a != b}
        assert all(len(epoch) == len(set(epoch)) and set(epoch) == wanted for epoch in epochs)
        if styles > 2:
            assert epochs[0] != epochs[1]
            assert epochs[0] != [style_pair(place, styles, 8) for place in range(count)]


def test_directions_are_those_of_seed_and_step_in_any_number_of_processes() -> None:
    own = training(seed=5)
    own.steps = 3
    alone = own.directions(5)
    assert list(zip(*(each.tolist() for each in alone), strict=True)) == [
        style_pair(n, 3, 5) for n in range(15, 20)
    ]
    parts = []
    for rank in range(2):
        own.share = Share(5, rank, 2)
        parts.append(own.directions(len(range(5)[own.share.part])))
    for whole, *split in zip(alone, *parts, strict=True):
        assert torch.equal(torch.cat(split), whole)


# The step


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("batch norm", "critic")])
def test_five_steps_equal_the_plain_procedure(case: str) -> None:
    ours, plain = (training(**CASES[case]) for _ in range(2))
    for step, (real_a, real_b) in enumerate(batches(5)):
        found, expected = train_step(ours, real_a, real_b), plain_step(plain, real_a, real_b, step)
        for kind, value in expected.items():
            if kind == "identity" and not ours.options.lambda_identity:
                assert not any(name.startswith(kind) for name in found)
            elif kind == "penalty" and ours.options.penalty == "none":
                assert kind not in found
            else:
                torch.testing.assert_close(total(found, kind), value, rtol=1e-9, atol=1e-9, msg=kind)
        if "penalty" in found:
            assert bool(found["penalty"] > 0) == (step % 2 == 0)
    for one, other in ((ours.G, plain.G), (ours.D, plain.D)):
        for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-8, msg=name)


def test_losses_are_named_by_direction_and_always_the_same_ones() -> None:
    own = training(lambda_identity=0.5)
    data = batches(3)
    names = [list(train_step(own, *batch)) for batch in data]
    assert names[0] == names[1] == names[2]
    pairs = [f"{a}_to_{b}" for a in STYLES for b in STYLES if a != b]
    by_pair = {f"{kind}_{pair}" for kind in ("gan", "cycle", "images") for pair in pairs}
    by_style = {f"{kind}_{style}" for kind in ("identity", "D") for style in STYLES}
    assert set(names[0]) == by_pair | by_style | {"penalty"}
    directions = (torch.tensor([0, 0, 2, 1]), torch.tensor([1, 1, 0, 2]))
    found = {name: float(loss) for name, loss in train_step(own, *data[0], directions).items()}
    shares = {name: share for name, share in found.items() if name.startswith("images") and share}
    wanted = {"photo_to_ukiyo-e": 0.5, "pastel_to_photo": 0.25, "ukiyo-e_to_pastel": 0.25}
    assert shares == {f"images_{pair}": share for pair, share in wanted.items()}
    assert found["cycle_photo_to_pastel"] == found["gan_photo_to_pastel"] == 0
    means = direction_means(found)
    assert set(means) == {f"{kind}_{pair}" for kind in ("gan", "cycle") for pair in wanted}
    assert means["cycle_photo_to_ukiyo-e"] == pytest.approx(found["cycle_photo_to_ukiyo-e"] / 0.5)


def test_a_directions_losses_are_those_of_its_images() -> None:
    directions = (torch.tensor([0, 0, 2, 1]), torch.tensor([1, 1, 0, 2]))
    batch = batches(1)[0]
    own = training()
    with torch.no_grad():
        x, (a, b) = batch[0][:2], (each[:2] for each in directions)
        fake = own.G(x, b)
        cycle = 10 * (own.G(fake, a) - x).abs().mean()
        gan = F.softplus(-own.D(fake, b)).mean()
    means = direction_means({name: float(loss) for name, loss in train_step(own, *batch, directions).items()})
    assert means["cycle_photo_to_ukiyo-e"] == pytest.approx(float(cycle), rel=1e-9)
    assert means["gan_photo_to_ukiyo-e"] == pytest.approx(float(gan), rel=1e-9)


def test_the_lazy_penalty_is_as_strong_as_the_eager_one() -> None:
    """Over steps in which the discriminator stays as it is."""
    sums = {}
    for every in (1, 4):
        own = training(penalty_every=every, learning_rate=1e-12)
        sums[every] = sum(float(train_step(own, *batches(1)[0], directions())["penalty"]) for _ in range(8))
    assert sums[1] > 0
    assert sums[4] == pytest.approx(sums[1], rel=1e-5)


class SameEverywhere(nn.Module):
    """A critic that is linear in the picture, its logit repeated over maps of any size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        weight = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        self.weight, self.side = nn.Parameter(weight), side

    def forward(self, x: Tensor) -> Tensor:
        logits = (x * self.weight).sum((1, 2, 3)).view(-1, 1, 1, 1)
        return logits.expand(-1, len(STYLES), self.side, self.side)


@pytest.mark.parametrize("side", [1, 2, 7])
def test_the_penalty_is_half_gamma_times_the_squared_gradient_whatever_the_maps_size(side: int) -> None:
    own = training(penalty_weight=3.0, penalty_every=1)
    critic = own.D.model = SameEverywhere(side)
    found = train_step(own, *batches(1)[0], directions())["penalty"]
    assert float(found) == pytest.approx(3.0 / 2 * float(critic.weight.detach().square().sum()), rel=1e-9)


def directions() -> tuple[Tensor, Tensor]:
    return torch.tensor([0, 1, 2, 1]), torch.tensor([1, 2, 0, 0])


def test_a_penalty_reaches_every_parameter() -> None:
    """Data-parallel training waits for the gradient of each."""
    own = training()
    real = batches(1)[0, 1]
    gradient_penalty(lambda seen: own.D(seen, directions()[1]), real, "r1").backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in own.D.parameters())


def test_the_generators_step_leaves_the_discriminators_gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = training()
    seen: list[bool] = []
    step = own.optimizer_g.step

    def look(*arguments: Any) -> Any:
        seen.extend(parameter.grad is None for parameter in own.D.parameters())
        return step(*arguments)

    monkeypatch.setattr(own.optimizer_g, "step", look)
    train_step(own, *batches(1)[0])
    assert seen
    assert all(seen)
    assert all(parameter.requires_grad for parameter in own.D.parameters())


def test_the_average_follows_over_a_tenth_of_the_steps_and_then_as_asked() -> None:
    own = training(ema_decay=0.6)
    expected: list[Tensor] = []
    for step, batch in enumerate(batches(30), 1):
        train_step(own, *batch)
        decay = min(0.6, 1 - 10 / step) if step > 10 else 0.0
        new = [parameter.detach().clone() for parameter in own.G.parameters()]
        expected = [decay * old + (1 - decay) * now for old, now in zip(expected or new, new, strict=True)]
    for mine, theirs in zip(own.averages["G"].parameters(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_the_generator_is_trained_in_every_so_many_steps_and_the_discriminator_in_all() -> None:
    """Its losses are those that it would be trained by."""
    own, plain = training(critic_steps=3, ema_decay=0.5), training()
    data = batches(7)
    assert train_step(own, *data[0]) == train_step(plain, *data[0])
    for step in range(2, 8):
        before = copy.deepcopy(own.state_dict())
        losses = train_step(own, *data[step - 1])
        assert all(loss.isfinite() for loss in losses.values())
        after = own.state_dict()
        for kind, network in (("networks", "G"), ("averages", "G"), ("networks", "D")):
            same = all(
                torch.equal(tensor, before[kind][network][name])
                for name, tensor in after[kind][network].items()
            )
            assert same == (network == "G" and step % 3 != 0), (step, kind)
    assert [int(next(iter(each.state.values()))["step"]) for each in own.optimizers] == [2, 7]


def test_gradients_of_each_side_are_clipped_if_asked_for() -> None:
    """Adam's first step is the gradient's sign but for epsilon: its moments tell."""
    for norm in (0.0, 1e-3):
        own = training(max_gradient_norm=norm, penalty="none")
        train_step(own, *batches(1)[0])
        for optimizer in own.optimizers:
            squares = sum(float(state["exp_avg_sq"].sum()) for state in optimizer.state.values())
            found = (squares / (1 - own.options.beta2)) ** 0.5
            assert (found == pytest.approx(norm, rel=1e-3)) if norm else found > 1e-2


def test_the_discriminator_has_a_rate_of_its_own_if_asked_for() -> None:
    for rate, expected in ((None, 2e-3), (5e-3, 5e-3)):
        own = training(discriminator_learning_rate=rate)
        assert own.optimizer_g.param_groups[0]["lr"] == 2e-3
        assert own.optimizer_d.param_groups[0]["lr"] == expected


def test_both_optimizers_have_the_decays_that_are_asked_for() -> None:
    for changes, betas in (({}, (0.0, 0.99)), ({"beta1": 0.5, "beta2": 0.9}, (0.5, 0.9))):
        for optimizer in training(**changes).optimizers:
            assert optimizer.param_groups[0]["betas"] == betas


@pytest.mark.parametrize("case", CASES)
def test_goes_on_to_the_bit_from_what_was_saved(case: str) -> None:
    data = batches(6)
    first = training(**CASES[case])
    for batch in data[:3]:
        train_step(first, *batch)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    resumed = training(**CASES[case])
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for batch in data[3:]:
        assert train_step(resumed, *batch) == train_step(first, *batch)
    for mine, theirs in zip(first.averages["G"].parameters(), resumed.averages["G"].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_bfloat16_trains_float32_parameters() -> None:
    own, plain = (training(precision=precision) for precision in ("bfloat16", "float32"))
    data = batches(2, dtype=torch.float32)
    found, expected = train_step(own, *data[0]), train_step(plain, *data[0])
    for kind in ("gan", "cycle", "D", "penalty"):
        torch.testing.assert_close(total(found, kind), total(expected, kind), rtol=0.05, atol=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in own.G.parameters())
    assert all(loss.isfinite() for loss in train_step(own, *data[1]).values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"padding": "replicate"}, "padding = 'replicate'.*reflect, zero"),
        ({"norm": "layer"}, "norm = 'layer'.*instance, batch, none"),
        ({"gan_mode": "wgangp"}, "gan_mode = 'wgangp'.*Choices: lsgan, vanilla, hinge"),
        ({"penalty": "wgangp"}, "penalty = 'wgangp'.*none, r1"),
        ({"discriminator_norm": "batch"}, r"penalty = 'r1'.*batch norm"),
        ({"precision": "float8"}, "float32, bfloat16, float16, float64"),
        ({"penalty_every": 0}, "penalty_every = 0"),
        ({"lambda_cycle": -1.0}, r"lambda_cycle = -1\.0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"discriminator_learning_rate": 0.0}, "discriminator_learning_rate"),
        ({"discriminator_layers": 10**9}, "discriminator_layers = 1000000000: must be at most 12"),
        ({"beta2": 1.0}, r"beta2 = 1\.0"),
        ({"ema_decay": -0.1}, r"ema_decay = -0\.1"),
        ({"critic_steps": 0}, "critic_steps = 0"),
        ({"max_gradient_norm": -1.0}, r"max_gradient_norm = -1\.0"),
    ],
    ids=str,
)
def test_bad_options_name_option_and_value(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        training(**changes)
    with pytest.raises(OptionError, match=r"styles = \['photo'\]"):
        ManyStylesOptions(styles=("photo",))


# Two processes

RUNS = ((4, 3), (3, 2))
"""Batch size, steps. Of three images, one process has two; a direction is mostly on one process only."""


def trained(case: str, share: Share, steps: int) -> dict[str, Any]:
    own = training(**CASES[case])
    own.distribute(share)
    losses, grads = [], {}
    for step, (a, b) in enumerate(batches(steps, share.batch_size)):
        found = train_step(own, share.take(a), share.take(b))
        losses.append(share.mean(torch.stack(list(found.values()))))
        if step == 0:
            networks = {"G": own.G, "D": own.D}
            grads = {
                f"{name}.{key}": parameter.grad.clone()
                for name, network in networks.items()
                for key, parameter in network.named_parameters()
                if parameter.grad is not None
            }
    return {"losses": torch.stack(losses), "grads": grads, "state": own.state_dict()}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for batch_size, steps in RUNS:
        for case in CASES:
            torch.save(
                trained(case, Share(batch_size, rank, 2), steps), f"{folder}/{case}-{batch_size}-{rank}.pt"
            )
    dist.destroy_process_group()


def test_samples_of_many_styles_are_a_picture_that_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are styles times photographs of each in rows: a JPEG has a longest side, and a machine a memory."""
    own = training(precision="float32")
    styles = own.options.styles
    photos = {name: [torch.zeros(1, 3, 16, 16)] * 2 for name in styles}
    rows, columns = 2 * len(styles), 1 + len(styles)
    assert own.samples(photos, 16).shape == (3, 16 * rows, 16 * columns)
    monkeypatch.setattr(trainer, "_SHEET_PX", 10 * rows + 1)
    assert own.samples(photos, 16).shape == (3, 10 * rows, 10 * columns)
    monkeypatch.setattr(trainer, "_SHEET_PIXELS", 8 * rows * 8 * columns)
    assert own.samples(photos, 16).shape == (3, 8 * rows, 8 * columns)
    assert contact_sheet([[torch.zeros(1, 3, 8, 8)] * columns] * rows, 16).shape == (3, 8 * rows, 8 * columns)


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes found."""
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(one_of_two, folder)
    return folder


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("batch_size", "steps"), RUNS)
def test_two_train_as_one(in_two: Path, case: str, batch_size: int, steps: int) -> None:
    """In float64: gradients to 1e-12, parameters to 1e-8; both processes alike to the bit."""
    first, second = (
        cast(dict[str, Any], torch.load(in_two / f"{case}-{batch_size}-{rank}.pt")) for rank in (0, 1)
    )
    alone = trained(case, Share(batch_size), steps)
    check_as_one(alone, first, second)


def test_some_direction_is_on_one_process_only() -> None:
    """Or else the test above would not see what it is for."""
    for batch_size, steps in RUNS:
        for step in range(steps):
            parts = []
            for rank in range(2):
                own = training()
                own.share, own.steps = Share(batch_size, rank, 2), step
                parts.append(Counter(zip(*(each.tolist() for each in own.directions(0)), strict=True)))
            assert parts[0] != parts[1]
