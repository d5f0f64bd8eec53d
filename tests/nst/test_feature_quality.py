"""The benchmark of the embedded network reads curves as if every point of them had been run, and leaves the
network in its shape."""

from __future__ import annotations

import math

import pytest

from benchmarks.feature_quality import Point, at_content, former_shape
from nst.features import build_features, layer_names

WEIGHTS = 0.25, 1.0, 4.0, 16.0
CURVE = Point(0.1, 0.8), Point(0.2, 0.4), Point(0.4, 0.1), Point(0.8, 0.05)


@pytest.mark.parametrize(
    ("content", "style", "beyond", "runs"),
    [
        (0.05, 0.8, True, 3),
        (0.1, 0.8, False, 3),
        (math.sqrt(0.1 * 0.2), math.sqrt(0.8 * 0.4), False, 3),
        (math.sqrt(0.2 * 0.4), 0.2, False, 2),
        (0.4, 0.1, False, 1),
        (0.4 * 2**0.25, 0.1 * 2**-0.25, False, 2),
        (0.9, 0.05, True, 2),
    ],
)
def test_style_loss_at_a_content_loss(content: float, style: float, beyond: bool, runs: int) -> None:
    asked: list[float] = []

    def run(weight: float) -> Point:
        asked.append(weight)
        return CURVE[WEIGHTS.index(weight)]

    assert at_content(run, WEIGHTS, content) == (pytest.approx(style), beyond)
    assert len(asked) == len(set(asked)) == runs


def test_the_former_network_is_built_only_where_it_is_asked_for() -> None:
    names = layer_names("embedded")
    with former_shape():
        former = build_features("embedded", ["relu4_2"])
        assert layer_names("embedded")[-3:] == ("conv4_2", "relu4_2", "pool4")
    assert layer_names("embedded") == names
    assert former.body.get_parameter("features.17.weight").shape == (256, 256, 3, 3)
