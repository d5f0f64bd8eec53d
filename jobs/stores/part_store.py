"""A folder of a store as a store of its own, but for the folders that both have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from jobs.stores.filesystems import StorageOptions
from jobs.stores.store import Part, Store, open_store

__all__ = ["PartStore", "reached"]


class PartStore(Store):
    """The folder `part.folder` of `whole`. Its URL is that of the whole: who goes on with one goes on with
    both.

    What is written is written by `whole`, with all its guarantees; this is another name for the same objects.
    """

    def __init__(self, whole: Store, part: Part) -> None:
        super().__init__(whole.url)
        self.whole, self.part = whole, part
        self.bad_name = whole.bad_name

    @property
    def create_only(self) -> bool:
        return self.whole.create_only

    @create_only.setter
    def create_only(self, value: bool) -> None:
        self.whole.create_only = value

    def within(self, path: str) -> str:
        """The path, in the whole, of what is at `path` here."""
        assert self.part is not None
        return path if path.partition("/")[0] in self.part.shared else f"{self.part.folder}/{path}".rstrip("/")

    def place(self, path: str) -> str:
        return self.whole.place(self.within(path))

    def read(self, path: str) -> bytes:
        return self.whole.read(self.within(path))

    def open(self, path: str) -> IO[bytes]:
        return self.whole.open(self.within(path))

    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:
        self.whole.publish(self.within(path), data, create_only=create_only)

    def names(self, folder: str) -> list[str]:
        return self.whole.names(self.within(folder))

    def find(self, folder: str = "") -> Iterator[str]:
        """Paths of the objects of its own folder alone, unless another is asked for."""
        assert self.part is not None
        own = f"{self.part.folder}/"
        for path in self.whole.find(self.within(folder)):
            yield path.removeprefix(own)

    def exists(self, path: str) -> bool:
        return self.whole.exists(self.within(path))

    def remove(self, path: str) -> None:
        self.whole.remove(self.within(path))

    def age_s(self, path: str) -> float | None:
        return self.whole.age_s(self.within(path))

    def honors_create_only(self) -> bool:
        return self.whole.honors_create_only()

    def clean(self) -> None:
        self.whole.clean()


def reached(store: Store, options: StorageOptions) -> Store:
    """The same store, reached as `options` say."""
    whole = open_store(store.url, options)
    return whole if store.part is None else PartStore(whole, store.part)
