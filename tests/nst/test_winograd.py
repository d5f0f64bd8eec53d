"""Winograd's convolution is torch's, but for rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nst.cyclegan.networks import build_generator
from nst.ops import conv3x3


def problem(
    count: int, inputs: int, outputs: int, size: tuple[int, int], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, inputs, size[0] + 2, size[1] + 2, generator=generator, dtype=dtype)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator, dtype=dtype)
    bias = torch.randn(outputs, generator=generator, dtype=dtype)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (1, 1), (5, 6), (7, 3), (68, 68)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_equals_torch(size: tuple[int, int], layout: torch.memory_format) -> None:
    """Output and gradients; several bands of tiles, and sides that are no multiple of four."""
    x, weight, bias = problem(2, 3, 5, size)
    expected = F.conv2d(x, weight, bias)
    out = conv3x3(x.contiguous(memory_format=layout), weight, bias)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
    assert out.is_contiguous(memory_format=torch.channels_last)
    given = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, weight, bias), given)
    found = torch.autograd.grad(out, (x, weight, bias), given)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_without_bias_and_of_some_inputs_only() -> None:
    x, weight, _ = problem(1, 2, 2, (4, 4))
    (found,) = torch.autograd.grad(conv3x3(x, weight.detach()).square().sum(), x)
    (wanted,) = torch.autograd.grad(F.conv2d(x, weight.detach()).square().sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    (found,) = torch.autograd.grad(conv3x3(x.detach(), weight).square().sum(), weight)
    (wanted,) = torch.autograd.grad(F.conv2d(x.detach(), weight).square().sum(), weight)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_is_differentiable_twice() -> None:
    arguments = problem(1, 2, 2, (3, 5))
    assert torch.autograd.gradcheck(conv3x3, arguments)
    assert torch.autograd.gradgradcheck(conv3x3, arguments)


def test_rounds_little() -> None:
    """In float32, of as many channels as published generators have; torch: 9e-7."""
    x, weight, bias = (each.detach() for each in problem(1, 256, 256, (16, 16), torch.float32))
    exact = F.conv2d(x.double(), weight.double(), bias.double())
    assert float((conv3x3(x, weight, bias) - exact).norm() / exact.norm()) < 2e-6


def test_an_image_does_not_depend_on_the_others() -> None:
    x, weight, bias = problem(3, 64, 64, (20, 24), torch.float32)
    alone = torch.cat([conv3x3(each, weight, bias) for each in x.split(1)])
    assert torch.equal(conv3x3(x, weight, bias), alone)


def test_its_output_may_be_changed_in_place() -> None:
    x, weight, bias = problem(1, 2, 2, (4, 5))
    found = torch.autograd.grad(F.relu(conv3x3(x, weight, bias), inplace=True).sum(), x)
    wanted = torch.autograd.grad(F.relu(F.conv2d(x, weight, bias)).sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_generators_use_it(padding: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, with as many channels as it pays for; and give what they gave."""
    network = build_generator("resnet_6blocks", norm=norm, padding=padding, channels=32)  # type: ignore[arg-type]
    x = torch.randn(1, 3, 24, 20, generator=torch.Generator().manual_seed(1))
    calls = []

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return conv3x3(*arguments)

    monkeypatch.setattr("nst.gan.layers.conv3x3", counted)
    out = network(x)
    assert len(calls) == 12
    torch.testing.assert_close(out.double(), network.double()(x.double()), rtol=0, atol=2e-5)
    assert len(calls) == 12
    narrow = build_generator("resnet_6blocks", channels=8)
    narrow(x)
    assert len(calls) == 12
