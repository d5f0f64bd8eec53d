"""Every option of style transfer does what it says, against references written here from the formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nst.errors import ImageTooSmall, OptionError
from nst.features import FeatureNetwork, build_features, read_state_dict
from nst.features.networks import Pooling
from nst.features.vgg import pool
from nst.features.weights import published_bytes
from nst.images.codec import encode_image, resize_image
from nst.losses import normalize_gradient
from nst.ops.precision import resolved
from nst.style_transfer.color import luminance, match_color, match_luminance, with_luminance
from nst.style_transfer.method import StyleTransfer, StyleTransferStylizer
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from nst.stylizer import Stylized
from tests.nst.test_style_transfer import pictures

pytestmark = pytest.mark.usefixtures("narrow_vggs")

Floats = npt.NDArray[np.float64]
CONTENT, STYLE = {"relu2_1": 0.7}, {"relu1_1": 1.0, "conv2_1": 0.5}
WEIGHTS: dict[str, Any] = {"content_weight": 2.0, "style_weight": 30.0}
STRIDES = {"relu1_1": 1, "conv2_1": 2, "relu2_1": 2}
# YIQ of 1953, with the digits of the standard's primaries.
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


@cache
def state() -> Mapping[str, Tensor]:
    return read_state_dict(published_bytes("nst:embedded"))


@cache
def network(pooling: Pooling = "average") -> FeatureNetwork:
    return build_features("embedded", [*CONTENT, *STYLE], state=state(), pooling=pooling).double()


def objective(styles: Sequence[Tensor], **options: Any) -> StyleObjective:
    layers = {"content_layers": CONTENT, "style_layers": STYLE}
    masks = options.pop("masks", None)
    given = ObjectiveOptions(**{**layers, **WEIGHTS, **options})
    return StyleObjective(network(), styles, given, masks=masks)


def gram(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Of (C, h, w): over positions, or guided: activations times mask, over the sum of the squared mask."""
    if mask is None:
        return torch.einsum("ahw,bhw->ab", features, features) / features[0].numel()
    guided = features * mask
    return torch.einsum("ahw,bhw->ab", guided, guided) / mask.square().sum()


def activations(picture: Tensor) -> dict[str, Tensor]:
    return {layer: each[0] for layer, each in network()(picture[None]).items()}


def content(point: Tensor, photo: Tensor) -> Tensor:
    here, there = activations(point), activations(photo)
    parts = [weight * (here[layer] - there[layer]).square().mean() for layer, weight in CONTENT.items()]
    return 2.0 * torch.stack(parts).sum()


