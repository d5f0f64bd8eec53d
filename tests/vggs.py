"""A VGG as if trained in Caffe, for tests: random but for the colors that its first filters answer."""

from __future__ import annotations

import torch
from torch import Tensor

from nst.features.conventions import _RED_OVER_BLUE

__all__ = ["caffe_vgg", "rescaled"]


def caffe_vgg(seed: int = 0) -> dict[str, Tensor]:
    """A state dict of VGG16 or VGG19 up to conv2_1, taking BGR in 0..255."""
    generator = torch.Generator().manual_seed(seed)
    # A unit filter is as much of (1, ..., 0, ..., -1, ...) as it answers red more than blue, and noise.
    color = torch.tensor([1.0, 0.0, -1.0]).repeat_interleave(9) / 18**0.5
    share = torch.tensor(_RED_OVER_BLUE)[:, None] / 10 / 18**0.5
    noise = torch.randn(64, 27, generator=generator)
    noise = torch.nn.functional.normalize(noise - (noise @ color)[:, None] * color)
    rgb = (share * color + (1 - share.square()).sqrt() * noise).view(64, 3, 3, 3)
    return {
        "features.0.weight": rgb.flip(1),
        "features.0.bias": torch.randn(64, generator=generator) / 2,
        "features.2.weight": torch.randn(64, 64, 3, 3, generator=generator) / 24,
        "features.2.bias": torch.randn(64, generator=generator) / 5,
        "features.5.weight": torch.randn(128, 64, 3, 3, generator=generator) / 24,
        "features.5.bias": torch.randn(128, generator=generator) / 5,
    }


def rescaled(state: dict[str, Tensor], factors: tuple[float, ...] = (0.003, 40.0, 0.2)) -> dict[str, Tensor]:
    """The same function but for scale: each layer times one of `factors`, in turn."""
    found, total = {}, 1.0
    indices = sorted({int(name.split(".")[1]) for name in state if name.startswith("features.")})
    for number, index in enumerate(indices):
        factor = factors[number % len(factors)]
        total *= factor
        found[f"features.{index}.weight"] = state[f"features.{index}.weight"] * factor
        found[f"features.{index}.bias"] = state[f"features.{index}.bias"] * total
    return found
