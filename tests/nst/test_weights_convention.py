"""Weights that want another input than torchvision's are recognized, and get it, to the border."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

import nst
from jobs.training.spec import EvaluationSpec
from nst.deepdream.method import DeepDream
from nst.errors import OptionError
from nst.features import build_features, read_weights, weights_asset, weights_notes
from nst.features.conventions import CONVENTIONS, recognized_convention
from nst.features.weights import PUBLISHED, published_bytes
from nst.images.codec import encode_image
from nst.style_transfer.method import StyleTransfer
from nst.stylizer import AssetRef
from tests.nst.test_features import vgg
from tests.vggs import caffe_vgg, rescaled

State = dict[str, Tensor]
LAYERS = ("conv1_1", "relu1_2", "relu2_1")
FIRST = "features.0.weight"


def rgb(state: State) -> State:
    return {**state, FIRST: state[FIRST].flip(1)}


def for_torchvision(state: State) -> State:
    """What a network in the Caffe convention is on normalized images, but for the color beyond the border."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    weight = state[FIRST].flip(1)
    shift = weight.sum((2, 3)) @ (255 * mean - torch.tensor([123.68, 116.779, 103.939]))
    scaled = weight * (255 * std).view(1, 3, 1, 1)
    return {**state, FIRST: scaled, "features.0.bias": state["features.0.bias"] + shift}


IN: dict[str, Callable[[State], State]] = {"torchvision": for_torchvision, "caffe": dict, "caffe_rgb": rgb}


def inputs(convention: str, images: Tensor) -> Tensor:
    """From the papers' and torchvision's own words: what weights in `convention` want, of RGB in [0, 1]."""
    if convention == "caffe":
        return 255 * images.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    mean, std = {
        "caffe_rgb": ([0.48235, 0.45882, 0.40784], [1 / 255] * 3),
        "torchvision": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }[convention]
    return (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def expected(state: State, convention: str, images: Tensor) -> dict[str, Tensor]:
    found, x = {}, inputs(convention, images)
    for name, index in (("1_1", 0), ("1_2", 2), ("2_1", 5)):
        x = F.max_pool2d(x, 2) if name == "2_1" else x
        found[f"conv{name}"] = F.conv2d(
            x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1
        )
        found[f"relu{name}"] = x = F.relu(found[f"conv{name}"])
    return {layer: found[layer] for layer in LAYERS}


def photo() -> Tensor:
    return torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(1))


