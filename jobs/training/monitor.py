"""How far a running training is, by what it publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobs.console.log_events import News
from jobs.training.job import TrainJob
from jobs.training.layout import read_skipped
from jobs.training.metrics import means, part_step, parts, read_part
from jobs.training.tensorboard import FOLDER, events_name, publish_events

__all__ = ["TrainSnapshot", "Watch"]


@dataclass(frozen=True, slots=True)
class TrainSnapshot:
    """How far a training is, by what it published."""

    step: int
    steps: int
    losses: Mapping[str, float]
    """Means over the steps that were published last."""
    shown: Mapping[str, float]
    """The losses that a line has room for."""
    images_per_s: float | None
    batch_size: int
    news: tuple[News, ...] = ()

    def progress(self) -> Mapping[str, Any]:
        """For a log."""
        return {
            "step": self.step,
            "steps": self.steps,
            "losses": dict(self.losses),
            "images_per_s": self.images_per_s,
        }


class Watch:
    """Reads what a running training publishes."""

    def __init__(self, job: TrainJob) -> None:
        self._job, self._store = job, job.store
        self._seen = self._seen_before()
        self._skipped: set[str] = set()
        self._news: list[News] = []
        self._last = TrainSnapshot(0, job.steps, {}, {}, None, job.file.spec.batch_size)

    def _seen_before(self) -> set[str]:
        """Parts that an earlier driver has read, and not the newest, which says how far the training is."""
        events = set(self._store.names(FOLDER))
        return {path for path in parts(self._store)[:-1] if events_name(part_step(path)) in events}

    def tell(self, event: str, text: str, **values: Any) -> None:
        self._news.append(News(event=event, text=text, level="warning", values=values))

    def look(self) -> TrainSnapshot:
        for path in parts(self._store):
            if path not in self._seen:
                self._seen.add(path)
                self._take(read_part(self._store.read(path)))
        for name, found in read_skipped(self._store, but=self._skipped).items():
            self._skipped.add(name)
            self.tell("photo_left_out", f"left out: {found['url']}: {found['error']}", url=found["url"])
        news, self._news = tuple(self._news), []
        return replace(self._last, news=news)

    def _take(self, rows: list[dict[str, Any]]) -> None:
        losses, grouped = means(rows), self._job.file.spec.recipe.grouped
        publish_events(self._store, rows, grouped)
        spent = [row["seconds"] for row in rows[1:]] or [rows[0]["seconds"]]
        rate = self._last.batch_size * len(spent) / max(1e-9, sum(spent))
        shown = grouped(losses)["loss"]
        self._last = replace(self._last, step=rows[-1]["step"], losses=losses, shown=shown, images_per_s=rate)
