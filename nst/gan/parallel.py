"""Training shared by several processes: each has a part of every batch, all have the same parameters.

As many steps give the same numbers with any number of processes, but for rounding: batch norms, image pools and
random numbers are of the whole batch.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nst import check
from nst.errors import OptionError

__all__ = ["DDPOptions", "Share", "SharedBatchNorm2d", "distributed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DDPOptions:
    """Options of torch's DistributedDataParallel."""

    bucket_cap_mb: float = 25.0
    """Size in MB of the buckets in which gradients are averaged, while others are still computed."""
    gradient_as_bucket_view: bool = False
    """Whether gradients are views of their buckets, which saves their memory once."""

    def __post_init__(self) -> None:
        check.above_zero("bucket_cap_mb", self.bucket_cap_mb)


@dataclass(frozen=True, slots=True)
class Share:
    """A process's part of every batch: as many images as the others have, or one more.

    Raises:
        OptionError: there are more processes than images.
    """

    batch_size: int = 1
    """Images of the whole batch."""
    rank: int = 0
    """The process's number, from 0."""
    world: int = 1
    """Number of processes."""
    alike: bool = True
    """Whether all images have one size; else each process has one image."""

    def __post_init__(self) -> None:
        check.at_least("batch_size", self.batch_size, 1)
        if self.world > self.batch_size:
            reason = f"fewer images than the {self.world} workers that share them"
            raise OptionError("batch_size", self.batch_size, reason=reason)

    @property
    def part(self) -> slice:
        """The slice of the whole batch that is this process's."""
        start, stop = (self.batch_size * number // self.world for number in (self.rank, self.rank + 1))
        return slice(start, stop)

    @property
    def weight(self) -> float:
        """The weight of the mean over this part, so that the mean over processes is that over images."""
        return self.world * len(range(self.batch_size)[self.part]) / self.batch_size

    def gather(self, part: Tensor) -> Tensor:
        """Put the parts of all processes together: (n, ...) of this one to (batch_size, ...)."""
        if self.world == 1:
            return part
        whole = part.new_zeros((self.batch_size, *part.shape[1:]))
        whole[self.part] = part
        dist.all_reduce(whole)
        return whole

    def gather_unlike(self, image: Tensor) -> list[Tensor]:
        """Put together the images of all processes, which differ in size: (1, C, h, w) of each, in order."""
        if self.world == 1:
            return [image]
        height, width = image.shape[2:]
        sizes = torch.zeros((self.world, 2), dtype=torch.int64, device=image.device)
        sizes[self.rank] = torch.tensor([height, width])
        dist.all_reduce(sizes)
        whole = image.new_zeros((self.world, image.shape[1], *sizes.amax(0).tolist()))
        whole[self.rank, :, :height, :width] = image[0]
        dist.all_reduce(whole)
        return [each[None, :, :h, :w] for each, (h, w) in zip(whole, sizes.tolist(), strict=True)]

    def take(self, whole: Tensor) -> Tensor:
        """Take this process's part: (batch_size, ...) to (n, ...)."""
        return whole if self.world == 1 else whole[self.part]

    def mean(self, values: Tensor) -> Tensor:
        """Means over this process's images to those over all."""
        if self.world == 1:
            return values
        total = values * (self.weight / self.world)
        dist.all_reduce(total)
        return total


def distributed(network: nn.Module, share: Share, options: DDPOptions) -> nn.Module:
    """`network`, whose gradients will be the mean over the processes of torch's default group. Its batch norms
    are replaced, in place, even if there is one process: the arithmetic is the same."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SharedBatchNorm2d.sharing(child, share.world))
    if share.world == 1:
        return network
    # Not a static graph: networks that take part in two losses would silently stop to be averaged.
    # Buffers are equal anyhow. Newer versions of torch have another word for it.
    known = inspect.signature(DistributedDataParallel).parameters
    still = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    more: dict[str, Any] = {still: False}
    return DistributedDataParallel(
        network,
        bucket_cap_mb=options.bucket_cap_mb,
        gradient_as_bucket_view=options.gradient_as_bucket_view,
        **more,
    )


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm by the statistics of all processes' parts; torch.nn.SyncBatchNorm is one for GPUs only."""

    world = 1

    @classmethod
    def sharing(cls, norm: nn.BatchNorm2d, world: int) -> SharedBatchNorm2d:
        """Make one that shares parameters and buffers with `norm`."""
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        shared.world = world
        shared.train(norm.training)
        shared._parameters = norm._parameters
        shared._buffers = norm._buffers
        return shared

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        values = x.double()  # its gradient is a difference of large sums
        local_mean = values.mean((0, 2, 3))
        # The sum has no slope in its own mean.
        local_squares = (values - local_mean.detach()[:, None, None]).square().sum((0, 2, 3))
        local_count = values.new_full((1,), values.numel() // values.shape[1])
        local = torch.cat([local_mean, local_squares, local_count])
        gathered: Tensor = local[None] if self.world == 1 else _Gathered.apply(local)
        channels = self.num_features
        means, squares, counts = gathered[:, :channels], gathered[:, channels:-1], gathered[:, -1:]
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        total = squares.sum(0) + (counts * (means - mean).square()).sum(0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((total / (count - 1)).to(self.running_var), self.momentum)
        scale = self.weight.to(values) * (total / count + self.eps).rsqrt()
        shifted = (values - mean[:, None, None]) * scale[:, None, None] + self.bias.to(values)[:, None, None]
        return shifted.to(x.dtype)


class _Gathered(torch.autograd.Function):
    """(C,) of every process, stacked: (world, C)."""

    @staticmethod
    def forward(_context: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(_context: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]
