"""Two processes that train as one, forked from a process that has imported what they need."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["in_two_processes", "widen"]

_IMPORTED = ["jobs.pools.warm", "nst.cyclegan.training", "nst.modulated.training", "torch._dynamo"]
"""The first one: other tests fork workers from it. The last one: DistributedDataParallel imports it, which
takes as long as to import torch."""


def in_two_processes(run: Callable[[int, str], None], folder: Path) -> None:
    """Call `run` in each, with its rank and the folder."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_IMPORTED)
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        run, args=(str(folder),), nprocs=2, start_method="forkserver"
    )


def widen(training: Any) -> None:
    """Have a painter's training compute in float64, where what two sum up is what one does to 1e-12."""
    training._teacher = copy.deepcopy(training._teacher)  # which tests share
    for network in (training.networks, training.average, training._teacher):
        network.double()
