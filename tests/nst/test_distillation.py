"""How the embedded network is taught: what it begins with, what it is taught on, and what it learns."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nst.features import build_features
from nst.features.embedded.beginning import pruned
from nst.features.embedded.data import cut_patches, is_held_out, rendered_patches
from nst.features.embedded.distillation import POOLING, RELUS, Distillation, DistillationTask
from nst.features.embedded.easel import Easel
from nst.features.layers import VGG_CHANNELS
from tests.conftest import picture

WIDE, NARROW = (12, 16, 24, 24, 24), (8, 10, 14, 14, 12)
TASK = DistillationTask(steps=4, batch_size=3, side=32, in_work=5, beginning=8, learning_rate=2e-3)


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VGG_CHANNELS, "vgg16", WIDE)
        patch.setitem(VGG_CHANNELS, "embedded", NARROW)
        yield


@pytest.fixture(scope="module")
def patches() -> Tensor:
    photographs = [np.asarray(picture(seed, 120, 90)) for seed in range(3)]
    cut = cut_patches(photographs, count=12, side=48, seed=0)
    return torch.from_numpy(np.concatenate([cut, rendered_patches(count=8, side=48, seed=0)])).permute(
        0, 3, 1, 2
    )


@pytest.fixture(scope="module")
def teacher() -> dict[str, Tensor]:
    return dict(build_features("vgg16", RELUS, seed=3).body.state_dict())


def test_patches_are_functions_of_their_seed(patches: Tensor) -> None:
    photographs = [np.asarray(picture(seed, 120, 90)) for seed in range(3)]
    for again, other in ((0, 1), (5, 6)):
        first = cut_patches(photographs, count=5, side=40, seed=again)
        assert first.shape == (5, 40, 40, 3)
        assert np.array_equal(first, cut_patches(photographs, count=5, side=40, seed=again))
        assert not np.array_equal(first, cut_patches(photographs, count=5, side=40, seed=other))
    assert np.array_equal(
        rendered_patches(count=6, side=40, seed=2), rendered_patches(count=6, side=40, seed=2)
    )
    assert len(torch.unique(patches.flatten(1), dim=0)) == len(patches)


def test_one_of_twelve_files_is_held_out() -> None:
    held = [is_held_out(f"{number}.jpg") for number in range(3000)]
    assert 200 < sum(held) < 300


def test_with_all_of_its_channels_the_beginning_is_the_teacher(
    teacher: dict[str, Tensor], patches: Tensor
) -> None:
    """Then nothing is left to be told, and maps are the identity."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VGG_CHANNELS, "embedded", WIDE)
        images = patches.float() / 255
        state, maps = pruned(teacher, images, teacher_pooling="max", pooling="max")
        eyes = {f"readouts.{layer}": torch.eye(each.shape[1]) for layer, each in maps.items()}
        layers = ["relu1_1", "relu2_2", "relu3_1"]
        ours = build_features("embedded", layers, state=state | eyes, pooling="max")
        theirs = build_features("vgg16", layers, state=teacher)
        for network in (ours, theirs):
            network.mean.zero_()
            network.std.fill_(1)
        found, wanted = ours(images), theirs(images)
    for layer in layers:
        assert float((found[layer] - wanted[layer]).square().sum() / wanted[layer].square().sum()) < 1e-3, layer
        assert torch.allclose(maps[layer], torch.eye(len(maps[layer])), atol=0.1), layer


def test_it_begins_with_what_tells_most(teacher: dict[str, Tensor], patches: Tensor) -> None:
    """Of no layer it leaves more than three fifths untold, of the first next to nothing."""
    training = Distillation(patches, teacher, TASK)
    images = patches[:6].float() / 255
    wanted = build_features("vgg16", RELUS, state=teacher, unit_activations=True)(images)
    with torch.no_grad():
        told = training.told(images)
    errors = [
        float((told[layer] - wanted[layer]).square().sum() / wanted[layer].square().sum()) for layer in RELUS
    ]
    assert errors[0] < 0.2
    assert max(errors) < 0.6


