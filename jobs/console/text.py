"""Text from outside, made fit for a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """`text` without control characters: names of files and messages of others end up on terminals."""
    return "".join(c if c.isprintable() else "�" for c in text)
