"""A trained network's channels made less often silent, and the rest of it fitted to that.

Trained channels are silent on about half of the positions, where neither Gram matrices nor their gradients
know anything of them. With lower thresholds the same filters give losses that are smoother, and pictures come
nearer to the style within a budget; what the next layer made of them can still be computed, by least squares.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.features.embedded.exemplar import QUIET
from nst.features.layers import layer_names

__all__ = ["SHARED", "lower_thresholds"]

SHARED = ("conv1_2", "conv2_1", "conv2_2")
"""Layers in which random channels may be put."""

# Shares of positions at which a channel is silent. Various ones in the first layer tell how colors are
# distributed, not only how they vary; in the others it is the most that is left.
_FIRST_SILENT, _SILENT = (0.05, 0.2, 0.4, 0.6, 0.8), 0.3
_RANDOM_SILENT = 0.5
_EVERY, _LARGE_PX = 7, 48  # of layers larger than this, every seventh position: neighbors tell nearly the same
_RIDGE = 1e-3


@torch.no_grad()
def lower_thresholds(
    state: Mapping[str, Tensor], images: Tensor, *, random_channels: int = 0, seed: int = 0
) -> dict[str, Tensor]:
    """The embedded network `state` with lower thresholds, and channels of unit mean square on `images`,
    (N, 3, H, W) as a network sees them. Each layer after the first is the ridge regression of its former
    output on the new channels before it.

    With `random_channels`, that many channels of each layer in `SHARED` are given up, those that are told
    best by the ones kept, and random ones take the last places. These see the first layer and each other;
    nothing else sees them, so that they can be changed without any effect on the others.
    """
    random = torch.Generator().manual_seed(seed)
    before, now, seen = images, images, 3  # how many channels of `now` are no random ones
    found: dict[str, Tensor] = {}
    for index, name in enumerate(layer_names("embedded")):
        if name.startswith("pool"):
            before, now = F.avg_pool2d(before, 2), F.avg_pool2d(now, 2)
        if not name.startswith("conv"):
            continue
        weight, bias = (state[f"features.{index}.{part}"].to(images) for part in ("weight", "bias"))
        wanted = F.conv2d(before, weight, bias, padding=1)
        before = F.relu(wanted)
        first, added = index == 0, random_channels if name in SHARED else 0
        if added:
            wanted = wanted[:, _pivots(before, len(bias) - added)]
        if not first:
            weight, bias = _regression(now[:, :seen], wanted)
            weight = F.pad(weight, (0, 0, 0, 0, 0, now.shape[1] - seen))
        if added:
            # Before the first random ones, the first layer is what they see.
            start = 0 if seen == now.shape[1] else seen
            inputs = now.shape[1] - start
            drawn = torch.randn(added, inputs, 3, 3, generator=random) * (2 / (9 * inputs)) ** 0.5
            weight = torch.cat([weight, F.pad(drawn.to(images), (0, 0, 0, 0, start, 0))])
            bias = F.pad(bias, (0, added))
        now = F.conv2d(now, weight, bias, padding=1)
        values = now.transpose(0, 1).flatten(1)[:, ::_EVERY].sort(dim=1).values
        seen = len(bias) - added
        if first:
            shares = values.new_tensor(
                [_FIRST_SILENT[place % len(_FIRST_SILENT)] for place in range(len(bias))]
            )
        else:
            shares = (values < 0).float().mean(1).clamp_max(_SILENT)
            shares[seen:] = _RANDOM_SILENT
        thresholds = values.gather(1, (shares * (values.shape[1] - 1)).long()[:, None]).flatten()
        now = F.relu(now - thresholds.view(1, -1, 1, 1))
        unit = now.square().mean((0, 2, 3)).sqrt()
        unit = unit.clamp_min(QUIET * unit.mean())
        now = now / unit.view(1, -1, 1, 1)
        found[f"features.{index}.weight"] = weight / unit.view(-1, 1, 1, 1)
        found[f"features.{index}.bias"] = (bias - thresholds) / unit
    return found


def _pivots(activations: Tensor, count: int) -> list[int]:
    """The channels of (N, C, H, W) that a pivoted Cholesky decomposition of their correlations takes first:
    each the one that those before it tell least."""
    left = torch.corrcoef(activations.transpose(0, 1).flatten(1)[:, ::_EVERY]).double().nan_to_num()
    chosen: list[int] = []
    for _ in range(count):
        open_ = left.diagonal().clone()
        open_[chosen] = -torch.inf
        pivot = int(open_.argmax())
        column = left[:, pivot].clone()
        left -= torch.outer(column, column) / column[pivot].clamp_min(1e-9)
        chosen.append(pivot)
    return sorted(chosen)


def _regression(seen: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (K, C, 3, 3) and bias (K,) of the convolution that makes (N, K, H, W) from (N, C, H, W) best."""
    size = seen.shape[1] * 9 + 1
    among = seen.new_zeros(size, size, dtype=torch.float64)
    between = seen.new_zeros(size, wanted.shape[1], dtype=torch.float64)
    every = _EVERY if seen.shape[-1] > _LARGE_PX else 1
    for picture, answer in zip(seen, wanted, strict=True):
        rows = F.unfold(picture[None], 3, padding=1)[0].T[::every]
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        among += (rows.T @ rows).double()
        between += (rows.T @ answer.flatten(1).T[::every]).double()
    among += _RIDGE * among.diagonal().mean() * torch.eye(size, dtype=among.dtype, device=among.device)
    solution = torch.linalg.solve(among, between).to(seen)
    return solution[:-1].T.reshape(wanted.shape[1], seen.shape[1], 3, 3).contiguous(), solution[-1]
