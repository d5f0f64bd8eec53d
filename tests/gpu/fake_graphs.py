"""CUDA graphs of the fake GPU: what would be recorded, and what a recording forbids.

What is computed while it is recorded is not there until the graph is replayed; so it is NaN until then. What is
replayed are the same operations on the same memory.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["FakeGraph", "FakeStream", "NotRecorded", "aside", "recording", "tensors_of"]

_UNDER_WAY: list[FakeGraph] = []
_USES: dict[object, int] = {}
"""Graphs that are there, by pool of memory. A pool that all have left is not to be used again."""
_ASIDE: list[object] = []


class NotRecorded(AssertionError):
    """A recording that a real GPU would take, and that would not do what was meant."""


class FakeStream:
    def wait_stream(self, other: object) -> None:
        """All is in order already."""


@contextlib.contextmanager
def aside(stream: object) -> Iterator[None]:
    """torch.cuda.stream."""
    _ASIDE.append(stream)
    try:
        yield
    finally:
        _ASIDE.pop()


def _leave(pool: object) -> None:
    _USES[pool] -= 1


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Tensors among the arguments or results of an operation, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_of(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_of(each)


def recording() -> FakeGraph | None:
    """The graph that is under way."""
    return _UNDER_WAY[-1] if _UNDER_WAY else None


class FakeGraph:
    """torch.cuda.CUDAGraph.

    Args:
        launched: called at each replay.
    """

    def __init__(self, launched: Callable[[], None]) -> None:
        self._launched = launched
        self._done: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._own: set[int] = set()
        """Memory that was taken while it was recorded."""
        self._valid = True

    def capture_begin(self, pool: object = None, capture_error_mode: str = "global") -> None:  # noqa: ARG002
        if not _ASIDE:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        if _USES.get(pool, 1) == 0:
            raise RuntimeError("it->second->use_count > 0 INTERNAL ASSERT FAILED")
        self._pool = object() if pool is None else pool
        _USES[self._pool] = _USES.get(self._pool, 0) + 1
        weakref.finalize(self, _leave, self._pool)
        _UNDER_WAY.append(self)

    def pool(self) -> object:
        return self._pool

    def capture_end(self) -> None:
        _UNDER_WAY.remove(self)
        if not self._valid:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        for *_, found in self._done:
            for each in found:
                if each.untyped_storage()._cdata in self._own and each.is_floating_point():
                    each.fill_(torch.nan)

    def refuse(self, why: str) -> None:
        self._valid = False
        raise RuntimeError(why)

    def keep(self, made: Tensor) -> None:
        """Record what was made of nothing."""
        self._own.add(made.untyped_storage()._cdata)
        self._done.append((torch.ops.aten.copy_.default, (made, made.clone()), {}, []))

    def note(self, func: Any, args: Any, kwargs: Any, out: Any, known: Any) -> None:
        """Record an operation. `known`: memory that was taken before it, by address."""
        found = [*tensors_of(out)]
        if func._schema.is_mutable:
            target = kwargs.get("out", args[0])
            if target.untyped_storage()._cdata not in self._own:
                raise NotRecorded(f"{func} changes what was there before, and will again in each replay")
            found = []
        for each in found:
            if each.untyped_storage()._cdata not in known:
                self._own.add(each.untyped_storage()._cdata)
        if func.is_view:
            found = []
        self._done.append((func, args, kwargs, found))

    @torch.no_grad()
    def replay(self) -> None:
        self._launched()
        with torch._C.DisableTorchFunction():
            for func, args, kwargs, found in self._done:
                for before, now in zip(found, tensors_of(func(*args, **kwargs)), strict=False):
                    before.copy_(now)
