"""What there is room for, on this machine or on a Ray cluster, and what a job gets that leaves it open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.console.text import counted
from jobs.pools.gpus import VISIBLE, are_hidden, gpu_ids, has_nvidia
from jobs.spec import Resources
from nst.errors import OptionError
from nst.memory import total_bytes

__all__ = [
    "NOTHING_TO_FIT",
    "Capacity",
    "Fitted",
    "cluster_address",
    "cpu_count",
    "cpu_limit",
    "fit",
    "idle_cpus",
    "pool_kind",
    "refuse_too_much",
    "room_for",
    "this_machine",
    "without_gpus",
]

_WORKER_BYTES = 1 << 30
"""Memory that a worker takes at least, if `memory_gb` does not say how much it may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What workers can be given."""

    place: str
    """Where that is, as messages say it."""
    cpus: float
    gpus: float
    memory_bytes: float
    grows: bool = False
    """Whether there may be more when it is asked for, as on a cluster with an autoscaler."""
    unusable_gpu: bool = False
    """Whether it has a GPU that nobody forbids, and that torch cannot use."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Resources with every option that was left out, and what their user should know of them."""

    resources: Resources
    notes: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    """And of what a job keeps to, once it is begun so."""


NOTHING_TO_FIT = Fitted(Resources(num_gpus=0, max_workers=1))
"""Resources of who has nothing to do."""


def cluster_address(address: str | None) -> str | None:
    """The address of the cluster that is to be used; None: this machine is."""
    return address or os.environ.get("RAY_ADDRESS") or None


def pool_kind(resources: Resources) -> Literal["ray", "local"]:
    """What the workers are: what `pool` says, or stands for."""
    if resources.pool != "auto":
        return resources.pool
    return "ray" if cluster_address(resources.address) else "local"


def room_for(resources: Resources) -> Capacity:
    """What the job's workers can be given.

    Raises:
        OptionError: there is no cluster at the address.
    """
    address = None if pool_kind(resources) == "local" else cluster_address(resources.address)
    if address is None:
        return this_machine()
    from jobs.pools.ray_session import cluster_resources

    there = cluster_resources(address)
    return Capacity(
        place=f"the cluster at {address}",
        cpus=there.get("CPU", 0.0),
        gpus=there.get("GPU", 0.0),
        memory_bytes=there.get("memory", 0.0),
        grows=True,
    )


def refuse_too_much(capacity: Capacity, wanted: Mapping[str, float], advice: str = "") -> None:
    """Refuse options that no worker can be given.

    Args:
        wanted: `num_cpus` and `num_gpus`, or one of them.
        advice: what else to say about GPUs.

    Raises:
        OptionError: there are fewer, and no more to come.
    """
    for option, name, there in (("num_cpus", "CPU", capacity.cpus), ("num_gpus", "GPU", capacity.gpus)):
        if wanted.get(option, 0) > there and not capacity.grows:
            more = f"; {advice}" if advice and option == "num_gpus" else ""
            reason = f"{capacity.place} has {counted(there, name)}{more}"
            raise OptionError(f"resources.{option}", wanted[option], reason=reason)


def fit(resources: Resources, capacity: Capacity, advice: str = "") -> Fitted:
    """Fill in what is left out: GPUs if there are any, and as many workers as there is room for.

    Args:
        advice: what else to say about GPUs that are not there.

    Raises:
        OptionError: a worker is to have more than there is, or there are to be more than there are GPUs for.
    """
    notes: list[str] = []
    begun: list[str] = []
    gpus = resources.num_gpus
    if gpus is None:
        gpus = 1.0 if capacity.gpus >= 1 else 0.0
        begun += without_gpus(capacity)
    wanted = {"num_gpus": gpus}
    if pool_kind(resources) == "ray":  # on local ones it is a number of threads
        wanted["num_cpus"] = resources.num_cpus
    refuse_too_much(capacity, wanted, advice)
    most = {"CPU": capacity.cpus // resources.threads}
    if gpus:
        most["GPU"] = capacity.gpus * int(1 / gpus)
    memory_bytes = resources.memory_bytes or _WORKER_BYTES
    most["memory"] = capacity.memory_bytes // memory_bytes
    least = min(most, key=lambda name: most[name])
    room = max(1, int(most[least]))
    workers = resources.max_workers or max(resources.min_workers, room)
    if capacity.grows and resources.max_workers is None and most[least] < 1:
        notes.append(
            f"{capacity.place} has no room for a worker yet, so that there will be {workers} at most; "
            f"max_workers says how many it may grow to"
        )
    if gpus and workers > most["GPU"] and not capacity.grows:
        option = "max_workers" if resources.max_workers else "min_workers"
        reason = (
            f"{capacity.place} has {counted(capacity.gpus, 'GPU')}, of which each worker takes {gpus:g}: "
            f"room for {most['GPU']:g}"
        )
        raise OptionError(f"resources.{option}", workers, reason=reason)
    has = {
        "CPU": f"{capacity.cpus:g} CPUs, of which each takes {resources.threads}",
        "GPU": f"{counted(capacity.gpus, 'GPU')}, of which each takes {gpus:g}",
        "memory": f"{capacity.memory_bytes / 2**30:.1f} GiB of memory, of which each may take "
        f"{memory_bytes / 2**30:g}",
    }[least]
    if workers > room and not capacity.grows:
        notes.append(f"{workers} workers are more than {capacity.place} has room for, {room}: it has {has}")
    idle = int(capacity.gpus) - workers
    if gpus and idle > 0 and resources.max_workers is None:
        notes.append(f"{idle} of {capacity.gpus:g} GPUs stay idle, for want of room for workers: it has {has}")
    return Fitted(replace(resources, num_gpus=gpus, max_workers=workers), tuple(notes), tuple(begun))


def idle_cpus(asked: Resources, fitted: Resources, rows: int) -> list[str]:
    """A note for who has fewer photographs than CPUs, as each is computed by one worker."""
    assert fitted.max_workers is not None
    cpus = fitted.max_workers * fitted.threads
    each = cpus // max(1, rows)
    if (
        asked.max_workers is not None
        or fitted.num_gpus
        or pool_kind(fitted) != "local"
        or each <= fitted.threads
    ):
        return []
    return [
        f"{counted(rows, 'photograph')} will not keep {cpus} CPUs busy: resources.num_cpus = {each} computes "
        f"each with {each} of them"
    ]


def without_gpus(capacity: Capacity) -> list[str]:
    """What who left GPUs out should know of a job that is begun where there are none for it."""
    notes = []
    if capacity.grows and capacity.gpus < 1:
        notes.append(
            f"{capacity.place} has no GPU when the job is begun: its workers compute on CPUs, also later; "
            f"num_gpus = 1 waits for some"
        )
    if capacity.unusable_gpu:
        notes.append(
            f"{capacity.place} has a GPU that torch cannot use: the job computes on CPUs, for good; "
            f"nst doctor says why"
        )
    return notes


def this_machine() -> Capacity:
    """What there is here."""
    gpus = _gpu_count()
    return Capacity(
        place="this machine",
        cpus=cpu_count(),
        gpus=gpus,
        memory_bytes=total_bytes(),
        unusable_gpu=not gpus and has_nvidia() and not are_hidden(os.environ.get(VISIBLE)),
    )


def cpu_count() -> int:
    """The CPUs that this process may use: those of the machine, or fewer in a container or a batch job."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpu_limit()
    return usable if limit is None else max(1, min(usable, int(limit)))


def cpu_limit() -> float | None:
    """The CPUs that the container may use at a time; None: there is none, or it has no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _gpu_count() -> int:
    return len(gpu_ids())
