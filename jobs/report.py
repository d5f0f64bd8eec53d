"""A job's contact sheet: one HTML file that opens from disk, loads nothing from elsewhere, and runs nothing."""

from __future__ import annotations

import base64
import io
import math
import statistics
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape
from typing import Any

from jobs.curves import read_curve
from jobs.filesystems import StorageOptions, read_url
from jobs.job import read_job
from jobs.ledger import Ledger
from jobs.results import Result, total
from jobs.spec import CURVES, ImageSpec, storage_from_table
from jobs.status import JobStatus, job_status
from jobs.storage import Store
from nst.errors import NstError
from nst.photos import open_photo

__all__ = ["REPORT", "build_report", "publish_report"]

REPORT = "report.html"
_MAX_PAIRS = 60
_MAX_FAILURES = 500
_THUMBNAIL_PX = 360
_MAX_POINTS = 300


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
    storage = storage_from_table(record["job"]["storage"])
    found = _collect(store)
    curves = CURVES in store.names("")  # most jobs have none: not asked for one by one
    with ThreadPoolExecutor(4) as pool:
        cards = list(pool.map(lambda result: _card(store, result, storage, curves), found.shown))
    title = f"{status.kind}: {status.done} of {status.rows} images"
    body = "".join(
        [
            f"<header><h1>{_text(title)}</h1>{_totals(status)}</header>",
            "".join(f'<p class="note">{_text(note)}</p>' for note in status.notes),
            _failures(found, status),
            f'<section class="cards">{"".join(cards)}</section>' if cards else "",
            f"<p>{len(cards)} of {found.good} pictures shown.</p>" if len(cards) < found.good else "",
            "<section class=columns>",
            _settings(record),
            _stages(found.seconds),
            "</section>",
        ]
    )
    return _PAGE.format(title=_text(title), style=_STYLE, body=body)


@dataclass(slots=True)
class _Found:
    """What the report shows of a job of any size."""

    good: int = 0
    bad: int = 0
    shown: list[Result] = field(default_factory=list)
    """At most `_MAX_PAIRS` good results, evenly spaced."""
    failures: list[Result] = field(default_factory=list)
    """The first `_MAX_FAILURES`."""
    seconds: dict[str, array[float]] = field(
        default_factory=lambda: {stage: array("d") for stage in ("load", "compute", "save")}
    )


def _collect(store: Store) -> _Found:
    ledger = Ledger(store)
    done = sorted(ledger.done())
    step = max(1, math.ceil(total(ledger.counts(done))["ok"] / _MAX_PAIRS))
    found = _Found()
    for shard in done:
        for result in ledger.receipt(shard)[0]:
            if result.status == "ok":
                if found.good % step == 0:
                    found.shown.append(result)
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


def _card(store: Store, result: Result, storage: StorageOptions, curves: bool) -> str:
    losses = ", ".join(f"{name} {value:.4g}" for name, value in result.stats.items())
    size = f"{result.width} x {result.height}"
    seconds = f"{result.compute_s:.1f} s" if result.compute_s is not None else ""
    return (
        '<figure><div class="pair">'
        f"{_thumbnail(lambda: read_url(result.url, storage), 'photograph', result.key)}"
        f"{_thumbnail(lambda: store.read(result.output or ''), 'picture', result.key)}"
        f"</div><figcaption><b>{_text(result.key)}</b> {size}, {seconds}"
        f"<br><small>{_text(losses)}</small></figcaption>"
        f"{_curve(store, result.key) if curves else ''}</figure>"
    )


def _thumbnail(read: Any, what: str, key: str) -> str:
    try:
        image = open_photo(read(), max_side_px=_THUMBNAIL_PX)
    except (OSError, NstError) as error:
        return f'<div class="gone">{_text(what)} cannot be read: {_text(str(error))}</div>'
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    data = base64.b64encode(out.getvalue()).decode()
    width, height = image.size
    alt = _text(f"{what} {key}")
    return f'<img alt="{alt}" width="{width}" height="{height}" src="data:image/jpeg;base64,{data}">'


