"""Photographs of any size through generators: bands are exact, memory is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nst.cyclegan.method import CycleGAN, generator_file
from nst.cyclegan.networks import build_generator
from nst.errors import OptionError
from nst.gan.bands import BandedNetwork, Bands, apply_bounded
from nst.gan.layers import initialize
from nst.modulated.method import Modulated
from nst.stylizer import Stylized
from tests.nst.test_cyclegan import CPU, small
from tests.nst.test_modulated_method import made
from tests.nst.test_modulated_networks import generator as modulated
from tests.nst.test_style_transfer import pictures

TALL, WIDE = (72, 28), (24, 84)
LEAST, MUCH = 1, 10**9
"""Bytes: bands as small as can be and all activations in files; one band, and all in memory."""


def of_cyclegan(name: str = "resnet_6blocks", **options: Any) -> nn.Module:
    network = build_generator(name, **{"channels": 2, **options})
    initialize(network, "xavier", gain=1.0, generator=torch.Generator().manual_seed(0))
    for key, buffer in network.named_buffers():
        if "running_var" in key:
            buffer.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    return network.double().eval()


def image(size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    (picture,) = pictures(size, dtype=dtype)
    return 2 * picture[None] - 1


def differs(network: Any, x: Tensor, *more: Tensor, memory: int) -> float:
    with torch.no_grad():
        expected = network(x, *more)
        found = network.in_bands(Bands(x, memory, network.pixel_bytes), x, *more)
    assert found.shape == expected.shape
    assert float(expected.std()) > 0.01
    return float((found - expected).abs().max())


@pytest.mark.parametrize("memory", [LEAST, 50_000, MUCH])
@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upsample": "blur", "padding": "replicate"},
        {"padding": "zero", "dropout": True},
        {"norm": "batch"},
        {"norm": "none"},
    ],
    ids=str,
)
def test_a_resnet_in_bands_is_the_whole(options: dict[str, Any], size: tuple[int, int], memory: int) -> None:
    assert differs(of_cyclegan(**options), image(size), memory=memory) < 1e-11


@pytest.mark.parametrize("size", [(256, 128), (128, 384)], ids=["tall", "wide"])
@pytest.mark.parametrize("options", [{}, {"norm": "batch", "dropout": True}], ids=str)
def test_a_unet_in_bands_is_the_whole(options: dict[str, Any], size: tuple[int, int]) -> None:
    network = of_cyclegan("unet_128", **options)
    for memory in (LEAST, 200_000):
        assert differs(network, image(size), memory=memory) < 1e-11


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize(
    "options", [{}, {"norm": "batch", "padding": "zero"}, {"norm": "none", "form": "grouped"}], ids=str
)
def test_many_styles_in_bands_are_the_whole(options: dict[str, Any], size: tuple[int, int]) -> None:
    network = modulated(**options).double().eval()
    latents = torch.randn(1, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for memory in (LEAST, 100_000):
        assert differs(network, image(size), latents, memory=memory) < 1e-11


def test_float32_with_winograds_convolutions_is_as_near() -> None:
    """32 channels are 128 in the blocks."""
    network = of_cyclegan(channels=32).float()
    assert differs(network, image((96, 64), torch.float32), memory=LEAST) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_exact_however_many_positions_and_far_from_zero_they_are_of(dtype: torch.dtype) -> None:
    """A sum in float32 of so many is off by 1e-5; a mean in bfloat16, by 1e-3."""
    draws = torch.Generator().manual_seed(0)
    x = 30 + torch.rand(1, 2, 640, 410, generator=draws).to(dtype, memory_format=torch.channels_last)
    bands = Bands(x, MUCH, 1)
    mean, variance = bands._moments([], [x], [(slice(0, 640), slice(0, None))])
    exact = x.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), exact.var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


def test_the_largest_activation_is_a_band_of_few_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Or lies in a file, which is gone after."""
    network = of_cyclegan().float()
    x = image((512, 32), torch.float32)
    seen: list[int] = []
    for module in network.modules():
        module.register_forward_hook(lambda _module, _inputs, out: seen.append(out.nbytes))
    network(x)
    whole = max(seen)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files: list[int] = []
    from_file = torch.from_file

    def counted(name: str, **options: Any) -> Tensor:
        files.append(os.stat(name).st_blocks * 512)
        return from_file(name, **options)

    monkeypatch.setattr(torch, "from_file", counted)
    for memory, spilled in ((whole, 1), (LEAST, 3)):  # the picture alone; and all
        seen.clear()
        files.clear()
        network.in_bands(Bands(x, memory, network.pixel_bytes), x)  # type: ignore[operator]
        assert max(seen) <= whole / 8
        assert len(files) == spilled
    assert min(files) >= 4 * 8 * 128 * 8, "room is taken at once, so that a full disk is an error"
    assert not list(tmp_path.iterdir())


