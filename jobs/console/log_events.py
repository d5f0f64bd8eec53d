"""What a job says while it runs, to people and to programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

__all__ = ["Level", "News", "Teller"]

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something that happened, said once."""

    event: str
    """What kind of thing; of a closed list, which docs/results.md has."""
    text: str
    """For people."""
    level: Level = "info"
    """`error`: the job ends for it."""
    shard: int | None = None
    key: str | None = None
    """Of the photograph."""
    worker: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """More, as JSON takes it, for programs."""
    shown: bool = True
    """To people; programs are told all."""


class Teller(Protocol):
    """Takes news: a terminal, a log."""

    def tell(self, news: News) -> None: ...
