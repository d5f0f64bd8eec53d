"""A job's report: the page of `nst view` as one HTML file that opens from disk, with all photographs of a job
of some thousand, or a part of those of a larger one. Loads neither torch nor ray, and needs no server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from jobs.console.html import settings, table, text
from jobs.inspect.cards import Card, cards
from jobs.inspect.styles import style_figures
from jobs.inspect.thumbnails import TYPE
from jobs.ledger.layout import REPORT
from jobs.ledger.results import STATUSES
from jobs.stores.store import Store
from jobs.view.index import Array, Rows
from jobs.view.page import embedded, one_file, page_body
from jobs.view.watch import Watch, job_json

__all__ = ["build_report", "publish_report"]

_MOST_ROWS = 3_000
"""Photographs that a report shows."""
_MOST_FAILURES = 1_000
"""Photographs without a picture among them, if there are more with one than that leaves room for."""
_CHUNK = 50
"""Photographs whose thumbnails the browser reads at once, when one of them is seen."""


def _nobody(done: int, total: int) -> None:
    """Who asks to be told nothing."""


def publish_report(store: Store, tell: Callable[[int, int], object] = _nobody) -> str:
    """Build the report, put it beside the job, and say where it is.

    Args:
        tell: told how many photographs are ready, of how many.

    Raises:
        UsageError: there is no job.
        OSError: the store fails.
    """
    store.publish(REPORT, build_report(store, tell).encode())
    return f"{store.url.rstrip('/')}/{REPORT}"


def build_report(store: Store, tell: Callable[[int, int], object] = _nobody) -> str:
    """The report as HTML. Whatever the job says is text in it."""
    watch = Watch(store)
    watch.read()
    rows = watch.index.rows()
    places, note = _shown(rows)
    found = cards(watch, rows, places, tell)
    job = _job(watch, rows, note, found)
    data = {"job": job, "rows": [card.row for card in found], "chunk": _CHUNK, "type": TYPE}
    chunks = [found[start : start + _CHUNK] for start in range(0, len(found), _CHUNK)]
    pictures = [
        embedded(f"pictures-{number}", [card.small for card in some]) for number, some in enumerate(chunks)
    ]
    return one_file(
        f"{store.url}: {job['done']} of {job['total']}",
        # The first thumbnails come before the script, which shows them while the others are read.
        "".join([page_body(), _details(watch, rows), embedded("data", data), *pictures[:1]]),
        styles=("view.css", "report.css"),
        scripts=("viewer.js", "report.js", "view.js"),
        pictures="data: file: 'self'",
        after=pictures[1:],
    )


def _shown(rows: Rows) -> tuple[Sequence[int], str]:
    """Which rows are shown, in order, and what there is to say of those that are not."""
    good = np.flatnonzero(rows.status == STATUSES.index("ok"))
    bad = np.flatnonzero(rows.status != STATUSES.index("ok"))
    if len(rows) <= _MOST_ROWS:
        return range(len(rows)), ""
    failures = bad[: max(_MOST_FAILURES, _MOST_ROWS - len(good))]
    pictures = _spread(good, _MOST_ROWS - len(failures))
    some = "all" if len(failures) == len(bad) else f"the first {len(failures):,} of"
    without = f", and {some} {len(bad):,} photographs without one" if len(bad) else ""
    note = f"{len(pictures):,} of {len(good):,} pictures are here, evenly spread{without}; nst view shows all"
    return np.sort(np.concatenate([pictures, failures])).tolist(), note


def _spread(places: Array, most: int) -> Array:
    """At most so many of them, one of each stretch. Of each another one, or else some of several styles that
    take turns would not be shown."""
    if len(places) <= most:
        return places
    bounds = np.arange(most + 1) * len(places) // most
    chosen: Array = places[bounds[:-1] + np.arange(most) % np.diff(bounds)]
    return chosen


def _job(watch: Watch, rows: Rows, note: str, found: Sequence[Card]) -> dict[str, object]:
    """What the page says of the job: how far it was when the report was made."""
    told = job_json(watch, rows)
    sides = [side for card in found for side in card.sides_px]
    return {
        **told,
        "version": "",
        "rate": 0,
        "left_s": None,
        "workers": 0,
        "notes": [note, *told["notes"]] if note else told["notes"],
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "side_px": statistics.median(sides) if sides else 0,
    }


def _details(watch: Watch, rows: Rows) -> str:
    """What is not about single photographs, to be looked at when it is asked for."""
    styles = style_figures(watch.index.parts, watch.store.url)
    return "".join(
        [
            '<dialog id="details" aria-label="details"><div class="top"><b class="title">Details</b>',
            '<button id="details-close" type="button" class="icon" aria-label="Close">✕</button></div>',
            f'<div class="sheet" tabindex="0"><p class="dim">{text(watch.store.url)}</p>',
            f'<section class="styles">{"".join(styles)}</section>' if styles else "",
            _stages(rows),
            settings(watch.record.settings),
            "</div></dialog>",
        ]
    )


def _stages(rows: Rows) -> str:
    lines = []
    for stage in ("load", "compute", "save"):
        spent = rows.figures[f"{stage}_s"]
        spent = spent[~np.isnan(spent)]
        if len(spent):
            times = (f"{spent.sum():.1f} s", f"{np.median(spent):.3f} s", f"{spent.max():.3f} s")
            lines.append((stage, *times))
    if not lines:
        return ""
    shown = table(("stage", "all images", "median", "slowest"), lines)
    return f"<section><h2>Time per stage</h2>{shown}</section>"
