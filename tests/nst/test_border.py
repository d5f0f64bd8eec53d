"""The mirrored border: painted and dreamed on as if the photograph went on, and cut off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nst.images.codec import mirrored, without_border
from tests.nst.test_deepdream import build as build_dream
from tests.nst.test_style_options import build, run
from tests.nst.test_style_transfer import pictures

pytestmark = pytest.mark.usefixtures("narrow_vggs")


@pytest.mark.parametrize("size", [(24, 30), (17, 40), (1, 7), (1, 1)])
@pytest.mark.parametrize("border_px", [0, 3, 16])
def test_what_is_mirrored_is_cut_off_again(size: tuple[int, int], border_px: int) -> None:
    (photo,) = pictures(size)
    wide = mirrored(photo, border_px)
    border = min(border_px, min(size) // 8)
    assert wide.shape == (3, size[0] + 2 * border, size[1] + 2 * border)
    assert torch.equal(without_border(wide, border_px, size), photo)
    if border == 3:
        assert torch.equal(wide[:, 0, 3:-3], photo[:, 3])
        assert torch.equal(wide[:, 3:-3, -1], photo[:, :, -4])


def inner(picture: Tensor, border_px: int) -> Tensor:
    return picture[:, border_px:-border_px, border_px:-border_px]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"style_loss": "wasserstein"},
        {"optimizer": "adam"},
        {"style": ("style", "other"), "style_masks": ("left", "right")},
    ],
    ids=str,
)
def test_a_painting_is_the_middle_of_the_mirrored_photographs(options: dict[str, Any]) -> None:
    photo, style, other = pictures((64, 72), (40, 40), (30, 40))
    left = torch.zeros(3, 64, 72)
    left[..., :36] = 1
    assets = {"style": style, "other": other, "left": left, "right": 1 - left}
    wide_assets = assets | {name: mirrored(assets[name], 8) for name in ("left", "right")}
    common = {"style_side_px": 40, "steps": 6, **options}
    bordered = run(build(assets, border_px=8, **common), photo)
    wide = run(build(wide_assets, border_px=0, **common), mirrored(photo, 8))
    torch.testing.assert_close(bordered.image, inner(wide.image, 8), atol=1e-6, rtol=0)
    assert bordered.stats["loss"] == pytest.approx(wide.stats["loss"], rel=1e-5)


def test_the_style_keeps_its_size_beside_the_photograph() -> None:
    """Relative to the photograph, not to what it is within its border."""
    photo, style = pictures((48, 64), (80, 80))
    it = build({"style": style}, border_px=8, steps=4)
    fixed = build({"style": style}, border_px=8, steps=4, style_side_px=64)
    assert torch.equal(run(it, photo).image, run(fixed, photo).image)


def test_every_size_has_its_border_and_frames_are_without() -> None:
    photo, style = pictures((64, 72), (40, 40))
    options: dict[str, Any] = {"coarse_scales": (0.5,), "coarse_steps": 4, "steps": 6, "border_px": 8}
    it = build({"style": style}, frame_every=2, **options)
    seen: list[tuple[int, ...]] = []
    evaluate = it.objective.evaluate

    def looking(points: Any, *arguments: Any) -> Any:
        seen.extend(tuple(point.shape) for point in points)
        return evaluate(points, *arguments)

    it.objective.evaluate = looking  # type: ignore[method-assign]
    outcome = run(it, photo)
    assert seen == [(3, 40, 44)] * 4 + [(3, 80, 88)] * 6
    assert [tuple(frame.image.shape) for frame in outcome.frames] == [(3, 32, 36)] * 2 + [(3, 64, 72)] * 3
    assert torch.equal(outcome.frames[-1].image, outcome.image)


def test_a_batch_with_borders_equals_solo_runs_to_the_byte() -> None:
    style, *photos = pictures((40, 40), (48, 32), (32, 48), (9, 41))
    it = build({"style": style}, border_px=12, style_loss="wasserstein", coarse_scales=(0.5,), coarse_steps=3)
    together = it(photos, [torch.Generator() for _ in photos])
    for photo, outcome in zip(photos, together, strict=True):
        assert torch.equal(run(it, photo).image, outcome.image)  # type: ignore[union-attr]


def test_a_dream_is_the_middle_of_the_mirrored_photographs() -> None:
    (photo,) = pictures((64, 80))
    bordered = build_dream(octaves=1, border_px=8)
    wide = build_dream(octaves=1)
    (ours,) = bordered([photo], [torch.Generator().manual_seed(3)])
    (theirs,) = wide([mirrored(photo, 8)], [torch.Generator().manual_seed(3)])
    torch.testing.assert_close(ours.image, inner(theirs.image, 8), atol=1e-6, rtol=0)  # type: ignore[union-attr]


def test_dreams_of_octaves_and_zooms_have_the_photographs_size() -> None:
    (photo,) = pictures((96, 128))
    (outcome,) = build_dream(octaves=2, border_px=16, zoom_frames=2)([photo], [torch.Generator()])
    assert outcome.image.shape == photo.shape  # type: ignore[union-attr]
    assert [frame.image.shape for frame in outcome.frames] == [photo.shape] * 3  # type: ignore[union-attr]
