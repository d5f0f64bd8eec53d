"""What a GPU does again and again, recorded once: CUDA graphs.

A small picture keeps a GPU busy for less time than the CPU takes to tell it what to do, kernel by kernel. A
graph is told at once.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Graphs", "Recorded"]

_EAGER = 2
"""Calls before one is recorded: libraries make their handles and choose kernels, which cannot be in a graph."""
_MOST_PIXELS = 1 << 20
"""Pixels above which launches do not count, and a graph's memory does, which is kept from call to call."""


class Graphs:
    """Graphs that share their memory, of one stylizer on one device.

    Args:
        wanted: whether to record at all.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._aside: torch.cuda.Stream | None = None
        """The stream in which they are recorded: the memory of one stream is not used again in another."""
        self._last: _Graph | None = None
        """The one that was recorded last: torch does not let a pool be used again that all graphs have left."""

    def suit(self, pixels: Tensor) -> bool:
        """Whether what is computed of (N, 3, H, W) is to be recorded."""
        return self._wanted and pixels.is_cuda and pixels[:, 0].numel() <= _MOST_PIXELS

    def record(self, compute: Callable[[Tensor], tuple[Tensor, ...]], given: Tensor) -> _Graph | None:
        """A graph of `compute`; None if there cannot be one."""
        try:
            if self._aside is None:
                self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            pool = None if self._last is None else self._last.pool()
            self._last = _Graph(compute, given, self._aside, pool)
        except torch.OutOfMemoryError:  # without a graph there may be room
            return None
        except RuntimeError as error:
            warnings.warn(f"CUDA graphs are left out: {error}", RuntimeWarning, stacklevel=2)
            self._wanted = False
            return None
        return self._last


class Recorded:
    """A function of one tensor, whose graph is made in the third call and replayed from then on.

    What it computes may depend on nothing but the tensor's values, what it uses besides must stay where it is
    in memory, and it may not wait for the GPU. It is given anew to each call, so that nobody keeps it.
    """

    def __init__(self, graphs: Graphs) -> None:
        self._graphs, self._calls = graphs, 0
        self._graph: _Graph | None = None

    def __call__(self, compute: Callable[[Tensor], tuple[Tensor, ...]], given: Tensor) -> tuple[Tensor, ...]:
        """What `compute` gives of `given`, which has the same shape in each call."""
        self._calls += 1
        if self._calls == _EAGER + 1 and self._graphs.suit(given):
            self._graph = self._graphs.record(compute, given)
        return compute(given) if self._graph is None else self._graph(given)


class _Graph:
    """One recorded call. What is computed in the default stream cannot be recorded, so it is `aside`."""

    def __init__(
        self,
        compute: Callable[[Tensor], tuple[Tensor, ...]],
        given: Tensor,
        aside: torch.cuda.Stream,
        pool: Any,
    ) -> None:
        self._given = given.detach().clone()
        self._graph = torch.cuda.CUDAGraph()
        self.pool = self._graph.pool
        now = torch.cuda.current_stream()
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            # Other threads copy photographs meanwhile, which is none of this graph's business.
            self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._found = compute(self._given)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # which would hide what went wrong
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        now.wait_stream(aside)

    def __call__(self, given: Tensor) -> tuple[Tensor, ...]:
        self._given.copy_(given)
        self._graph.replay()
        return tuple(each.clone() for each in self._found)
