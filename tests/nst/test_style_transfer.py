"""Style transfer equals the tutorial and the paper, and each photograph of a batch its solo run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from benchmarks.style_transfer_step import losses_of
from nst.errors import ImageTooSmall, OptionError, WeightsError
from nst.features import build_features
from nst.features.layers import VGG_BLOCKS, VGG_CHANNELS
from nst.images.codec import encode_image
from nst.optim.lbfgs import LBFGS
from nst.style_transfer.method import StyleTransfer, StyleTransferStylizer
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from nst.style_transfer.presets import PRESETS
from nst.stylizer import Outcome, Stylized
from reference.style_transfer import gatys_losses, published_state, tutorial_losses, vgg

pytestmark = pytest.mark.usefixtures("narrow_vggs")


@pytest.fixture(scope="module")
def cnn(narrow_vggs: None) -> nn.Sequential:  # noqa: ARG001
    return vgg(VGG_BLOCKS["vgg19"], channels=VGG_CHANNELS["vgg19"]).double()


def objective(cnn: nn.Sequential, preset: str, style: Tensor) -> StyleObjective:
    """The preset's objective in float64, over the same parameters as `cnn`."""
    options = losses_of(preset)
    state = published_state(cnn)
    layers = [*options["content_layers"], *options["style_layers"]]
    network = build_features("vgg19", layers, state=state, pooling=PRESETS[preset]["pooling"]).double()
    return StyleObjective(network, style, ObjectiveOptions(**options))


def check_loss_and_gradient(
    ours: StyleObjective, theirs: Callable[[Tensor], list[Tensor]], photo: Tensor, point: Tensor
) -> None:
    (evaluation,) = ours.evaluate([point], [ours.targets(photo)])
    x = point[None].clone().requires_grad_()
    loss = sum(theirs(x), torch.zeros((), dtype=x.dtype))
    (grad,) = torch.autograd.grad(loss, x)
    assert evaluation.losses["loss"] == pytest.approx(loss.item(), rel=1e-9)
    difference = (evaluation.grad - grad[0]).norm() / grad.norm()
    assert float(difference) < 1e-6


