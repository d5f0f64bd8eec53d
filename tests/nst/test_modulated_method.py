"""A generator for many styles as a method: its file, styles, blends, and photographs of any size."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.cyclegan.method import CycleGAN, GeneratorConfig, generator_file
from nst.cyclegan.training import CycleGANOptions, CycleGANTraining
from nst.errors import OptionError, UnknownStyle, WeightsError
from nst.gan.layers import initialize
from nst.gan.sampling import style_pair, style_turns
from nst.methods import METHODS
from nst.modulated.method import Modulated, ModulatedConfig, ModulatedStylizer, modulated_file
from nst.modulated.networks import ModulatedGenerator, check_styles
from nst.ops.equalized import draw_parameters
from nst.stylizer import Outcome, StyledMethod, StyledStylizer, Stylized
from tests.nst.test_style_transfer import pictures

CPU = torch.device("cpu")
STYLES = ("photo", "ukiyo-e", "pastel")
SMALL = ModulatedConfig(styles=STYLES, channels=4, blocks=1, latent=4)


def made(config: ModulatedConfig = SMALL) -> tuple[ModulatedGenerator, bytes]:
    network = config.build()
    draw_parameters(network, torch.Generator().manual_seed(0))
    return network.eval(), modulated_file(network, config)


def stylizer(style: str | dict[str, float] = "ukiyo-e", **options: Any) -> ModulatedStylizer:
    return Modulated(generator="g", style=style, **options).build({"g": made()[1]}, CPU)


def images_of(outcomes: Sequence[Outcome]) -> list[Tensor]:
    found = []
    for outcome in outcomes:
        assert isinstance(outcome, Stylized), outcome
        found.append(outcome.image)
    return found


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator() for _ in range(count)]


def test_it_is_a_method_whose_photographs_may_have_styles() -> None:
    assert METHODS["modulated"] is Modulated
    assert isinstance(Modulated(generator="g", style="x"), StyledMethod)
    assert isinstance(stylizer(), StyledStylizer)
    assert not isinstance(CycleGAN(weights="w"), StyledMethod)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_photographs_of_any_size_are_mirrored_to_what_the_generator_needs(norm: Any) -> None:
    network, data = made(dataclasses.replace(SMALL, norm=norm))
    it = Modulated(generator="g", style="pastel").build({"g": data}, CPU)
    photos = pictures((37, 50), (1, 1), (3, 130), (40, 52))
    for photo, image in zip(photos, images_of(it(photos, generators(4))), strict=True):
        assert image.shape == photo.shape
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        height, width = photo.shape[1:]
        if min(height, width) > 8:
            padded = F.pad(photo[None], (0, -width % 4, 0, -height % 4), mode="reflect")
            expected = (network(2 * padded - 1, torch.tensor([2]))[0, :, :height, :width] + 1) / 2
            torch.testing.assert_close(image, expected.detach(), rtol=0, atol=1e-6)


def test_photographs_of_a_batch_have_styles_of_their_own() -> None:
    it, photos = stylizer("ukiyo-e"), pictures((24, 32), (24, 32), (24, 32))
    together = it(photos, generators(3), ["pastel", None, "photo"])
    for photo, style, outcome in zip(photos, ("pastel", "ukiyo-e", "photo"), together, strict=True):
        assert isinstance(outcome, Stylized)
        assert dict(outcome.stats) == {f"style:{style}": 1.0}
        (alone,) = images_of(stylizer(style)([photo], generators(1)))
        assert torch.equal(outcome.image, alone)
    one, other, _ = images_of(it([photos[0]] * 3, generators(3), ["pastel", None, "photo"]))
    assert float((one - other).abs().mean()) > 1e-3
    with pytest.raises(ValueError, match="2 styles for 3 images"):
        it(photos, generators(3), ["photo", "photo"])


def test_a_blend_is_the_latent_between_by_normalized_weights() -> None:
    network, _ = made()
    (photo,) = pictures((24, 32))
    (outcome,) = stylizer({"ukiyo-e": 7, "pastel": 3})([photo], generators(1))
    assert isinstance(outcome, Stylized)
    assert dict(outcome.stats) == {"style:ukiyo-e": 0.7, "style:pastel": 0.3}
    latents = network.latents(torch.tensor([1, 2]))
    expected = network(2 * photo[None] - 1, 0.7 * latents[:1] + 0.3 * latents[1:])
    torch.testing.assert_close(outcome.image[None], (expected.detach() + 1) / 2, rtol=0, atol=1e-6)
    (same,) = images_of(stylizer({"ukiyo-e": 0.7, "pastel": 0.3, "photo": 0.0})([photo], generators(1)))
    torch.testing.assert_close(same, outcome.image, rtol=0, atol=1e-6)


def test_an_unknown_style_is_its_photographs_error_and_no_other() -> None:
    photos = pictures((24, 32), (16, 16))
    bad, fine = stylizer()(photos, generators(2), ["pastell", "pastel"])
    assert isinstance(bad, UnknownStyle)
    assert str(bad) == (
        "style = 'pastell': not one of the choices (did you mean 'pastel'?). Choices: photo, ukiyo-e, pastel"
    )
    assert isinstance(fine, Stylized)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_no_byte_depends_on_the_batch(count: int) -> None:
    photos = pictures((24, 32), (40, 20), (24, 32), (24, 32), (9, 11), (24, 32), (40, 20))[:count]
    styles = [None, "photo", "pastel", "ukiyo-e", "pastel", "photo", None][:count]
    it = stylizer({"photo": 1, "pastel": 1}, deterministic=False)
    passes = []
    it.network.register_forward_hook(lambda _module, inputs, _output: passes.append(len(inputs[0])))
    together = images_of(it(photos, generators(count), styles))
    assert passes == [1] * count, (
        "on a CPU each has a pass of its own: its convolutions round by the batch's size"
    )
    for photo, style, image in zip(photos, styles, together, strict=True):
        (alone,) = images_of(it([photo], generators(1), [style]))
        assert torch.equal(alone, image)


def test_photographs_share_passes_only_if_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device where they could."""
    import nst.modulated.method as module

    def as_on_a_gpu(images: Sequence[Tensor], *, alone: bool) -> list[list[int]]:
        groups: dict[object, list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(index if alone else image.shape, []).append(index)
        return list(groups.values())

    monkeypatch.setattr(module, "by_shape", as_on_a_gpu)
    photos, styles = pictures((24, 32), (16, 16), (24, 32)), ["pastel", "nothing", "photo"]
    for deterministic, expected in ((True, [1, 1]), (False, [2])):
        it, passes = stylizer(deterministic=deterministic), []
        translate = it.translate

        def counting(
            images: Tensor, latents: Tensor, passes: list[int] = passes, do: Any = translate
        ) -> Tensor:
            passes.append(len(images))
            found: Tensor = do(images, latents)
            return found

        monkeypatch.setattr(it, "translate", counting)
        first, second, third = it(photos, generators(3), styles)
        assert passes == expected
        assert isinstance(second, UnknownStyle)
        for outcome, photo, style in ((first, photos[0], "pastel"), (third, photos[2], "photo")):
            (alone,) = images_of(stylizer(style)([photo], generators(1)))
            torch.testing.assert_close(images_of([outcome])[0], alone, rtol=0, atol=1e-5)


def test_a_file_says_what_it_is() -> None:
    config = dataclasses.replace(SMALL, mapping_layers=1, pixel_norm=False, padding="zero", form="grouped")
    network, data = made(config)
    assert data == modulated_file(network, config)
    built = Modulated(generator="g", style="photo").build({"g": data}, CPU).network
    assert built.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(built.state_dict()[name], tensor) for name, tensor in network.state_dict().items())
    assert built.ups[0].form == "grouped"


