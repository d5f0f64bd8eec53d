"""Feature networks: the same activations as torchvision's own models, by standard names, cut and frozen."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from nst.errors import ImageTooSmall, OptionError, WeightsError
from nst.features import build_features, layer_names, read_state_dict, weights_asset
from nst.features.conventions import CONVENTIONS
from nst.features.weights import PUBLISHED, published_bytes

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def normalized(images: Tensor) -> Tensor:
    return (images - MEAN.view(1, 3, 1, 1)) / STD.view(1, 3, 1, 1)


def vgg(config: str) -> nn.Sequential:
    """torchvision's convolutional part, with a state dict as in its published files."""
    torch.manual_seed(0)
    layers: nn.Sequential = torchvision.models.vgg.make_layers(
        torchvision.models.vgg.cfgs[config], batch_norm=False
    )
    for module in layers:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return layers.eval()


def published_vgg_state(layers: nn.Sequential) -> dict[str, Tensor]:
    state = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    return {**state, "classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}


@pytest.mark.parametrize(("network", "config", "count"), [("vgg16", "D", 31), ("vgg19", "E", 37)])
def test_vgg_equals_torchvision_at_every_layer(network: str, config: str, count: int) -> None:
    reference = vgg(config)
    names = layer_names(network)
    assert len(names) == count == len(reference)
    images = torch.rand(1, 3, 40, 36)
    features = build_features(network, names, state=published_vgg_state(reference))(images)
    x = normalized(images)
    with torch.no_grad():
        for name, module in zip(names, reference, strict=True):
            x = module(x)
            torch.testing.assert_close(features[name], x, rtol=1e-5, atol=1e-5)


def test_vgg_names_are_the_standard_ones() -> None:
    names = layer_names("vgg19")
    assert names[:5] == ("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1")
    assert names.index("relu4_2") == 22  # torchvision's vgg19.features[22]
    assert names.index("conv3_1") == 10
    assert names[-1] == "pool5"


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        ("resnet50", ("relu", "layer1.0", "layer2", "layer3.5", "layer3")),
        ("googlenet", ("conv1", "maxpool2", "inception3b", "inception4c")),
    ],
)
def test_other_networks_equal_torchvision(network: str, layers: tuple[str, ...]) -> None:
    torch.manual_seed(1)
    if network == "resnet50":
        model = torchvision.models.resnet50(weights=None).eval()
    else:
        model = torchvision.models.googlenet(
            weights=None, aux_logits=True, init_weights=False, transform_input=True
        ).eval()  # as published: with the auxiliary classifiers
    found: dict[str, Tensor] = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found.__setitem__(name, output.clone())
        )
    images = torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        model(normalized(images))
    features = build_features(network, layers, state=model.state_dict())(images)
    assert set(features) == set(layers)
    for name in layers:
        torch.testing.assert_close(features[name], found[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "layer"), [("vgg19", "relu2_1"), pytest.param("resnet50", "layer1", marks=pytest.mark.slow)]
)
def test_nothing_deeper_than_the_deepest_layer_exists(network: str, layer: str) -> None:
    whole = build_features(network, [layer_names(network)[-1]])
    cut = build_features(network, [layer, layer_names(network)[0]])
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters()) / 20
    assert cut.layers == (layer_names(network)[0], layer)


def test_frozen_and_in_evaluation_mode() -> None:
    network = build_features("resnet50", ["layer2"])
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(images)["layer2"].sum().backward()
    assert images.grad is not None


