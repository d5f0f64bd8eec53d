"""A training's report: one HTML file that looks like that of a batch job, its samples in the same viewer. Loads
neither torch nor ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pyarrow as pa

from jobs.console.display import duration
from jobs.console.html import chart, settings, table, text
from jobs.ledger.job_record import TRAINING, read_job
from jobs.ledger.layout import REPORT
from jobs.stores.store import Store
from jobs.training.layout import read_skipped, sample_path, sample_steps
from jobs.training.metrics import Grouped, Row, data_share, means, metrics_table, rows_of
from jobs.training.recipes import TRAININGS
from jobs.training.status import TrainStatus, train_status
from jobs.view.page import data_url, one_file, viewer_dialog

__all__ = ["build_training_report", "publish_training_report"]

_MAX_SAMPLES = 12
_MAX_POINTS = 300
_TIMES = "Speed"
_UNITS = {"time of a step": "s", "images per second": "1/s", "waiting for photographs": "%"}


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
    status, record = train_status(store), read_job(store, TRAINING)
    metrics = metrics_table(store)
    title = f"train {status.training}: step {status.step}, {status.state}"
    skipped = [(found["url"], found["error"]) for found in read_skipped(store).values()]
    left_out = _section(f"{len(skipped)} left out", table(("photograph", "reason"), skipped))
    body = "".join(
        [
            f'<header><h1>{text(title)}</h1>{_totals(status, metrics)}</header><main class="sheet">',
            "".join(f'<p class="note">{text(note)}</p>' for note in status.notes),
            _changes(status),
            _curves(metrics, TRAININGS[status.training].grouped, record.job["batch_size"]),
            _evaluations(status),
            _samples(store, status),
            left_out if skipped else "",
            f'<div class="wide">{settings(record.settings)}</div></main>',
            viewer_dialog(),
        ]
    )
    styles, scripts = ("view.css", "report.css", "training.css"), ("viewer.js", "training.js")
    return one_file(title, body, styles=styles, scripts=scripts)


def _section(heading: str, shown: str) -> str:
    return f'<section class="wide"><h2>{text(heading)}</h2>{shown}</section>'


def _totals(status: TrainStatus, metrics: pa.Table) -> str:
    parts = [("state", status.state), ("steps", str(status.step))]
    parts += [(f"photographs of {name}", str(number)) for name, number in status.photos.items()]
    if metrics.num_rows:
        parts.append(("trained for", duration(math.fsum(metrics["seconds"].to_pylist()))))
    items = "".join(f"<li><b>{text(value)}</b> {text(name)}</li>" for name, value in parts)
    return f'<ul class="totals">{items}</ul>'


def _changes(status: TrainStatus) -> str:
    """Options that were changed since the training was begun; the settings have those that it was begun
    with."""
    rows = [
        (str(change.step), name, str(values.before), str(values.after), change.created)
        for change in status.changes
        for name, values in change.options.items()
    ]
    head = ("after step", "option", "before", "since then", "changed at")
    return _section("Changed options", table(head, rows)) if rows else ""


def _curves(metrics: pa.Table, grouped: Grouped, batch_size: int) -> str:
    """One per loss: means over as many steps as there are to a point. First the group `loss`, then the others
    under their names; a point where a group does not have a loss is left out."""
    width = max(1, math.ceil(metrics.num_rows / _MAX_POINTS))
    groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for start in range(0, metrics.num_rows, width):
        some = list(rows_of(metrics.slice(start, width)))
        rate = math.fsum(row["learning_rate"] for row in some) / len(some)
        found = grouped(means(some))
        found = {**found, "loss": {"learning_rate": rate, **found["loss"]}, _TIMES: _times(some, batch_size)}
        for group, losses in found.items():
            for name, loss in losses.items():
                points = groups.setdefault(group, {}).setdefault(name, [])
                points.append((int(some[-1]["step"]), loss))
    return "".join(_figures(group, curves) for group, curves in groups.items())


def _times(rows: Sequence[Row], batch_size: int) -> dict[str, float]:
    """How fast some steps were: by name, with the unit in `_UNITS`."""
    seconds, share = math.fsum(row["seconds"] for row in rows), data_share(rows)
    return {
        "time of a step": seconds / len(rows),
        "images per second": batch_size * len(rows) / max(seconds, 1e-9),
        **({} if share is None else {"waiting for photographs": 100 * share}),
    }


def _figures(group: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """A section; the whole has no heading."""
    what = "" if group == "loss" else group.replace("_to_", " to ")
    figures = []
    for name, points in curves.items():
        shown = f"{what}: {name}" if what and group != _TIMES else name
        unit = _UNITS.get(name, "") if group == _TIMES else ""
        end = f" {text(unit)}" if unit else ""
        caption = f"<figcaption><b>{text(shown)}</b> {points[-1][1]:.4g}{end}</figcaption>"
        figures.append(f"<figure>{chart(points, shown, 'step', unit)}{caption}</figure>")
    heading = f"<h2>{text(what)}</h2>" if what else ""
    return f'{heading}<section class="cards">{"".join(figures)}</section>'


def _evaluations(status: TrainStatus) -> str:
    if not status.evaluations:
        return ""
    names = list(dict.fromkeys(name for found in status.evaluations.values() for name in found))
    rows = [
        (str(step), *(f"{found[name]:.5g}" if name in found else "" for name in names))
        for step, found in status.evaluations.items()
    ]
    return _section("Distances to the other collection", table(("step", *names), rows))


def _samples(store: Store, status: TrainStatus) -> str:
    """Of evenly spaced steps: the photographs and their translations."""
    steps = sample_steps(store)
    every = math.ceil(len(steps) / _MAX_SAMPLES) if steps else 1
    figures = []
    for step in steps[::-1][::every][::-1]:
        url = data_url(store.read(sample_path(step)), "image/jpeg")
        picture = (
            f'<button type="button" class="sample"><img alt="samples of step {step}" src="{url}"></button>'
        )
        figures.append(f"<figure>{picture}<figcaption>step {step}</figcaption></figure>")
    if not figures:
        return ""
    what = TRAININGS[status.training].samples_caption(list(status.photos))
    return f'<section><h2>Samples: {text(what)}</h2><div class="cards large">{"".join(figures)}</div></section>'
