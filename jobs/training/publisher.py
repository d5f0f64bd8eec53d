"""Publishing while steps go on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from jobs.errors import StoreRefuses
from jobs.stores.backoff import is_lasting
from jobs.stores.store import Store

__all__ = ["Publisher"]


class Publisher:
    """Publishes one object after the other, in order, while steps go on; at most one waits.

    Inside a `with`, which ends when all is published. After an error nothing more is: a checkpoint must not be
    there without the metrics before it. The error is raised by the next call or at the end: StoreRefuses, if it
    says that the store takes nothing any more.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "publisher")
        self._pending: list[Future[None]] = []
        self._error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def publish(self, path: str, data: bytes) -> None:
        self.wait(left=1)
        self._then(lambda: self._store.publish(path, data))

    def remove(self, path: str) -> None:
        self._then(lambda: self._store.remove(path))

    def _then(self, work: Callable[[], None]) -> None:
        def unless_failed() -> None:
            if self._error is None:
                try:
                    work()
                except BaseException as error:  # noqa: BLE001  raised below, and by whatever comes later
                    self._error = error
                    if isinstance(error, OSError) and is_lasting(error):
                        self._error = StoreRefuses(f"{self._store.url}: {type(error).__name__}: {error}")
            if self._error is not None:
                raise self._error

        self._pending.append(self._thread.submit(unless_failed))

    def wait(self, *, left: int = 0) -> None:
        """Until no more than `left` objects are still to be published or removed."""
        while len(self._pending) > left:
            self._pending.pop(0).result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown(cancel_futures=True)
