"""How much memory is in use, and who took it. Linux; elsewhere nothing is known, and nobody is blamed."""

from __future__ import annotations

import os
from pathlib import Path

from nst.memory import CGROUP, container_limit

__all__ = ["private_bytes", "used_share"]


def private_bytes(pid: int) -> int:
    """Resident memory of a process without what it shares with files; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def used_share() -> float:
    """The share in use of the machine's memory, or the container's if that is nearer to its end: in [0, 1]."""
    return max(_machine_share(), _container_share())


def _machine_share() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0.0
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return 1 - sizes["MemAvailable"] / sizes["MemTotal"]


def _container_share() -> float:
    limit = container_limit()
    if limit is None:
        return 0.0
    try:
        used = int((CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return 0.0
    return (used - int(stat.get("inactive_file", 0))) / limit  # the kernel takes cached files back
