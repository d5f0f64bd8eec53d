"""How the embedded network's style loss learns to pull pictures the right way."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nst.features import build_features, layer_names, read_state_dict
from nst.features.embedded.alignment import STYLE_LAYERS, Alignment, AlignmentTask, style_distance
from nst.features.embedded.exemplar import some_normalized
from nst.features.embedded.thresholds import SHARED, lower_thresholds
from nst.features.weights import published_bytes
from nst.style_transfer.presets import PRESETS

SMALL = AlignmentTask(steps=3, channels=8, pictures=6, batch_size=3, crop_px=32, networks=2, max_age=30)


@pytest.fixture(scope="module")
def begun(patches: torch.Tensor) -> dict[str, torch.Tensor]:
    """Parameters of a network with eight random channels in some layers."""
    network = build_features("embedded", ["relu4_2"], seed=3, pooling="average")
    return lower_thresholds(network.body.state_dict(), some_normalized(patches, 16), random_channels=8)


def trained(patches: torch.Tensor, state: dict[str, torch.Tensor], task: AlignmentTask) -> Alignment:
    alignment = Alignment(patches, state, task, torch.device("cpu"))
    assert [progress.step for progress in alignment.run()] == [3]
    return alignment


@pytest.fixture(scope="module")
def short(patches: torch.Tensor, begun: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a short training wrote."""
    return trained(patches, begun, SMALL).state_dict()


def test_it_is_trained_for_the_style_layers_of_its_preset() -> None:
    assert PRESETS["embedded"]["style_layers"] == STYLE_LAYERS


def test_the_style_distance_is_zero_for_equal_pictures_and_apart_by_picture() -> None:
    network = build_features("embedded", ["relu1_1", "relu2_2"], seed=5, pooling="average")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    styles = images.clone()
    styles[1] = 0.3 * styles[1] + 0.5
    distance = style_distance(network, images, styles, 8, torch.Generator().manual_seed(1))
    assert distance.shape == (3,)
    assert float(distance[[0, 2]].max()) < 0.01
    assert float(distance[1]) > 0.3
    # It looks at distributions, not at places.
    pixels = build_features("embedded", ["relu1_1"], seed=5, pooling="average")
    moved = images.roll((5, 9), (2, 3))
    same, other = (
        style_distance(pixels, each, images, 8, torch.Generator().manual_seed(1)).mean()
        for each in (moved, 0.4 * images)
    )
    assert 3 * float(same) < float(other)


@pytest.mark.slow
def test_a_short_training_is_reproducible_to_the_byte(
    patches: torch.Tensor, begun: dict[str, torch.Tensor], short: dict[str, torch.Tensor]
) -> None:
    again = trained(patches, begun, SMALL).state_dict()
    assert short.keys() == again.keys() == read_state_dict(published_bytes("nst:embedded")).keys()
    assert all(torch.equal(short[name], again[name]) for name in short)


@pytest.mark.slow
def test_only_the_random_channels_learn_and_no_other_sees_them(
    patches: torch.Tensor, begun: dict[str, torch.Tensor]
) -> None:
    convolutions = [name for name in layer_names("embedded") if name.startswith("conv")]
    alignment = trained(patches, begun, dataclasses.replace(SMALL, warmup=1, learning_rate=0.05))
    with torch.no_grad():
        before, learned, after = (
            build_features("embedded", convolutions, state=each, pooling="average")(patches[:6].float() / 255)
            for each in (begun, alignment._joined(), alignment.state_dict())
        )
    for layer in convolutions:
        unit = float(after[layer][:, 0].std() / before[layer][:, 0].std())  # one of a layer
        kept = before[layer].shape[1] - (SMALL.channels if layer in SHARED else 0)
        torch.testing.assert_close(learned[layer][:, :kept], before[layer][:, :kept], rtol=1e-4, atol=1e-4)
        # As written, they are apart by float16, which adds up from layer to layer.
        difference = after[layer] / unit - before[layer]
        relative = difference.square().mean((0, 2, 3)).sqrt() / before[layer].square().mean((0, 2, 3)).sqrt()
        assert float(relative[:kept].max()) < 0.01, layer
        if layer in SHARED:
            assert float(relative[kept:].min()) > 0.02, layer


@pytest.mark.slow
def test_every_layer_has_unit_mean_square(patches: torch.Tensor, short: dict[str, torch.Tensor]) -> None:
    relus = [name for name in layer_names("embedded") if name.startswith("relu")]
    network = build_features("embedded", relus, state=short, pooling="average")
    with torch.no_grad():
        features = network(patches.float() / 255)
    for layer, activations in features.items():
        assert float(activations.square().mean()) == pytest.approx(1, rel=0.03), layer


@pytest.mark.slow
def test_training_turns_the_gradient(patches: torch.Tensor, begun: dict[str, torch.Tensor]) -> None:
    """For the pictures that it is trained on, against a training that stands still."""
    task = dataclasses.replace(
        SMALL, steps=16, pictures=3, min_age=300, max_age=302, warmup=2, learning_rate=6e-2
    )
    found = []
    for each in (dataclasses.replace(task, learning_rate=1e-9), task):
        alignment = Alignment(patches, begun, each, torch.device("cpu"))
        alignment._easel._ends.fill_(1000)
        found.append(list(alignment.run())[-1].alignment)
    before, after = found
    assert after > before + 0.02


@pytest.mark.slow
def test_training_turns_the_gradient_for_new_pictures(
    patches: torch.Tensor, begun: dict[str, torch.Tensor]
) -> None:
    """Means over the last fifty steps, of pictures that are new for most of them. A training that stands still
    is the same at any of them."""
    task = dataclasses.replace(
        SMALL, steps=100, pictures=8, batch_size=4, min_age=1, max_age=3, warmup=5, learning_rate=1e-2
    )
    still = dataclasses.replace(task, steps=50, learning_rate=1e-9)
    before, after = (
        list(Alignment(patches, begun, each, torch.device("cpu")).run())[-1] for each in (still, task)
    )
    assert after.alignment > before.alignment + 0.02


@pytest.mark.slow
def test_what_is_painted_comes_nearer_to_its_style(
    patches: torch.Tensor, begun: dict[str, torch.Tensor]
) -> None:
    task = dataclasses.replace(SMALL, steps=30, pictures=3, min_age=60, max_age=62)
    alignment = Alignment(patches, begun, task, torch.device("cpu"))
    alignment._easel._ends.fill_(1000)
    judge = build_features("embedded", STYLE_LAYERS, seed=77, pooling="average")

    @torch.no_grad()
    def distance() -> float:
        easel = alignment._easel
        return float(
            style_distance(judge, easel.images, easel.styles, 16, torch.Generator().manual_seed(0)).mean()
        )

    start = distance()
    list(alignment.run())
    assert distance() < 0.7 * start
