"""Progress for programs: a JSON object per line, of what happened and, now and then, of how far the job is."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from jobs.console.log_events import LogEvent

__all__ = ["JsonLog", "LoggedSnapshot"]

_PROGRESS_EVERY_S = 10.0


class LoggedSnapshot(Protocol):
    """How far a running job is, of either kind."""

    @property
    def log_events(self) -> tuple[LogEvent, ...]:
        """What happened since the last snapshot."""
        ...

    def progress(self) -> Mapping[str, Any]:
        """How far it is, as JSON takes it."""
        ...


class JsonLog:
    """Give it to `run` or `run_training` as their observer, inside a `with`. Every line has `time` (UTC, ISO
    8601), `level` and `event`, and, where there is one, `job`, `shard`, `key`, `worker` and `message`.

    Args:
        job: where it writes to; None: that is not known.
        out: written to line by line.
    """

    def __init__(self, job: str | None, out: TextIO) -> None:
        self._job, self._out = job, out
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: nothing is open."""

    def __call__(self, snapshot: LoggedSnapshot) -> None:
        for event in snapshot.log_events:
            self.emit(event)
        now = time.monotonic()
        if now - self._last >= _PROGRESS_EVERY_S:
            self._last = now
            self.emit(LogEvent(event="progress", text="", values=snapshot.progress()))

    def emit(self, event: LogEvent) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"time": now, "level": event.level, "event": event.event}
        optional = {
            "job": self._job,
            "shard": event.shard,
            "key": event.key,
            "worker": event.worker,
            "message": event.text or None,
        }
        line |= {name: value for name, value in optional.items() if value is not None}
        print(json.dumps(line | dict(event.values)), file=self._out, flush=True)
