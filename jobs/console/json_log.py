"""Progress for programs: a JSON object per line, of what happened and, now and then, of how far the job is."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from jobs.console.log_events import News

__all__ = ["JsonLog", "Seen"]

_PROGRESS_EVERY_S = 10.0


class Seen(Protocol):
    """A running job, as its observer is told."""

    @property
    def news(self) -> tuple[News, ...]: ...

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
        """Nothing is open."""

    def __call__(self, seen: Seen) -> None:
        for news in seen.news:
            self.tell(news)
        now = time.monotonic()
        if now - self._last >= _PROGRESS_EVERY_S:
            self._last = now
            self.tell(News(event="progress", text="", values=seen.progress()))

    def tell(self, news: News) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"time": now, "level": news.level, "event": news.event}
        own = {
            "job": self._job,
            "shard": news.shard,
            "key": news.key,
            "worker": news.worker,
            "message": news.text or None,
        }
        line |= {name: value for name, value in own.items() if value is not None}
        print(json.dumps(line | dict(news.values)), file=self._out, flush=True)
