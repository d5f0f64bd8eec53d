"""Text for people: from outside, made fit for a terminal, and how many there are of something."""

from __future__ import annotations

__all__ = ["counted", "printable", "printable_lines"]


def counted(number: float, what: str) -> str:
    """`1 worker`, `2 workers`."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)  # as 1000000, and not 1e+06
    return f"{shown} {what}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """`text` without control characters: names of files and messages of others end up on terminals."""
    return "".join(c if c.isprintable() else "�" for c in text)


def printable_lines(text: str) -> str:
    """`text` of several lines without other control characters."""
    return "\n".join(map(printable, text.splitlines()))
