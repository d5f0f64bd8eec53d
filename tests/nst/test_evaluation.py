"""Distances of sets of features: equal to slow references, and to answers known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from nst.errors import ImageTooSmall, OptionError
from nst.features import FeatureNetwork, build_features, read_state_dict
from nst.features.weights import published_bytes
from nst.gan import evaluation
from nst.gan.evaluation import frechet_distance, kernel_distance, pooled_features
from nst.synthetic import TEXTURES
from reference.evaluation import Floats, plain_frechet, plain_kernel

Distance: TypeAlias = Callable[[Tensor, Tensor], float]
BOTH = pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
# Rows of each set and columns: more rows than columns, fewer, a mixture, two rows, one column.
SHAPES = pytest.mark.parametrize(
    ("n", "m", "channels"),
    [(60, 60, 8), (60, 45, 8), (9, 9, 24), (9, 14, 24), (6, 40, 12), (2, 2, 5), (2, 7, 1), (30, 30, 1)],
)


def features(rows: int, channels: int, seed: int = 0) -> Tensor:
    """Correlated, of different variances, and not around zero."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, channels, generator=random, dtype=torch.float64)
    mix = torch.randn(channels, channels, generator=random, dtype=torch.float64) / math.sqrt(channels)
    return drawn @ mix + torch.rand(channels, generator=random, dtype=torch.float64)


def variance(x: Tensor) -> float:
    return float(x.var(0).sum())


def reordered(x: Tensor, seed: int = 0) -> Tensor:
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]


@SHAPES
def test_frechet_distance_equals_the_reference(n: int, m: int, channels: int) -> None:
    x, y = features(n, channels, 1), features(m, channels, 2)
    assert frechet_distance(x, y) == pytest.approx(plain_frechet(x.numpy(), y.numpy()), rel=1e-6)


@SHAPES
@pytest.mark.parametrize("chunk_rows", [1, 4, 1000])
def test_kernel_distance_equals_the_reference(
    n: int, m: int, channels: int, chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_CHUNK_ROWS", chunk_rows)
    x, y = features(n, channels, 1), features(m, channels, 2)
    assert kernel_distance(x, y) == pytest.approx(plain_kernel(x.numpy(), y.numpy()), rel=1e-6)


@BOTH
@SHAPES
def test_is_symmetric(distance: Distance, n: int, m: int, channels: int) -> None:
    x, y = features(n, channels, 1), features(m, channels, 2)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9)


@BOTH
@SHAPES
def test_equal_sets_have_no_distance(distance: Distance, n: int, m: int, channels: int) -> None:
    for rows in (n, m):
        x = features(rows, channels)
        assert distance(x, x.clone()) == pytest.approx(0, abs=1e-9 * variance(x))


@SHAPES
def test_frechet_distance_knows_no_order(n: int, m: int, channels: int) -> None:
    x, y = features(n, channels, 1), features(m, channels, 2)
    assert frechet_distance(x, reordered(x)) <= 1e-9 * variance(x)
    assert frechet_distance(reordered(x), reordered(y, 1)) == pytest.approx(frechet_distance(x, y), rel=1e-9)


@SHAPES
def test_kernel_distance_knows_no_order_but_that_of_pairs(n: int, m: int, channels: int) -> None:
    x, y = features(n, channels, 1), features(m, channels, 2)
    other = reordered(y) if n == m else reordered(y, 1)
    assert kernel_distance(reordered(x), other) == pytest.approx(kernel_distance(x, y), rel=1e-9)


def test_what_pairs_have_in_common_does_not_count() -> None:
    """Moving a row's partner moves the mean of the kernel over pairs, which is left out."""
    x, y = features(20, 6, 1), features(20, 6, 2)
    rolled = y.roll(1, 0)
    pairs, others = ((((x * each).sum(1) / 6 + 1) ** 3).sum() for each in (y, rolled))
    moved = kernel_distance(x, rolled) - kernel_distance(x, y)
    assert moved == pytest.approx(2 * float(others - pairs) / (20 * 19), rel=1e-9)


@SHAPES
def test_a_shifted_set_is_as_far_as_it_was_shifted(n: int, m: int, channels: int) -> None:
    for rows in (n, m):
        x = features(rows, channels)
        shift = torch.linspace(1e-3, 2e-3, channels, dtype=torch.float64)
        off = frechet_distance(x, x + shift) - float(shift.square().sum())
        assert abs(off) <= 1e-12 * variance(x)


def exactly_diagonal(mean: Tensor, deviations: Tensor) -> Tensor:
    """Rows of exactly this mean and diagonal covariance: a pair on either side of the mean for each column."""
    sides = torch.diag(deviations) * math.sqrt((2 * len(mean) - 1) / 2)
    return torch.cat([mean + sides, mean - sides])


def test_frechet_distance_of_diagonal_gaussians() -> None:
    means = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 0.25]], dtype=torch.float64)
    deviations = torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.5, 0.5]], dtype=torch.float64)
    x, y = (exactly_diagonal(*each) for each in zip(means, deviations, strict=True))
    torch.testing.assert_close(torch.cov(x.T), torch.diag(deviations[0].square()))
    # |mu_x - mu_y|^2 and the sum of (s_x - s_y)^2
    assert frechet_distance(x, y) == pytest.approx((1 + 9 + 0.0625) + (4 + 2.25), rel=1e-12)


def test_frechet_distance_of_gaussians_across_each_other() -> None:
    """Covariances that do not commute: in the plane, the root has the trace sqrt(tr P + 2 sqrt(det P))."""
    x, y = features(12, 2, 1), features(9, 2, 2)
    a, b = torch.cov(x.T), torch.cov(y.T)
    assert not torch.allclose(a @ b, b @ a, rtol=0.1)
    root = ((a @ b).trace() + 2 * torch.linalg.det(a @ b).sqrt()).sqrt()
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * root
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-10)