def check_features(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Every position, those at the border too."""
    for layer in LAYERS:
        tolerance = 1e-5 * float(wanted[layer].abs().max())
        torch.testing.assert_close(found[layer], wanted[layer], rtol=0, atol=tolerance)


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_weights_get_what_they_want(network: str, convention: str) -> None:
    state = IN[convention](caffe_vgg())
    for given in (None, convention):
        features = build_features(network, LAYERS, state=state, convention=given)(photo())
        check_features(features, expected(state, convention, photo()))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_recognized_at_any_scale_and_precision(convention: str) -> None:
    state = IN[convention](caffe_vgg())
    for factor in (1e-3, 1.0, 1e3):
        assert recognized_convention("vgg16", rescaled(state, (factor, 7.0))) == convention
    by_filter = torch.logspace(-2, 2, 64)
    uneven = {
        FIRST: state[FIRST] * by_filter.view(-1, 1, 1, 1),
        "features.0.bias": state["features.0.bias"] * by_filter,
    }
    assert recognized_convention("vgg19", uneven) == convention
    for dtype in (torch.float16, torch.bfloat16):
        assert (
            recognized_convention("vgg16", {name: each.to(dtype) for name, each in state.items()}) == convention
        )
    noise = torch.randn(64, 3, 3, 3, generator=torch.Generator().manual_seed(3))
    noisy = {**state, FIRST: state[FIRST] + 0.2 * state[FIRST].std() * noise}
    assert recognized_convention("vgg16", noisy) == convention


def test_others_are_never_mistaken() -> None:
    """Ordinary first layers, whatever the ratio of their weights to their biases; and what is no VGG."""
    generator = torch.Generator().manual_seed(2)
    embedded = safetensors.torch.load(published_bytes("nst:embedded"))
    seeded = build_features("vgg16", ["conv1_1"]).body.state_dict()
    published = {f"features.{name}": each for name, each in vgg("D").state_dict().items()}
    trained = {FIRST: torch.randn(64, 3, 3, 3, generator=generator), "features.0.bias": torch.ones(64)}
    caffe = caffe_vgg()
    order = torch.randperm(64, generator=generator)
    others: dict[str, State] = {
        "embedded": embedded,
        "seeded": seeded,
        "random": published,
        **{
            f"trained, times {each}": {**trained, FIRST: each * trained[FIRST]}
            for each in (0.01, 0.1, 1.0, 10.0)
        },
        "in another order": {name: caffe[name][order] for name in (FIRST, "features.0.bias")},
        "no biases": {**caffe, "features.0.bias": torch.zeros(64)},
        "not finite": {**caffe, FIRST: caffe[FIRST] / 0},
        "another shape": {**caffe, FIRST: caffe[FIRST][:32]},
        "nothing": {},
    }
    for name, state in others.items():
        assert recognized_convention("vgg16", state) == "torchvision", name
    assert recognized_convention("embedded", caffe) == "torchvision"
    assert recognized_convention("resnet50", caffe) == "torchvision"


def test_the_option_wins() -> None:
    state = caffe_vgg()
    for convention in CONVENTIONS:
        features = build_features("vgg16", LAYERS, state=state, convention=convention)(photo())
        check_features(features, expected(state, convention, photo()))


METHODS: dict[str, Callable[..., StyleTransfer | DeepDream | EvaluationSpec]] = {
    "style_transfer": lambda **options: StyleTransfer(style="s", **options),
    "deepdream": DeepDream,
    "evaluation": lambda **options: EvaluationSpec(every=1, **options),
}


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"network": "vgg16"}, r"did you mean 'caffe'\?.*Choices: torchvision, caffe, caffe_rgb"),
        ({"network": "embedded"}, "goes with vgg16 and vgg19: weights of embedded have"),
        ({"network": "vgg16", "weights": "seeded"}, "not read from a file"),
    ],
)
def test_conventions_that_there_are_not_are_refused(kind: str, options: dict[str, str], said: str) -> None:
    convention = "cafe" if "Choices" in said else "caffe"
    with pytest.raises(OptionError, match=f"weights_convention = '{convention}'.*{said}"):
        METHODS[kind](**options, weights_convention=convention).assets()


def test_networks_with_one_convention_take_no_other() -> None:
    with pytest.raises(OptionError, match="weights_convention = 'caffe': goes with vgg16 and vgg19"):
        DeepDream(weights_convention="caffe")
    with pytest.raises(OptionError, match="weights_convention = 'caffe': goes with vgg16 and vgg19"):
        build_features("resnet50", ["layer1"], convention="caffe")


def saved(state: State, format: str) -> bytes:
    if format == "safetensors":
        return safetensors.torch.save({name: each.contiguous() for name, each in state.items()})
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


@pytest.mark.parametrize("format", ["safetensors", "pth"])
def test_methods_build_with_the_convention_and_say_so(format: str) -> None:
    data, url = saved(caffe_vgg(), format), f"w.{format}"
    picture = encode_image(photo()[0], format="png")
    for kind in ("style_transfer", "deepdream"):
        layers = ("content_layers", "style_layers") if kind == "style_transfer" else ("layers",)
        options: dict[str, object] = {"network": "vgg16", "weights": url, "pooling": "max"}
        options |= {each: dict.fromkeys(LAYERS, 1.0) for each in layers}
        if kind == "style_transfer":
            options["loss_scale"] = "mean"  # relative losses bring the layers to one scale
        assets = {"s": picture, url: data}
        for given, wanted in ((None, "caffe"), ("torchvision", "torchvision"), ("caffe_rgb", "caffe_rgb")):
            method = METHODS[kind](**options, weights_convention=given)
            stylizer = method.build(assets, torch.device("cpu"))  # type: ignore[union-attr]
            check_features(stylizer.objective.network(photo()), expected(caffe_vgg(), wanted, photo()))
            said = [f"weights {url}: recognized as the original Caffe convention (BGR, 0..255)"]
            assert method.notes(assets) == ([] if given else said)


def test_what_is_said() -> None:
    def said(state: State, network: str = "vgg16", convention: str | None = None) -> list[str]:
        ref = weights_asset(network, "w", None, convention)
        return weights_notes(network, ref, convention, {"w": saved(state, "pth")})

    assert said(rgb(caffe_vgg())) == ["weights w: recognized as the original Caffe convention in RGB (0..255)"]
    assert said(for_torchvision(caffe_vgg())) == []
    assert said(caffe_vgg(), convention="torchvision") == []
    assert said(caffe_vgg(), network="resnet50") == []
    assert weights_notes("vgg16", None, None, {}) == []
    evaluation = EvaluationSpec(every=1, network="vgg16", weights="w")
    assert "recognized" in evaluation.notes({"w": saved(caffe_vgg(), "pth")})[0]


def test_recognized_by_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first layer does not tell."""
    data = saved({**caffe_vgg(), FIRST: torch.ones(64, 3, 3, 3)}, "safetensors")
    ref = AssetRef(option="weights", url="w", kind="weights")
    assert read_weights("vgg19", ref, None, {"w": data})[1] == "torchvision"
    monkeypatch.setitem(nst.features.weights._KNOWN, hashlib.sha256(data).hexdigest()[:8], "caffe")
    assert read_weights("vgg19", ref, None, {"w": data})[1] == "caffe"
    assert read_weights("vgg19", ref, "caffe_rgb", {"w": data})[1] == "caffe_rgb"
    assert read_weights("resnet50", ref, None, {"w": data})[1] is None
    assert read_weights("vgg19", None, None, {}) == (None, None)


def test_imagenet_features_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From torchvision's cache, digest checked; its convention is known, whatever its first layer is."""
    state = {**caffe_vgg(), FIRST: torch.ones(64, 3, 3, 3)}
    data = saved(state, "pth")
    name = f"vgg16_features-amdegroot-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(PUBLISHED, "vgg16_features", f"https://example.invalid/{name}")
    monkeypatch.setitem(PUBLISHED, "vgg16", f"https://example.invalid/{name}")
    for weights, convention in (("imagenet_features", "caffe_rgb"), ("imagenet", "torchvision")):
        method = DeepDream(network="vgg16", weights=weights, layers=dict.fromkeys(LAYERS, 1.0))
        (asset,) = method.assets()
        assets = {asset.url: published_bytes(asset.url)}
        assert method.notes(assets) == []
        stylizer = method.build(assets, torch.device("cpu"))
        check_features(stylizer.objective.network(photo()), expected(state, convention, photo()))
    options = {"network": "vgg16", "weights": "imagenet_features", "layers": {"conv1_1": 1.0}, "octaves": 1}
    assert next(nst.dream(torch.rand(3, 20, 20), **options)).losses["objective"] > 0  # type: ignore[arg-type]
    (folder / name).write_bytes(data[:-1] + b"x")
    with pytest.raises(nst.WeightsError, match="damaged"):
        published_bytes("torchvision:vgg16_features")
    (folder / name).unlink()
    monkeypatch.setattr(torch.hub, "download_url_to_file", _offline)
    with pytest.raises(nst.WeightsError, match=r'weights = "imagenet_features": .*a state dict of vgg16 '):
        published_bytes("torchvision:vgg16_features")


def _offline(*_arguments: object, **_options: object) -> None:
    raise OSError("no route to host")


def test_imagenet_features_are_vgg16s_and_have_no_classifier() -> None:
    for network in ("vgg19", "resnet50", "embedded"):
        with pytest.raises(OptionError, match=f"imagenet_features.*there are none of {network}"):
            DeepDream(network=network, weights="imagenet_features")
    with pytest.raises(OptionError, match="layers = 'logits': imagenet_features have no classifier"):
        DeepDream(network="vgg16", weights="imagenet_features", layers={"logits:3": 1.0})


def test_a_notebooks_state_dict_is_recognized_too() -> None:
    options = {"network": "vgg16", "layers": {"relu1_2": 1.0}, "octaves": 1, "jitter_px": 0}

    def first(state: State, **more: str) -> float:
        return next(nst.dream(photo()[0], state=state, **options, **more)).losses["objective"]  # type: ignore[arg-type]

    caffe = caffe_vgg()
    assert first(caffe) == pytest.approx(first(rgb(caffe), weights_convention="caffe_rgb"), rel=0.05)
    assert first(caffe) == first(caffe, weights_convention="caffe")
    assert first(caffe) > 2 * first(caffe, weights_convention="torchvision")


def test_zeros_beyond_the_border_are_the_conventions_mean() -> None:
    """Folding mean and scale into the first layer would be exact everywhere but there."""
    caffe = caffe_vgg()
    own, folded = (
        build_features("vgg16", LAYERS, state=state)(photo())["conv1_1"]
        for state in (caffe, for_torchvision(caffe))
    )
    difference = (own - folded).abs()
    assert float(difference[..., 1:-1, 1:-1].max()) < 1e-3
    assert float(difference.max()) > 0.1


def test_the_callers_state_dict_is_left_alone() -> None:
    state = caffe_vgg()
    before = {name: each.clone() for name, each in state.items()}
    network = build_features("vgg16", LAYERS, state=state)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert torch.equal(network.body.get_parameter(FIRST), before[FIRST].flip(1))