def test_training_is_reproducible(teacher: dict[str, Tensor], patches: Tensor) -> None:
    states, seen = [], []
    for _ in range(2):
        training = Distillation(patches, teacher, TASK)
        seen.append([progress.step for progress in training.run()])
        states.append(training.state_dict())
    assert seen == [[4], [4]]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_training_that_was_cut_goes_on_to_the_bit(teacher: dict[str, Tensor], patches: Tensor) -> None:
    """From a file, as the program keeps it; after some pictures in work were replaced, and others not."""
    task = dataclasses.replace(TASK, steps=100, in_work=7)
    whole = Distillation(patches, teacher, task)
    steps = whole.run()
    next(steps)
    file = io.BytesIO()
    torch.save(whole.snapshot(), file)
    wanted = [dataclasses.astuple(progress) for progress in steps]
    cut = Distillation(patches, teacher, task)
    cut.restore(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert [dataclasses.astuple(progress) for progress in cut.run()] == wanted
    assert [row[0] for row in wanted] == [100]
    states = whole.state_dict(), cut.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_each_of_its_aims_is_learned(teacher: dict[str, Tensor], patches: Tensor) -> None:
    """Activations come nearer; Gram matrices and gradients nearer than without weights of their own."""
    last = {}
    for aim, gram, gradient in (("plain", 0.0, 0.0), ("grams", 10.0, 0.0), ("gradients", 0.0, 20.0)):
        task = dataclasses.replace(TASK, gram_weight=gram, gradient_weight=gradient)
        training = Distillation(patches, teacher, task)
        rows = torch.stack([training.step() for _ in range(60)])
        first, last[aim] = rows[:15, : len(RELUS)].mean(), rows[-25:].mean(0)
        assert aim != "plain" or float(last[aim][: len(RELUS)].mean()) < float(first)
    assert float(last["grams"][-2]) < 0.95 * float(last["plain"][-2])
    assert float(last["gradients"][-1]) > 0.02 + float(last["plain"][-1])


def test_of_large_layers_a_quarter_is_compared(
    teacher: dict[str, Tensor], patches: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With about the errors of all, and everything else as it was."""
    task = dataclasses.replace(TASK, side=48)
    some = Distillation(patches, teacher, task).step()
    monkeypatch.setattr("nst.features.embedded.distillation._MANY", 1 << 30)
    everything = Distillation(patches, teacher, task).step()
    assert not torch.equal(some[:2], everything[:2])
    torch.testing.assert_close(some[:2], everything[:2], rtol=0.1, atol=0)
    torch.testing.assert_close(some[2:], everything[2:], rtol=1e-5, atol=0)


def test_what_it_reads_out_has_the_inner_products_of_what_it_tells(
    teacher: dict[str, Tensor], patches: Tensor
) -> None:
    training = Distillation(patches, teacher, TASK)
    images = patches[:2].float() / 255
    network = build_features("embedded", RELUS, state={n: v.float() for n, v in training.state_dict().items()})
    assert POOLING == "average"
    with torch.no_grad():
        told, read = training.told(images), network(images)
    for layer in RELUS:
        unit = training._units[layer.replace("relu", "conv")]
        inner = [each.flatten(2).mT @ each.flatten(2) for each in (told[layer] * unit, read[layer])]
        assert float((inner[0] - inner[1]).norm() / inner[0].norm()) < 5e-3, layer


def test_activations_have_the_scale_of_the_teacher_s_file(teacher: dict[str, Tensor], patches: Tensor) -> None:
    louder = {name: 64 * value if name.startswith("features.0.") else value for name, value in teacher.items()}
    images = patches[:2].float() / 255
    sizes = []
    for state in (teacher, louder):
        found = Distillation(patches, state, TASK).state_dict()
        network = build_features("embedded", ["relu1_1"], state={n: v.float() for n, v in found.items()})
        sizes.append(float(network(images)["relu1_1"].norm()))
    assert sizes[1] / sizes[0] == pytest.approx(64, rel=0.01)


def test_a_training_ends_after_its_minutes(teacher: dict[str, Tensor], patches: Tensor) -> None:
    *_, last = Distillation(patches, teacher, TASK).run(minutes=1e-9)
    assert last.step == 1


def test_the_easel_keeps_pictures_within_range_and_replaces_them(patches: Tensor) -> None:
    easel = Easel(patches, count=6, side=32, dream_layers=3, random=torch.Generator().manual_seed(0))
    began, seen = easel.some(6), []
    for _ in range(90):
        work = easel.some(6)
        assert float(work.images.min()) >= 0
        assert float(work.images.max()) <= 1
        dreams = work.dream >= 0
        assert torch.equal(work.style_weight == 0, dreams)
        assert torch.equal(work.content_weight == 0, dreams)
        seen.append(work.photos[work.places.argsort()].clone())
        easel.step(work, torch.randn(6, 3, 32, 32))
    assert began.images.shape == (6, 3, 32, 32)
    changes = sum(int((first != second).flatten(1).any(1).sum()) for first, second in itertools.pairwise(seen))
    assert 6 <= changes <= 30  # each lives for 20 to 80 steps


def test_pictures_without_a_finite_gradient_are_replaced(patches: Tensor) -> None:
    easel = Easel(patches, count=3, side=32, dream_layers=3, random=torch.Generator().manual_seed(2))
    work = easel.some(3)
    gradients = torch.randn(3, 3, 32, 32)
    gradients[1, 0, 0, 0] = torch.nan
    easel.step(work, gradients)
    after = easel.some(3)
    assert bool(after.images.isfinite().all())
    before, now = (each.photos[each.places.argsort()] for each in (work, after))
    changed = [int(place) for place in range(3) if not torch.equal(before[place], now[place])]
    assert changed == [int(work.places[1])]


def test_a_step_follows_the_gradient(patches: Tensor) -> None:
    """Whatever the gradient's size: towards a picture that all pixels of the work come nearer to."""
    easel = Easel(patches, count=2, side=32, dream_layers=3, random=torch.Generator().manual_seed(1))
    goal = torch.full((2, 3, 32, 32), 0.5)
    far = float(F.mse_loss(easel.some(2).images, goal))
    for size in (1e-6, 1e3) * 8:
        work = easel.some(2)
        easel.step(work, size * (work.images - goal))
    assert float(F.mse_loss(easel.some(2).images, goal)) < 0.5 * far
