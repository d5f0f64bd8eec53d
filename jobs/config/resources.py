"""How a job of photographs is computed: the table `[resources]`. Importing this loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nst import check
from nst.errors import OptionError

__all__ = ["Resources"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """How the work is spread. Nothing here changes a picture, but for its last bits, which depend on `num_cpus`
    and on whether there are GPUs: these are fixed once a job is begun."""

    pool: Literal["auto", "ray", "local"] = "auto"
    """What the workers are. `ray`: actors of a Ray cluster, or of one started here; `local`: processes here.
    `auto`: `ray` where there is an address or RAY_ADDRESS, and `local` elsewhere."""
    address: str | None = None
    """Address of a running Ray cluster; None: RAY_ADDRESS if that is set, else Ray is started here."""
    min_workers: int = 1
    """Number of workers that the pool does not shrink below while the job lasts."""
    max_workers: int | None = None
    """Number of workers that the pool grows to while there is work. None: as many as the machine, or the
    cluster as it is when the job starts, has CPUs, GPUs and memory for."""
    num_cpus: float = 1.0
    """CPUs of each worker; its threads of computation are this, rounded up."""
    num_gpus: float | None = None
    """GPU of each worker: 1, or a share of one: 0.5 puts two workers on one GPU, each with half of its memory;
    0: it computes on the CPU. None: 1 if the machine, or the cluster, has any when the job is begun, else 0;
    the job keeps to that."""
    memory_gb: float | None = None
    """Memory of the machine, not of its GPUs, that a worker may take before it is ended; None: when the machine
    runs out, the worker that takes most is ended. With a GPU it takes some 2 GB more than without."""
    batch_size: int = 1
    """Number of photographs that a method is given at once."""
    load_threads: int | None = None
    """Threads per worker that read and decode photographs; None: as many as `num_cpus`, and two at least."""
    save_threads: int | None = None
    """Threads per worker that encode and publish pictures; None: as many as `num_cpus`, and two at least."""
    shard_size: int | None = None
    """Number of photographs per shard, fixed when the job is first run; None: 64, or fewer for small jobs."""
    timeout_s: float = 1800.0
    """Time that one photograph may take to be read, to be published, or from one evaluation to the next, or to
    the end where a method has none; one that takes longer ends as a failed row."""
    start_timeout_s: float = 900.0
    """Time without any worker after which the job gives up."""
    grace_s: float = 60.0
    """Time that photographs in work have to finish when the job is stopped."""

    def __post_init__(self) -> None:
        for option in ("min_workers", "batch_size"):
            check.at_least(option, getattr(self, option), 1)
        least_of = {"max_workers": 1, "shard_size": 1, "num_gpus": 0, "load_threads": 1, "save_threads": 1}
        for option, least in least_of.items():
            if getattr(self, option) is not None:
                check.at_least(option, getattr(self, option), least)
        if self.num_gpus is not None and self.num_gpus > 1:
            raise OptionError("num_gpus", self.num_gpus, reason="must be at most 1: a worker uses one GPU")
        for option in ("num_cpus", "grace_s"):
            check.at_least(option, getattr(self, option), 0)
        for option in ("timeout_s", "start_timeout_s"):
            check.above_zero(option, getattr(self, option))
        if self.memory_gb is not None:
            check.above_zero("memory_gb", self.memory_gb)
        if self.max_workers is not None and self.min_workers > self.max_workers:
            raise OptionError(
                "min_workers", self.min_workers, reason=f"more than max_workers = {self.max_workers}"
            )

    @property
    def memory_bytes(self) -> int | None:
        """`memory_gb` in bytes."""
        return None if self.memory_gb is None else round(self.memory_gb * 2**30)

    @property
    def threads(self) -> int:
        """The number of a worker's threads of computation."""
        return max(1, math.ceil(self.num_cpus))
