"""Calls that wait for stores, in threads: many at once, and not all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

__all__ = ["map_in_turn"]

T = TypeVar("T")
R = TypeVar("R")
_WAITING = 1024
"""Calls that wait for a thread: each takes two kilobytes, and there may be millions to be made."""


def map_in_turn(pool: Executor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """As `pool.map`, but no more calls are begun while a thousand have not ended."""
    items = iter(items)
    while some := list(islice(items, _WAITING)):
        yield from pool.map(function, some)
