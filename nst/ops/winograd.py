"""Convolutions of 3 x 3 in a fourth of the multiplications: F(4 x 4, 3 x 3) of Lavin and Gray 2016, "Fast
algorithms for convolutional neural networks"."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["conv3x3"]


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.conv2d(x, weight, bias)`, but for rounding: in float32 it is off by some 1e-6 of the
    result. On CPUs it takes less time from some hundred channels on. What an image gives does not depend
    on the others. Twice differentiable.

    Args:
        x: (N, C, H + 2, W + 2), best in channels_last.
        weight: (K, C, 3, 3).
        bias: (K,)

    Returns:
        (N, K, H, W), in channels_last.
    """
    height, width = (side - 2 for side in x.shape[2:])
    more = -width % 4, -height % 4
    out: Tensor = _Winograd.apply(F.pad(x, (0, more[0], 0, more[1])) if any(more) else x, weight, bias)
    return out[:, :, :height, :width].contiguous(memory_format=torch.channels_last) if any(more) else out


class _Winograd(torch.autograd.Function):
    """Tiles of 6 x 6 give 4 x 4 each; in between is one matrix product for each of 36 places. The letters are
    the paper's: B, G and A transform tiles, kernels, and back."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """H and W are multiples of 4."""
        b, g, a = _transforms(x.dtype)
        kernels = _kernels(weight, g)
        images = x.permute(0, 2, 3, 1)
        size = len(x), len(weight), x.shape[2] - 2, x.shape[3] - 2
        out = x.new_empty(size).to(memory_format=torch.channels_last)
        made = out.permute(0, 2, 3, 1)
        for n, top, end in _bands(made):
            tiles = (b @ _tiles(images[n, top : end + 2], 6)).view(36, -1, x.shape[1])
            blocks = _blocks(made[n, top:end])
            blocks.copy_((a @ tiles.bmm(kernels.mT).view(36, -1)).view(blocks.shape))
        if bias is not None:
            made += bias
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more
            wanted = [each for each in (x, weight, bias) if each is not None and each.requires_grad]
            found = iter(torch.autograd.grad(F.conv2d(x, weight, bias), wanted, grad, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        b, g, a = _transforms(x.dtype)
        kernels = _kernels(weight, g)
        images, grads = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
        by_x = x.new_zeros(len(x), x.shape[2] + 2, x.shape[3] + 2, x.shape[1])
        by_kernels = torch.empty_like(kernels)
        for n, top, end in _bands(grads):
            given = (a.T @ _tiles(grads[n, top:end], 4)).view(36, -1, len(weight))
            if ctx.needs_input_grad[1]:
                tiles = (b @ _tiles(images[n, top : end + 2], 6)).view(36, -1, x.shape[1])
                by_kernels.baddbmm_(given.mT, tiles, beta=0 if n == top == 0 else 1)
            if ctx.needs_input_grad[0]:
                by_tiles = (b.T @ given.bmm(kernels).view(36, -1)).view(6, 6, (end - top) // 4, -1, x.shape[1])
                _add_tiles(_blocks(by_x[n, top : end + 4]), by_tiles)
        by_weight = by_bias = None
        if ctx.needs_input_grad[1]:
            by_weight = (g.T @ by_kernels.view(36, -1)).view(3, 3, *kernels.shape[1:]).permute(2, 3, 0, 1)
        if ctx.needs_input_grad[2]:
            by_bias = grad.sum((0, 2, 3))
        return by_x[:, : x.shape[2], : x.shape[3]].permute(0, 3, 1, 2), by_weight, by_bias


@functools.cache
def _transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """B, G and A of both axes, (36, 36), (36, 9) and (16, 36), by Toom and Cook's construction. The points 0,
    +-2/3, +-3/2 and infinity lose half as much to rounding as the paper's."""

    def powers(count: int) -> Tensor:
        finite = [[point**power for power in range(count)] for point in (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)]
        return torch.tensor([*finite, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)

    def for_both_axes(matrix: Tensor) -> Tensor:
        return torch.kron(matrix, matrix).to(dtype)

    return for_both_axes(powers(6).inverse().T), for_both_axes(powers(3)), for_both_axes(powers(4).T)


def _kernels(weight: Tensor, g: Tensor) -> Tensor:
    """(K, C, 3, 3) to (36, K, C)."""
    return (g @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(36, *weight.shape[:2])


def _bands(images: Tensor) -> Iterator[tuple[int, int, int]]:
    """Numbers, top and end, of bands of (N, H, W, C) in which a few hundred tiles of 4 x 4 lie."""
    count, height, width, _ = images.shape
    rows = 4 * max(1, 256 // max(1, width // 4))
    for n, top in product(range(count), range(0, height, rows)):
        yield n, top, min(top + rows, height)


def _tiles(image: Tensor, side: int) -> Tensor:
    """(H, W, C) to (side * side, tiles * C); tiles are 4 apart."""
    tiles = image.unfold(0, side, 4).unfold(1, side, 4)
    return tiles.permute(3, 4, 0, 1, 2).reshape(side * side, -1)


def _blocks(image: Tensor) -> Tensor:
    """(4 h, 4 w, C) as (4, 4, h, w, C)."""
    height, width, channels = image.shape
    return image.view(height // 4, 4, width // 4, 4, channels).permute(1, 3, 0, 2, 4)


def _add_tiles(blocks: Tensor, tiles: Tensor) -> None:
    """Add tiles (6, 6, h, w, C), whose last two rows and columns are the next ones' first, to an image's blocks
    (4, 4, h + 1, w + 1, C)."""
    height, width = tiles.shape[2:4]
    for i, j in product((0, 1), repeat=2):
        part = tiles[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        blocks[: len(part), : part.shape[1], i : i + height, j : j + width].add_(part)
