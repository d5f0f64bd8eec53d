"""A training's report: one HTML file like that of a batch job. Loads neither torch nor ray."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.page import REPORT, curve, page, settings, table, text
from jobs.record import read_job
from jobs.storage import Store
from jobs.training.layout import KIND, read_skipped, sample_path, sample_steps
from jobs.training.metrics import read_metrics
from jobs.training.status import TrainStatus, train_status

__all__ = ["build_training_report", "publish_training_report"]

_MAX_SAMPLES = 12
_MAX_POINTS = 300
_NO_LOSSES = ("step", "epoch", "seconds")


def publish_training_report(store: Store) -> str:
    """Build the report, put it beside the training, and say where it is.

    Raises:
        UsageError: there is no job.
        ValueError: a part of the metrics is damaged.
    """
    store.publish(REPORT, build_training_report(store).encode())
    return f"{store.url.rstrip('/')}/{REPORT}"


def build_training_report(store: Store) -> str:
    """The report as HTML. Every name and message in it is escaped."""
    status = train_status(store)
    rows = read_metrics(store)
    title = f"{status.kind}: step {status.step}, {status.state}"
    skipped = [(found["url"], found["error"]) for found in read_skipped(store).values()]
    left_out = f"<section><h2>{len(skipped)} left out</h2>{table(('photograph', 'reason'), skipped)}</section>"
    body = "".join(
        [
            f"<header><h1>{text(title)}</h1>{_totals(status)}</header>",
            "".join(f'<p class="note">{text(note)}</p>' for note in status.notes),
            _curves(rows),
            _evaluations(status),
            _samples(store),
            left_out if skipped else "",
            settings(read_job(store, KIND)),
        ]
    )
    return page(title, body)


def _totals(status: TrainStatus) -> str:
    parts = [("state", status.state), ("steps", str(status.step))]
    parts += [(f"photographs of {side.upper()}", str(number)) for side, number in status.photos.items()]
    items = "".join(f"<li><b>{text(value)}</b> {text(name)}</li>" for name, value in parts)
    return f'<ul class="totals">{items}</ul>'


def _curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """One per loss: means over as many steps as there are to a point."""
    if not rows:
        return ""
    width = math.ceil(len(rows) / _MAX_POINTS)
    figures = []
    for name in [name for name in rows[0] if name not in _NO_LOSSES]:
        points = []
        for start in range(0, len(rows), width):
            some = rows[start : start + width]
            points.append((int(some[-1]["step"]), math.fsum(row[name] for row in some) / len(some)))
        caption = f"<figcaption><b>{text(name)}</b> {points[-1][1]:.4g}</figcaption>"
        figures.append(f"<figure>{curve(points, name, 'step')}{caption}</figure>")
    return f'<section class="cards">{"".join(figures)}</section>'


def _evaluations(status: TrainStatus) -> str:
    if not status.evaluations:
        return ""
    names = list(next(iter(status.evaluations.values())))
    rows = [
        (str(step), *(f"{found[name]:.5g}" for name in names)) for step, found in status.evaluations.items()
    ]
    return f"<section><h2>Distances to the other collection</h2>{table(('step', *names), rows)}</section>"


def _samples(store: Store) -> str:
    """Of evenly spaced steps: the photographs, their translations, and these translated back."""
    steps = sample_steps(store)
    every = math.ceil(len(steps) / _MAX_SAMPLES) if steps else 1
    figures = []
    for step in steps[::-1][::every][::-1]:
        data = base64.b64encode(store.read(sample_path(step))).decode()
        picture = f'<img alt="samples of step {step}" style="width:100%" src="data:image/jpeg;base64,{data}">'
        figures.append(f"<figure>{picture}<figcaption>step {step}</figcaption></figure>")
    if not figures:
        return ""
    what = "a, A to B, and back; b, B to A, and back"
    return f'<section><h2>Samples: {what}</h2><div class="cards">{"".join(figures)}</div></section>'
