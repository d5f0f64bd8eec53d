"""What a person thinks of a job's pictures, by key: one small object in its folder, which no run needs."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

from jobs.errors import StoreError
from jobs.ledger.layout import MARKS
from jobs.stores.store import Store

__all__ = ["MARK_NAMES", "Mark", "change_marks", "read_marks"]

Mark: TypeAlias = Literal["keep", "reject", "again"]
MARK_NAMES: tuple[Mark, ...] = get_args(Mark)
_LOCK = threading.Lock()


def read_marks(store: Store) -> dict[str, Mark]:
    """The marks that were given, by key; a photograph that has none is not there.

    Raises:
        StoreError: they are damaged.
    """
    try:
        data = store.read(MARKS)
    except FileNotFoundError:
        return {}
    try:
        found = json.loads(data)
    except ValueError as error:
        raise StoreError(f"{store.url}/{MARKS} is damaged: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise StoreError(f"{store.url}/{MARKS} is damaged: it is no table of marks")
    unknown = sorted({*found.values()} - {*MARK_NAMES})
    if unknown:
        raise StoreError(f"{store.url}/{MARKS} has an unknown mark {unknown[0]!r}; choices: {MARK_NAMES}")
    return found


def change_marks(store: Store, changes: Mapping[str, Mark | None]) -> dict[str, Mark]:
    """Give marks, or take them away (None), and leave all others; gives what there is now.

    Marks are read anew just before, so that what others gave meanwhile remains: of this process surely, of
    another one unless both write in the same moment.

    Raises:
        StoreError: what is there is damaged; it is left as it is.
    """
    with _LOCK:
        marks = read_marks(store)
        before = dict(marks)
        for key, mark in changes.items():
            if mark is None:
                marks.pop(key, None)
            else:
                marks[key] = mark
        if marks != before:
            store.publish(MARKS, json.dumps(marks, indent=0, sort_keys=True).encode())
    return marks
