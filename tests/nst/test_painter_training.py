"""The painter's training: its losses, its step, and in two processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nst.errors import OptionError, WeightsError
from nst.features import FeatureNetwork, build_features
from nst.feed_forward.files import read_painter
from nst.feed_forward.losses import balanced, content_distance
from nst.feed_forward.options import PainterOptions
from nst.feed_forward.training import PainterTraining
from nst.gan.parallel import Share
from nst.losses import gram_matrix
from tests.two import check_painters_as_one, in_two_processes, widen

SMALL: dict[str, Any] = {
    "half": 6,
    "quarter": 8,
    "eighth": 10,
    "side": 16,
    "warmup_steps": 1,
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
    assert read_painter(own.file_bytes(), "x").config == own.networks["painter"].config


def test_gram_matrices_are_float32_in_bfloat16_as_well(looked_at: Callable[[str], list[Tensor]]) -> None:
    seen = looked_at("nst.feed_forward.training")
    training(precision="bfloat16", warmup_steps=0).step(batch(0))
    assert {each.dtype for each in seen} == {torch.float32}


def test_in_the_warmup_it_learns_to_see_and_to_paint_what_is_there() -> None:
    own = training(learning_rate=3e-3, warmup_steps=100)
    losses = [own.step(batch(number % 4)) for number in range(60)]
    assert {float(each["style"]) for each in losses} == {0.0}
    for name in ("reconstruction", "sight"):
        first, last = (sum(float(each[name]) for each in some) for some in (losses[:10], losses[-10:]))
        assert last < 0.8 * first, name


def test_mixtures_are_the_styles_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """And second pictures are only looked at where they are mixed to the first."""
    own, (photos, *pictures) = training(), batch(0, side=16)
    seen: list[int] = []
    passes: list[Tensor] = []
    look, paint = own._seen, own._pass

    def looking(some: Tensor) -> dict[str, Tensor]:
        seen.append(len(some))
        return look(some)

    def painting(photo: Tensor, larger: None, styles: Tensor, mixture: Tensor, at: Any) -> Any:
        passes.append(mixture)
        return paint(photo, larger, styles, mixture, at)

    monkeypatch.setattr(own, "_seen", looking)
    monkeypatch.setattr(own, "_pass", painting)
    own._styled(photos, None, pictures, [0.0, 0.75, 0.0, 0.0], (0, 0))
    assert seen[0] == 5
    torch.testing.assert_close(passes[0][1], torch.tensor([0.0, 0.25, 0.0, 0.0, 0.75]))
    torch.testing.assert_close(passes[0][2], torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"side": 28}, "side = 28: must be a multiple of 8"),
        ({"teacher": "resnet50"}, "teacher = 'resnet50'.*embedded, vgg16, vgg19"),
        ({"warmup_steps": -1}, "warmup_steps = -1"),
        ({"style_layers": ("relu9_1",)}, "style_layers = 'relu9_1': embedded has no such layer"),
        ({"style_layers": ()}, r"style_layers = \(\): at least one layer is needed"),
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
    """In float64."""
    own = training()
    widen(own)
    own.distribute(share)
    losses = []
    for seed in range(3):
        found = own.step([share.take(each.double()) for each in batch(seed, 3)])
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
    """Of three photographs, one process has two: losses and parameters to 1e-12."""
    first, second = (torch.load(in_two / f"{rank}.pt") for rank in (0, 1))
    alone = trained(Share(3))
    check_painters_as_one(alone, first, second)
