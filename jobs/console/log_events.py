"""What a job says while it runs, to people and to programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

__all__ = ["Level", "LogEvent", "LogSink"]

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """Something that happened, said once."""

    event: str
    """The kind of thing that happened; one of a closed list, which docs/results.md has."""
    text: str
    """What happened, for people."""
    level: Level = "info"
    """How bad it is; `error`: the job ends for it."""
    shard: int | None = None
    key: str | None = None
    """The photograph's key."""
    worker: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """More, as JSON takes it, for programs."""
    shown: bool = True
    """Whether people are told; programs are told all."""


class LogSink(Protocol):
    """Takes log events: a terminal, a log."""

    def emit(self, event: LogEvent) -> None: ...
