"""Two processes that train as one, forked from a process that has imported what they need."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_as_one", "check_painters_as_one", "in_two_processes", "tensors", "widen"]

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


def tensors(state: Any, at: str = "") -> dict[str, Tensor]:
    """All that are in it, by where they are."""
    if isinstance(state, Tensor):
        return {at: state}
    several = enumerate(state) if isinstance(state, list | tuple) else ()
    items = state.items() if isinstance(state, dict) else several
    return {name: tensor for key, value in items for name, tensor in tensors(value, f"{at}/{key}").items()}


def check_as_one(alone: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    """Gradients are those of one to 1e-12, parameters and pools to 1e-8; both are alike to the bit."""
    assert alone["grads"].keys() == first["grads"].keys()
    for name, grad in alone["grads"].items():
        atol = 1e-12 * max(1.0, float(grad.abs().max()))
        torch.testing.assert_close(first["grads"][name], grad, rtol=0, atol=atol, msg=name)
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-9, atol=1e-9)
    expected, one, two = (tensors(each["state"]) for each in (alone, first, second))
    assert expected.keys() == one.keys() == two.keys()
    for name, value in expected.items():
        atol = 1e-6 if name.startswith("/optimizers") else 1e-8
        torch.testing.assert_close(one[name], value, rtol=0, atol=atol, msg=name)
        assert torch.equal(one[name], two[name]), name


def check_painters_as_one(alone: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    """Losses and parameters are those of one to 1e-12; both are alike to the bit."""
    assert alone["losses"].dtype == torch.float64
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-12, atol=1e-12)
    expected, one, two = (tensors(each["state"]) for each in (alone, first, second))
    assert expected.keys() == one.keys() == two.keys()
    for name, value in expected.items():
        assert value.dtype == torch.float64
        assert torch.equal(one[name], two[name])
        torch.testing.assert_close(one[name], value, rtol=0, atol=1e-12)
