"""What a listing leaves out, and why: counted while it is listed, said when a job is begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal, TypeAlias

from jobs.console.text import printable

__all__ = ["LeftOut", "Reason"]

Reason: TypeAlias = Literal["kind", "hidden", "job", "link", "exclude", "not_in"]

_WHY: dict[Reason, str] = {
    "kind": "no photographs, by their names and first bytes",
    "hidden": "hidden, or thumbnails and other helpers of programs",
    "job": "folders of other jobs and of previews",
    "link": "links to folders, which are not followed",
    "exclude": "as `exclude` says",
    "not_in": "in the jobs that `not_in` names",
}
_NAMED = 10
"""Files that are named; all are counted."""
_KINDS = 8


class LeftOut:
    """Files and folders that are no photographs of a job. A folder counts once, whatever is in it."""

    def __init__(self) -> None:
        self._kinds: dict[Reason, Counter[str]] = {reason: Counter() for reason in _WHY}
        self._first: list[str] = []

    def add(self, reason: Reason, path: str, kind: str) -> None:
        """Count what is at `path`, below the photographs' folder, under its kind: an extension, or a name."""
        self._kinds[reason][printable(kind)] += 1
        if len(self._first) < _NAMED:
            self._first.append(printable(path))

    @property
    def count(self) -> int:
        """How many files and folders were left out."""
        return sum(kinds.total() for kinds in self._kinds.values())

    def notes(self, *, with_options: bool = True) -> tuple[str, ...]:
        """A line for each reason, such as `left out: 3 (2 .txt, 1 .pdf): no photographs`.

        Args:
            with_options: whether there are options that take them after all.
        """
        taken = {"hidden", "job"} if with_options else set()
        return tuple(
            f"left out: {kinds.total()} ({_counted(kinds)}): {_WHY[reason]}"
            + ("; hidden = true takes them" if reason in taken else "")
            for reason, kinds in self._kinds.items()
            if kinds
        )

    def names(self) -> Iterator[str]:
        """The first ten of them, as they were met, and how many more there are."""
        yield from self._first
        if self.count > len(self._first):
            yield f"... and {self.count - len(self._first)} more"


def _counted(kinds: Counter[str]) -> str:
    most = sorted(kinds.items(), key=lambda each: (-each[1], each[0]))
    shown = [f"{number} {kind}" for kind, number in most[:_KINDS]]
    rest = sum(number for _, number in most[_KINDS:])
    return ", ".join([*shown, f"{rest} others"] if rest else shown)
