"""The painter's training: its losses, its step, and in two processes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nst.errors import OptionError, WeightsError
from nst.features import FeatureNetwork, build_features
from nst.feed_forward.method import read_painter
from nst.feed_forward.options import PainterOptions
from nst.feed_forward.training import PainterTraining, balanced, content_distance
from nst.gan.parallel import Share
from nst.losses import gram_matrix
from tests.two import in_two_processes

SMALL: dict[str, Any] = {
    "half": 6,
    "quarter": 8,
    "blocks": 1,
    "code": 8,
    "side": 16,
    "teacher": "embedded",
    "teacher_weights": "seeded",
    "content_layer": "relu2_1",
    "style_layers": ("relu1_1", "relu2_1"),
}


def training(**changes: Any) -> PainterTraining:
    options = PainterOptions(**{**SMALL, **changes})
    found = PainterTraining(options, seed=1)
    found.learn_from(_teacher(options.layers))
    return found


@cache
def _teacher(layers: tuple[str, ...]) -> FeatureNetwork:
    return build_features("embedded", layers)


def batch(seed: int, count: int = 4, side: int = 40) -> list[Tensor]:
    """Smooth images of few colors, photographs and twice as many pictures."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, count, 3, 5, 5, generator=generator)
    return [
        2 * torch.nn.functional.interpolate(each, (side, side), mode="bilinear").clamp(0, 1) - 1
        for each in images
    ]


def test_the_styles_distance_is_relative() -> None:
    """0 of equal ones; 1, its supremum, of those that have nothing in common; whatever the contrast."""
    features = torch.rand(2, 5, 6, 7, dtype=torch.float64)
    one, none = gram_matrix(features), torch.zeros(2, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(one[1], features[1].flatten(1) @ features[1].flatten(1).T / 42)
    assert balanced(one, one).tolist() == [0, 0]
    assert balanced(one, none).tolist() == [1, 1]
    other = gram_matrix(torch.rand(2, 5, 6, 7, dtype=torch.float64))
    torch.testing.assert_close(balanced(one, other), balanced(100 * one, 100 * other))
    assert bool((balanced(one, other) > 0).all())


def test_the_contents_distance_knows_no_contrast() -> None:
    features = torch.rand(2, 5, 6, 7, dtype=torch.float64)
    assert float(content_distance(features, 3 * features + 2).max()) < 1e-3
    assert float(content_distance(features, features.flip(-1)).min()) > 0.1


def test_it_learns() -> None:
    own = training(learning_rate=3e-3)
    losses = [float(own.step(batch(number % 4))["loss"]) for number in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    painter, encoder = read_painter(own.file_bytes(), "x")
    assert painter.config == own.networks["painter"].config
    assert float(encoder.spread.min()) > 0
    assert not torch.equal(encoder.middle, torch.zeros_like(encoder.middle)), "it settled"


def test_the_encoders_eyes_stay_as_they_are() -> None:
    own = training()
    before = {name: value.clone() for name, value in own.encoder.eyes.state_dict().items()}
    own.step(batch(0))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in own.encoder.eyes.state_dict().items())


def test_mixtures_have_the_mixtures_of_moments_and_grams(monkeypatch: pytest.MonkeyPatch) -> None:
    """And pictures that a sample does not need are not looked at."""
    monkeypatch.setattr("nst.feed_forward.training._OWN_STYLE", 0.0)
    own, (photos, *pictures) = training(), batch(0)
    asked: list[int] = []
    describe = own._described

    def counting(some: Tensor) -> list[Tensor]:
        asked.append(len(some))
        return describe(some)

    monkeypatch.setattr(own, "_described", counting)
    draws = [[0.6] * 24 for _ in range(4)]
    draws[1][8] = 0.1  # three quarters of the second picture
    normal = torch.zeros(4, 2, 4, 3)
    moments, grams = own._styles(photos[..., :16, :16], pictures, draws, normal)
    assert asked == [4, 1]
    views = [
        torch.stack([own._view(each, row[8:16], normal[0]) for each, row in zip(some, draws, strict=True)])
        for some in pictures
    ]
    first, second = (describe(each) for each in views)
    for found, a, b in zip([moments, *grams], first, second, strict=True):
        torch.testing.assert_close(found[1], 0.25 * a[1] + 0.75 * b[1])
        torch.testing.assert_close(found[0], a[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"side": 30}, "side = 30: must be a multiple of 4"),
        ({"teacher": "vgg18"}, "teacher = 'vgg18'"),
        ({"style_layers": ("relu9_1",)}, "style_layers = 'relu9_1': embedded has no such layer"),
        ({"content_layer": "relu9_1"}, "content_layer = 'relu9_1'"),
        ({"teacher_weights_convention": "caffe"}, "teacher_weights_convention = 'caffe'"),
        ({"precision": "float16"}, "float32, bfloat16"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
    ids=str,
)
def test_bad_options_name_option_and_value(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        PainterOptions(**{**SMALL, **changes})


def test_it_has_no_discriminator() -> None:
    with pytest.raises(WeightsError, match="no discriminator"):
        training().start_from({}, "discriminator", strict=True)


def trained(share: Share) -> dict[str, Any]:
    own = training()
    own.distribute(share)
    losses = []
    for seed in range(3):
        found = own.step([share.take(each) for each in batch(seed, 3)])
        losses.append(share.mean(torch.stack(list(found.values()))))
    return {"losses": torch.stack(losses), "state": own.state_dict()["networks"]}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(trained(Share(3, rank, 2)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes found."""
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(one_of_two, folder)
    return folder


def test_two_train_as_one(in_two: Path) -> None:
    """Of three photographs, one process has two: losses and parameters to rounding."""
    first, second = (torch.load(in_two / f"{rank}.pt") for rank in (0, 1))
    alone = trained(Share(3))
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    for network, state in alone["state"].items():
        for name, value in state.items():
            assert torch.equal(first["state"][network][name], second["state"][network][name])
            torch.testing.assert_close(first["state"][network][name], value, rtol=0, atol=2e-3)
