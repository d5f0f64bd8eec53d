"""Networks that need no file: random parameters from a seed, calibrated layer by layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["seed_parameters"]


@torch.no_grad()
def seed_parameters(body: nn.Module, seed: int) -> None:
    """Fill `body` with seeded random parameters so that every layer's activations have unit variance.

    Convolutions are drawn from a normal distribution (He et al. 2015); then one seeded picture runs through,
    and each layer's weights are divided by the standard deviation of its output before the next layer sees it
    (LSUV: Mishkin and Matas 2016). Batch norms take that picture's statistics. Convolution biases center
    each channel, without which a deep random ReLU network maps all inputs to nearly one direction.

    The calibration runs in float64 and the factors are rounded to 12 bits, so that the parameters do not
    depend on the machine's order of summation.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = [module for module in body.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for module in modules:
        fan_in = module.weight[0].numel()
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * math.sqrt(2.0 / fan_in))
        if module.bias is not None:
            module.bias.zero_()
    body.double()
    hooks = [module.register_forward_hook(_calibrate) for module in modules]
    hooks += [
        module.register_forward_pre_hook(_take_statistics)
        for module in body.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    try:
        body(_calibration_picture(generator))
    finally:
        for hook in hooks:
            hook.remove()
        body.float()


def _calibrate(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    axes = [0, 2, 3] if output.ndim == 4 else [0]
    mean = _rounded(output.mean(axes)) if module.bias is not None else torch.zeros(1, dtype=output.dtype)
    shape = (1, -1, 1, 1) if output.ndim == 4 else (1, -1)
    scale = _rounded((output - mean.view(shape)).square().mean().sqrt())
    module.weight.div_(scale)
    if module.bias is not None:
        module.bias.copy_(-mean / scale)
    return (output - mean.view(shape)) / scale


def _take_statistics(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(module, nn.BatchNorm2d)
    (features,) = inputs
    assert module.running_mean is not None
    assert module.running_var is not None
    module.running_mean.copy_(_rounded(features.mean([0, 2, 3])))
    module.running_var.copy_(_rounded(features.var([0, 2, 3], correction=0)))


def _rounded(values: Tensor) -> Tensor:
    """To 12 bits of mantissa."""
    mantissa, exponent = torch.frexp(values)
    rounded: Tensor = torch.ldexp((mantissa * 4096).round() / 4096, exponent)
    return rounded


def _calibration_picture(generator: torch.Generator, side: int = 128) -> Tensor:
    """(1, 3, side, side) float64 with the 1/f spectrum of photographs, zero mean and unit variance."""
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    radius = (frequency[:, None].square() + frequency[None, :].square()).sqrt().clamp_min(1.0 / side)
    noise = torch.randn(1, 3, side, side, generator=generator).double()
    picture = torch.fft.ifft2(torch.fft.fft2(noise) / radius).real
    picture -= picture.mean()
    return picture / picture.std()
