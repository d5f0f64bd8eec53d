"""What the embedded network begins with: the teacher's own filters, as many as there is room for.

Of each layer those channels are taken that tell the others best. Each is then fitted, by least squares, to what
the teacher's is, from the channels that were taken before it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.features.layers import VGG_CHANNELS, layer_names
from nst.features.vgg import Pooling, pool

__all__ = ["pruned"]

_EVERY, _LARGE_PX = 7, 40  # of layers larger than this, every seventh position: neighbors tell nearly the same
_RIDGE = 1e-4


@torch.no_grad()
def pruned(
    teacher: Mapping[str, Tensor], images: Tensor, *, teacher_pooling: Pooling, pooling: Pooling
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The embedded network as a part of VGG16, and what of VGG16 it tells.

    Args:
        teacher: VGG16's state dict.
        images: (N, 3, H, W), as both networks see them: normalized.
        teacher_pooling: what VGG16 pools with.
        pooling: what the embedded network pools with.

    Returns:
        Its parameters, and for each ReLU a matrix (VGG16's channels, its own channels), by layer.
    """
    before, now = images, images
    state: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}
    for index, name in enumerate(layer_names("embedded")):
        if name.startswith("pool"):
            before, now = pool(before, teacher_pooling), pool(now, pooling)
        if not name.startswith("conv"):
            continue
        weight, bias = (teacher[f"features.{index}.{part}"].to(images) for part in ("weight", "bias"))
        wanted = F.conv2d(before, weight, bias, padding=1)
        before = F.relu(wanted)
        chosen = _telling(before, VGG_CHANNELS["embedded"][int(name[4]) - 1])
        weight, bias = _regression(now, wanted[:, chosen], 3)
        now = F.relu(F.conv2d(now, weight, bias, padding=1))
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = weight, bias
        maps[name.replace("conv", "relu")] = _regression(now, before, 1, constant=False)[0][:, :, 0, 0]
    return state, maps


def _telling(activations: Tensor, count: int) -> list[int]:
    """The channels of (N, C, H, W) that tell the others best: a pivoted Cholesky decomposition of their inner
    products takes these first, each the one of which most is left."""
    flat = activations.transpose(0, 1).flatten(1)
    left = (flat @ flat.T).double()
    chosen: list[int] = []
    for _ in range(count):
        rest = left.diagonal().clone()
        rest[chosen] = -torch.inf
        pivot = int(rest.argmax())
        column = left[:, pivot].clone()
        left -= torch.outer(column, column) / column[pivot].clamp_min(1e-30)
        chosen.append(pivot)
    return sorted(chosen)


def _regression(seen: Tensor, wanted: Tensor, size: int, *, constant: bool = True) -> tuple[Tensor, Tensor]:
    """Weight (K, C, size, size) and bias (K,) of the convolution that makes (N, K, H, W) from (N, C, H, W)
    best; without `constant` the bias is 0."""
    count = seen.shape[1] * size * size + constant
    among = seen.new_zeros(count, count, dtype=torch.float64)
    between = seen.new_zeros(count, wanted.shape[1], dtype=torch.float64)
    every = _EVERY if seen.shape[-1] > _LARGE_PX else 1
    for picture, answer in zip(seen, wanted, strict=True):
        rows = F.unfold(picture[None], size, padding=size // 2)[0].T[::every]
        if constant:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        among += (rows.T @ rows).double()
        between += (rows.T @ answer.flatten(1).T[::every]).double()
    among += _RIDGE * among.diagonal().mean() * torch.eye(count, dtype=among.dtype, device=among.device)
    solution = torch.linalg.solve(among, between).to(seen)
    bias = solution[-1] if constant else solution.new_zeros(wanted.shape[1])
    weight = solution[: seen.shape[1] * size * size].T
    return weight.reshape(wanted.shape[1], seen.shape[1], size, size).contiguous(), bias
