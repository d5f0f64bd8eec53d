"""What several neighbors want is made once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Once"]

T = TypeVar("T")
_MOST_KEPT = 2


class Once(Generic[T]):
    """Makes a thing for the first who asks for it, and keeps it for those that will: until the last of them has
    come, or two others were made. What is asked for once is not kept.

    Args:
        wanted: names of the things, as often as each will be asked for.
    """

    def __init__(self, wanted: Iterable[str] = ()) -> None:
        self._wanted = Counter(wanted)
        self._kept: dict[str, Future[T]] = {}
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The thing of this name. Several threads may ask; whoever comes while it is made waits. Raises what
        `make` does, for all of them."""
        with self._lock:
            self._wanted[name] -= 1
            found = self._kept.pop(name, None)
            future: Future[T] = Future() if found is None else found
            if self._wanted[name] > 0:
                self._kept[name] = future
                while len(self._kept) > _MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
        if found is None:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()