def _curve(store: Store, key: str) -> str:
    """The photograph's loss over its evaluations; nothing if there is no curve of it."""
    try:
        curve = read_curve(store.read(ImageSpec.curve_path(key)))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f'<div class="gone">loss curve cannot be read: {_text(str(error))}</div>'
    losses = [(number, loss) for number, loss in enumerate(curve.get("loss", ()), 1) if math.isfinite(loss)]
    return _line(losses, key) if losses else '<div class="gone">its curve has no finite loss</div>'


def _line(losses: Sequence[tuple[int, float]], key: str) -> str:
    """A line through (evaluation, loss), on a logarithmic scale unless a loss is not positive."""
    step = math.ceil(len(losses) / _MAX_POINTS)
    points = [*losses[:-1:step], losses[-1]]
    logarithmic = all(loss > 0 for _, loss in points)
    heights = [math.log(loss) if logarithmic else loss for _, loss in points]
    (first, before), (last, after) = points[0], points[-1]
    width, low, high = max(1, last - first), min(heights), max(heights)
    drawn = " ".join(
        f"{300 * (number - first) / width:.1f},{50 * (high - height) / ((high - low) or 1):.1f}"
        for (number, _), height in zip(points, heights, strict=True)
    )
    scale = "logarithmic" if logarithmic else "linear"
    title = f"loss of {key}: {before:.4g} at evaluation {first}, {after:.4g} at {last}; {scale} scale"
    return (
        '<svg class="curve" role="img" viewBox="0 0 300 50" preserveAspectRatio="none">'
        f'<title>{_text(title)}</title><polyline points="{drawn}"/></svg>'
    )


def _totals(status: JobStatus) -> str:
    parts = [("state", status.state), *((name, str(number)) for name, number in status.counts.items())]
    items = "".join(f"<li><b>{_text(value)}</b> {_text(name)}</li>" for name, value in parts)
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
    return f"<section>{heading}{_table(('key', 'status', 'error', 'reason', 'attempts'), rows)}{more}</section>"


def _settings(record: Mapping[str, Any]) -> str:
    rows = [*_flat(record["job"]), *_flat({"versions": record["versions"]}), ("begun", record["created"])]
    rows.append(("fingerprint", record["fingerprint"]))
    return f"<section><h2>Settings</h2>{_table(('option', 'value'), rows)}</section>"


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def _stages(stages: Mapping[str, array[float]]) -> str:
    rows = [
        (stage, f"{sum(seconds):.1f} s", f"{statistics.median(seconds):.3f} s", f"{max(seconds):.3f} s")
        for stage, seconds in stages.items()
        if seconds
    ]
    if not rows:
        return ""
    table = _table(("stage", "all images", "median", "slowest"), rows)
    return f"<section><h2>Time per stage</h2>{table}</section>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = "".join(f"<th>{_text(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table>"


def _text(text: str) -> str:
    """Escaped for HTML text and attributes; characters that do not print are shown, not obeyed."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return escape(shown.encode("utf-8", "backslashreplace").decode(), quote=True)


# The policy lets the page use its own style and embedded pictures, and nothing else.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>{body}</body></html>
"""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1560px; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
.totals { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; list-style: none; margin: .5rem 0; padding: 0; }
.note { border-left: 3px solid #d90; padding-left: .7rem; }
.cards { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(460px, 1fr)); }
figure { margin: 0; border: 1px solid #8886; border-radius: 8px; padding: .6rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; align-items: center; }
.pair img { width: 100%; height: auto; border-radius: 4px; display: block; }
.gone { border: 1px dashed #888; padding: .5rem; overflow-wrap: anywhere; font-size: .85rem; }
.curve { display: block; width: 100%; height: 3rem; margin-top: .4rem; overflow: visible; }
.curve polyline { fill: none; stroke: currentColor; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
figcaption { margin-top: .4rem; overflow-wrap: anywhere; } small { opacity: .75; }
table { border-collapse: collapse; } th { text-align: left; }
th, td { border-bottom: 1px solid #8884; padding: .2rem .8rem .2rem 0; vertical-align: top; }
td { overflow-wrap: anywhere; }
.columns { display: flex; flex-wrap: wrap; gap: 0 3rem; }
"""