def test_kernel_distance_of_two_constants() -> None:
    zeros, twos = torch.zeros(3, 4), torch.full((5, 4), 2.0)
    assert kernel_distance(zeros, twos) == 1 + 5**3 - 2
    assert kernel_distance(zeros, twos[:3]) == 1 + 5**3 - 2


@pytest.mark.parametrize(
    ("distance", "reference"), [(frechet_distance, plain_frechet), (kernel_distance, plain_kernel)]
)
def test_computes_in_float64(distance: Distance, reference: Callable[[Floats, Floats], float]) -> None:
    """Far from the origin float32 has little left of the differences."""
    x, y = (features(20, 6, seed).float() + 30 for seed in (1, 2))
    expected = reference(x.double().numpy(), y.double().numpy())
    found = distance(x.requires_grad_(), y)
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=1e-8)


@BOTH
@pytest.mark.parametrize(
    ("x", "y", "problem"),
    [
        (torch.zeros(5), torch.zeros(5, 2), r"x: must be \(N, C\) of at least two rows, but is \(5,\)"),
        (torch.zeros(3, 2), torch.zeros(1, 2), r"y: must be \(N, C\) of at least two rows, but is \(1, 2\)"),
        (torch.zeros(3, 0), torch.zeros(3, 0), r"x: must be .* but is \(3, 0\)"),
        (torch.zeros(3, 2), torch.zeros(3, 4), r"as many columns, but are \(3, 2\) and \(3, 4\)"),
        (torch.zeros(3, 1), torch.tensor([[0.0], [math.nan], [math.inf]]), "y: 2 of 3 rows are not finite"),
    ],
)
def test_says_what_is_wrong_with_features(distance: Distance, x: Tensor, y: Tensor, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        distance(x, y)


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    state = read_state_dict(published_bytes("nst:embedded"))
    return build_features("embedded", ["relu1_2", "relu3_2"], state=state, pooling="average")


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    """Of every family; of two sizes."""
    drawn = [family((48, 48 + 16 * (seed % 2)), seed) for family in TEXTURES.values() for seed in range(70, 74)]
    return [torch.from_numpy(each).permute(2, 0, 1).float() / 255 for each in drawn]


def test_pooled_features_are_means_over_positions(network: FeatureNetwork, pictures: list[Tensor]) -> None:
    found = pooled_features(network, "relu3_2", iter(pictures))
    assert found.shape == (20, 128)
    assert found.dtype == torch.float32
    for row, image in zip(found, pictures, strict=True):
        seen = network(image[None])["relu3_2"][0].double()
        assert row.tolist() == pytest.approx(seen.mean((1, 2)).tolist(), abs=1e-6 * float(seen.abs().max()))


def test_pooled_features_take_logits_and_half_precision(
    network: FeatureNetwork, pictures: list[Tensor]
) -> None:
    classifier = build_features("googlenet", ["logits"])
    assert pooled_features(classifier, "logits", pictures[:2]).shape == (2, 1000)
    wide = pooled_features(network, "relu3_2", pictures[:2])
    half = pooled_features(network.in_precision(torch.bfloat16), "relu3_2", pictures[:2])
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, wide, rtol=0.05, atol=0.005 * float(wide.abs().max()))


def test_says_what_is_wrong_with_images(network: FeatureNetwork, pictures: list[Tensor]) -> None:
    good = pictures[0]
    for bad, problem in (
        ((255 * good).byte(), r"image 1: must be of floating point, \(3, H, W\), .* of torch.uint8"),
        (good[:1], r"image 1: .* but is \(1, 48, 48\)"),
        (good[None], r"image 1: .* but is \(1, 3, 48, 48\)"),
        (2 * good - 1, r"image 1: must be in \[0, 1\], but is in \[-"),
        (good * math.nan, r"image 1: must be in \[0, 1\], but is in \[nan"),
    ):
        with pytest.raises(ValueError, match=problem):
            pooled_features(network, "relu3_2", [good, bad])
    with pytest.raises(ValueError, match="images: at least one is needed"):
        pooled_features(network, "relu3_2", [])
    with pytest.raises(ImageTooSmall, match="needs 4 on the short side"):
        pooled_features(network, "relu3_2", [good[:, :3]])
    with pytest.raises(ImageTooSmall):
        pooled_features(network, "relu3_2", [good[:, :0]])
    with pytest.raises(OptionError, match=r"layer = 'relu4_1'.*Choices: relu1_2, relu3_2"):
        pooled_features(network, "relu4_1", [good])


@BOTH
def test_pictures_are_further_the_more_they_change(
    distance: Distance, network: FeatureNetwork, pictures: list[Tensor]
) -> None:
    def away(changed: Iterable[Tensor]) -> float:
        seen = (image.clamp(0, 1) for image in changed)
        return distance(plain, pooled_features(network, "relu3_2", seen))

    plain = pooled_features(network, "relu3_2", pictures)
    random = torch.Generator().manual_seed(0)
    noises = [torch.randn(image.shape, generator=random) for image in pictures]
    noisy = [
        away(image + strength * noise for image, noise in zip(pictures, noises, strict=True))
        for strength in (0.02, 0.08, 0.2, 0.5)
    ]
    assert noisy == sorted(noisy)
    darker = away(0.98 * image for image in pictures)
    posterized = away((2 * image).round() / 2 for image in pictures)  # as bold as a woodcut
    assert 0 < darker < noisy[1] < posterized
