"""How far a running training is, by what it publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jobs.console.log_events import LogEvent
from jobs.training.job import TrainJob
from jobs.training.layout import (
    events_path,
    events_steps,
    late_events,
    late_events_path,
    metrics_path,
    metrics_steps,
    read_skipped,
    sample_path,
    sample_steps,
)
from jobs.training.metrics import means, read_part
from jobs.training.tensorboard import evaluation_events, sample_events, write_events

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
    log_events: tuple[LogEvent, ...] = ()

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
        self._late = late_events(self._store)
        self._skipped: set[str] = set()
        self._log_events: list[LogEvent] = []
        self._last = TrainSnapshot(0, job.steps, {}, {}, None, job.file.spec.batch_size)

    def _seen_before(self) -> set[int]:
        """Parts that an earlier driver has read, and not the newest, which says how far the training is."""
        return set(metrics_steps(self._store)[:-1]) & set(events_steps(self._store))

    def tell(self, event: str, text: str, **values: Any) -> None:
        self._log_events.append(LogEvent(event=event, text=text, level="warning", values=values))

    def look(self) -> TrainSnapshot:
        for step in metrics_steps(self._store):
            if step not in self._seen:
                self._seen.add(step)
                self._take(read_part(self._store.read(metrics_path(step))))
        for step in sample_steps(self._store):
            self._take_late("samples", step, partial(self._sample_events, step))
        for name, found in read_skipped(self._store, but=self._skipped).items():
            self._skipped.add(name)
            self.tell("photo_left_out", f"left out: {found['url']}: {found['error']}", url=found["url"])
        log_events, self._log_events = tuple(self._log_events), []
        return replace(self._last, log_events=log_events)

    def evaluated(self, found: Mapping[int, Mapping[str, float]]) -> None:
        """Take evaluations, by step."""
        for step, distances in found.items():
            self._take_late("evaluation", step, partial(evaluation_events, step, distances))

    def _take_late(self, kind: str, step: int, events: Callable[[], bytes]) -> None:
        if (kind, step) not in self._late:
            number = max(self._late.values(), default=-1) + 1
            self._store.publish(late_events_path(self._last.step, number, kind, step), events())
            self._late[kind, step] = number

    def _sample_events(self, step: int) -> bytes:
        return sample_events(step, self._store.read(sample_path(step)))

    def _take(self, rows: list[dict[str, Any]]) -> None:
        losses, grouped = means(rows), self._job.file.spec.recipe.grouped
        self._store.publish(events_path(rows[-1]["step"]), write_events(rows, grouped))
        spent = [row["seconds"] for row in rows[1:]] or [rows[0]["seconds"]]
        rate = self._last.batch_size * len(spent) / max(1e-9, sum(spent))
        shown = grouped(losses)["loss"]
        self._last = replace(self._last, step=rows[-1]["step"], losses=losses, shown=shown, images_per_s=rate)