def smooth_pictures() -> Tensor:
    torch.manual_seed(3)
    coarse = torch.rand(2, 3, 12, 12)
    return nn.functional.interpolate(coarse, size=(128, 128), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("network", ["vgg16", pytest.param("vgg19", marks=pytest.mark.slow)])
def test_seeded_activations_keep_unit_variance(network: str) -> None:
    layers = [name for name in layer_names(network) if name.startswith("conv")]
    for name, activation in build_features(network, layers, seed=5)(smooth_pictures()).items():
        assert 0.3 < float(activation.var()) < 3, name


@pytest.mark.parametrize("network", [pytest.param("resnet50", marks=pytest.mark.slow), "googlenet"])
def test_seeded_activations_neither_vanish_nor_explode(network: str) -> None:
    """Behind residual sums, where the variances of the branches add."""
    layers = [name for name in layer_names(network) if name.startswith(("layer", "inception"))]
    for name, activation in build_features(network, layers, seed=5)(smooth_pictures()).items():
        assert 0.1 < float(activation.square().mean()) < 8, name


def test_seeded_is_a_function_of_the_seed() -> None:
    def parameters(seed: int) -> list[Tensor]:
        return list(build_features("vgg16", ["relu2_1"], seed=seed).parameters())

    assert all(torch.equal(a, b) for a, b in zip(parameters(4), parameters(4), strict=True))
    assert not torch.equal(parameters(4)[0], parameters(5)[0])


def test_says_whether_it_is_pretrained() -> None:
    assert not build_features("vgg19", ["relu1_1"]).pretrained
    assert build_features("vgg19", ["relu1_1"], state=published_vgg_state(vgg("E"))).pretrained


def test_average_pooling() -> None:
    state = published_vgg_state(vgg("E"))
    images = torch.rand(1, 3, 16, 16)
    features = build_features("vgg19", ["relu1_2", "pool1"], state=state, pooling="average")(images)
    torch.testing.assert_close(features["pool1"], nn.functional.avg_pool2d(features["relu1_2"], 2))
    with pytest.raises(OptionError, match="pooling"):
        build_features("resnet50", ["layer1"], pooling="average")


@pytest.mark.slow
def test_an_image_that_vanishes_is_a_typed_error() -> None:
    network = build_features("vgg19", ["relu3_1"])  # behind two poolings
    assert network(torch.rand(1, 3, 4, 4))["relu3_1"].shape == (1, 256, 1, 1)
    with pytest.raises(ImageTooSmall, match="3 x 9"):
        network(torch.rand(1, 3, 9, 3))
    assert build_features("resnet50", ["layer4"])(torch.rand(1, 3, 1, 1))["layer4"].shape[-1] == 1
    for layer, least in (("conv1", 1), ("maxpool1", 3), ("inception3a", 7), ("inception5b", 15)):
        network = build_features("googlenet", [layer])
        assert network(torch.rand(1, 3, least, 40))[layer].shape[2] == 1
        if least > 1:
            with pytest.raises(ImageTooSmall, match=f"needs {least}"):
                network(torch.rand(1, 3, least - 1, 40))
            with pytest.raises(RuntimeError):
                network.body(torch.rand(1, 3, least - 1, 40))


@pytest.mark.parametrize(
    ("network", "layers", "said"),
    [
        ("vgg18", ["relu1_1"], "vgg19"),
        ("vgg19", ["relu4_5"], "relu4_4"),
        ("resnet50", ["layer9"], "layer4"),
        ("vgg19", [], "at least one"),
    ],
)
def test_unknown_names_are_refused_with_the_choices(network: str, layers: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        build_features(network, layers)


# Weights


def test_a_safetensors_file_may_begin_as_a_pickle_does() -> None:
    """It begins with the length of its header."""
    for padding in range(40):
        data = safetensors.torch.save({"a": torch.ones(2)}, metadata={"padding": "x" * (8 * padding)})
        if data[0] == 0x80:
            assert torch.equal(read_state_dict(data)["a"], torch.ones(2))
            return
    raise AssertionError("no such file was made")


@pytest.mark.parametrize("format", ["safetensors", "pth", "old pth"])
def test_reads_state_dicts(format: str) -> None:
    state = published_vgg_state(vgg("D"))
    out = io.BytesIO()
    if format == "safetensors":
        data = safetensors.torch.save(state)
    else:
        torch.save(state, out, _use_new_zipfile_serialization=format == "pth")
        data = out.getvalue()
    found = read_state_dict(data)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("executed",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        b"PK\x03\x04garbage",
        pickle.dumps(_Evil(), protocol=2),
        b"\x80\x02}q\x00.",
    ],
    ids=["empty", "html", "zip", "pickle", "empty pickle"],
)
def test_refuses_what_is_no_state_dict(data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError):
        read_state_dict(data)
    assert "executed" not in capsys.readouterr().out


def test_never_unpickles_objects_inside_a_pth(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.BytesIO()
    torch.save({"features.0.weight": _Evil()}, out)
    with pytest.raises(WeightsError):
        read_state_dict(out.getvalue())
    assert "executed" not in capsys.readouterr().out


def test_weights_of_another_network_are_refused() -> None:
    state = published_vgg_state(vgg("E"))
    with pytest.raises(WeightsError, match="lacks conv1\\.weight"):
        build_features("resnet50", ["layer1"], state=state)
    wrong = {**state, "features.2.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(
        WeightsError, match=r"features\.2\.weight is \(64, 3, 3, 3\), expected \(64, 64, 3, 3\)"
    ):
        build_features("vgg19", ["relu1_2"], state=wrong)


def test_imagenet_without_the_file_names_file_place_and_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_args: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError) as caught:
        published_bytes("torchvision:vgg19")
    message = str(caught.value)
    for part in (
        "vgg19-dcbb9e9d.pth",
        str(tmp_path),
        "no route to host",
        '"/path/file.pth"',
        '"embedded"',
        '"seeded"',
    ):
        assert part in message


def test_imagenet_is_downloaded_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file URL here; a file that does not have the digest in its name leaves the cache alone."""
    state = safetensors.torch.save({"features.0.weight": torch.zeros(1)})
    head = hashlib.sha256(state).hexdigest()[:8]
    for name, fits in ((f"vgg19-{head}.pth", True), ("vgg19-00000000.pth", False)):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / name))
        (tmp_path / f"at {name}").mkdir()
        (tmp_path / f"at {name}" / name).write_bytes(state)
        url = (tmp_path / f"at {name}" / name).as_uri()
        monkeypatch.setitem(PUBLISHED, "vgg19", url)
        if fits:
            assert published_bytes("torchvision:vgg19") == state
            assert [path.name for path in (tmp_path / name / "hub/checkpoints").iterdir()] == [name]
        else:
            with pytest.raises(WeightsError, match="invalid hash value"):
                published_bytes("torchvision:vgg19")
            assert not (tmp_path / name).exists()


def test_imagenet_from_the_cache_is_digest_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    out = io.BytesIO()
    torch.save(published_vgg_state(vgg("E")), out)
    data = out.getvalue()
    head = hashlib.sha256(data).hexdigest()[:8]
    monkeypatch.setitem(PUBLISHED, "vgg19", f"https://example.invalid/vgg19-{head}.pth")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / f"vgg19-{head}.pth").write_bytes(data)
    assert published_bytes("torchvision:vgg19") == data
    (folder / f"vgg19-{head}.pth").write_bytes(data[:-1] + b"x")
    with pytest.raises(WeightsError, match="damaged"):
        published_bytes("torchvision:vgg19")


def test_the_weights_option() -> None:
    assert weights_asset("vgg19", "seeded", None) is None
    asset = weights_asset("vgg19", "imagenet", None)
    assert asset is not None
    assert asset.url == "torchvision:vgg19"
    asset = weights_asset("vgg19", "s3://bucket/mine.safetensors", "ab12")
    assert asset is not None
    assert (asset.url, asset.sha256) == ("s3://bucket/mine.safetensors", "ab12")
    with pytest.raises(OptionError, match="weights_sha256"):
        weights_asset("vgg19", "seeded", "ab12")


def test_published_files_are_torchvisions() -> None:
    models = torchvision.models
    assert {
        "vgg16": models.VGG16_Weights.IMAGENET1K_V1.url,
        "vgg16_features": models.VGG16_Weights.IMAGENET1K_FEATURES.url,
        "vgg19": models.VGG19_Weights.IMAGENET1K_V1.url,
        "resnet50": models.ResNet50_Weights.IMAGENET1K_V2.url,
        "googlenet": models.GoogLeNet_Weights.IMAGENET1K_V1.url,
    } == PUBLISHED
    preprocessing = models.VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    own = CONVENTIONS["caffe_rgb"]
    assert (tuple(preprocessing.mean), tuple(preprocessing.std)) == (own.mean, own.std)


@pytest.mark.parametrize(
    ("network", "layers"), [("resnet50", ("conv1", "bn1", "layer1")), ("googlenet", ("conv3",))]
)
def test_batch_norms_are_folded_where_nobody_looks_between(
    network: str, layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(3))
    folded = build_features(network, layers)
    monkeypatch.setattr("nst.features.networks.fold_batch_norms", lambda _: None)
    plain = build_features(network, layers)
    left, there = (
        sum(isinstance(module, torch.nn.BatchNorm2d) for module in each.modules()) for each in (folded, plain)
    )
    assert (left, there > 1) == (("conv1" in layers), True), "only that whose convolution is asked for"
    for layer, found in folded(image).items():
        torch.testing.assert_close(found, plain(image)[layer], rtol=1e-4, atol=1e-5)
    assert folded.geometry is not None
    assert plain.geometry is not None
    assert folded.geometry.bytes_per_pixel < plain.geometry.bytes_per_pixel