def test_files_that_are_none_say_so() -> None:
    other = GeneratorConfig(generator="resnet_6blocks", channels=2)
    data = generator_file({"A2B": other.build()}, other)
    method = Modulated(generator="g.safetensors", style="photo")
    with pytest.raises(WeightsError, match=r'g.safetensors is no generator for many styles.*kind = "cyclegan"'):
        method.check_style({"g.safetensors": data})
    network, _ = made()
    said = dataclasses.asdict(SMALL)
    for changes, reason in (
        ({"channels": "4"}, "channels = '4' is of another type"),
        ({"channels": 0}, "channels = 0"),
        ({"styles": "photo"}, "styles = 'photo' is of another type"),
        ({"styles": ["photo", 3]}, "of another type"),
        ({"styles": ["photo"]}, "at least two"),
        ({"form": "square"}, "form = 'square'"),
    ):
        text = json.dumps({**said, **changes})
        bad = safetensors.torch.save(network.state_dict(), metadata={"nst.modulated": text})
        with pytest.raises(WeightsError, match=f"the configuration in g.safetensors is not one.*{reason}"):
            method.build({"g.safetensors": bad}, CPU)
    for text in ("no json", "[1]", "{}"):
        bad = safetensors.torch.save(network.state_dict(), metadata={"nst.modulated": text})
        with pytest.raises(WeightsError, match=r"the configuration in g.safetensors"):
            method.build({"g.safetensors": bad}, CPU)
    text = json.dumps({**said, "channels": 5, "invented_later": 1})
    bad = safetensors.torch.save(network.state_dict(), metadata={"nst.modulated": text})
    with pytest.raises(WeightsError, match=r"does not fit: encoder\S+ is"):
        method.build({"g.safetensors": bad}, CPU)