def drawn_to(point: Tensor, wanted: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> Tensor:
    here = activations(point)
    parts = [
        weight * (gram(here[layer], None if masks is None else masks[layer]) - wanted[layer]).square().mean()
        for layer, weight in STYLE.items()
    ]
    return 30.0 * torch.stack(parts).sum()


def grams_of(style: Tensor) -> dict[str, Tensor]:
    return {layer: gram(each) for layer, each in activations(style).items() if layer in STYLE}


def check_objective(
    ours: StyleObjective, photo: Tensor, point: Tensor, style_loss: Callable[[Tensor], Tensor]
) -> None:
    """Content as always, style as given here; with the gradient of their sum."""
    (evaluation,) = ours.evaluate([point], [ours.targets(photo)])
    x = point.clone().requires_grad_()
    style = style_loss(x)
    total = content(x, photo) + style
    (grad,) = torch.autograd.grad(total, x)
    assert evaluation.losses["style_loss"] == pytest.approx(style.item(), rel=1e-9)
    assert evaluation.losses["loss"] == pytest.approx(total.item(), rel=1e-9)
    assert float((evaluation.grad - grad).norm() / grad.norm()) < 1e-9


def test_steps_alone_are_of_all_sizes() -> None:
    """Who asks for a tenth of the steps gets a tenth of the evaluations, and not all of the coarse ones."""
    few = StyleTransfer(style="s", network="embedded", coarse_scales=(0.25, 0.5), steps=5)
    assert few.schedule == ((0.25, 4), (0.5, 4), (1.0, 5))
    assert StyleTransfer(style="s", network="embedded").schedule == ((0.5, 40), (1.0, 50))
    assert StyleTransfer(style="s", network="embedded", steps=6, coarse_steps=3).schedule[0] == (0.5, 3)
    assert StyleTransfer(style="s", network="embedded", steps=1).schedule[0] == (0.5, 1)
    assert StyleTransfer(style="s", preset="gatys", steps=9).schedule == ((1.0, 9),)


def scene(*sizes: tuple[int, int]) -> list[Tensor]:
    """A photo and a point of (24, 32), then pictures of `sizes`; all different, in float64."""
    return pictures((24, 32), (24, 32), *sizes, dtype=torch.float64)


# Several styles


@pytest.mark.parametrize("blend", [None, (1.0, 3.0), (10.0, 30.0)], ids=str)
def test_blended_grams_are_the_weighted_mean(blend: tuple[float, float] | None) -> None:
    photo, point, one, other = scene((32, 20), (30, 32))
    share = 0.5 if blend is None else 0.25

    def reference(x: Tensor) -> Tensor:
        a, b = grams_of(one), grams_of(other)
        return drawn_to(x, {layer: share * a[layer] + (1 - share) * b[layer] for layer in STYLE})

    check_objective(objective([one, other], style_blend=blend), photo, point, reference)


def test_style_scale_is_the_long_side_relative_to_the_photographs() -> None:
    photo, point, style = scene((40, 60))
    for scale, size in ((1.0, (21, 32)), (0.5, (11, 16)), (2.0, (43, 64))):
        wanted = grams_of(resize_image(style, size))
        check_objective(objective([style], style_scale=scale), photo, point, partial(drawn_to, wanted=wanted))


# Masks


def masks_by_layer(mask: Tensor) -> dict[str, Tensor]:
    """Mean over the pixels that each position of a layer stands for."""
    height, width = mask.shape[1:]
    return {
        layer: mask.view(1, height // stride, stride, width // stride, stride).mean((2, 4))
        for layer, stride in STRIDES.items()
    }


@pytest.mark.parametrize("blend", [None, (1.0, 3.0)], ids=str)
def test_masks_guide_gram_matrices(blend: tuple[float, float] | None) -> None:
    photo, point, one, other = scene((32, 20), (30, 32))
    generator = torch.Generator().manual_seed(3)
    masks = [torch.rand(1, 24, 32, generator=generator, dtype=torch.float64) for _ in range(2)]
    shares = (0.5, 0.5) if blend is None else (0.25, 0.75)

    def reference(x: Tensor) -> Tensor:
        parts = [
            share * drawn_to(x, grams_of(style), masks_by_layer(mask))
            for share, style, mask in zip(shares, (one, other), masks, strict=True)
        ]
        return torch.stack(parts).sum()

    check_objective(objective([one, other], style_blend=blend, masks=masks), photo, point, reference)


def test_a_mask_that_is_white_everywhere_is_none() -> None:
    photo, point, style = scene((32, 20))
    white = torch.ones(1, 5, 7, dtype=torch.float64)
    check_objective(objective([style], masks=[white]), photo, point, lambda x: drawn_to(x, grams_of(style)))


def test_outside_its_mask_a_style_changes_nothing() -> None:
    photo, point, style = scene((32, 20))
    left = torch.zeros(1, 24, 32, dtype=torch.float64)
    left[..., :16] = 1
    ours = objective([style], masks=[left], content_weight=0.0)
    (evaluation,) = ours.evaluate([point], [ours.targets(photo)])
    margin = 6  # two 3 x 3 convolutions, a pooling, one more, and what the pooling shifts
    assert bool(evaluation.grad[..., :16].any())
    assert not bool(evaluation.grad[..., 16 + margin :].any())


@pytest.mark.parametrize("normalize", [False, True])
def test_an_empty_mask_has_no_loss(normalize: bool) -> None:
    photo, point, one, other = scene((32, 20), (30, 32))
    white, black = torch.ones(1, 4, 4), torch.zeros(1, 4, 4)
    # A strength that, over the tiny number that stands for zero, is more than float32 can hold.
    options: dict[str, Any] = {"normalize_gradients": normalize, "style_weight": 1e9}
    both = objective([one, other], masks=[white, black], style_blend=(1.0, 1.0), **options)
    half = objective([one], masks=[white], **{**options, "style_weight": 5e8})
    for ours in (both, half):
        ours.network = ours._targets.network = build_features("embedded", [*CONTENT, *STYLE], state=state())
        ours._networks = {torch.float32: ours.network}
    photo, point = photo.float(), point.float()
    (mine,), (expected,) = (ours.evaluate([point], [ours.targets(photo)]) for ours in (both, half))
    assert mine.losses == pytest.approx(expected.losses, rel=1e-5)
    assert bool(mine.grad.isfinite().all())
    assert float((mine.grad - expected.grad).norm() / expected.grad.norm()) < 1e-5


def test_two_halves_go_to_their_own_styles() -> None:
    """End to end, with masks as pictures of another size: each half ends nearer to its own style."""
    photo, _ = pictures((32, 48), (32, 48))
    styles = [
        torch.tensor(color).view(3, 1, 1).expand(3, 24, 24) for color in ((0.9, 0.2, 0.1), (0.1, 0.3, 0.9))
    ]
    styles = [(style + 0.1 * torch.randn(3, 24, 24)).clamp(0, 1) for style in styles]
    left = torch.zeros(3, 8, 8)
    left[..., :4] = 1
    masks = {"left.png": left, "right.png": 1 - left}
    it = build(
        {"a.png": styles[0], "b.png": styles[1], **masks},
        style=("a.png", "b.png"),
        style_masks=("left.png", "right.png"),
        style_weight=1e5,
        steps=40,
    )
    picture = run(it, photo).image
    means = [half.mean((1, 2)) for half in picture.chunk(2, dim=2)]
    targets = [style.mean((1, 2)) for style in styles]
    for own, foreign in ((0, 1), (1, 0)):
        to_own = float((means[own] - targets[own]).norm())
        assert to_own < 0.3 * float((means[own] - targets[foreign]).norm())


# Gradients and poolings


def test_normalized_gradients_have_the_norm_of_the_weight_at_their_layer() -> None:
    photo, point, one, other = scene((32, 20), (30, 32))
    ramp = torch.linspace(0, 1, 32, dtype=torch.float64).expand(1, 24, 32).contiguous()
    masks = [ramp, 1 - ramp]
    ours = objective([one, other], masks=masks, normalize_gradients=True)
    (evaluation,) = ours.evaluate([point], [ours.targets(photo)])
    x = point.clone().requires_grad_()
    here, there = activations(x), activations(photo)
    losses = {}
    for layer, weight in CONTENT.items():
        losses[layer, 2.0 * weight] = (here[layer] - there[layer]).square().mean()
    for style, mask in zip((one, other), masks, strict=True):
        for layer, weight in STYLE.items():
            own = gram(here[layer], masks_by_layer(mask)[layer])
            loss = (own - grams_of(style)[layer]).square().mean()
            losses[layer, 15.0 * weight, style] = loss  # type: ignore[index]
    total = torch.zeros_like(point)
    for (layer, strength, *_), loss in losses.items():
        (at_layer,) = torch.autograd.grad(loss, here[layer], retain_graph=True)
        seed = strength * at_layer / at_layer.abs().sum()
        total += torch.autograd.grad(here[layer], x, seed, retain_graph=True)[0]
    assert float((evaluation.grad - total).norm() / total.norm()) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_normalized_gradient_by_itself(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
    grads = torch.stack([torch.full((3, 4), 1e-3), torch.zeros(3, 4)]).to(dtype)
    (back,) = torch.autograd.grad(normalize_gradient(x, 1e12), x, grads)
    assert float(back[0].double().abs().sum()) == pytest.approx(1e12, rel=1e-2)
    assert not bool(back[1].any()), "nothing stays nothing"


def test_l2_pooling_is_the_root_of_the_mean_square() -> None:
    (photo,) = pictures((11, 16), dtype=torch.float64)
    both = build_features("embedded", ["relu1_2", "pool1"], seed=0, pooling="l2").double()(photo[None])
    before, after = both["relu1_2"][0].numpy()[:, :10], both["pool1"][0].numpy()
    blocks = before.reshape(-1, 5, 2, 8, 2)
    np.testing.assert_allclose(after, np.sqrt((blocks**2).mean((2, 4))), rtol=1e-12, atol=1.1e-6)
    nothing = torch.zeros(1, 2, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(pool(nothing, "l2").sum(), nothing)
    assert not bool(slope.any()), "finite where the root has no slope"


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_flat_photo_has_a_finite_gradient_with_l2_pooling(level: float, precision: str) -> None:
    (style,) = pictures((24, 24))
    it = build({"style": style}, pooling="l2", precision=precision, curve=True)
    outcome = run(it, torch.full((3, 24, 24), level))
    assert len(outcome.curve["loss"]) == 8, "no step was rejected for a gradient that is not finite"
    assert np.isfinite(outcome.curve["loss"]).all()
    assert outcome.stats["loss"] < outcome.curve["loss"][0]


# Colors


def yiq(picture: Tensor) -> Floats:
    return np.asarray(np.tensordot(TO_YIQ, picture.double().numpy(), axes=1))


def test_luminance_alone_is_painted() -> None:
    photo, style = pictures((32, 40), (40, 40))
    it = build({"style": style}, preserve_color="luminance", style_weight=1e4, steps=25)
    outcome = run(it, photo)
    (canvas, *_) = list(it.iterate(photo, torch.Generator().manual_seed(0)))[-1:]
    painted, result, original = yiq(canvas.image), yiq(outcome.image), yiq(photo)
    assert np.abs(result[0] - original[0]).mean() > 0.02, "something was painted"
    np.testing.assert_allclose(result[0], painted[0], atol=1e-5)
    moved = photo.double().numpy() + (painted[0] - original[0])
    inside = ((moved >= 0) & (moved <= 1)).all(axis=0)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(result[1:, inside], original[1:, inside], atol=1e-5)
    # Elsewhere less of the same color.
    outside = ~inside & (np.hypot(original[1], original[2]) > 0.02)
    assert outside.any()
    shares = result[1:, outside] / original[1:, outside]
    assert (shares > -1e-3).all()
    cross = result[1, outside] * original[2, outside] - result[2, outside] * original[1, outside]
    np.testing.assert_allclose(cross, 0, atol=1e-5)
    assert (np.hypot(*result[1:, outside]) <= np.hypot(*original[1:, outside]) + 1e-5).all()


def recolored_gray(style: Tensor, photo: Tensor) -> Tensor:
    """Gatys, Bethge, Hertzmann, Shechtman 2016, eq. 10, in every channel."""
    of_style, of_photo = yiq(style)[0], yiq(photo)[0]
    gray = of_photo.std() / of_style.std() * (of_style - of_style.mean()) + of_photo.mean()
    return torch.from_numpy(np.broadcast_to(gray, (3, *gray.shape)).copy())


def recolored(style: Tensor, photo: Tensor) -> Tensor:
    """The same paper's section 4.1: A = Cov(photo)^(1/2) Cov(style)^(-1/2), the roots by singular values."""

    def root(colors: Floats) -> Floats:
        u, s, _ = np.linalg.svd(np.cov(colors, bias=True))
        return np.asarray(u @ np.diag(np.sqrt(s)) @ u.T)

    source, target = (each.flatten(1).numpy() for each in (style, photo))
    centered = source - source.mean(1, keepdims=True)
    mapped = root(target) @ np.linalg.inv(root(source)) @ centered + target.mean(1, keepdims=True)
    return torch.from_numpy(mapped.reshape(style.shape))


@pytest.mark.parametrize(("how", "reference"), [("luminance", recolored_gray), ("match", recolored)])
def test_styles_are_recolored_for_each_photograph(
    how: str, reference: Callable[[Tensor, Tensor], Tensor]
) -> None:
    photo, point, style = scene((32, 20))
    ours = objective([style], preserve_color=how)
    ours.targets(point)  # another photograph first: nothing of it is kept
    wanted = grams_of(reference(style, photo))
    check_objective(ours, photo, point, lambda x: drawn_to(x, wanted))


def test_matched_colors_have_the_photographs_mean_and_covariance() -> None:
    photo, style = pictures((40, 60), (50, 30), dtype=torch.float64)
    matched, target = (each.flatten(1).numpy() for each in (match_color(style, photo), photo))
    np.testing.assert_allclose(matched.mean(1), target.mean(1), atol=1e-6)
    np.testing.assert_allclose(np.cov(matched, bias=True), np.cov(target, bias=True), atol=1e-6)
    gray = match_luminance(style, photo)
    assert float(gray.mean()) == pytest.approx(float(luminance(photo).mean()), abs=1e-6)
    assert float(gray.std(correction=0)) == pytest.approx(float(luminance(photo).std(correction=0)), rel=1e-6)


FLAT = {
    "black": torch.zeros(3, 20, 20),
    "white": torch.ones(3, 20, 20),
    "green": torch.tensor([0.2, 0.7, 0.3]).view(3, 1, 1).expand(3, 20, 20).contiguous(),
    "gray ramp": torch.linspace(0, 1, 20).expand(3, 20, 20).contiguous(),
    "one pixel off": torch.zeros(3, 20, 20).index_fill_(2, torch.tensor([3]), 1 / 255),
}


@pytest.mark.parametrize("how", ["luminance", "match"])
@pytest.mark.parametrize("flat", FLAT)
def test_flat_styles_and_flat_photos_have_colors_too(how: str, flat: str) -> None:
    (colorful,) = pictures((20, 20))
    for style, photo in ((FLAT[flat], colorful), (colorful, FLAT[flat]), (FLAT[flat], FLAT[flat])):
        matched = (match_luminance if how == "luminance" else match_color)(style, photo)
        assert bool(matched.isfinite().all())
        assert float(matched.abs().max()) < 5
        outcome = run(build({"style": style}, preserve_color=how, steps=4), photo)
        assert bool(outcome.image.isfinite().all())


# The course of the optimization


def build(assets: Mapping[str, Tensor], **options: Any) -> StyleTransferStylizer:
    plain: dict[str, Any] = {
        "style": "style",
        "network": "embedded",
        "content_layers": {"relu2_1": 1.0},
        "style_layers": {"relu1_1": 1.0, "relu2_1": 0.2},
        "coarse_scales": (),
        "steps": 8,
    }
    files = {name: encode_image(picture, format="png") for name, picture in assets.items()}
    files["nst:embedded"] = published_bytes("nst:embedded")
    return StyleTransfer(**{**plain, **options}).build(files, torch.device("cpu"))


def run(it: StyleTransferStylizer, *photos: Tensor) -> Stylized:
    """The first one's outcome."""
    outcomes = it(photos, [torch.Generator().manual_seed(n) for n in range(len(photos))])
    for outcome in outcomes:
        assert isinstance(outcome, Stylized), outcome
    assert isinstance(outcomes[0], Stylized)
    return outcomes[0]


def eighths(picture: Tensor) -> Tensor:
    """Levels that an 8-bit file keeps."""
    return (picture * 255).round() / 255


def test_it_starts_from_another_picture() -> None:
    photo, style, small = pictures((24, 32), (32, 32), (24, 32))
    start = eighths(small)
    it = build({"style": style, "first.png": start}, init="picture", init_picture="first.png", steps=1)
    assert torch.equal(run(it, photo).image, start), "the only evaluation is where it starts"
    wide = pictures((48, 32))[0]
    stretched = run(it, wide).image
    assert stretched.shape == wide.shape
    torch.testing.assert_close(stretched, resize_image(start, (48, 32)), atol=1e-6, rtol=0)


def ends_after(losses: Sequence[float], tolerance: float, patience: int = 20) -> int:
    """Evaluations until the best loss fell by less than `tolerance` of itself over the last `patience`."""
    best = np.minimum.accumulate(losses)
    for now in range(patience, len(best)):
        if best[now - patience] - best[now] < tolerance * best[now - patience]:
            return now + 1
    return len(best)


def test_it_ends_when_the_loss_stops_falling() -> None:
    photo, style, other = pictures((16, 22), (24, 24), (20, 14))
    full = run(build({"style": style}, curve=True, steps=90), photo).curve["loss"]
    lengths = []
    for tolerance in (0.1, 0.5):
        it = build({"style": style}, stop_tolerance=tolerance, steps=90, curve=True)
        outcome = run(it, photo)
        lengths.append(int(outcome.stats["evaluations"]))
        assert lengths[-1] == ends_after(full, tolerance)
        assert list(outcome.curve["loss"]) == list(full[: lengths[-1]])
        assert outcome.stats["loss"] == min(outcome.curve["loss"])
    assert 90 > lengths[0] > lengths[1] >= 21
    # With mates that go on for longer, or end before.
    it = build({"style": style}, stop_tolerance=0.2, steps=90)
    for mates in ([other, eighths(style)], [torch.full((3, 9, 9), 0.5)]):
        assert torch.equal(run(it, photo, *mates).image, run(it, photo).image)


def test_the_curve_has_every_evaluation() -> None:
    photo, style = pictures((32, 40), (40, 40))
    it = build({"style": style}, curve=True, coarse_scales=(0.5, 0.25), coarse_steps=5, steps=9, tv_weight=2.0)
    outcome = run(it, photo)
    curve, stats = outcome.curve, outcome.stats
    assert {len(values) for values in curve.values()} == {19}
    assert stats["evaluations"] == 19
    assert list(curve["scale"]) == [0.25] * 5 + [0.5] * 5 + [1.0] * 9
    layers = ["content_loss.relu2_1", "style_loss.relu1_1", "style_loss.relu2_1"]
    assert list(curve) == ["scale", "loss", "content_loss", "style_loss", "tv_loss", *layers]
    best = min(range(10, 19), key=lambda index: curve["loss"][index])
    for name in list(curve)[1:]:
        assert curve[name][best] == stats[name]
    for at in range(19):
        now = {name: values[at] for name, values in curve.items()}
        assert now["loss"] == pytest.approx(now["content_loss"] + now["style_loss"] + now["tv_loss"], rel=1e-5)
    assert not run(build({"style": style}), photo).curve, "none unless asked for"
    small = run(it, photo[:, :28]).curve
    assert list(small["scale"]) == [0.5] * 5 + [1.0] * 9, "a side of 7 pixels shows nothing of the photograph"


def test_losses_of_layers_add_up_over_regions() -> None:
    photo, style = pictures((32, 40), (40, 40))
    left = torch.zeros(3, 8, 8)
    left[..., :4] = 1
    it = build(
        {"style": style, "left": left, "right": 1 - left},
        style=("style", "style"),
        style_masks=("left", "right"),
        content_layers={"relu1_2": 1.0, "relu2_1": 0.5},
    )
    stats = run(it, photo).stats
    for term, layers in (("content_loss", ("relu1_2", "relu2_1")), ("style_loss", ("relu1_1", "relu2_1"))):
        parts = [stats[f"{term}.{layer}"] for layer in layers]
        assert min(parts) > 0
        assert stats[term] == pytest.approx(sum(parts), rel=1e-5)
        assert sum(name.startswith(f"{term}.") for name in stats) == 2


def test_frames_come_at_every_so_many_evaluations() -> None:
    photo, style = pictures((32, 40), (40, 40))
    options: dict[str, Any] = {"coarse_scales": (0.5,), "coarse_steps": 6, "preserve_color": "luminance"}
    it = build({"style": style}, frame_every=4, steps=10, **options)
    outcome = run(it, photo)
    assert [frame.number for frame in outcome.frames] == [4, 8, 12, 16]
    assert [tuple(frame.image.shape) for frame in outcome.frames] == [(3, 16, 20)] + [(3, 32, 40)] * 3
    assert torch.equal(outcome.frames[-1].image, outcome.image), "the last one is the end"
    assert not run(build({"style": style}), photo).frames


def test_bfloat16_ends_in_float32() -> None:
    photo, style = pictures((32, 40), (40, 40))
    options: dict[str, Any] = {"coarse_scales": (0.5,), "coarse_steps": 20, "steps": 50, "border_px": 0}
    wide = run(build({"style": style}, **options), photo)
    it = build({"style": style}, precision="bfloat16", curve=True, **options)
    outcome = run(it, photo)
    assert outcome.image.dtype == torch.float32
    assert outcome.stats["evaluations"] == 70
    (again,) = it.objective.evaluate([outcome.image], [it.objective.targets(photo)])
    assert outcome.stats["loss"] == again.losses["loss"]
    assert outcome.stats["loss"] == min(outcome.curve["loss"][-10:])
    assert outcome.stats["loss"] == pytest.approx(wide.stats["loss"], rel=0.05)
    assert not torch.equal(outcome.image, wide.image)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_machine_decides_on_the_precision(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, style = pictures((32, 40), (40, 40))
    expected = run(build({"style": style}, precision=precision, steps=12), photo).image
    monkeypatch.setattr("nst.style_transfer.method.resolved", resolved)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": precision == "bfloat16"})
    assert torch.equal(run(build({"style": style}, steps=12), photo).image, expected)


def test_the_first_evaluation_in_float32_is_of_the_best_picture() -> None:
    """Whose loss in bfloat16 is not comparable."""
    photo, style = pictures((24, 32), (32, 32))
    it = build({"style": style}, precision="bfloat16", refine_steps=1, frame_every=1, border_px=0)
    outcome = run(it, photo)
    assert torch.equal(outcome.frames[-1].image, outcome.frames[-2].image)
    (again,) = it.objective.evaluate([outcome.image], [it.objective.targets(photo)])
    assert outcome.stats["loss"] == again.losses["loss"]


def test_steps_that_bfloat16_does_not_resolve_go_on_in_float32() -> None:
    """As of a photograph that is hardly drawn anywhere, which else stays as it is until the last steps."""
    photo, style = pictures((24, 32), (32, 32))
    options: dict[str, Any] = {"steps": 30, "border_px": 0, "learning_rate": 1e-4, "optimizer": "adam"}
    it = build({"style": style}, precision="bfloat16", refine_steps=1, **options)
    dtypes: list[torch.dtype | None] = []
    evaluate = it.objective.evaluate

    def looking(points: Any, targets: Any, dtype: torch.dtype | None = None, *more: Any) -> Any:
        dtypes.append(dtype)
        return evaluate(points, targets, dtype, *more)

    it.objective.evaluate = looking  # type: ignore[method-assign]
    outcome = run(it, photo)
    assert dtypes == [torch.bfloat16] * 4 + [None] * 26
    wide = run(build({"style": style}, **options), photo)
    assert outcome.stats["loss"] == pytest.approx(wide.stats["loss"], rel=1e-2)


def test_change_is_the_mean_distance_from_the_photograph() -> None:
    photo, style = pictures((24, 32), (32, 32))
    for options in ({}, {"preserve_color": "luminance"}):
        outcome = run(build({"style": style}, **options), photo)
        assert outcome.stats["change"] == pytest.approx(float((outcome.image - photo).abs().mean()))
        assert outcome.stats["change"] > 0.01
    assert run(build({"style": style}, style_weight=0.0), photo).stats["change"] == 0


def test_gray_is_a_start_of_its_own() -> None:
    photo, style = pictures((24, 32), (32, 32))
    first = next(build({"style": style}, init="gray").iterate(photo, torch.Generator().manual_seed(0)))
    assert float((first.image - 0.5).abs().max()) <= 1 / 255
    assert float(first.image.std()) > 0


def test_original_colors_are_painted_over() -> None:
    """Painted as without the option; then the photograph's chroma."""
    photo, style = pictures((24, 32), (32, 32))
    painted = run(build({"style": style}), photo).image
    kept = run(build({"style": style}, preserve_color="original"), photo).image
    torch.testing.assert_close(kept, with_luminance(photo, painted))
    assert float((kept - painted).abs().mean()) > 0.01


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_averaged_iterates_are_those_of_the_way(optimizer: str) -> None:
    photo, style = pictures((24, 32), (32, 32))
    options: dict[str, Any] = {"optimizer": optimizer, "border_px": 0, "steps": 5, "curve": True}
    it = build({"style": style}, average_iterates=0.6, **options)
    points: list[Tensor] = []
    evaluate = it.objective.evaluate

    def looking(asked: Any, *arguments: Any) -> Any:
        points.extend(asked)
        return evaluate(asked, *arguments)

    it.objective.evaluate = looking  # type: ignore[method-assign]
    outcome = run(it, photo)
    *way, last = points
    shares = torch.tensor([0.6 ** (len(way) - 1 - number) for number in range(len(way))])
    expected = (torch.stack(way) * (shares / shares.sum()).view(-1, 1, 1, 1)).sum(0)
    torch.testing.assert_close(outcome.image, expected)
    assert torch.equal(last, outcome.image), "its losses are its own"
    assert outcome.stats["evaluations"] == len(points) == len(outcome.curve["loss"])
    assert outcome.stats["loss"] == outcome.curve["loss"][-1]


def test_a_fixed_style_size() -> None:
    photo, point, style = scene((40, 60))
    ours = objective([style], style_side_px=48)
    check_objective(ours, photo, point, partial(drawn_to, wanted=grams_of(resize_image(style, (32, 48)))))


def test_rescaled_pooling_gives_deeper_layers_what_maximum_pooling_would() -> None:
    (photo,) = pictures((32, 40))
    sizes = {}
    for pooling, rescale in (("max", False), ("average", False), ("average", True), ("l2", True)):
        features = build_features(
            "embedded", ["pool1"], state=state(), pooling=pooling, rescale_pooling=rescale
        )(photo[None])
        sizes[pooling, rescale] = float(features["pool1"].mean())
    assert sizes["average", True] == pytest.approx(1.7 * sizes["average", False])
    for pooling in ("average", "l2"):
        nearer = abs(sizes[pooling, True] - sizes["max", False])
        assert nearer < abs(sizes["average", False] - sizes["max", False]) * 1.5


def test_where_computed_alone_photographs_do_not_share_passes() -> None:
    """On a CPU neither answer lets them: no byte differs."""
    photo, style, other = pictures((24, 32), (32, 32), (24, 32))
    shared = run(build({"style": style}, deterministic=False), photo, other)
    assert torch.equal(shared.image, run(build({"style": style}), photo).image)


# What it is told


def describe(**options: Any) -> StyleTransfer:
    return StyleTransfer(**{"style": "s.png", "network": "embedded", **options})


def test_assets_name_every_picture() -> None:
    method = describe(
        style=("a.png", "b.png"),
        style_sha256=("00", "11"),
        style_masks=("left.png", "right.png"),
        init="picture",
        init_picture="start.png",
    )
    assert [(ref.option, ref.url, ref.sha256) for ref in method.assets()][:-1] == [
        ("style[0]", "a.png", "00"),
        ("style[1]", "b.png", "11"),
        ("style_masks[0]", "left.png", None),
        ("style_masks[1]", "right.png", None),
        ("init_picture", "start.png", None),
    ]
    assert [ref.option for ref in describe().assets()] == ["style", "weights"]


TWO: dict[str, Any] = {"style": ("a", "b")}


@pytest.mark.parametrize(
    ("options", "option", "value", "said"),
    [
        ({"style": ()}, "style", (), "at least one picture"),
        ({**TWO, "style_blend": (1.0,)}, "style_blend", (1.0,), "each of 2 style pictures"),
        ({"style_blend": (1.0, 2.0)}, "style_blend", (1.0, 2.0), "each of 1 style picture"),
        ({**TWO, "style_blend": (1.0, 0.0)}, "style_blend[1]", 0.0, "above 0"),
        ({**TWO, "style_blend": (float("nan"), 1.0)}, "style_blend[0]", "nan", "finite number above 0"),
        ({**TWO, "style_masks": ("m",)}, "style_masks", ("m",), "each of 2 style pictures"),
        ({**TWO, "style_masks": ()}, "style_masks", (), "each of 2 style pictures"),
        ({**TWO, "style_sha256": "00"}, "style_sha256", "00", "each of 2 style pictures"),
        ({**TWO, "style_sha256": ("0",) * 3}, "style_sha256", ("0",) * 3, "each of 2 style pictures"),
        ({"init": "picture"}, "init_picture", None, "init = 'picture'"),
        ({"init_picture": "p"}, "init_picture", "p", "init = 'picture'"),
        ({"init": "pictures"}, "init", "pictures", "Choices: photo, noise, gray, picture"),
        ({"preserve_color": "luma"}, "preserve_color", "luma", "Choices: none, luminance, match, original"),
        ({"pooling": "l1"}, "pooling", "l1", "Choices: max, average, l2"),
        ({"precision": "float16"}, "precision", "float16", "Choices: auto, float32, bfloat16"),
        ({"optimizer": "sgd"}, "optimizer", "sgd", "Choices: lbfgs, adam"),
        ({"loss_scale": "sum"}, "loss_scale", "sum", "Choices: mean, paper, relative"),
        ({"stop_tolerance": -0.1}, "stop_tolerance", -0.1, "from 0 to below 1"),
        ({"stop_tolerance": 1.0}, "stop_tolerance", 1.0, "from 0 to below 1"),
        ({"stop_tolerance": float("nan")}, "stop_tolerance", "nan", "from 0 to below 1"),
        ({"frame_every": -1}, "frame_every", -1, "at least 0"),
        ({"refine_steps": -1}, "refine_steps", -1, "at least 0"),
        ({"history_size": 0}, "history_size", 0, "at least 1"),
        ({"coarse_steps": 0}, "coarse_steps", 0, "at least 1"),
        ({"coarse_scales": (0.5, 1.0)}, "coarse_scales", [0.5, 1.0], "between 0 and 1"),
        ({"pass_memory_mb": 0}, "pass_memory_mb", 0, "at least 1"),
        ({"style_scale": -1.0}, "style_scale", -1.0, "above 0"),
        ({"style_side_px": 0}, "style_side_px", 0, "at least 1"),
        ({"style_side_px": 64, "style_scale": 2.0}, "style_side_px", 64, "style_scale = 2.0"),
        ({"border_px": -1}, "border_px", -1, "at least 0"),
        ({"average_iterates": 1.0}, "average_iterates", 1.0, "from 0 to below 1"),
        ({"style_loss": "sliced"}, "style_loss", "sliced", "Choices: gram, wasserstein"),
        (
            {"style_loss": "wasserstein", "gram_normalization": "chw"},
            "gram_normalization",
            "chw",
            "style_loss = 'gram'",
        ),
        ({"rescale_pooling": True, "pooling": "max"}, "rescale_pooling", True, "'average' or 'l2'"),
        ({"learning_rate": 0.0}, "learning_rate", 0.0, "above 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_values_are_named(options: dict[str, Any], option: str, value: object, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        describe(**options)
    assert caught.value.option == option
    assert str(caught.value.value) == str(value)
    assert str(caught.value).startswith(f"{option} = ")
    assert said in str(caught.value)


def test_a_style_that_is_too_thin_is_named() -> None:
    """Three pixels high at the size of the photograph: pooled away before the deepest layer."""
    photo, style = torch.rand(3, 24, 24), torch.rand(3, 4, 200)
    it = build({"style": style}, style_layers={"relu3_1": 1.0})
    (outcome,) = it([photo], [torch.Generator()])
    assert isinstance(outcome, ImageTooSmall)
    assert "style picture" in str(outcome)


@pytest.mark.parametrize(
    "options", [{"style_masks": ("m.png",)}, {"init": "picture", "init_picture": "p.png"}], ids=str
)
def test_no_picture_is_silently_left_out(options: dict[str, Any]) -> None:
    """As from a notebook, which gives a style alone."""
    with pytest.raises(OptionError, match=r"style_masks|init_picture"):
        describe(**options).build_from([torch.rand(3, 9, 9)], state(), torch.device("cpu"))
