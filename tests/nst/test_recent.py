"""What is kept of what was asked for."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nst.recent import Recent


def test_the_last_that_were_asked_for_are_kept() -> None:
    made, recent = list[str](), Recent[str, str](2)

    def get(name: str) -> str:
        def make() -> str:
            made.append(name)
            return name.upper()

        return recent.get(name, make)

    assert [get(name) for name in "abacab"] == list("ABACAB")
    assert made == list("abcb"), "b went for c, since a was asked for after it"


def test_so_much_is_kept_and_nothing_goes_for_what_is_more_than_all() -> None:
    made, recent = list[str](), Recent[str, bytes](25, len)

    def get(name: str, size: int = 10) -> None:
        def make() -> bytes:
            made.append(name)
            return bytes(size)

        assert len(recent.get(name, make)) == size

    for name in "abacab":
        get(name)
    assert made == list("abcb")
    get("large", 26)
    for name in "ab":
        get(name)
    assert made == [*"abcb", "large"]
    get("half", 15)
    get("b")
    assert made == [*"abcb", "large", "half"]
    get("a")
    assert made == [*"abcb", "large", "half", "a"]


def test_what_cannot_be_made_is_not_kept() -> None:
    recent = Recent[str, int](1)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)
    assert recent.get("a", lambda: 1) == 1


class Slow(int):
    """A name that is compared slowly, so that another thread goes on meanwhile."""

    def __hash__(self) -> int:
        time.sleep(0)
        return int(self)


def test_several_threads_ask() -> None:
    """One may throw away what another is asking for."""
    recent = Recent[Slow, int](1)

    def ask(seed: int) -> bool:
        numbers = [number % 3 for number in range(seed, seed + 300)]
        return all(recent.get(Slow(number), lambda number=number: number) == number for number in numbers)  # type: ignore[misc]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
