"""Style transfer through the real VGG16: the default preset paints, whatever the scale of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.demo import sample_photographs
from nst.features import FeatureNetwork, build_features
from nst.features.layers import layer_names
from nst.images.codec import decode_image, picture_tensor, resize_image
from nst.style_transfer.method import StyleTransfer
from nst.stylizer import Stylized
from nst.synthetic import brush_strokes

pytestmark = [pytest.mark.pretrained, pytest.mark.timeout(1500)]

State = Mapping[str, Tensor]
CONVOLUTIONS = [index for index, name in enumerate(layer_names("vgg16")) if name.startswith("conv")]


def photograph(side: int, name: str = "chelsea.png") -> Tensor:
    return decode_image((sample_photographs() / name).read_bytes(), max_side_px=side)


def style() -> Tensor:
    return picture_tensor(brush_strokes((192, 192), seed=0))


def rescaled(state: State, seed: int) -> dict[str, Tensor]:
    """Every layer's activations times a random factor between 1/100 and 100: else the same function."""
    generator = torch.Generator().manual_seed(seed)
    found, before = dict(state), 1.0
    for index in CONVOLUTIONS:
        factor = 10 ** float(4 * torch.rand((), generator=generator, dtype=torch.float64) - 2)
        found[f"features.{index}.weight"] = state[f"features.{index}.weight"].double() * (factor / before)
        found[f"features.{index}.bias"] = state[f"features.{index}.bias"].double() * factor
        before = factor
    return found


def paint(
    state: State, photo: Tensor, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[Tensor, Stylized]:
    options = {"precision": "float32", **options}
    method = StyleTransfer(style="style", network="vgg16", weights="file", **options)
    it = method.build_from([style()], state, torch.device("cpu"))
    if dtype == torch.float64:
        it.objective.network.double()
        it.objective._networks = {torch.float64: it.objective.network}
        it.objective._targets._pictures = [style().double()]
    (outcome,) = it([photo], [torch.Generator().manual_seed(0)])
    assert isinstance(outcome, Stylized), outcome
    return outcome.image, outcome


def test_it_is_the_default() -> None:
    assert StyleTransfer(style="s", network="vgg16").preset == "pretrained"
    assert StyleTransfer(style="s", network="vgg16", weights="file.pth").preset == "pretrained"


FIFTY: dict[str, Any] = {"coarse_scales": (), "steps": 50}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_picture_does_not_depend_on_how_a_file_scales_its_layers(vgg16: State, dtype: torch.dtype) -> None:
    photo = photograph(96)
    plain, outcome = paint(vgg16, photo, dtype, **FIFTY)
    other, _ = paint(rescaled(vgg16, seed=1), photo, dtype, **FIFTY)
    difference = float((plain - other).abs().max())
    print(f"{dtype}: {difference:.2g} apart, {255 * outcome.stats['change']:.1f} of 255 from the photograph")
    assert outcome.stats["change"] >= 20 / 255
    assert difference <= 1e-3


def test_in_bfloat16_too(vgg16: State) -> None:
    photo = photograph(64)
    options = {"coarse_scales": (), "steps": 20, "precision": "bfloat16", "refine_steps": 5}
    plain, outcome = paint(vgg16, photo, **options)
    other, _ = paint(rescaled(vgg16, seed=2), photo, **options)
    assert outcome.stats["change"] >= 20 / 255
    assert float((plain - other).abs().max()) <= 1e-3


def test_a_file_that_was_scaled_in_float32_has_no_other_picture_to_the_eye(vgg16: State) -> None:
    """Its digits are others; fifty steps of L-BFGS make of that what they make of any rounding."""
    photo = photograph(96)
    rounded = {name: each.float() for name, each in rescaled(vgg16, seed=1).items()}
    plain, outcome = paint(vgg16, photo, **FIFTY)
    other, again = paint(rounded, photo, **FIFTY)
    print(f"{255 * float((plain - other).abs().mean()):.2f} of 255 apart")
    assert float((plain - other).abs().mean()) < 0.1 * outcome.stats["change"]
    assert again.stats["loss"] == pytest.approx(outcome.stats["loss"], rel=0.02)


def test_gatys_depends_on_it(vgg16: State) -> None:
    """As documented: by the letter, and of hardly any effect where activations are of ordinary size."""
    photo = photograph(64)
    layers = ["relu5_1"]
    ordinary = build_features("vgg16", layers, state=vgg16, unit_activations=True).body.state_dict()
    options: dict[str, Any] = {"preset": "gatys", "steps": 25}
    strong, weak = (paint(state, photo, **options)[1].stats["change"] for state in (vgg16, ordinary))
    print(f"{255 * strong:.1f} and {255 * weak:.1f} of 255 from the photograph")
    assert strong > 10 / 255
    assert weak < 0.5 * strong


def frame(picture: Tensor, width: int = 10) -> float:
    """Mean gradient along the border over that of the next pixels inside."""
    found = picture.diff(dim=1).abs().mean(0)[:, :-1] + picture.diff(dim=2).abs().mean(0)[:-1]
    outer, inner = torch.ones_like(found, dtype=torch.bool), torch.ones_like(found, dtype=torch.bool)
    outer[width:-width, width:-width] = False
    inner[3 * width : -3 * width, 3 * width : -3 * width] = False
    return float(found[outer].mean() / found[inner & ~outer].mean())


def test_there_is_no_frame(vgg16: State) -> None:
    """Of even texture: painted borders stand out no more than the photograph's."""
    photo = resize_image(photograph(300, "gravel.png"), (112, 112))
    painted = frame(paint(vgg16, photo, coarse_scales=(), steps=20)[0])
    assert painted < 1.2 * frame(photo)


def activations(network: FeatureNetwork, picture: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return {layer: each[0].double() for layer, each in network(picture[None]).items()}


def test_every_layer_of_the_file(vgg16: State) -> None:
    """The mean activation of every ReLU for one photograph, as it was when this was written; and it sees the
    photograph, not noise."""
    network = build_features("vgg16", GOLDEN, state=vgg16)
    found = activations(network, photograph(128))
    means = {layer: float(each.mean()) for layer, each in found.items()}
    print(means)
    assert means == pytest.approx(GOLDEN, rel=1e-3)


GOLDEN = {
    "relu1_1": 17.4961,
    "relu1_2": 92.0214,
    "relu2_1": 155.976,
    "relu2_2": 186.208,
    "relu3_1": 238.768,
    "relu3_2": 273.209,
    "relu3_3": 207.350,
    "relu4_1": 158.642,
    "relu4_2": 107.804,
    "relu4_3": 30.7954,
    "relu5_1": 31.8984,
    "relu5_2": 15.6452,
    "relu5_3": 2.51465,
}


def test_losses_of_a_few_steps(vgg16: State) -> None:
    _, outcome = paint(vgg16, photograph(96), coarse_scales=(), steps=5, curve=True)
    print(list(outcome.curve["loss"]))
    assert list(outcome.curve["loss"]) == pytest.approx(LOSSES, rel=0.01)


LOSSES = [11.0670, 7.65105, 6.15856, 5.04626, 4.33515]
