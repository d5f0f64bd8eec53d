"""Generators in bfloat16, and of photographs of 8 bits, through both methods that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from nst.cyclegan.method import CycleGAN, CycleGANStylizer, GeneratorConfig
from nst.errors import Diverged, OptionError
from nst.modulated.method import Modulated, ModulatedConfig, ModulatedStylizer
from nst.ops.equalized import draw_parameters
from nst.stylizer import LevelsStylizer, Stylized

Make: TypeAlias = Callable[..., Any]


def cyclegan(memory_mb: int | None = None, **options: Any) -> CycleGANStylizer:
    config = GeneratorConfig(generator="resnet_6blocks", channels=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = config.build()
    return CycleGANStylizer(network, config, memory_mb, **options)


def modulated(memory_mb: int | None = None, **options: Any) -> ModulatedStylizer:
    network = ModulatedConfig(styles=("photo", "ink"), channels=8, latent=8, blocks=2).build()
    draw_parameters(network, torch.Generator().manual_seed(0))
    return ModulatedStylizer(network, {"ink": 1.0}, alone=True, pass_memory_mb=memory_mb, **options)


both = pytest.mark.parametrize("make", [cyclegan, modulated])


def photo(height: int = 53, width: int = 70) -> Tensor:
    """uint8 (3, height, width)."""
    small = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    whole = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic")[0]
    return (255 * whole.clamp(0, 1)).to(torch.uint8)


def painted(stylizer: Any, image: Tensor) -> Tensor:
    (found,) = stylizer([image], [torch.Generator()])
    assert isinstance(found, Stylized)
    return found.image


@both
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_of_levels_they_make_the_levels_of_their_picture(make: Make, precision: str) -> None:
    stylizer, levels = make(precision=precision), photo()
    assert isinstance(stylizer, LevelsStylizer)
    whole, found = painted(stylizer, levels / 255), painted(stylizer, levels)
    assert (whole.dtype, found.dtype) == (torch.float32, torch.uint8)
    assert torch.equal(found, (255 * whole).round().to(torch.uint8))


@both
@pytest.mark.parametrize("memory_mb", [None, 1])
def test_in_bfloat16_they_make_about_the_same(make: Make, memory_mb: int | None) -> None:
    """In bands, too, whose statistics are float32. Values are as many as those of float32: they are not rounded
    to 8 bits of precision at the end."""
    levels = photo(53, 300)
    found, wanted = (painted(make(memory_mb, precision=each), levels / 255) for each in ("bfloat16", "float32"))
    assert float(wanted.std()) > 0.01
    assert 5e-4 < float((found - wanted).abs().mean()) < 0.005
    assert float((found - wanted).abs().max()) < 0.1


@both
def test_what_is_not_finite_is_an_error_of_levels_too(make: Make) -> None:
    stylizer = make()
    for each in stylizer.network.parameters():
        each.fill_(torch.nan)
    (found,) = stylizer([photo()], [torch.Generator()])
    assert isinstance(found, Diverged)


def test_it_is_an_option_of_both_methods() -> None:
    for method in (CycleGAN(weights="w"), Modulated(generator="g", style="ink")):
        assert method.precision == "float32"
    for make in (
        lambda: CycleGAN(weights="w", precision="half"),
        lambda: Modulated(generator="g", style="i", precision="half"),
    ):  # type: ignore[arg-type]
        with pytest.raises(OptionError, match=r"precision = 'half'.*float32, bfloat16"):
            make()