def test_images_share_a_pass_as_far_as_memory_allows() -> None:
    passes = []

    class Network:
        pixel_bytes, mirrored = 1000, 0

        def __call__(self, x: Tensor, *more: Tensor) -> Tensor:
            passes.append((len(x), *more[0].flatten().tolist()))
            return x

        def in_bands(self, bands: Bands, x: Tensor, more: Tensor) -> Tensor:  # noqa: ARG002
            passes.append(f"bands {float(more)}")
            return x

    network: BandedNetwork = Network()
    x, more = torch.zeros(2, 3, 40, 25), torch.tensor([[5.0], [6.0]])
    for memory_mb in (None, 2, 1):
        assert apply_bounded(network, x, more, memory_mb=memory_mb).shape == x.shape
    assert passes == [(2, 5, 6), (2, 5, 6), (1, 5), (1, 6)]
    passes.clear()
    apply_bounded(network, torch.zeros(2, 3, 40, 26), more, memory_mb=1)
    assert passes == ["bands 5.0", "bands 6.0"]


def test_it_is_an_option_of_both_methods() -> None:
    """Small photographs come out as without it, to the byte; large ones nearly."""
    network, config = small()
    data = generator_file({"A2B": network}, config)
    methods = [
        (partial(CycleGAN, weights="g"), data),
        (partial(Modulated, generator="g", style="pastel"), made()[1]),
    ]
    photos = pictures((61, 90), (290, 83))
    for method, file in methods:
        both = [
            method(pass_memory_mb=memory).build({"g": file}, CPU)(photos, [torch.Generator()] * 2)
            for memory in (None, 1)
        ]
        for index, (one, other) in enumerate(zip(*both, strict=True)):
            assert isinstance(one, Stylized)
            assert isinstance(other, Stylized)
            assert torch.equal(one.image, other.image) == (index == 0)
            torch.testing.assert_close(one.image, other.image, rtol=0, atol=1e-4)
            assert other.image.is_contiguous()
        with pytest.raises(OptionError, match=r"pass_memory_mb = 0: .* at least 1"):
            method(pass_memory_mb=0)


_LARGE = """
import resource, time, torch
from nst.cyclegan.method import CycleGAN, GeneratorConfig, generator_file
from nst.gan.layers import initialize
from nst.images.codec import resize_image
torch.set_num_threads(2)
config = GeneratorConfig()
network = config.build()
initialize(network, generator=torch.Generator().manual_seed(0))
data = generator_file({"A2B": network}, config)
del network
stylizer = CycleGAN(weights="w", pass_memory_mb=2000).build({"w": data}, torch.device("cpu"))
photo = resize_image(torch.rand(3, 64, 64), (3000, 4000))
began = time.perf_counter()
(outcome,) = stylizer([photo], [torch.Generator()])
assert outcome.image.shape == (3, 3000, 4000), outcome
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_photograph_of_4000_x_3000_takes_less_than_3_gigabytes() -> None:
    """Of the whole process, through the default generator; in one pass it takes 11.6."""
    run = subprocess.run([sys.executable, "-c", _LARGE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print("{} s, {} GB".format(*run.stdout.split()))
    assert float(run.stdout.split()[1]) < 3
