"""DeepDream equals the published procedure, and each photograph of a batch its solo run."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchvision
from torch import Tensor

from benchmarks.transcriptions import deepdream
from nst.deepdream import DeepDream, DeepDreamStylizer
from nst.errors import Diverged, ImageTooSmall, OptionError
from nst.stylizer import Stylized
from tests.nst.test_style_transfer import image_of, pictures


def build(**options: object) -> DeepDreamStylizer:
    plain = {"network": "vgg16", "weights": "seeded", "layers": {"relu2_1": 1.0}, "octaves": 2, "steps": 3}
    return DeepDream(**{**plain, **options}).build({}, torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [{"relu2_1": 1.0}, {"relu1_2": 0.3, "relu2_2": 2.0}], ids=str)
def test_equals_the_published_procedure(layers: dict[str, float]) -> None:
    """Two octaves of five steps, with the same stream of jitter."""
    stylizer = build(layers=layers, steps=5, octave_scale=1.4)
    stylizer.network.double()
    (photo,) = pictures((60, 72), dtype=torch.float64)
    stream = torch.Generator().manual_seed(3)
    shifts = [tuple(torch.randint(-32, 33, (2,), generator=stream).tolist()) for _ in range(10)]

    def energy(images: Tensor) -> Tensor:
        features = stylizer.network(images)
        return sum(weight * features[layer].square().sum() / 2 for layer, weight in layers.items())  # type: ignore[return-value]

    expected = deepdream(energy, photo[None], shifts, octaves=2, octave_scale=1.4, steps=5, step_size=1.5 / 255)
    (outcome,) = stylizer([photo], [torch.Generator().manual_seed(3)])
    torch.testing.assert_close(image_of(outcome).double(), expected[0], rtol=0, atol=1e-6)


def test_a_batch_of_mixed_sizes_equals_solo_runs_to_the_byte() -> None:
    stylizer = build(octaves=3)
    images = pictures((40, 48), (90, 66), (40, 48), (34, 35))  # with three, one and two octaves
    generators = [torch.Generator().manual_seed(n) for n in range(4)]
    for number, together in enumerate(stylizer(images, generators)):
        (alone,) = stylizer([images[number]], [torch.Generator().manual_seed(number)])
        assert torch.equal(image_of(together), image_of(alone))


def test_energy_rises() -> None:
    (photo,) = pictures((64, 64))
    energies = [
        step.energy
        for step in build(octaves=1, steps=12, jitter_px=0).iterate(photo, torch.Generator().manual_seed(0))
    ]
    rises = sum(after > before for before, after in itertools.pairwise(energies))
    assert rises >= 0.9 * (len(energies) - 1)
    assert energies[-1] > 1.2 * energies[0]


def test_steps_and_octaves_are_told() -> None:
    (photo,) = pictures((64, 80))
    seen = [
        (dream.octave, dream.steps, tuple(dream.image.shape[-2:]))
        for dream in build(octaves=2, steps=2, octave_scale=2.0).iterate(
            photo, torch.Generator().manual_seed(0)
        )
    ]
    assert seen == [(0, 1, (32, 40)), (0, 2, (32, 40)), (1, 3, (64, 80)), (1, 4, (64, 80))]


def test_small_octaves_are_left_out_and_too_small_photos_fail_alone() -> None:
    stylizer = build(octaves=4, layers={"relu3_1": 1.0})
    tiny, small, fine = stylizer(
        [torch.rand(3, 3, 50), *pictures((36, 36), (64, 64))],
        [torch.Generator().manual_seed(n) for n in range(3)],
    )
    assert isinstance(tiny, ImageTooSmall)
    assert isinstance(small, Stylized)
    assert small.stats["steps"] == 3
    assert isinstance(fine, Stylized)
    assert fine.stats["steps"] == 9


def test_a_layer_that_nothing_excites_leaves_the_photo_as_it_is() -> None:
    stylizer = build(octaves=1)
    for parameter in stylizer.network.parameters():
        parameter.zero_()
    (photo,) = pictures((40, 40))
    (outcome,) = stylizer([photo], [torch.Generator()])
    assert torch.equal(image_of(outcome), photo)


def test_activations_that_are_not_finite_are_a_typed_failure() -> None:
    stylizer = build(octaves=1)
    next(stylizer.network.parameters()).fill_(float("inf"))
    (outcome,) = stylizer(pictures((40, 40)), [torch.Generator()])
    assert isinstance(outcome, Diverged)


def test_gradient_blur_is_a_gaussian() -> None:
    """Equal to torchvision's, and a constant stays constant up to the border."""
    stylizer = build(gradient_blur_px=1.3)
    grad = torch.randn(3, 20, 31)
    expected = torchvision.transforms.functional.gaussian_blur(grad, [9, 9], [1.3, 1.3])
    torch.testing.assert_close(stylizer._smoothed(grad), expected)
    torch.testing.assert_close(stylizer._smoothed(torch.ones(3, 20, 31)), torch.ones(3, 20, 31))
    assert build()._smoothed(grad) is grad


def test_default_layers_are_the_networks_own() -> None:
    assert DeepDream().layers == {"layer3": 1.0}
    assert DeepDream(network="googlenet").layers == {"inception4c": 1.0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"network": "inception"}, "googlenet"),
        ({"layers": {"relu9_1": 1.0}}, "vgg16 has no such layer"),
        ({"octaves": 0}, "octaves = 0"),
        ({"octave_scale": 1.0}, "octave_scale"),
        ({"steps": 0}, "steps = 0"),
        ({"step_size": 0.0}, "step_size"),
        ({"jitter_px": -1}, "jitter_px = -1"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_options_name_option_and_value(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        build(**options)
