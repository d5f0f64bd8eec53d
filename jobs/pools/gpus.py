"""Which of this machine's GPUs a worker process gets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from jobs.worker.messages import WorkerId

__all__ = ["GpuShares", "gpu_ids", "gpu_names"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


class GpuShares:
    """Gives every worker one GPU: the one that has the fewest, and of these the first.

    Args:
        ids: names of the GPUs, as CUDA_VISIBLE_DEVICES takes them; with none, workers see what this process
            sees.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = tuple(ids)
        self._taken: dict[WorkerId, str] = {}

    def take(self, worker: WorkerId) -> Mapping[str, str]:
        """What the environment of a new worker says, so that it sees its own GPU alone, as its first."""
        if not self._ids:
            return {}
        taken = list(self._taken.values())
        self._taken[worker] = min(self._ids, key=taken.count)
        return {_VISIBLE: self._taken[worker]}

    def give_back(self, worker: WorkerId) -> None:
        """Note that a worker is gone, if it had a GPU."""
        self._taken.pop(worker, None)


def gpu_ids() -> tuple[str, ...]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes. Asks the driver's
    library, and makes no CUDA context."""
    import torch

    return gpu_names(torch.cuda.device_count(), os.environ.get(_VISIBLE))


def gpu_names(count: int, visible: str | None) -> tuple[str, ...]:
    """The names of so many GPUs.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None: it is not set.
    """
    if visible is None:
        return tuple(map(str, range(count)))
    names = tuple(name.strip() for name in visible.split(","))
    return names[:count]  # what follows an unknown one does not count
