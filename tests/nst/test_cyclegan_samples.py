"""Which photographs, how cropped, with which learning rates: functions of seed and step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from nst.cyclegan.networks import GENERATORS, least_size, size_multiple
from nst.errors import OptionError
from nst.gan.sampling import Preprocessing, photo_index, stream
from nst.gan.schedule import Policy, Schedule, Scheduler
from tests.rates import PAGE, TABLE, of_policy, rates, table


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    across = np.linspace(0, 255, width).round().astype(np.uint8)
    down = np.linspace(0, 255, height).round().astype(np.uint8)
    levels = np.zeros((height, width, 3), np.uint8)
    levels[..., 0], levels[..., 1] = across[None], down[:, None]
    return Image.fromarray(levels)


@pytest.mark.parametrize("photos", [1, 2, 7, 100])
def test_every_photograph_comes_once_before_any_comes_again(photos: int) -> None:
    epochs = [
        [photo_index(epoch * photos + place, photos, 3, "A") for place in range(photos)] for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(photos)) for epoch in epochs)
    if photos > 6:
        assert epochs[0] != epochs[1] != epochs[2]
        assert epochs[0] != [photo_index(place, photos, 4, "A") for place in range(photos)]


def test_the_other_collection_is_drawn_independently() -> None:
    pairs = Counter(
        (photo_index(sample, 10, 0, "A"), photo_index(sample, 10, 0, "B")) for sample in range(10_000)
    )
    assert len(pairs) == 100
    # Each of the 100 pairs is expected 100 times, with a standard deviation of 10.
    assert 50 < min(pairs.values()) <= max(pairs.values()) < 150


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop", "scale_width_and_crop", "shrink_and_crop"])
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (20, 300), (300, 20), (7, 5), (1, 1), (40, 40)])
def test_crops_have_their_size_whatever_the_photographs(preprocess: Any, size: tuple[int, int]) -> None:
    ours = Preprocessing(preprocess=preprocess, load_size=36, crop_size=32)
    for sample in range(3):
        image = ours(ramp(*size), stream(0, "A", sample))
        assert image.shape == (3, 32, 32)
        assert image.dtype == torch.float32
        assert -1 <= float(image.min()) <= float(image.max()) <= 1


def test_scaled_photographs_keep_what_they_show_and_fit_the_generator() -> None:
    whole = Preprocessing(preprocess="scale_width", load_size=50, flip=False)(ramp(100, 60), stream(0, "A", 0))
    assert whole.shape == (3, 32, 48)
    kept = Preprocessing(preprocess="none", flip=False)(ramp(101, 62), stream(0, "A", 0))
    assert kept.shape == (3, 64, 100)
    assert float(kept[0, 0, 0]) == pytest.approx(-1, abs=0.02)
    assert float(kept[0, 0, -1]) == pytest.approx(1, abs=0.02)
    assert Preprocessing(preprocess="none")(ramp(1, 1), stream(0, "A", 0), 4).shape == (3, 8, 8)


@pytest.mark.parametrize("generator", GENERATORS)
def test_photographs_that_a_generator_can_take_stay_as_they_are(generator: str) -> None:
    """A U-Net takes what it halves to one pixel; smaller ones become what the generator needs at least."""
    multiple, least = size_multiple(generator), least_size(generator)
    ours = Preprocessing(preprocess="none", flip=False)
    for width, height in ((least, least), (least + multiple, least), (least, least + 2 * multiple)):
        assert ours.scaled_size(width, height, multiple) == (width, height)
    assert ours.scaled_size(1, 1, multiple) == (least, least)


def test_small_ones_are_mirrored_where_they_are_not_to_be_enlarged() -> None:
    ours = Preprocessing(preprocess="shrink_and_crop", load_size=36, crop_size=32, flip=False)
    small = ours(ramp(20, 40), stream(0, "A", 0))
    assert torch.equal(small[..., :20], small[..., :20].sort(dim=-1)[0])
    assert torch.equal(small[..., 20:], small[..., 8:20].flip(-1))
    wide = ours(ramp(360, 320), stream(0, "A", 0))
    assert float(wide[0, 0, -1] - wide[0, 0, 0]) > 1.6, "32 of 36 columns"


def test_crops_are_flipped_half_of_the_time_and_lie_everywhere() -> None:
    ours = Preprocessing(preprocess="crop", crop_size=10)
    images = [ours(ramp(15, 12), stream(0, "B", sample)) for sample in range(400)]
    flipped = [bool(image[0, 0, 0] > image[0, 0, -1]) for image in images]
    assert 160 < sum(flipped) < 240
    corners = {
        (float(image[0, 0].min()), float(image[1, 0, 0])) for image, turned in zip(images, flipped, strict=True)
    }
    assert len(corners) == 6 * 3
    again = ours(ramp(15, 12), stream(0, "B", 7))
    assert torch.equal(images[7], again)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"preprocess": "resize"},
            "resize_and_crop, crop, scale_width, scale_width_and_crop, shrink_and_crop, none",
        ),
        ({"load_size": 200}, "load_size = 200: less than crop_size = 256"),
        ({"crop_size": 0}, "crop_size = 0"),
    ],
)
def test_bad_preprocessing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Preprocessing(**changes)


def test_a_crop_that_the_generator_cannot_take_is_refused() -> None:
    Preprocessing(crop_size=256).check_multiple(256)
    with pytest.raises(OptionError, match="crop_size = 250: the generator needs a multiple of 4"):
        Preprocessing(crop_size=250).check_multiple(4)


# Learning rates


def test_rates_are_those_of_torchs_schedulers() -> None:
    """As the public implementation sets them up."""
    cases: list[tuple[dict[str, Any], Any]] = [
        (
            {"n_epochs": 3, "n_epochs_decay": 4},
            lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 1.0 - max(0, epoch + 1 - 3) / 5),
        ),
        (
            {"lr_policy": "step", "lr_decay_iters": 2},
            lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.1),
        ),
        (
            {"lr_policy": "cosine", "n_epochs": 3, "n_epochs_decay": 4},
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=7, eta_min=0),
        ),
    ]
    for options, make in cases:
        optimizer = torch.optim.SGD([torch.zeros(1)], 0.5)
        scheduler = make(optimizer)
        expected = []
        for _ in range(7):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert rates(7, 0.5, **options) == pytest.approx(expected)


def test_rates_are_those_of_the_documented_formulas() -> None:
    """The last `n_epochs_decay` epochs are trained, too."""
    formulas: dict[Policy, Callable[[int], float]] = {
        "linear": lambda e: 1 - max(0, e - 5) / 6,
        "step": lambda e: 0.1 ** ((e - 1) // 3),
        "cosine": lambda e: (1 + math.cos(math.pi * (e - 1) / 10)) / 2,
        "plateau": lambda e: 1 if e <= 7 else 0.2,
    }
    assert set(formulas) == set(get_args(Policy))
    for policy, formula in formulas.items():
        found = of_policy(policy)
        assert found == pytest.approx([formula(epoch) for epoch in range(1, 11)]), policy
        assert found[-1] > 0


def test_the_docs_have_them() -> None:
    (shown,) = TABLE.findall(PAGE.read_text())
    assert shown == table()


def test_plateaus_lower_the_rate_as_torch_does() -> None:
    losses = [5.0, 4.0, 3.99, 3.98, *[3.97] * 8, 2.0, *[2.0] * 13]
    ours = torch.optim.SGD([torch.zeros(1)], 0.5)
    theirs = torch.optim.SGD([torch.zeros(1)], 0.5)
    scheduler = Scheduler(Schedule(lr_policy="plateau"), [ours])
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.2, threshold=0.01, patience=5)
    for epoch, loss in enumerate(losses):
        scheduler.begin(epoch)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"]), epoch
        scheduler.end(loss)
        reference.step(loss)
        state = scheduler.state_dict()
        ours = torch.optim.SGD([torch.zeros(1)], 0.5)
        scheduler = Scheduler(Schedule(lr_policy="plateau"), [ours])
        scheduler.load_state_dict(state)
    assert theirs.param_groups[0]["lr"] < 0.03


def test_losses_below_zero_fall_when_they_are_further_from_it() -> None:
    """Those of wgangp and hinge: 1 % of what is below 0 is below it, too, or a loss that rises would fall."""
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    for first, each, rate in ((-8.0, 0.0, 0.2), (-8.0, 0.05, 0.2), (-8.0, -0.1, 1.0), (8.0, -0.1, 1.0)):
        scheduler = Scheduler(Schedule(lr_policy="plateau"), [optimizer])
        for epoch in range(7):
            scheduler.end(first + epoch * each)
        assert scheduler.factor(7) == pytest.approx(rate), (first, each)


def test_an_epoch_shows_every_photograph_of_the_larger_collection() -> None:
    assert Schedule().epoch_steps(10, 4) == 3
    assert Schedule(steps_per_epoch=7).epoch_steps(10, 4) == 7
    with pytest.raises(OptionError, match="n_epochs"):
        Schedule(n_epochs=0, n_epochs_decay=0)
    assert math.isinf(Scheduler(Schedule(), []).state_dict()["best"])
