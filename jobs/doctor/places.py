"""Whether a job could be kept at a place: written, read, listed, by two at once."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from jobs.doctor.facts import Check, attempt
from jobs.stores.store import LocalStore, Store, temporary_path

__all__ = ["check_store"]

_WRITES = 3


def check_store(store: Store) -> list[Check]:
    """Try a store, and leave nothing there."""
    with _left_as_it_was(store):
        return list(_tried(store))


def _tried(store: Store) -> Iterator[Check]:
    paths = [temporary_path() for _ in range(_WRITES)]
    data = b"nst doctor"

    def write() -> tuple[bool, str]:
        took = []
        for path in paths:
            began = time.perf_counter()
            store.publish(path, data)
            took.append(time.perf_counter() - began)
        return True, f"a small object takes {statistics.median(took):.2g} s"

    def listed() -> tuple[bool, str]:
        folder, name = paths[0].split("/")
        there = name in store.names(folder) and paths[0] in set(store.find(folder))
        return there, "what was written is listed" if there else "what was written is not listed"

    def read() -> tuple[bool, str]:
        same = store.read(paths[0]) == data
        return same, "what was written comes back" if same else "what comes back is not what was written"

    def create_only() -> tuple[bool, str]:
        if Store.honors_create_only(store):  # also of a folder, which does not try
            return True, "what is there is left alone"
        return False, "what is there is replaced: of a job that runs twice at once, photographs are done twice"

    def remove() -> tuple[bool, str]:
        for path in paths:
            store.remove(path)
        left = [path for path in paths if store.exists(path)]
        return not left, f"{len(left)} small objects are left in .tmp/" if left else "nothing is left there"

    written = attempt("write", write)
    yield written
    if written.ok:
        for name, work in (("list", listed), ("read", read), ("create-only", create_only), ("remove", remove)):
            yield attempt(name, work)
    else:
        attempt("remove", remove)  # what was written before


@contextlib.contextmanager
def _left_as_it_was(store: Store) -> Iterator[None]:
    """Folders that were not there are gone again, of a local disk."""
    made: list[Path] = []
    if isinstance(store, LocalStore):
        folders = (store.root / ".tmp", store.root, *store.root.absolute().parents)
        made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # somebody has put something there
                folder.rmdir()
