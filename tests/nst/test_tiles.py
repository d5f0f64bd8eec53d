"""Tiles are exact: losses and gradients are those of the whole picture."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import cycle

import pytest
import torch

from benchmarks.style_transfer_step import losses_of
from nst.errors import OptionError
from nst.features import build_features
from nst.features.networks import Pooling
from nst.features.tiles import least_pixels, tile_side, tiles
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from tests.nst.test_batches import POOLINGS, VARIANTS, exactness, objective, relative_difference, stylizer
from tests.nst.test_style_transfer import build, image_of, method, pictures, run

pytestmark = pytest.mark.usefixtures("narrow_vggs")

SIZES = ((75, 94), (61, 128), (32, 90), (94, 32))


@pytest.mark.parametrize(
    ("variant", "pooling", "size"),
    [
        pytest.param(*each, marks=pytest.mark.slow if number % 2 else [])  # others: in batches
        for number, each in enumerate(zip(VARIANTS, cycle(POOLINGS[::-1]), cycle(SIZES), strict=False))
    ],
)
def test_loss_and_gradient_in_tiles_equal_the_whole(
    variant: str, pooling: Pooling, size: tuple[int, int]
) -> None:
    whole = objective(pooling, **VARIANTS[variant])
    budget = least_pixels(whole.network) * 2
    tiled = objective(pooling, **VARIANTS[variant], max_pass_pixels=budget)
    photo, point = pictures(size, size, dtype=torch.float64)
    point = (0.5 * photo + 0.5 * point).clamp(0.02, 0.98)
    assert size[0] * size[1] > budget, "else nothing is shown"
    targets = tiled.targets(photo)
    assert len(targets.tiles) > 3
    (in_tiles,) = tiled.evaluate([point], [targets])
    (expected,) = whole.evaluate([point], [whole.targets(photo)])
    assert in_tiles.losses == pytest.approx(expected.losses, rel=1e-10)
    assert relative_difference(in_tiles.grad, expected.grad) < exactness(variant)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_photograph_is_looked_at_once_if_that_can_be_kept(
    normalized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal to the bit, with a pass for each tile less in an evaluation."""
    ours = objective("max", normalize_gradients=normalized)
    tiled = objective("max", normalize_gradients=normalized, max_pass_pixels=2 * least_pixels(ours.network))
    photo, point = pictures((75, 94), (75, 94), dtype=torch.float64)
    kept, passes = tiled.targets(photo), list[int]()
    monkeypatch.setattr(tiled._targets, "_pass_bytes", 1000.0)
    anew = tiled.targets(photo)
    assert len(kept.tile_content) == len(kept.tiles) > 3
    assert not anew.tile_content, "a pass may take less"

    def look(*_: object) -> None:
        passes[-1] += 1

    found = []
    with tiled.network.register_forward_hook(look):
        for targets in (kept, anew):
            passes.append(0)
            found += tiled.evaluate([point], [targets])
    assert found[0].losses == found[1].losses
    assert torch.equal(found[0].grad, found[1].grad)
    each = 3 if normalized else 2
    assert passes == [each * len(kept.tiles), (each + 1 + normalized) * len(kept.tiles)]


def test_the_papers_layers_of_vgg19_in_tiles() -> None:
    """To relu5_1 the network looks 80 pixels around."""
    options = losses_of("gatys")
    layers = [*options["content_layers"], *options["style_layers"]]
    network = build_features("vgg19", layers, pooling="average").double()
    assert network.geometry is not None
    assert network.geometry.margin_px == 80
    photo, style, point = pictures((112, 208), (90, 120), (112, 208), dtype=torch.float64)
    ours = StyleObjective(network, style, ObjectiveOptions(**options))
    targets = ours.targets(photo)
    parts = tuple(tiles(network, 112, 208, side=112))
    assert [part.cut(photo).shape[-1] for part in parts] == [192, 176]
    (in_tiles,) = ours.evaluate([point], [dataclasses.replace(targets, tiles=parts)])
    (expected,) = ours.evaluate([point], [targets])
    assert in_tiles.losses == pytest.approx(expected.losses, rel=1e-10)
    assert relative_difference(in_tiles.grad, expected.grad) < 1e-10


@pytest.mark.parametrize("size", [(64, 64), (65, 127), (3, 200), (200, 17)])
def test_every_pixel_is_owned_by_one_tile(size: tuple[int, int]) -> None:
    network = build_features("vgg16", ["relu3_1"])
    owners = torch.zeros(size)
    for tile in tiles(network, *size, side=16):
        owners[tile.owned[0], tile.owned[1]] += 1
        assert tile.cut(owners).shape[0] <= 16 + 2 * 16 + 16
    assert bool((owners == 1).all())


@pytest.mark.slow
def test_a_picture_painted_in_tiles_shows_no_seams() -> None:
    """A hundred evaluations in float64, since L-BFGS amplifies rounding: less than one level of 8 bits
    apart."""
    (photo,) = pictures((48, 80), dtype=torch.float64)
    plain = stylizer(torch.float64, steps=100)
    budget = 2 * least_pixels(plain.objective.network)
    in_tiles = stylizer(torch.float64, steps=100, max_pass_pixels=budget)
    assert len(in_tiles.objective.targets(photo).tiles) > 1
    difference = image_of(run(in_tiles, [photo])[0]) - image_of(run(plain, [photo])[0])
    assert float(difference.abs().max()) < 1 / 255


def test_too_little_memory_says_how_much_is_needed() -> None:
    with pytest.raises(OptionError, match=r"pass_memory_mb = 1: a tile of vgg19 needs \d+"):
        build(method(pass_memory_mb=1, style_layers={"relu5_1": 1.0}))
    with pytest.raises(OptionError, match=r"pass_memory_mb.*embedded, vgg16, vgg19"):
        StyleTransfer(
            style="s",
            network="resnet50",
            content_layers={"layer1": 1.0},
            style_layers={"layer1": 1.0},
            pass_memory_mb=100,
        )


def test_tile_sides_fit_the_budget() -> None:
    network = build_features("vgg16", ["relu3_1"])
    assert network.geometry is not None
    margin = network.geometry.margin_px
    for budget in (least_pixels(network), 10_000, 50_000):
        side = tile_side(network, budget)
        assert side % 4 == 0
        assert (side + 2 * margin) ** 2 <= budget < (side + 4 + 2 * margin) ** 2
    assert tile_side(network, least_pixels(network) - 1) == 0


_LARGE = """
import resource, torch
from nst.synthetic import brush_strokes
from nst.images.codec import picture_tensor, resize_image
from nst.style_transfer.method import StyleTransfer
torch.set_num_threads(1)
photo = resize_image(torch.rand(3, 64, 64), (4096, 4096))
style = picture_tensor(brush_strokes((256, 256), seed=0))
method = StyleTransfer(
    style="style", network="vgg19", weights="seeded", preset="tutorial", style_scale=1 / 16, steps=2,
    optimizer="adam", pass_memory_mb=400,
)
stylizer = method.build_from([style], None, torch.device("cpu"))
(outcome,) = stylizer([photo], [torch.Generator()])
assert outcome.image.shape == (3, 4096, 4096), outcome
assert not torch.equal(outcome.image, photo)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_photograph_of_4096_pixels_takes_less_than_3_gigabytes() -> None:
    """Of the whole process, with VGG19; untiled it would take some 60."""
    run = subprocess.run([sys.executable, "-c", _LARGE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print(f"{int(run.stdout) * 1024 / 1e9:.2f} GB")
    assert int(run.stdout) * 1024 < 3e9
