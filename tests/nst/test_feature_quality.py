"""The benchmark of the embedded network reads curves as if every point of them had been run."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.feature_quality import Point, at_content

WEIGHTS = 0.5, 2.0, 8.0, 32.0
CURVE = Point(0.8, 0.1), Point(0.6, 0.15), Point(0.35, 0.3), Point(0.2, 0.5)


@pytest.mark.parametrize(
    ("content", "runs"), [(0.9, 3), (0.7, 3), (0.6, 2), (0.5, 2), (0.35, 1), (0.3, 2), (0.1, 2)]
)
def test_style_distance_at_a_content_distance(content: float, runs: int) -> None:
    asked: list[float] = []

    def run(weight: float) -> Point:
        asked.append(weight)
        return CURVE[WEIGHTS.index(weight)]

    whole = np.interp(content, [each.content for each in CURVE[::-1]], [each.style for each in CURVE[::-1]])
    assert at_content(run, WEIGHTS, content) == pytest.approx(float(whole))
    assert len(asked) == runs
