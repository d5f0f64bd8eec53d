"""VGG16 as it is published in three conventions is one network: recognized, and read right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from nst.deepdream.method import DeepDream
from nst.errors import OptionError
from nst.features.conventions import CONVENTIONS, recognized_convention
from nst.features.weights import published_bytes
from nst.images.codec import decode_image
from tests.conftest import encoded, picture
from tests.vggs import rescaled

pytestmark = pytest.mark.pretrained

State = dict[str, Tensor]
LAYERS = ("conv1_1", "relu1_2", "relu2_2", "relu3_3", "relu4_2", "relu5_1")
FIRST, BIAS = "features.0.weight", "features.0.bias"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def of_pixels(state: State, mean: Tensor) -> State:
    """torchvision's (x / 255 - MEAN) / STD as one of x - mean, RGB in 0..255."""
    weight = state[FIRST].double() / (255 * STD.double().view(1, 3, 1, 1))
    bias = state[BIAS].double() + weight.sum((2, 3)) @ (mean.double() - 255 * MEAN.double())
    return {**state, FIRST: weight.float(), BIAS: bias.float()}


def caffe(state: State) -> State:
    found = of_pixels(state, torch.tensor([123.68, 116.779, 103.939]))
    return {**found, FIRST: found[FIRST].flip(1).contiguous()}


def caffe_rgb(state: State) -> State:
    return of_pixels(state, 255 * torch.tensor([0.48235, 0.45882, 0.40784]))


FILES: dict[str, Callable[[State], State]] = {"torchvision": dict, "caffe": caffe, "caffe_rgb": caffe_rgb}


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """A smooth colorful picture with a little grain."""
    smooth = decode_image(encoded(picture(4, 160, 128), "PNG"))
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def features(data: bytes, name: str, photo: Tensor, convention: str | None = None) -> dict[str, Tensor]:
    """As a job would compute them."""
    layers = dict.fromkeys(LAYERS, 1.0)
    method = DeepDream(network="vgg16", weights=name, weights_convention=convention, layers=layers)
    found: dict[str, Tensor] = method.build({name: data}, torch.device("cpu")).objective.network(photo[None])
    return found


def correlation(x: Tensor, y: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1])


def saved(state: State, path: Path) -> bytes:
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def right(vgg16_file: Path, photo: Tensor) -> dict[str, Tensor]:
    return features(vgg16_file.read_bytes(), "w", photo)


def test_the_files_are_the_original_ones(vgg16: State) -> None:
    """The first numbers of the file that Oxford published, but for rounding."""
    original = caffe(vgg16)
    expected = torch.tensor([0.73429835, 0.09340367, 0.06775674])
    torch.testing.assert_close(original[BIAS][:3], expected, rtol=0, atol=1e-4)
    blue, green, red = original[FIRST][0, :, 0, 0].tolist()
    assert (blue, green, red) == pytest.approx((0.42947057, 0.55037946, 0.4800154), abs=1e-6)


@pytest.mark.parametrize(("convention", "name"), [("caffe", "vgg16.pth"), ("caffe_rgb", "vgg16.safetensors")])
def test_other_conventions_give_the_same_features(
    convention: str, name: str, vgg16: State, right: dict[str, Tensor], photo: Tensor, tmp_path: Path
) -> None:
    data = saved(FILES[convention](vgg16), tmp_path / name)
    recognized, said = (features(data, name, photo, given) for given in (None, convention))
    for layer in LAYERS:
        assert torch.equal(recognized[layer], said[layer])
        assert correlation(recognized[layer], right[layer]) > 0.999, layer
    for wrong in CONVENTIONS.keys() - {convention}:
        assert correlation(features(data, name, photo, wrong)["relu4_2"], right["relu4_2"]) < 0.95, wrong


def test_the_border_is_the_originals_too(vgg16: State, photo: Tensor) -> None:
    """Which a first layer made for other inputs would only be inside."""
    state = caffe(vgg16)
    data = safetensors.torch.save(state)
    pixels = 255 * photo[None].flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    wanted = F.conv2d(pixels, state[FIRST], state[BIAS], padding=1)
    torch.testing.assert_close(features(data, "w", photo)["conv1_1"], wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_recognized_at_any_scale(convention: str, vgg16: State) -> None:
    state = FILES[convention](vgg16)
    for factors in ((1.0,), (0.01, 30.0, 0.2), (100.0,)):
        assert recognized_convention("vgg16", rescaled(state, factors)) == convention
    half = {name: each.half() for name, each in state.items()}
    assert recognized_convention("vgg16", half) == convention


def test_others_are_not_mistaken(vgg16: State) -> None:
    """The same network's other layers beneath an ordinary first one, or the embedded network's."""
    embedded = safetensors.torch.load(published_bytes("nst:embedded"))
    generator = torch.Generator().manual_seed(0)
    ordinary = torch.randn(64, 3, 3, 3, generator=generator)
    for first in (embedded[FIRST], ordinary, ordinary / 50, caffe(vgg16)[FIRST].flip(0)):
        assert recognized_convention("vgg16", {**caffe(vgg16), FIRST: first}) == "torchvision"


def test_an_unknown_convention_is_refused_with_the_choices() -> None:
    with pytest.raises(
        OptionError, match=r"weights_convention = 'bgr'.*Choices: torchvision, caffe, caffe_rgb"
    ):
        DeepDream(network="vgg16", weights="w", weights_convention="bgr")
