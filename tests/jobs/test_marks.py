"""What a person thinks of the pictures: given, taken back, and never lost to another who gives some."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.errors import StoreError
from jobs.ledger.layout import MARKS
from jobs.ledger.marks import change_marks, read_marks
from jobs.stores.store import LocalStore


def test_marks_are_given_and_taken_back(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert read_marks(store) == {}
    assert change_marks(store, {"a/b": "keep", "<é>": "again"}) == {"a/b": "keep", "<é>": "again"}
    assert change_marks(store, {"a/b": "reject", "gone": None}) == {"a/b": "reject", "<é>": "again"}
    assert read_marks(LocalStore(str(tmp_path))) == {"a/b": "reject", "<é>": "again"}
    change_marks(store, {"a/b": None, "<é>": None})
    assert read_marks(store) == {}


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    stores = [LocalStore(str(tmp_path)) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: change_marks(stores[number % 2], {str(number): "keep"}), range(60)))
    assert read_marks(stores[0]) == {str(number): "keep" for number in range(60)}


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"a": 1}', b'{"a": "good"}', b"\xff"])
def test_damaged_marks_are_left_as_they_are(tmp_path: Path, data: bytes) -> None:
    store = LocalStore(str(tmp_path))
    store.publish(MARKS, data)
    with pytest.raises(StoreError, match=r"marks\.json"):
        change_marks(store, {"a": "keep"})
    assert store.read(MARKS) == data
