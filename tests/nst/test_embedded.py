"""The network that comes with the package: its file, its units, and the program that trains it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from nst.deepdream.method import DeepDream
from nst.errors import OptionError, WeightsError
from nst.features import build_features, layer_names, read_state_dict, weights, weights_asset
from nst.features.embedded.alignment import AlignmentTask
from nst.features.embedded.exemplar import ExemplarTask, ExemplarTraining, distort, normalize, render_patches
from nst.features.embedded.thresholds import SHARED
from nst.features.seeded import image_filters
from nst.style_transfer.method import StyleTransfer
from nst.synthetic import TEXTURES
from tests.conftest import picture

RELUS = [name for name in layer_names("embedded") if name.startswith("relu")]


def shipped() -> bytes:
    return weights.published_bytes("nst:embedded")


def test_the_file_is_small_and_its_digest_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = shipped()
    assert len(data) <= 4 * 2**20
    assert hashlib.sha256(data).hexdigest() == weights.SHIPPED_SHA256["nst:embedded"]
    assert {tensor.dtype for tensor in read_state_dict(data).values()} == {torch.float16}
    monkeypatch.setitem(weights.SHIPPED_SHA256, "nst:embedded", "0" * 64)
    with pytest.raises(WeightsError, match="is damaged: its SHA-256 is"):
        shipped()


def test_channels_have_about_unit_mean_square_on_textures() -> None:
    network = build_features("embedded", RELUS, state=read_state_dict(shipped()), pooling="average")
    assert network.pretrained
    assert layer_names("embedded")[:3] == ("conv1_1", "relu1_1", "conv1_2")
    pictures = [family((128, 128), seed) for family in TEXTURES.values() for seed in range(50, 54)]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    for layer, activation in network(images).items():
        squares = activation.square().mean((0, 2, 3))
        assert 0.5 < float(squares.mean()) < 2, layer
        if layer.replace("relu", "conv") in SHARED:  # channels trained for style losses have sizes of their own
            trained = squares[: -AlignmentTask().channels]
            assert float(trained.max()) < 3 * float(trained.median()), layer
        else:
            assert 0.5 < float(squares.median()) < 2, layer


def test_takes_its_own_weights_and_no_others() -> None:
    assert StyleTransfer(style="s", network="embedded").weights == "embedded"
    assert StyleTransfer(style="s", network="embedded").preset == "embedded"
    assert StyleTransfer(style="s", network="embedded", weights="seeded").preset == "seeded"
    assert DeepDream(network="embedded").weights == "embedded"
    assert DeepDream().weights == "imagenet"
    with pytest.raises(OptionError, match=r"weights = 'imagenet'.*Choices: embedded, seeded"):
        DeepDream(network="embedded", weights="imagenet")
    with pytest.raises(
        OptionError, match=r"weights = 'embedded'.*Choices: imagenet, imagenet_features, seeded"
    ):
        DeepDream(network="vgg16", weights="embedded")
    with pytest.raises(OptionError, match="weights_sha256"):
        weights_asset("embedded", "seeded", "ab")


@pytest.mark.slow
def test_patches_are_of_every_kind_and_reproducible(patches: torch.Tensor) -> None:
    assert patches.shape == (48, 3, 128, 128)
    assert patches.dtype == torch.uint8
    assert len(torch.unique(patches.flatten(1), dim=0)) == 48
    photographs = [np.asarray(picture(seed, 200, 150)) for seed in range(3)]
    assert torch.equal(patches, render_patches(photographs, ExemplarTask(patches=48)))


@pytest.mark.slow
def test_a_short_training_is_reproducible_to_the_byte(patches: torch.Tensor) -> None:
    task = ExemplarTask(patches=48, steps=3, batch_size=16, crop_px=32)
    states = []
    for _ in range(2):
        training = ExemplarTraining(patches, task, torch.device("cpu"))
        assert [progress.step for progress in training.run()] == [3]
        states.append(training.state_dict())
    assert states[0].keys() == states[1].keys() == read_state_dict(shipped()).keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_learns_to_tell_patches_apart(patches: torch.Tensor) -> None:
    task = ExemplarTask(patches=48, steps=40, batch_size=16, crop_px=32)
    *_, last = ExemplarTraining(patches, task, torch.device("cpu")).run()
    assert last.accuracy > 3 / 48


@pytest.mark.slow
def test_folding_changes_only_the_units(patches: torch.Tensor) -> None:
    """With batch norm and folded, the network gives the same activations, up to a factor per channel."""
    training = ExemplarTraining(
        patches, ExemplarTask(patches=48, steps=4, batch_size=16, crop_px=32), torch.device("cpu")
    )
    list(training.run())
    state = training.state_dict()
    images = patches[:6].float() / 255
    folded = build_features("embedded", RELUS, state=state, pooling="average")(images)
    model, x = training._model.eval(), normalize(images)
    with torch.no_grad():
        for name in layer_names("embedded"):
            if name.startswith("pool"):
                x = torch.nn.functional.avg_pool2d(x, 2)
            if name.startswith("conv"):
                convolution, norm = model.layer(name)
                x = torch.relu(norm(convolution(x)))
                ours = folded[name.replace("conv", "relu")]
                factor = (x * ours).sum((0, 2, 3), True) / (ours * ours).sum((0, 2, 3), True).clamp_min(1e-9)
                assert torch.allclose(ours * factor, x, atol=0.01 * float(x.abs().max())), name


@pytest.mark.slow
def test_the_first_filters_stay_as_seeded(patches: torch.Tensor) -> None:
    training = ExemplarTraining(
        patches, ExemplarTask(patches=48, steps=4, batch_size=16, crop_px=32), torch.device("cpu")
    )
    list(training.run())
    trained = training.state_dict()["features.0.weight"].float().flatten(1)
    seeded = image_filters(64, 3, torch.Generator().manual_seed(0)).flatten(1)
    assert float(torch.nn.functional.cosine_similarity(trained, seeded).abs().min()) > 0.999


@pytest.mark.slow
def test_distortions_keep_range_and_vary(patches: torch.Tensor) -> None:
    random = torch.Generator().manual_seed(0)
    first, second = distort(patches, 64, random), distort(patches, 64, random)
    assert first.shape == (48, 3, 64, 64)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    assert not torch.equal(first, second)
    gray = ((first - first.mean(1, keepdim=True)).abs() < 1e-6).all(dim=3).all(dim=2).all(dim=1)
    assert 1 < int(gray.sum()) < 30


@pytest.mark.parametrize("family", TEXTURES)
def test_textures_are_functions_of_their_seed(family: str) -> None:
    render = TEXTURES[family]
    first = render((40, 60), 1)
    assert first.shape == (40, 60, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, render((40, 60), 1))
    assert not np.array_equal(first, render((40, 60), 2))
    assert first.std() > 3
