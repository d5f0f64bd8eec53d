"""Photographs of all sizes share passes through the network, and none can tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nst.features import build_features
from nst.features.networks import Pooling
from nst.features.passes import plan_passes
from nst.style_transfer.method import StyleTransfer, StyleTransferStylizer
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions, PaintingPlan
from nst.stylizer import Outcome, Stylized, select
from tests.nst.test_style_transfer import pictures

pytestmark = pytest.mark.usefixtures("narrow_vggs")

SIZES = ((40, 33), (21, 64), (40, 33), (57, 18), (16, 16), (33, 40), (47, 47), (64, 21))
LAYERS: dict[str, Any] = {
    "content_layers": {"relu2_2": 1.0},
    "style_layers": {"relu1_1": 1.0, "conv2_1": 0.5, "relu3_1": 2.0},
    "content_weight": 1.0,
    "style_weight": 300.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "paper": {"loss_scale": "paper", "tv_weight": 2.0},
    "relative": {"loss_scale": "relative", "gram_normalization": "chw"},
    "normalized": {"normalize_gradients": True},
    "masks": {"masks": True},
    "masks, normalized": {"masks": True, "normalize_gradients": True, "tv_weight": 1.0},
    "wasserstein": {"style_loss": "wasserstein", "loss_scale": "relative"},
    "wasserstein, masks": {"style_loss": "wasserstein", "masks": True, "normalize_gradients": True},
    "luminance": {"preserve_color": "luminance"},
    "match": {"preserve_color": "match"},
}

POOLINGS: tuple[Pooling, ...] = ("max", "average", "l2")


def objective(pooling: Pooling = "max", **options: Any) -> StyleObjective:
    """In float64, of two styles."""
    layers = [*LAYERS["content_layers"], *LAYERS["style_layers"]]
    network = build_features("vgg16", layers, pooling=pooling).double()
    styles = pictures((37, 52), (44, 29), dtype=torch.float64)
    masks = None
    if options.pop("masks", None):
        ramp = torch.linspace(0, 1, 30, dtype=torch.float64).expand(1, 20, 30)
        masks = [ramp, (1 - ramp).clone()]
    named = {"first": styles[0], "second": lambda: styles[1]}
    return StyleObjective(network, styles, ObjectiveOptions(**{**LAYERS, **options}), masks=masks, named=named)


def exactness(variant: str) -> float:
    """Of gradients. Covariances of more channels than there are positions have roots that amplify rounding."""
    return 1e-9 if "wasserstein" in variant else 1e-10


def relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("variant", "pooling"),
    [
        pytest.param(variant, pooling, marks=[] if number % 2 else pytest.mark.slow)  # others: in tiles
        for number, (variant, pooling) in enumerate(zip(VARIANTS, cycle(POOLINGS), strict=False))
    ],
)
def test_loss_and_gradient_in_a_mixed_pass_equal_those_alone(variant: str, pooling: Pooling) -> None:
    ours = objective(pooling, **VARIANTS[variant])
    together = objective(pooling, **VARIANTS[variant], share_passes=True)
    photos = pictures(*SIZES[:4], dtype=torch.float64)
    points = [(0.7 * photo + 0.3 * photo.flip(-1)).clamp(0.02, 0.98) for photo in photos]
    targets = [ours.targets(photo) for photo in photos]
    mixed = together._evaluate_pass(together.network, points, targets)
    for point, target, evaluation in zip(points, targets, mixed, strict=True):
        (alone,) = ours.evaluate([point], [target])
        assert evaluation.losses == pytest.approx(alone.losses, rel=1e-10)
        assert evaluation.grad.shape == point.shape
        assert relative_difference(evaluation.grad, alone.grad) < exactness(variant)


@pytest.mark.parametrize("variant", ["plain", "masks", "luminance"])
def test_photographs_of_different_styles_in_a_mixed_pass_equal_those_alone(variant: str) -> None:
    ours = objective(**VARIANTS[variant], style_blend=[1.0, 3.0])
    together = objective(**VARIANTS[variant], style_blend=[1.0, 3.0], share_passes=True)
    photos = pictures(*SIZES[:4], dtype=torch.float64)
    styles = ["second", None, "first", None]
    targets = [ours.targets(photo, style=style) for photo, style in zip(photos, styles, strict=True)]
    mixed = together.evaluate([photo.flip(-1) for photo in photos], targets)
    for photo, target, style, evaluation in zip(photos, targets, styles, mixed, strict=True):
        (alone,) = ours.evaluate([photo.flip(-1)], [target])
        assert evaluation.losses == pytest.approx(alone.losses, rel=1e-10)
        assert relative_difference(evaluation.grad, alone.grad) < 1e-10
        (other,) = ours.evaluate([photo.flip(-1)], [ours.targets(photo, style="first")])
        assert (other.losses["style_loss"] == alone.losses["style_loss"]) == (style == "first")


def stylizer(dtype: torch.dtype, steps: int = 20, **options: Any) -> StyleTransferStylizer:
    method = StyleTransfer(style="style", weights="seeded", network="vgg16", preset="seeded", steps=steps)
    layers = [*LAYERS["content_layers"], *LAYERS["style_layers"]]
    network = build_features("vgg16", layers).to(dtype)
    (style,) = pictures((37, 52), dtype=dtype)
    given = ObjectiveOptions(**{**LAYERS, "loss_scale": "relative", **options})
    plan = select(PaintingPlan, dataclasses.replace(method, coarse_scales=(0.5,), coarse_steps=5))
    return StyleTransferStylizer(plan, StyleObjective(network, style, given))


def run(it: StyleTransferStylizer, images: Sequence[Tensor]) -> list[Tensor]:
    outcomes: list[Outcome] = it(images, [torch.Generator() for _ in images])
    found = []
    for outcome in outcomes:
        assert isinstance(outcome, Stylized), outcome
        found.append(outcome.image)
    return found


@pytest.mark.parametrize("count", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (5, 8))])
def test_pictures_of_a_shared_batch_equal_solo_runs(count: int) -> None:
    """Twenty evaluations and five at a coarser scale, all in mixed passes, in float64."""
    photos = pictures(*SIZES, dtype=torch.float64)[:count]
    shared, alone = run(stylizer(torch.float64, share_passes=True), photos), stylizer(torch.float64)
    for photo, picture in zip(photos, shared, strict=True):
        assert float((picture - run(alone, [photo])[0]).abs().max()) < 1e-10
        assert float((picture - photo).abs().mean()) > 1e-3


def test_on_a_cpu_no_byte_depends_on_the_batch() -> None:
    photos = pictures(*SIZES[:4])
    it = stylizer(torch.float32, steps=12)
    batch, others = run(it, photos), run(it, [photos[0], *pictures((30, 30), (18, 44))])
    assert torch.equal(batch[0], others[0])
    for photo, picture in zip(photos, batch, strict=True):
        assert torch.equal(run(it, [photo])[0], picture)


def test_those_that_are_done_leave_their_place_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = pictures(*[(32, 32)] * 5, dtype=torch.float64)
    it = stylizer(torch.float64, steps=6, share_passes=True)
    limited = dataclasses.replace(it.objective.options, max_pass_pixels=2 * (32 + 2 * 4) ** 2)
    monkeypatch.setattr(it.objective, "options", limited)
    rounds: list[int] = []
    evaluate = it.objective.evaluate

    def counting(points: Sequence[Tensor], *arguments: Any) -> Any:
        rounds.append(len(points))
        return evaluate(points, *arguments)

    monkeypatch.setattr(it.objective, "evaluate", counting)
    together = run(it, photos)
    assert rounds == [2] * 22 + [1] * 11, "five photographs, two at once"
    alone = stylizer(torch.float64, steps=6)
    for photo, picture in zip(photos, together, strict=True):
        torch.testing.assert_close(picture, run(alone, [photo])[0], atol=1e-10, rtol=0)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=40),
    st.one_of(st.none(), st.integers(1, 200_000)),
)
def test_passes_hold_every_photograph_once_within_the_budget(
    sizes: list[tuple[int, int]], budget: int | None
) -> None:
    passes = plan_passes(sizes, budget)
    assert sorted(index for group in passes for index in group) == list(range(len(sizes)))
    for group in passes:
        canvas = len(group) * max(sizes[i][0] for i in group) * max(sizes[i][1] for i in group)
        assert len(group) == 1 or budget is None or canvas <= budget
        assert sum(sizes[i][0] * sizes[i][1] for i in group) >= 0.75 * canvas


def test_equal_sizes_share_one_pass() -> None:
    assert plan_passes([(9, 9)] * 7) == [list(range(7))]
    assert len(plan_passes([(9, 9)] * 7, 3 * 81)) == 3
