"""DeepDream as the published notebook has it (Mordvintsev et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["deepdream", "jitter_shifts"]


def jitter_shifts(seed: int, count: int, most: int = 32) -> list[tuple[int, int]]:
    """How far the picture is rolled down and right, in pixels, before each of `count` steps."""
    stream = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(-most, most + 1, (2,), generator=stream).tolist() for _ in range(count)]
    return [(down, right) for down, right in drawn]


def deepdream(
    energy: Callable[[Tensor], Tensor],
    photo: Tensor,
    shifts: list[tuple[int, int]],
    *,
    octaves: int,
    octave_scale: float,
    steps: int,
    step_size: float,
    gradient: Callable[[Tensor, Tensor], Tensor] = lambda loss, x: torch.autograd.grad(loss, x)[0],
) -> Tensor:
    """Mordvintsev et al. 2015, the published notebook: octave loop, detail, jitter, normalized step, clip."""
    shifts = list(shifts)

    def zoom(image: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False, antialias=True)

    bases = [photo]
    for _ in range(octaves - 1):
        h, w = bases[-1].shape[-2:]
        bases.append(zoom(bases[-1], round(h / octave_scale), round(w / octave_scale)))
    detail = torch.zeros_like(bases[-1])
    source = bases[-1]
    for number, base in enumerate(reversed(bases)):
        if number > 0:
            detail = zoom(detail, *base.shape[-2:])
        source = (base + detail).clamp(0, 1)
        for _ in range(steps):
            down, right = shifts.pop(0)
            source = torch.roll(torch.roll(source, down, -2), right, -1).requires_grad_()
            g = gradient(energy(source), source)
            source = (source + step_size / g.abs().mean() * g).detach()
            source = source.clamp(0, 1)
            source = torch.roll(torch.roll(source, -right, -1), -down, -2)
        detail = source - base
    return source
