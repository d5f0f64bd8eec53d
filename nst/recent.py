"""What was asked for last, kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Things by name, of which those that were asked for last are kept. Several threads may ask; they may make
    one thing twice.

    Args:
        most: how many are kept, or how much of them.
        size: how much one is; one that is more than `most` is not kept.
    """

    def __init__(self, most: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self._most, self._size, self._held = most, size, 0
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: K, make: Callable[[], V]) -> V:
        """The thing of this name, made if it is not there. Raises what `make` does, and keeps nothing then."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        made = make()
        size = self._size(made)
        with self._lock:
            if name not in self._kept and size <= self._most:
                self._kept[name] = made
                self._held += size
            while self._held > self._most:
                self._held -= self._size(self._kept.popitem(last=False)[1])
        return made
