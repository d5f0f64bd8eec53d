"""What comes out has no frame: along its borders there is no more detail than inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import nst
from jobs.demo import sample_photographs
from nst.deepdream.method import DeepDream
from nst.features import read_state_dict
from nst.features.weights import published_bytes
from nst.feed_forward.method import SHIPPED, FeedForward
from nst.images.codec import encode_image, picture_tensor
from nst.stylizer import Stylized, Stylizer
from nst.synthetic import brush_strokes

SIDE_PX, OUTER_PX, MOST = 224, 10, 1.5


def photograph(name: str) -> Tensor:
    return nst.decode_image((sample_photographs() / name).read_bytes(), max_side_px=SIDE_PX)


def frame(image: Tensor) -> float:
    """Mean gradient along the outer pixels over that of the inside."""
    slopes = (image[:, 1:, :-1] - image[:, :-1, :-1]).abs() + (image[:, :-1, 1:] - image[:, :-1, :-1]).abs()
    slope = slopes.mean(0)
    inside = slope[OUTER_PX:-OUTER_PX, OUTER_PX:-OUTER_PX]
    outer = slope.sum() - inside.sum()
    return float(outer / (slope.numel() - inside.numel()) / inside.mean())


def only(stylizer: Stylizer, photo: Tensor) -> Tensor:
    (outcome,) = stylizer([photo], [torch.Generator().manual_seed(0)])
    assert isinstance(outcome, Stylized)
    return outcome.image


def optimized(photo: Tensor, style: Tensor, **options: Any) -> Tensor:
    *_, last = nst.stylize(photo, style, network="embedded", steps=20, coarse_steps=20, **options)
    return last.image


def dreamed(photo: Tensor) -> Tensor:
    method = DeepDream(network="embedded", octaves=2, steps=8)
    stylizer = method.build_from(read_state_dict(published_bytes("nst:embedded")), torch.device("cpu"))
    return only(stylizer, photo)


def in_one_pass(photo: Tensor, style: Tensor) -> Tensor:
    assets = {"/style": encode_image(style, format="png"), SHIPPED: published_bytes(SHIPPED)}
    stylizer = FeedForward(style="/style").build(assets, torch.device("cpu"))
    return only(stylizer, photo)


@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png"])
def test_nothing_that_the_demo_makes_has_a_frame(name: str) -> None:
    photo = photograph(name)
    style = picture_tensor(brush_strokes((256, 256), seed=0))
    own = frame(photo)
    for made in (optimized(photo, style), dreamed(photo), in_one_pass(photo, style)):
        assert frame(made) < MOST * max(1.0, own)


def test_a_line_along_all_sides_is_a_frame() -> None:
    photo = photograph("chelsea.png")
    framed = torch.zeros_like(photo)
    framed[:, 2:-2, 2:-2] = photo[:, 2:-2, 2:-2]
    assert frame(framed) > 2 * frame(photo)
