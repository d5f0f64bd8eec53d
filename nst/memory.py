"""How much memory there is. Linux; elsewhere containers' limits are not known."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["CGROUP", "container_limit", "device_bytes", "history_bytes", "pass_bytes", "total_bytes"]

CGROUP = Path("/sys/fs/cgroup")
_LEAST_OWN = 4 << 30
_HISTORY_SHARE, _PASS_SHARE = 0.3, 0.5
"""Shares for L-BFGS's history, and for a pass of which nothing is said; pictures need the rest."""


def total_bytes() -> int:
    """The memory of the machine, or of the container if that may have less; where neither is known, endless."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # as on Windows
        machine = sys.maxsize
    return min(machine, container_limit() or machine)


def container_limit() -> int | None:
    """The memory that the container may take; None: there is none, or it has no limit."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
    except OSError:
        return None
    return int(limit) if limit.isdigit() else None


def device_bytes(device: torch.device) -> int:
    """The memory that this process may plan with: its share of a GPU's; of the machine's, what its threads are
    of the cores, and 4 GiB at least, where there are. It goes by what there is, not by what is free, so that a
    picture does not depend on what else is in work."""
    import torch

    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return int(memory * torch.cuda.get_per_process_memory_fraction(device))
    memory = total_bytes()
    share = min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))
    return max(int(share * memory), min(memory, _LEAST_OWN))


def pass_bytes(device: torch.device, memory_mb: int | None) -> int:
    """The memory for one pass through a network, as the option `pass_memory_mb` says: in MB, or None: half of
    what this process may plan with."""
    return int(_PASS_SHARE * device_bytes(device)) if memory_mb is None else memory_mb * 1_000_000


def history_bytes(device: torch.device) -> int:
    """The memory for what L-BFGS keeps of its steps."""
    return int(_HISTORY_SHARE * device_bytes(device))
