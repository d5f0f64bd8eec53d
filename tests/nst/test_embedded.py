"""The network that comes with the package: its file and its layers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from nst.deepdream.method import DeepDream
from nst.errors import OptionError, WeightsError
from nst.features import build_features, layer_names, read_state_dict, weights, weights_asset
from nst.features.layers import VGG_CHANNELS
from nst.style_transfer.method import StyleTransfer
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
