"""One generator for many styles, its discriminator, and the ResNet generator's other way up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, export

from nst.cyclegan.networks import build_generator
from nst.errors import OptionError, WeightsError
from nst.gan.layers import Norm, initialize, load_published
from nst.gan.losses import gradient_penalty
from nst.modulated.networks import ModulatedGenerator, StyleDiscriminator
from nst.ops.equalized import draw_parameters
from nst.ops.modulated import Form

STYLES = ("photo", "ukiyo-e", "pastel")
FORMS = get_args(Form)


def generator(**changes: Any) -> ModulatedGenerator:
    own = ModulatedGenerator(STYLES, **{"channels": 4, "blocks": 2, "latent": 6, **changes})
    draw_parameters(own, torch.Generator().manual_seed(1))
    return own


def discriminator(**changes: Any) -> StyleDiscriminator:
    own = StyleDiscriminator(len(STYLES), **{"channels": 4, "layers": 2, **changes})
    draw_parameters(own, torch.Generator().manual_seed(2))
    return own


def images(count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, 3, 16, 20, generator=torch.Generator().manual_seed(3)).to(dtype) * 2 - 1


def indices(count: int = 2) -> Tensor:
    return torch.arange(1, count + 1) % len(STYLES)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norm", get_args(Norm))
def test_the_generator_gives_pictures_of_the_same_size(form: Form, norm: Norm) -> None:
    own = generator(form=form, norm=norm)
    out = own(images(), indices())
    assert out.shape == (2, 3, 16, 20)
    assert out.abs().max() <= 1
    with torch.no_grad():
        other = own(images(), indices().flip(0))
        assert float((other - out).std() / out.std()) > 0.3


def test_both_forms_are_one_generator() -> None:
    grouped, scaled = (generator(form=form).double() for form in FORMS)
    x = images(dtype=torch.float64)
    torch.testing.assert_close(grouped(x, indices()), scaled(x, indices()), rtol=0, atol=1e-12)


def test_a_style_is_its_latent() -> None:
    own = generator().double()
    x = images(3, torch.float64)
    latents = own.latents(indices(3))
    assert latents.shape == (3, 6)
    torch.testing.assert_close(own(x, latents), own(x, indices(3)), rtol=0, atol=0)
    alike = own(x, torch.full((3,), 2))
    torch.testing.assert_close(own(x, own.latents(torch.tensor([2]))), alike, rtol=0, atol=1e-13)


def test_styles_are_blended_after_the_mapping() -> None:
    own = generator()
    of = own.latents(torch.arange(3))
    expected = 0.7 * of[1] + 0.3 * of[2]
    torch.testing.assert_close(own.blend({"ukiyo-e": 0.7, "pastel": 0.3})[0], expected)
    torch.testing.assert_close(own.blend({"ukiyo-e": 7, "pastel": 3})[0], expected)
    torch.testing.assert_close(own.blend({"pastel": 2})[0], of[2])
    before = own.mapping(0.7 * own.embedding.weight[1:2] + 0.3 * own.embedding.weight[2:])
    assert not torch.allclose(before[0], expected, atol=1e-3)
    assert own(images(), own.blend({"photo": 0, "pastel": 1})).shape == (2, 3, 16, 20)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"oil": 1}, r"styles\.oil = 1: unknown style.*photo, ukiyo-e, pastel"),
        ({"pastel": -1, "photo": 2}, r"styles\.pastel = -1"),
        ({"pastel": float("nan")}, r"styles\.pastel = nan"),
        ({"pastel": 0}, "the sum of the styles' weights = 0"),
        ({}, "the sum of the styles' weights = 0"),
    ],
    ids=str,
)
def test_a_blend_that_is_none_is_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        generator().blend(weights)


@pytest.mark.parametrize(
    "style",
    [
        torch.tensor([0]),
        torch.tensor([0, 1, 2]),
        torch.tensor([0, 3]),
        torch.tensor([-1, 0]),
        torch.tensor([[0, 1]]),
        torch.tensor([True, False]),
        torch.zeros(3, 6),
        torch.zeros(2, 5),
    ],
    ids=lambda style: str(style.tolist()),
)
def test_styles_that_are_none_are_refused(style: Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        generator()(images(), style)
    with pytest.raises(ValueError, match="expected"):
        discriminator()(images(), style)


def test_the_discriminator_picks_the_styles_map() -> None:
    own = discriminator()
    with torch.no_grad():
        maps = own.model(images(3))
        found = own(images(3), torch.tensor([2, 0, 1]))
    assert maps.shape == (3, 3, 4, 5)
    assert found.shape == (3, 1, 4, 5)
    assert torch.equal(found[:, 0], torch.stack([maps[0, 2], maps[1, 0], maps[2, 1]]))


def test_the_discriminator_blurs_before_each_stride() -> None:
    """A picture of the finest pattern there is has no part in what is kept."""
    pattern = torch.ones(1, 3, 16, 16)
    pattern[..., ::2] = -1
    gray = torch.zeros_like(pattern)
    at = torch.tensor([0])
    inner = (..., slice(1, -1), slice(1, -1))
    with_blur, without = discriminator(), discriminator(blur=False)
    assert torch.allclose(with_blur(pattern, at)[inner], with_blur(gray, at)[inner], atol=1e-5)
    assert not torch.allclose(without(pattern, at)[inner], without(gray, at)[inner], atol=1e-2)


def test_a_penalty_reaches_every_parameter_and_is_differentiable() -> None:
    own = discriminator().double()
    x = images(2, torch.float64)

    def penalty() -> Tensor:
        return gradient_penalty(lambda seen: own(seen, indices()), x, "r1")

    value = penalty()
    value.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in own.parameters())
    weight = next(own.parameters())
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert weight.grad is not None
    slope, step = float((weight.grad * direction).sum()), 1e-6
    with torch.no_grad():
        weight.add_(direction, alpha=step)
    rise = float(penalty().detach() - value.detach()) / step
    assert abs(rise - slope) < 1e-3 * abs(slope)


MADE: dict[str, Callable[[], nn.Module]] = {
    "grouped": lambda: generator(form="grouped"),
    "scaled": generator,
    "zero padding": lambda: generator(padding="zero", norm="none"),
    "discriminator": discriminator,
    "discriminator with norm": lambda: discriminator(norm="instance"),
}


@pytest.mark.parametrize("name", MADE)
def test_channels_last_gives_the_same(name: str) -> None:
    own = MADE[name]()
    expected = own(images(), indices())
    expected.square().mean().backward()
    twin = copy.deepcopy(own).to(memory_format=torch.channels_last)
    twin.zero_grad()
    found = twin(images().contiguous(memory_format=torch.channels_last), indices())
    found.square().mean().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    for mine, theirs in zip(twin.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", MADE)
def test_bfloat16_trains_float32_parameters(name: str) -> None:
    own = MADE[name]()
    expected = own(images(), indices())
    with torch.autocast("cpu", torch.bfloat16):
        found = own(images(), indices())
    found.float().square().mean().backward()
    assert found.dtype == torch.bfloat16
    assert float((found - expected).detach().norm() / expected.detach().norm()) < 0.1
    for key, parameter in own.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.dtype == torch.float32, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "scaled" else [pytest.mark.slow]) for name in MADE]
)
def test_exported_once_runs_batches_of_1_to_64(name: str) -> None:
    batch = Dim("batch", min=1, max=64)
    own = MADE[name]()
    program = export(own, (images(3), indices(3)), dynamic_shapes=({0: batch}, {0: batch})).module()
    for count in (1, 2, 5, 64):
        x = images(count)
        torch.testing.assert_close(program(x, indices(count)), own(x, indices(count)), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_blend_is_exported_with_any_batch() -> None:
    batch = Dim("batch", min=1, max=64)
    own = generator().requires_grad_(False)
    latents = own.blend({"ukiyo-e": 1, "pastel": 1})
    program = export(own, (images(3), latents), dynamic_shapes=({0: batch}, None)).module()
    for count in (1, 64):
        torch.testing.assert_close(
            program(images(count), latents), own(images(count), latents), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("name", MADE)
def test_networks_that_were_used_are_copied_and_saved_without_buffers(name: str) -> None:
    own = MADE[name]()
    out = own(images(), indices())
    out.sum().backward()
    twin = copy.deepcopy(own)
    assert torch.equal(twin(images(), indices()), out)
    assert set(own.state_dict()) == {key for key, _ in own.named_parameters()}


def test_keys_are_those_that_files_have() -> None:
    found = {key: tuple(tensor.shape) for key, tensor in generator(blocks=1).state_dict().items()}
    assert found["embedding.weight"] == (3, 6)
    assert found["mapping.1.weight"] == found["mapping.3.weight"] == (6, 6)
    assert found["encoder.0.weight"] == (4, 3, 7, 7)
    assert found["encoder.4.weight"] == (8, 4, 3, 3)
    assert found["encoder.8.weight"] == (16, 8, 3, 3)
    assert found["blocks.0.first.weight"] == found["blocks.0.second.weight"] == (16, 16, 3, 3)
    assert found["blocks.0.first.affine.weight"] == (16, 6)
    assert found["ups.0.weight"] == (8, 16, 3, 3)
    assert found["ups.1.weight"] == (4, 8, 3, 3)
    assert found["to_image.weight"] == (3, 4, 1, 1)
    weights = [key for key in found if key.endswith("weight")]
    assert len(weights) == 1 + 2 + 3 + 4 + 4 + 2
    assert len(found) == 2 * len(weights) - 1  # an embedding has no bias


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ModulatedGenerator(["photo"]), r"styles = \['photo'\]: at least two"),
        (lambda: ModulatedGenerator(["photo", "photo"]), "styles.*must differ"),
        (lambda: ModulatedGenerator(["photo", ""]), "styles.*not be empty"),
        (lambda: generator(norm="layer"), "norm = 'layer'.*instance, batch, none"),
        (lambda: generator(form="joined"), "form = 'joined'.*grouped, scaled"),
        (lambda: generator(padding="replicate"), "padding = 'replicate'.*reflect, zero"),
        (lambda: generator(channels=0), "channels = 0"),
        (lambda: generator(blocks=-1), "blocks = -1"),
        (lambda: generator(latent=0), "latent = 0"),
        (lambda: generator(mapping_layers=-1), "mapping_layers = -1"),
        (lambda: discriminator(norm="layer"), "norm = 'layer'.*instance, batch, none"),
        (lambda: discriminator(layers=0), "layers = 0"),
        (
            lambda: build_generator("resnet_6blocks", upsample="nearest"),
            "upsample = 'nearest'.*transposed, blur",
        ),  # type: ignore[arg-type]
        (lambda: build_generator("unet_128", upsample="blur"), "upsample = 'blur'.*Choices: transposed"),
    ],
)
def test_bad_options_name_option_value_and_choices(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make()


# The ResNet generator


@pytest.mark.parametrize("norm", get_args(Norm))
def test_blurred_upsampling_has_the_same_keys_and_its_formula(norm: Norm) -> None:
    plain, blurred = (
        build_generator("resnet_6blocks", norm=norm, channels=4, upsample=upsample)  # type: ignore[arg-type]
        for upsample in ("transposed", "blur")
    )
    assert list(plain.state_dict()) == list(blurred.state_dict())
    for key, tensor in plain.state_dict().items():
        swapped = key in ("model.16.weight", "model.19.weight")
        shape = tensor.transpose(0, 1).shape if swapped else tensor.shape
        assert blurred.state_dict()[key].shape == shape, key
    assert blurred(images()).shape == (2, 3, 16, 20)
    with pytest.raises(WeightsError, match=r"model\.16\.weight is"):
        load_published(plain, blurred.state_dict())
    up = blurred.model[16]  # type: ignore[index, operator, union-attr]
    initialize(blurred, gain=1.0)
    x = torch.randn(1, 16, 4, 5)
    zoomed = F.pad(x.repeat_interleave(2, 2).repeat_interleave(2, 3), (1, 1, 1, 1), mode="reflect")
    y = F.conv2d(zoomed, up.weight, up.bias)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(8, 1, 3, 3) / 16
    expected = F.conv2d(F.pad(y, (1, 1, 1, 1), mode="reflect"), kernel, groups=8)
    torch.testing.assert_close(up(x), expected, rtol=1e-4, atol=1e-4)


def test_blurred_upsampling_leaves_no_checkerboard() -> None:
    """Of a constant, by a layer that was not trained: nothing, where a transposed convolution's is a good part
    of what it makes."""
    boards = {}
    for upsample in ("transposed", "blur"):
        network = build_generator("resnet_6blocks", norm="none", channels=4, upsample=upsample)  # type: ignore[arg-type]
        initialize(network, gain=1.0, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            out = network.model[16](torch.ones(1, 16, 8, 8))[..., 4:-4, 4:-4]  # type: ignore[index, operator]
        boards[upsample] = float(out.std((2, 3)).mean() / out.abs().mean())
    assert boards["blur"] < 1e-5
    assert boards["transposed"] > 0.3


def test_the_default_draws_what_it_always_did() -> None:
    own, default = (
        build_generator("resnet_6blocks", channels=2, **more) for more in ({"upsample": "transposed"}, {})
    )  # type: ignore[arg-type]
    for network in (own, default):
        initialize(network, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(own.state_dict()[key], tensor) for key, tensor in default.state_dict().items())
    assert repr(own) == repr(default)
