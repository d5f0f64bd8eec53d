"""A training's progress for people: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console

from jobs.console.display import Bar, duration

if TYPE_CHECKING:
    from jobs.training.monitor import TrainSnapshot

__all__ = ["TrainDisplay", "describe_losses"]

_LINE_EVERY_S = 10.0


class TrainDisplay(Bar):
    """Give it to `run_training` as its observer, inside a `with`."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "steps")
        self._last_line = 0.0
        self._last_step = -1

    def __call__(self, snapshot: TrainSnapshot) -> None:
        self.tell_all(snapshot.news)
        rest = "starting workers"
        if snapshot.images_per_s:
            left_s = (snapshot.steps - snapshot.step) * snapshot.batch_size / snapshot.images_per_s
            speed = f"{snapshot.images_per_s:.2f} images/s, {duration(left_s)} left"
            rest = f"{describe_losses(snapshot.shown)}, {speed}"
        if self.update(snapshot.step, snapshot.steps, rest):
            return
        now = time.monotonic()
        if snapshot.step != self._last_step and now - self._last_line >= _LINE_EVERY_S:
            self._last_line, self._last_step = now, snapshot.step
            self.say(f"step {snapshot.step} of {snapshot.steps}: {rest}")


def describe_losses(losses: Mapping[str, float]) -> str:
    """In one line, by name."""
    return ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
