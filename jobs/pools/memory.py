"""How much memory is in use, and who took it. Linux; elsewhere nothing is known, and nobody is blamed."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["WORKER_NAME", "is_largest_worker", "private_bytes", "used_share"]

WORKER_NAME = "nst-worker"
"""What worker processes call themselves (`comm`)."""
_CGROUP = Path("/sys/fs/cgroup")


def private_bytes(pid: int) -> int:
    """Resident memory of a process without what it shares with files; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def used_share() -> float:
    """Of the machine's memory, or the container's if that is nearer to its end: from 0 to 1."""
    return max(_machine(), _container())


def is_largest_worker(pid: int) -> bool:
    """Whether no other worker on this machine, of whatever job, uses more memory."""
    mine = private_bytes(pid)
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            name, other = path.read_text().strip(), int(path.parent.name)
        except OSError:
            continue
        if name == WORKER_NAME and other != pid and private_bytes(other) > mine:
            return False
    return True


def _machine() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0.0
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return 1 - sizes["MemAvailable"] / sizes["MemTotal"]


def _container() -> float:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return 0.0
    if limit == "max":
        return 0.0
    return (used - int(stat.get("inactive_file", 0))) / int(limit)  # the kernel takes cached files back
