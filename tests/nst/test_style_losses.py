"""The Wasserstein-2 style loss, against its closed form by SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nst.deepdream.objective import DreamObjective
from nst.features import build_features
from nst.losses import covariance_root, gaussian_distance, raw_gram, raw_moments
from nst.ops.roots import root_and_inverse
from nst.style_transfer.losses import WassersteinLoss
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from nst.stylizer import Stylized
from tests.nst.test_style_transfer import pictures

pytestmark = pytest.mark.usefixtures("narrow_vggs")


def activations(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """As behind a ReLU, of channels that go together."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.einsum(
        "ncm,cd->ndm",
        torch.randn(size[0], size[1], size[2] * size[3], generator=generator, dtype=torch.float64),
        torch.randn(size[1], size[1], generator=generator, dtype=torch.float64),
    )
    return (mixed + 0.3).relu().view(size).to(dtype)


def means(features: Tensor) -> Tensor:
    return raw_moments(features) / features[0, 0].numel()


def closed_form(a: Tensor, b: Tensor, noise: float = 0.0) -> float:
    """Of two (C, h, w), by SciPy's matrix root; with white noise, relative to the mean variance of `b`."""
    x, y = (each.flatten(1).numpy() for each in (a, b))
    one, other = (np.atleast_2d(np.cov(each, bias=True)) for each in (x, y))
    added = noise * other.trace() / len(other) * np.eye(len(other))
    one, other = one + added, other + added
    root = scipy.linalg.sqrtm(one)
    overlap = scipy.linalg.sqrtm(root @ other @ root).real.trace()
    return float(((x.mean(1) - y.mean(1)) ** 2).sum() + one.trace() + other.trace() - 2 * overlap)


def test_moments_are_the_gram_matrix_and_the_sums() -> None:
    features = activations(2, 5, 6, 7)
    moments = raw_moments(features)
    assert torch.equal(moments[..., :-1], raw_gram(features))
    torch.testing.assert_close(moments[..., -1], features.sum((2, 3)))
    mask = torch.rand(2, 1, 6, 7, dtype=torch.float64)
    guided = raw_moments(features * mask, mask)
    torch.testing.assert_close(guided[..., :-1], raw_gram(features * mask))
    torch.testing.assert_close(guided[..., -1], (features * mask.square()).sum((2, 3)))


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("channels", [1, 3, 16, 64])
def test_the_distance_equals_the_closed_form(channels: int, noise: float) -> None:
    features, style = activations(2, channels, 11, 13), activations(2, channels, 10, 9, seed=1)
    found = gaussian_distance(means(features), *covariance_root(means(style), noise))
    for value, a, b in zip(found.tolist(), features, style, strict=True):
        assert value == pytest.approx(closed_form(a, b, noise), rel=1e-10)


def test_it_is_nothing_at_equal_statistics_and_what_a_shift_moves() -> None:
    features = activations(1, 12, 9, 9)
    wanted = covariance_root(means(features))
    size = float(features.square().sum() / 81)
    shuffled = features.flatten(2)[..., torch.randperm(81)].view_as(features)
    for same in (features, shuffled):
        x = same.clone().requires_grad_()
        distance = gaussian_distance(means(x), *wanted)
        assert distance.item() == 0
        assert not torch.autograd.grad(distance, x)[0].any(), "nor is there a slope, which would be rounding"
    nearly = float(gaussian_distance(means(features * (1 + 1e-5)), *wanted))
    assert nearly == pytest.approx(1e-10 * size, rel=1e-2)
    assert float(gaussian_distance(means(features + 2), *wanted)) == pytest.approx(12 * 2**2, rel=1e-10)
    scaled = float(gaussian_distance(means(3 * features), *wanted))
    assert scaled == pytest.approx(4 * size, rel=1e-10), "to three times as much, everything moves by two"


