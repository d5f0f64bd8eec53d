"""The network that comes with the package: its file and its layers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nst.deepdream.method import DeepDream
from nst.errors import OptionError, WeightsError
from nst.features import FeatureNetwork, build_features, layer_names, read_state_dict, weights, weights_asset
from nst.features.layers import VGG_CHANNELS
from nst.features.tiles import least_pixels
from nst.features.vgg import read_out
from nst.optim.descent import Evaluation
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from nst.stylizer import select
from nst.synthetic import TEXTURES

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


def test_the_layers_are_those_of_vgg16() -> None:
    names = layer_names("embedded")
    assert names[-2:] == ("relu5_2", "pool5")
    assert names[:-1] == layer_names("vgg16")[: len(names) - 1]
    network = build_features("embedded", RELUS, state=read_state_dict(shipped()))
    assert network.pretrained
    assert {layer: seen.shape[1:] for layer, seen in network(torch.rand(1, 3, 64, 64)).items()} == {
        layer: (VGG_CHANNELS["embedded"][int(layer[4]) - 1], *(2 * [64 >> (int(layer[4]) - 1)]))
        for layer in RELUS
    }


def test_it_pools_as_it_was_taught() -> None:
    photo = torch.rand(1, 3, 32, 32)
    state = read_state_dict(shipped())
    own, average, most = (
        build_features("embedded", ["relu3_1"], state=state, pooling=pooling)(photo)["relu3_1"]
        for pooling in (None, "average", "max")
    )
    assert torch.equal(own, average)
    assert not torch.allclose(own, most)
    assert DeepDream(network="embedded").pooling == StyleTransfer(style="s", network="embedded").pooling
    assert (DeepDream(network="vgg16").pooling, DeepDream(network="googlenet").pooling) == ("max", "max")


def test_what_is_read_out_is_not_what_the_next_layer_sees() -> None:
    photo = torch.rand(1, 3, 32, 32)
    state = read_state_dict(shipped())
    turned = state | {"readouts.relu1_2": 2 * state["readouts.relu1_2"]}
    plain, other = (
        build_features("embedded", ["relu1_2", "relu2_1"], state=each)(photo) for each in (state, turned)
    )
    assert torch.allclose(other["relu1_2"], 2 * plain["relu1_2"])
    assert torch.equal(other["relu2_1"], plain["relu2_1"])


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein"])
def test_styles_are_read_out_of_sums(
    style_loss: Any, masked: bool, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is the same as out of activations, and takes a tenth of an evaluation less."""
    random = torch.Generator().manual_seed(0)
    photo, point, style = (torch.rand(3, 64, 80, generator=random, dtype=torch.float64) for _ in range(3))
    layers = {
        "content_layers": {"relu2_1": 1.0},
        "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0, "conv2_2": 1.0},
    }
    network = build_features(
        "embedded", ["relu1_1", "relu2_1", "conv2_2"], state=read_state_dict(shipped()), unit_activations=True
    ).double()
    options = ObjectiveOptions(
        **layers,
        content_weight=1.0,
        style_weight=5.0,
        style_loss=style_loss,
        loss_scale="relative",
        max_pass_pixels=least_pixels(network) if tiled else None,
    )
    masks = [torch.rand(1, 9, 9, generator=random).round()] if masked else None
    read: list[int] = []

    def counted(x: Tensor, matrix: Tensor) -> Tensor:
        read.append(len(matrix))
        return read_out(x, matrix)

    monkeypatch.setattr("nst.features.vgg.read_out", counted)

    def evaluated() -> Evaluation:
        read.clear()
        objective = StyleObjective(network, style, options, masks=masks)
        (found,) = objective.evaluate([point], [objective.targets(photo)])
        return found

    found = evaluated()
    assert {*read} == {VGG_CHANNELS["embedded"][1]}, "a content's layer is read out where it is compared"
    monkeypatch.setattr(FeatureNetwork, "unread", lambda self, _: self)
    expected = evaluated()
    assert {*read} == {*VGG_CHANNELS["embedded"][:2]}
    assert found.losses == pytest.approx(expected.losses, rel=1e-9)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("size", [(24, 32), (48, 64)], ids=str)
def test_float32_is_enough_to_read_out_of_sums(size: tuple[int, int]) -> None:
    """Also of smooth pictures that have fewer positions in a layer than it has channels."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 5, 7, generator=random, dtype=torch.float64)
    photo, point, style = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    method = StyleTransfer(style="s", network="embedded")
    assert method.content_layers is not None
    assert method.style_layers is not None
    layers = [*method.content_layers, *method.style_layers]
    options = select(ObjectiveOptions, method, share_passes=False, max_pass_pixels=None)

    def evaluated(dtype: torch.dtype) -> Evaluation:
        state = read_state_dict(shipped())
        network = build_features("embedded", layers, state=state, unit_activations=True).to(dtype)
        objective = StyleObjective(network, style.to(dtype), options)
        (found,) = objective.evaluate([point.to(dtype)], [objective.targets(photo.to(dtype))])
        return found

    found, exact = evaluated(torch.float32), evaluated(torch.float64)
    assert found.losses == pytest.approx(exact.losses, rel=1e-4)
    assert float((found.grad - exact.grad).norm() / exact.grad.norm()) < 1e-3


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


@pytest.mark.parametrize("family", TEXTURES)
def test_textures_are_functions_of_their_seed(family: str) -> None:
    render = TEXTURES[family]
    first = render((40, 60), 1)
    assert first.shape == (40, 60, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, render((40, 60), 1))
    assert not np.array_equal(first, render((40, 60), 2))
    assert first.std() > 3
