"""A job's contact sheet: one HTML file that opens from disk, loads nothing from elsewhere, and runs nothing."""

from __future__ import annotations

import base64
import io
import math
import statistics
from array import array
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from jobs.console.html import curve, page, settings, table, text
from jobs.inspect.status import JobStatus, job_status
from jobs.ledger.curves import read_curve
from jobs.ledger.job_record import read_job
from jobs.ledger.layout import CURVES, REPORT, curve_path
from jobs.ledger.parts import Counted, parts_of, rows_that_count
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import Result, total
from jobs.stores.moved import read_moved_along
from jobs.stores.store import Store
from nst.errors import NstError
from nst.images.decode import open_photo

__all__ = ["build_report", "publish_report"]

_MAX_PAIRS = 60
_MAX_FAILURES = 500
_THUMBNAIL_PX = 360


def publish_report(store: Store) -> str:
    """Build the report, put it beside the job, and say where it is.

    Raises:
        UsageError: there is no job.
        StoreError: a receipt is damaged.
    """
    store.publish(REPORT, build_report(store).encode())
    return f"{store.url.rstrip('/')}/{REPORT}"


def build_report(store: Store) -> str:
    """The report as HTML. Every name and message in it is escaped."""
    record, status = read_job(store), job_status(store)
    storage, found = record.storage, _collect(store)
    before = record.job.get("output", store.url)

    def photo(url: str) -> bytes:
        return read_moved_along(url, before, store.url, storage)

    curves = CURVES in store.names("")  # most jobs have none: not asked for one by one
    with ThreadPoolExecutor(4) as pool:
        cards = list(pool.map(lambda each: _card(store, each, photo, curves), found.shown))
    title = f"{status.kind}: {status.done} of {status.rows} images"
    body = "".join(
        [
            f"<header><h1>{text(title)}</h1>{_totals(status)}</header>",
            "".join(f'<p class="note">{text(note)}</p>' for note in status.notes),
            _failures(found, status),
            f'<section class="cards">{"".join(cards)}</section>' if cards else "",
            f"<p>{len(cards)} of {found.good} pictures shown.</p>" if len(cards) < found.good else "",
            "<section class=columns>",
            settings(record.settings),
            _stages(found.seconds),
            "</section>",
        ]
    )
    return page(title, body)


@dataclass(slots=True)
class _Found:
    """What the report shows of a job of any size."""

    good: int = 0
    bad: int = 0
    shown: list[Counted] = field(default_factory=list)
    """At most `_MAX_PAIRS` good results, spread evenly."""
    failures: list[Result] = field(default_factory=list)
    """The first `_MAX_FAILURES`."""
    seconds: dict[str, array[float]] = field(
        default_factory=lambda: {stage: array("d") for stage in ("load", "compute", "save")}
    )


def _collect(store: Store) -> _Found:
    ledgers = [Ledger(part) for part in parts_of(store)]
    good = sum(total(ledger.counts(ledger.done()))["ok"] for ledger in ledgers)
    step = max(1, math.ceil(good / _MAX_PAIRS))
    # Of each `step` another one, else some of several styles that take turns would not be shown.
    wanted = {min(start + start // step % step, good - 1) for start in range(0, good, step)}
    found = _Found()
    for counted in rows_that_count(store):
        result = counted.result
        if result.status == "ok":
            if found.good in wanted:
                found.shown.append(counted)
            found.good += 1
        else:
            if len(found.failures) < _MAX_FAILURES:
                found.failures.append(result)
            found.bad += 1
        for stage, seconds in found.seconds.items():
            spent = getattr(result, f"{stage}_s")
            if spent is not None:
                seconds.append(spent)
    return found


def _card(store: Store, counted: Counted, photo: Callable[[str], bytes], curves: bool) -> str:
    result = counted.result
    losses = ", ".join(f"{name} {value:.4g}" for name, value in result.stats.items())
    size = f"{result.width} x {result.height}"
    seconds = f"{result.compute_s:.1f} s" if result.compute_s is not None else ""
    return (
        '<figure><div class="pair">'
        f"{_thumbnail(lambda: photo(result.url), 'photograph', result.key)}"
        f"{_thumbnail(lambda: store.read(result.output or ''), 'picture', result.key)}"
        f"</div><figcaption><b>{text(result.key)}</b> {size}, {seconds}"
        f"<br><small>{text(losses)}</small></figcaption>"
        f"{_curve(counted.store, result.key) if curves else ''}</figure>"
    )


def _thumbnail(read: Any, what: str, key: str) -> str:
    try:
        image = open_photo(read(), max_side_px=_THUMBNAIL_PX)
    except (OSError, NstError) as error:
        return f'<div class="gone">{text(what)} cannot be read: {text(str(error))}</div>'
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    data = base64.b64encode(out.getvalue()).decode()
    width, height = image.size
    alt = text(f"{what} {key}")
    return f'<img alt="{alt}" width="{width}" height="{height}" src="data:image/jpeg;base64,{data}">'


def _curve(store: Store, key: str) -> str:
    """The photograph's loss over its evaluations; nothing if there is no curve of it."""
    try:
        found = read_curve(store.read(curve_path(key)))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f'<div class="gone">loss curve cannot be read: {text(str(error))}</div>'
    losses = [(number, loss) for number, loss in enumerate(found.get("loss", ()), 1) if math.isfinite(loss)]
    return curve(losses, key) if losses else '<div class="gone">its curve has no finite loss</div>'


def _totals(status: JobStatus) -> str:
    parts = [("state", status.state), *((name, str(number)) for name, number in status.counts.items())]
    items = "".join(f"<li><b>{text(value)}</b> {text(name)}</li>" for name, value in parts)
    return f'<ul class="totals">{items}</ul>'


def _failures(found: _Found, status: JobStatus) -> str:
    if not found.bad:
        return "<p>No failures.</p>" if status.done == status.rows else ""
    rows = [
        (result.key, result.status, result.error_type or "", result.error or "", str(result.attempts))
        for result in found.failures
    ]
    hidden = found.bad - len(found.failures)
    more = f"<p>and {hidden} more</p>" if hidden else ""
    heading = f"<h2>{found.bad} without a picture</h2>"
    return f"<section>{heading}{table(('key', 'status', 'error', 'reason', 'attempts'), rows)}{more}</section>"


def _stages(stages: Mapping[str, array[float]]) -> str:
    rows = [
        (stage, f"{sum(seconds):.1f} s", f"{statistics.median(seconds):.3f} s", f"{max(seconds):.3f} s")
        for stage, seconds in stages.items()
        if seconds
    ]
    if not rows:
        return ""
    shown = table(("stage", "all images", "median", "slowest"), rows)
    return f"<section><h2>Time per stage</h2>{shown}</section>"