@pytest.mark.parametrize("channels", [1, 3, 48, 160])
@pytest.mark.parametrize("condition", [1e2, 1e6, 1e10])
def test_roots_by_products(channels: int, condition: float) -> None:
    """As GPUs compute them; beside roots by eigenvalues, up to the conditions that losses have."""
    generator = torch.Generator().manual_seed(channels)
    vectors, _ = torch.linalg.qr(torch.randn(2, channels, channels, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, -np.log10(condition), channels, dtype=torch.float64)
    sizes = torch.tensor([1e-8, 1e8], dtype=torch.float64)[:, None, None]
    matrix = sizes * (vectors * values) @ vectors.mT
    root, inverse = root_and_inverse((matrix + matrix.mT) / 2)
    wanted = sizes.sqrt() * (vectors * values.sqrt()) @ vectors.mT
    torch.testing.assert_close(root / sizes.sqrt(), wanted / sizes.sqrt(), atol=1e-10, rtol=0.0)
    for found, size in zip(inverse, sizes.flatten(), strict=True):
        slopes = (vectors * values.rsqrt() @ vectors.mT)[int(size > 1)] / size.sqrt()
        assert float((found - slopes).norm() / slopes.norm()) < 1e-6
    nothing, slope = root_and_inverse(torch.zeros(1, channels, channels, dtype=torch.float64))
    assert not nothing.any()
    assert slope.isfinite().all()


def test_roots_by_products_of_what_has_no_full_rank() -> None:
    """What rounding makes of nothing, of either sign, is a straight line: nothing is infinite."""
    few = torch.randn(1, 64, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    root, inverse = root_and_inverse(few @ few.mT)
    torch.testing.assert_close(root @ root, few @ few.mT, atol=1e-6, rtol=0.0)
    assert float(inverse.norm()) < 64 / 1e-6


def test_its_gradient() -> None:
    features = activations(2, 4, 5, 6).requires_grad_()
    mask = torch.rand(2, 1, 5, 6, dtype=torch.float64)
    wanted = covariance_root(means(activations(2, 4, 7, 7, seed=1)), 1e-3)

    def plain(x: Tensor) -> Tensor:
        return gaussian_distance(means(x), *wanted)

    def guided(x: Tensor) -> Tensor:
        return gaussian_distance(raw_moments(x * mask, mask) / mask.square().sum(), *wanted)

    assert torch.autograd.gradcheck(plain, (features,))
    assert torch.autograd.gradcheck(guided, (features,))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("few", [False, True], ids=["many positions", "fewer positions than channels"])
def test_float32_is_enough(scale: float, few: bool) -> None:
    """Also where covariances have no full rank, whatever the scale of the network."""
    side = 5 if few else 30
    features, style = activations(1, 64, side, side), activations(1, 64, side + 1, side, seed=1)

    def of(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x = (scale * features).to(dtype).requires_grad_()
        value = gaussian_distance(means(x), *covariance_root(means((scale * style).to(dtype)), 1e-3))
        return value, torch.autograd.grad(value.sum(), x)[0]

    (value, grad), (exact, slope) = of(torch.float32), of(torch.float64)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert float((grad - slope).norm() / slope.norm()) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("style", ["flat", "black", "strokes"])
@pytest.mark.parametrize("photo", ["flat", "black", "strokes"])
def test_flat_and_black_pictures_have_finite_losses_and_gradients(
    photo: str, style: str, dtype: torch.dtype
) -> None:
    (strokes,) = pictures((32, 40))
    kinds = {"flat": torch.full((3, 32, 40), 0.4), "black": torch.zeros(3, 32, 40), "strokes": strokes}
    network = build_features("vgg16", ["relu1_1", "relu2_1", "relu3_1"])
    ours = StyleObjective(
        network,
        kinds[style],
        ObjectiveOptions(
            content_layers={"relu3_1": 1.0},
            style_layers={"relu1_1": 1.0, "relu2_1": 1.0, "relu3_1": 1.0},
            content_weight=1.0,
            style_weight=10.0,
            style_loss="wasserstein",
            loss_scale="relative",
        ),
    )
    targets = ours.targets(kinds[photo])
    for point in kinds.values():
        (evaluation,) = ours.evaluate([point], [targets], dtype)
        assert all(np.isfinite(value) for value in evaluation.losses.values())
        assert bool(evaluation.grad.isfinite().all())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_picture_in_its_own_style_is_its_own_end(optimizer: str, precision: str) -> None:
    """As where the style lies in the folder of photographs: there is nothing to be done, and no error."""
    (photo,) = pictures((32, 40))
    options: dict[str, Any] = {"optimizer": optimizer, "precision": precision}
    method = StyleTransfer(
        style="own.png",
        network="vgg16",
        weights="seeded",
        steps=80,
        border_px=0,
        coarse_scales=(),
        style_loss="wasserstein",
        **options,
    )
    (found,) = method.build_from([photo], None, torch.device("cpu"))([photo], [torch.Generator()])
    assert isinstance(found, Stylized), found
    torch.testing.assert_close(found.image, photo, rtol=0, atol=0.5 / 255)
    if precision == "float32":
        assert found.stats["evaluations"] == 1


class _Copies(TorchDispatchMode):
    """Looks for copies of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[torch.Size] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.clone.default and out.ndim == 4 and out.shape[1] != 3:
            self.found.append(out.shape)
        return out


@pytest.mark.parametrize("normalize", [False, True])
def test_an_evaluation_copies_no_activations(normalize: bool) -> None:
    """They are channels-last, which some operations do not keep to."""
    photo, style, point = pictures((32, 40), (24, 32), (32, 40))
    layers = {"relu1_1": 1.0, "relu2_1": 1.0}
    network = build_features("vgg16", ["relu2_2", *layers])
    options = ObjectiveOptions(
        content_layers={"relu2_2": 1.0},
        style_layers=layers,
        content_weight=1.0,
        style_weight=10.0,
        style_loss="wasserstein",
        loss_scale="relative",
        normalize_gradients=normalize,
    )
    ours = StyleObjective(network, style, options)
    targets = ours.targets(photo)
    with _Copies() as copies:
        ours.evaluate([point], [targets])
        DreamObjective(network, {"relu2_2": 1.0}).evaluate(point[None])
    assert copies.found == []


def test_scales() -> None:
    loss = WassersteinLoss()
    found = means(activations(1, 8, 9, 9))
    (square,) = found[..., :-1].diagonal(dim1=-2, dim2=-1).sum(-1).tolist()
    assert float(loss.factor(found, "paper")) == 1
    assert float(loss.factor(found, "mean")) == 1 / 8
    assert float(loss.factor(found, "relative")) == pytest.approx(1 / square)
    nothing = loss.distance(torch.zeros_like(found), loss.wanted(found)) * loss.factor(found, "relative")
    assert float(nothing) == pytest.approx(1.0, rel=0.05), (
        "relative: 1 where there is nothing, but for the noise"
    )
    assert float(loss.factor(torch.zeros_like(found), "relative")) == 0, "nothing is relative to nothing"