@pytest.mark.parametrize("style", ["pastell", {"photo": 1.0, "pastell": 1.0}], ids=str)
def test_an_unknown_style_of_the_job_is_refused_from_the_files_header(style: Any) -> None:
    with pytest.raises(
        OptionError, match=r"style = .*pastell.*: unknown style 'pastell'.*photo, ukiyo-e, pastel"
    ):
        Modulated(generator="g", style=style).check_style({"g": made()[1]})


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("", "style = ''"),
        ({}, "style = {}"),
        ({"photo": 0.0}, "the sum of its weights must be above 0"),
        ({"photo": -1.0, "pastel": 2.0}, "style.photo = -1.0"),
        ({"photo": float("nan")}, "style.photo = nan"),
        ({"photo": 1e308, "pastel": 1e308}, "and finite"),
    ],
    ids=str,
)
def test_bad_styles_are_refused(style: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Modulated(generator="g", style=style)


def test_names_that_would_mix_up_directions_are_refused() -> None:
    with pytest.raises(OptionError, match="'a_to_b' has `_to_` in it"):
        check_styles(["a_to_b", "c"])


@pytest.mark.parametrize("styles", [2, 3, 5])
def test_turns_count_how_often_a_style_came(styles: int) -> None:
    seen: list[tuple[int, int]] = []
    for sample in range(4 * styles * (styles - 1)):
        source, target = style_pair(sample, styles, 3)
        assert style_turns(sample, styles, 3) == (
            sum(a == source for a, _ in seen),
            sum(b == target for _, b in seen),
        )
        seen.append((source, target))


# The other way up, of CycleGAN's own generator


def test_blurred_upsampling_is_trained_and_handed_over() -> None:
    options = CycleGANOptions(generator="resnet_6blocks", generator_channels=2, upsample="blur")
    training = CycleGANTraining(options)
    config = GeneratorConfig(generator="resnet_6blocks", channels=2, upsample="blur")
    data = generator_file({"A2B": training.G_A}, config)
    assert b"upsample" in data
    (photo,) = pictures((24, 32))
    (image,) = images_of(CycleGAN(weights="w").build({"w": data}, CPU)([photo], generators(1)))
    expected = (training.G_A.eval()(2 * photo[None] - 1).detach() + 1) / 2
    torch.testing.assert_close(image[None], expected)
    plain = CycleGANTraining(dataclasses.replace(options, upsample="transposed")).G_A
    assert not any(type(module).__name__ == "BlurredUp" for module in plain.modules())
    assert any(type(module).__name__ == "BlurredUp" for module in training.G_A.modules())


def test_the_default_writes_what_it_always_did() -> None:
    config = GeneratorConfig(generator="resnet_6blocks", channels=2)
    network: nn.Module = config.build()
    initialize(network, generator=torch.Generator().manual_seed(0))
    data = generator_file({"A2B": network}, config)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    said = json.loads(header["__metadata__"]["nst.cyclegan"])
    assert said.keys() == {"generator", "norm", "channels", "padding", "dropout"}


def test_only_resnets_have_another_way_up() -> None:
    with pytest.raises(OptionError, match=r"upsample = 'blur'.*transposed"):
        CycleGANOptions(generator="unet_128", upsample="blur")
    with pytest.raises(OptionError, match=r"upsample = 'zoom'.*transposed, blur"):
        CycleGANOptions(upsample="zoom")  # type: ignore[arg-type]
