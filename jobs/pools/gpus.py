"""Which of this machine's GPUs a worker process gets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.worker.messages import WorkerId

__all__ = ["VISIBLE", "GpuShares", "are_hidden", "gpu_ids", "gpu_names", "has_nvidia", "visible_variable"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
_HIP_VISIBLE = "HIP_VISIBLE_DEVICES"
_PART = "MIG-"


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
        return {visible_variable(): self._taken[worker]}

    def give_back(self, worker: WorkerId) -> None:
        """Note that a worker is gone, if it had a GPU."""
        self._taken.pop(worker, None)


def visible_variable() -> str:
    """Which variable of the environment says what GPUs a process sees: of two, ROCm heeds its own."""
    import torch

    return _HIP_VISIBLE if torch.version.hip and _HIP_VISIBLE in os.environ else VISIBLE


def gpu_ids() -> tuple[str, ...]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes. Asks the driver's
    library, and makes no CUDA context."""
    import torch

    return gpu_names(torch.cuda.device_count(), os.environ.get(visible_variable()))


def gpu_names(count: int, visible: str | None) -> tuple[str, ...]:
    """The names of GPUs, or of parts of them.

    Args:
        count: how many CUDA knows of. Of parts that is the first alone, in any process: each needs its own.
        visible: CUDA_VISIBLE_DEVICES; None: it is not set.
    """
    if visible is None:
        return tuple(map(str, range(count)))
    names = tuple(name.strip() for name in visible.split(","))
    if count and names[0].startswith(_PART):
        return tuple(itertools.takewhile(lambda name: name.startswith(_PART), names))
    return names[:count]  # what follows an unknown one does not count


def has_nvidia() -> bool:
    """Whether the machine has a device of NVIDIA's, or its driver, whatever torch says."""
    return Path("/proc/driver/nvidia/version").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


def are_hidden(visible: str | None) -> bool:
    """Whether CUDA_VISIBLE_DEVICES says that no GPU is to be used."""
    return visible is not None and visible.strip() in ("", "-1", "NoDevFiles")