def pictures(*sizes: tuple[int, int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [
        nn.functional.interpolate(
            torch.rand(1, 3, 6, 6, generator=generator), size=size, mode="bicubic", align_corners=False
        )[0]
        .clamp(0, 1)
        .to(dtype)
        for size in sizes
    ]


def test_tutorial_preset_equals_the_tutorial(cnn: nn.Sequential) -> None:
    """The tutorial's weight w within the square is our weight w^2 outside: 1000 is 1e6."""
    photo, style, point = pictures((40, 48), (40, 48), (40, 48), dtype=torch.float64)
    theirs = tutorial_losses(cnn, photo[None], style[None], weight=1000.0)
    check_loss_and_gradient(objective(cnn, "tutorial", style), theirs, photo, point)


def test_gatys_preset_equals_the_paper(cnn: nn.Sequential) -> None:
    photo, style, point = pictures((48, 64), (64, 32), (48, 64), dtype=torch.float64)
    theirs = gatys_losses(cnn, photo[None], style[None], alpha=1.0, beta=1e3)
    check_loss_and_gradient(objective(cnn, "gatys", style), theirs, photo, point)


@pytest.mark.parametrize("preset", ["tutorial", "gatys"])
def test_a_whole_run_ends_where_the_plain_one_ends(cnn: nn.Sequential, preset: str) -> None:
    """Thirty evaluations, by torch's L-BFGS on the transcription and by ours on the objective: within 1 %. And
    the preset's own run, which keeps to [0, 1], ends at most 1 % above the transcription's, whose picture is
    clamped to that as the tutorial does it."""
    photo, style = pictures((32, 40), (40, 32), dtype=torch.float64)
    if preset == "tutorial":
        losses = tutorial_losses(cnn, photo[None], style[None], weight=1000.0)
    else:
        losses = gatys_losses(cnn, photo[None], style[None], alpha=1.0, beta=1e3)
    x = photo[None].clone().requires_grad_()
    endless = {"max_iter": 30, "max_eval": 30, "tolerance_grad": 0.0, "tolerance_change": 0.0}
    theirs: list[float] = []

    def closure() -> float:
        x.grad = None
        loss = torch.stack(losses(x)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        theirs.append(loss.item())
        return theirs[-1]

    torch.optim.LBFGS([x], history_size=100, **endless).step(closure)  # type: ignore[arg-type, no-untyped-call]
    ours = objective(cnn, preset, style)
    targets = ours.targets(photo)
    point, optimizer, found = photo, LBFGS(history_size=100), []
    for _ in range(30):
        (evaluation,) = ours.evaluate([point], [targets])
        found.append(evaluation.losses["loss"])
        point = optimizer.step(point, evaluation.grad)
    assert found[-1] < 0.8 * found[0]
    assert found[-1] == pytest.approx(theirs[-1], rel=0.01)

    stylizer = build(method(preset=preset, network="vgg19", steps=30), style.float())
    stylizer.objective = ours
    *_, canvas = stylizer.iterate(photo, torch.Generator())
    with torch.no_grad():
        clamped = float(torch.stack(losses(x.clamp(0, 1))).sum())
    assert canvas.losses["loss"] <= 1.01 * clamped


def test_total_variation_and_layer_weights_enter_the_loss(cnn: nn.Sequential) -> None:
    photo, style, point = pictures((40, 48), (40, 48), (40, 48), dtype=torch.float64)
    options = losses_of("tutorial")
    options |= {"tv_weight": 3.0, "style_layers": {"conv1_1": 2.0, "conv2_1": 0.5}}
    state = published_state(cnn)
    network = build_features("vgg19", ["conv1_1", "conv2_1", "conv2_2"], state=state).double()

    def losses(**changes: object) -> dict[str, float]:
        ours = StyleObjective(network, style, ObjectiveOptions(**{**options, **changes}))
        return dict(ours.evaluate([point], [ours.targets(photo)])[0].losses)

    both = losses()
    first, second = losses(style_layers={"conv1_1": 1.0}), losses(style_layers={"conv2_1": 1.0})
    assert both["style_loss"] == pytest.approx(2 * first["style_loss"] + 0.5 * second["style_loss"])
    assert both["tv_loss"] == pytest.approx(
        3 * float(point.diff(dim=1).square().mean() + point.diff(dim=2).square().mean())
    )
    assert both["loss"] == pytest.approx(both["content_loss"] + both["style_loss"] + both["tv_loss"])
    assert losses(content_layers={"conv2_2": 4.0})["content_loss"] == pytest.approx(4 * both["content_loss"])


def method(**options: object) -> StyleTransfer:
    plain = {
        "style": "style",
        "weights": "seeded",
        "preset": "tutorial",
        "content_layers": {"relu2_1": 1.0},
        "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0},
        "style_weight": 1e6,
        "steps": 8,
    }
    return StyleTransfer(**{**plain, **options})  # type: ignore[arg-type]


def build(description: StyleTransfer, style: Tensor | None = None) -> StyleTransferStylizer:
    picture = pictures((40, 32))[0] if style is None else style
    assets = {"style": encode_image(picture, format="png")}
    return description.build(assets, torch.device("cpu"))


def run(stylizer: StyleTransferStylizer, images: Sequence[Tensor]) -> list[Outcome]:
    return stylizer(images, [torch.Generator().manual_seed(n) for n in range(len(images))])


def image_of(outcome: Outcome) -> Tensor:
    assert isinstance(outcome, Stylized), outcome
    return outcome.image


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam"}, {"init": "noise"}], ids=str)
def test_a_batch_of_mixed_sizes_equals_solo_runs_to_the_byte(options: dict[str, object]) -> None:
    stylizer = build(method(**options))
    images = pictures((24, 32), (32, 24), (24, 32), (17, 41))
    for number, together in enumerate(run(stylizer, images)):
        (alone,) = stylizer([images[number]], [torch.Generator().manual_seed(number)])
        assert torch.equal(image_of(together), image_of(alone))


def test_lowers_the_loss_and_says_so() -> None:
    (photo,) = pictures((32, 40))
    before, after = (run(build(method(steps=steps)), [photo])[0] for steps in (1, 25))
    assert isinstance(before, Stylized)
    assert isinstance(after, Stylized)
    assert after.stats["loss"] < 0.5 * before.stats["loss"]
    assert after.stats["evaluations"] == 25
    assert after.stats["pretrained"] == 0.0
    assert after.image.shape == photo.shape
    assert 0 <= float(after.image.min()) <= float(after.image.max()) <= 1


def test_photos_are_not_modified() -> None:
    (photo,) = pictures((24, 24))
    kept = photo.clone()
    run(build(method()), [photo])
    assert torch.equal(photo, kept)


def test_noise_comes_from_the_generator_alone() -> None:
    stylizer = build(method(init="noise", steps=2))
    (photo,) = pictures((24, 24))
    torch.manual_seed(1)
    (first,) = stylizer([photo], [torch.Generator().manual_seed(5)])
    torch.manual_seed(2)
    (second,) = stylizer([photo], [torch.Generator().manual_seed(5)])
    (third,) = stylizer([photo], [torch.Generator().manual_seed(6)])
    assert torch.equal(image_of(first), image_of(second))
    assert not torch.equal(image_of(first), image_of(third))


def test_a_photo_that_is_too_small_is_its_own_failure() -> None:
    small, fine = run(build(method()), [torch.rand(3, 1, 9), *pictures((24, 24))])
    assert isinstance(small, ImageTooSmall)
    assert isinstance(fine, Stylized)


def test_style_targets_are_computed_once_per_size(monkeypatch: pytest.MonkeyPatch) -> None:
    stylizer = build(method())
    calls = []
    network = stylizer.objective.network
    forward = type(network).forward

    def counting(self: nn.Module, images: Tensor) -> object:
        if not images.requires_grad:
            calls.append(tuple(images.shape[-2:]))
        return forward(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(type(network), "forward", counting)
    run(stylizer, pictures((24, 32), (24, 32), (32, 24), (48, 48)))
    photos, styles = [(24, 32), (24, 32), (32, 24), (48, 48)], [(32, 26), (48, 38)]
    assert sorted(calls) == sorted(photos + styles)


def test_style_scale_changes_the_size_at_which_the_style_is_seen() -> None:
    (photo,) = pictures((32, 32))
    one, half = (image_of(run(build(method(style_scale=scale)), [photo])[0]) for scale in (1.0, 0.5))
    assert not torch.equal(one, half)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "gatis"}, "did you mean 'gatys'.*gatys, tutorial"),
        ({"network": "vgg20"}, "vgg19, vgg16, resnet50, googlenet"),
        ({"style_layers": {"relu4_7": 1.0}}, "style_layers = 'relu4_7': vgg19 has no such layer.*relu4_4"),
        ({"content_layers": {}}, "at least one layer"),
        ({"style_layers": {"relu1_1": 0.0}}, "style_layers.relu1_1 = 0.0"),
        ({"gram_normalization": "wh"}, "hw, chw"),
        ({"pooling": "l1"}, "max, average"),
        ({"init": "foto"}, "photo, noise"),
        ({"optimizer": "sgd"}, "lbfgs, adam"),
        ({"steps": 0}, "steps = 0"),
        ({"style_weight": float("nan")}, "style_weight = nan"),
        ({"tv_weight": -1.0}, "tv_weight = -1.0"),
        ({"style_scale": 0.0}, "style_scale = 0.0"),
        ({"weights_sha256": "ab"}, "weights_sha256"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_options_name_option_value_and_choices(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        method(**options)


def test_presets_fill_what_is_left_out_and_nothing_else() -> None:
    tutorial = StyleTransfer(style="s", preset="tutorial")
    assert tutorial.content_layers == {"conv2_2": 1.0}
    assert tutorial.style_layers is not None
    assert list(tutorial.style_layers) == ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"]
    assert tutorial.style_weight == 1e6
    changed = StyleTransfer(style="s", preset="tutorial", style_weight=5.0)
    assert changed.style_weight == 5.0
    assert changed.gram_normalization == "chw"
    gatys = StyleTransfer(style="s")
    assert gatys.content_layers == {"relu4_2": 1.0}
    assert gatys.pooling == "average"
    other = StyleTransfer(
        style="s", network="resnet50", content_layers={"layer2": 1.0}, style_layers={"layer1": 1.0}
    )
    assert other.pooling == "max"


def test_weights_that_do_not_fit_are_a_typed_error() -> None:
    description = method(weights="mine.pth")
    assets = {"style": encode_image(pictures((9, 9))[0], format="png"), "mine.pth": b"nothing"}
    with pytest.raises(WeightsError):
        description.build(assets, torch.device("cpu"))


def test_assets_and_notes() -> None:
    description = StyleTransfer(style="a.jpg", style_sha256="00", weights="w.pth")
    assert [(ref.option, ref.url, ref.kind) for ref in description.assets()] == [
        ("style", "a.jpg", "image"),
        ("weights", "w.pth", "weights"),
    ]
    ordinary = {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.ones(64)}
    assert description.notes({"a.jpg": b"", "w.pth": safetensors.torch.save(ordinary)}) == []
    assert "not pretrained" in method().notes({})[0]
