"""Networks that need no file: random parameters from a seed, calibrated layer by layer.

Random features carry texture (Ustyuzhaninov et al. 2016; He, Wang, Hopcroft 2016), if the first layer sees
edges and no layer drowns in its mean. Nothing here is trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["seed_parameters"]

_DERIVATIVE_SHARE = 0.75


@torch.no_grad()
def seed_parameters(body: nn.Module, seed: int) -> None:
    """Fill `body` with seeded random parameters so that every layer's activations have unit variance.

    Weights are normal (He et al. 2015), those that look at the image `_image_filters`. Then seeded pictures run
    through, and every convolution's channels are shifted and scaled to zero mean and unit variance before the
    next layer sees them (LSUV: Mishkin and Matas 2016, here by channel: without the centering a deep
    random ReLU network maps all pictures to nearly one direction). Where a batch norm follows, it takes the
    pictures' statistics instead.

    Calibration runs in float64 and is rounded to 12 bits, so that the parameters do not depend on the
    machine's order of summation.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = [module for module in body.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for module in modules:
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            weight = _image_filters(module.out_channels, module.kernel_size[0], generator)
        else:
            weight = torch.randn(module.weight.shape, generator=generator)
        module.weight.copy_(weight * math.sqrt(2.0 / module.weight[0].numel()))
        if module.bias is not None:
            module.bias.zero_()
    body.double()
    hooks = [module.register_forward_hook(_calibrate) for module in modules if module.bias is not None]
    hooks += [
        module.register_forward_pre_hook(_take_statistics)
        for module in body.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    try:
        body(_calibration_pictures(generator))
    finally:
        for hook in hooks:
            hook.remove()
        body.float()


def _image_filters(count: int, size: int, generator: torch.Generator) -> Tensor:
    """(count, 3, size, size): filters for a first layer. Three quarters are random mixtures of oriented first
    and second derivatives, each in a random color; the others are normal."""
    weight = torch.randn(count, 3, size, size, generator=generator)
    edges = round(_DERIVATIVE_SHARE * count)
    weight[:edges] = _derivative_filters(edges, size, generator)
    return weight


def _derivative_filters(count: int, size: int, generator: torch.Generator) -> Tensor:
    """(count, 3, size, size): derivatives of a Gaussian, in random mixture and color, without response to a
    constant."""
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    window = torch.exp(-1.4 * (x.square() + y.square()))
    shapes = (y, x, 0.7 * (y.square() - 0.5), 0.7 * (x.square() - 0.5), 1.05 * x * y)
    basis = torch.stack([shape * window for shape in shapes])
    basis = basis - basis.mean((1, 2), keepdim=True)
    mixture = torch.randn(count, 5, generator=generator)
    gray, tint = torch.randn(count, 1, generator=generator), torch.randn(count, 3, generator=generator)
    return torch.einsum("nc,nk,kyx->ncyx", gray + 0.7 * tint, mixture, basis)


def _calibrate(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Center and scale every channel of the output, by changing weights and bias."""
    assert isinstance(module, nn.Conv2d | nn.Linear)
    assert module.bias is not None
    axes = [0, 2, 3] if output.ndim == 4 else [0]
    mean = _rounded(output.mean(axes))
    spread = _rounded(output.var(axes, correction=0).sqrt().clamp_min(1e-6))
    module.weight.div_(spread.view(-1, *[1] * (module.weight.ndim - 1)))
    module.bias.copy_(-mean / spread)
    shape = (1, -1, 1, 1) if output.ndim == 4 else (1, -1)
    return (output - mean.view(shape)) / spread.view(shape)


def _take_statistics(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(module, nn.BatchNorm2d)
    assert module.running_mean is not None
    assert module.running_var is not None
    (features,) = inputs
    module.running_mean.copy_(_rounded(features.mean([0, 2, 3])))
    module.running_var.copy_(_rounded(features.var([0, 2, 3], correction=0)))


def _rounded(values: Tensor) -> Tensor:
    """To 12 bits of mantissa."""
    mantissa, exponent = torch.frexp(values)
    rounded: Tensor = torch.ldexp((mantissa * 4096).round() / 4096, exponent)
    return rounded


def _calibration_pictures(generator: torch.Generator, count: int = 4, side: int = 96) -> Tensor:
    """(count, 3, side, side) float64, normalized as the network sees photographs: dead leaves, which have
    their edges and scale invariance (Lee, Mumford, Huang 2001)."""
    axis = torch.arange(side, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pictures = torch.zeros(count, 3, side, side, dtype=torch.float64)
    for picture in pictures:
        for place in torch.rand(300, 6, generator=generator).double():
            radius = 2.0 * (side / 4) ** place[2]  # from 2 pixels to half a picture
            inside = (y - place[0] * side).square() + (x - place[1] * side).square() < radius.square()
            picture[:, inside] = (0.6 * place[3] + 0.4 * place[3:])[:, None]
    pictures = pictures - pictures.mean()
    return pictures / pictures.std()
