"""What a training measured: parts of JSON lines, one per step, and in the end one Parquet file."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.ledger.parquet import read_parquet
from jobs.stores.store import Store
from jobs.training.layout import METRICS, metrics_path, metrics_steps

__all__ = [
    "Grouped",
    "Row",
    "data_share",
    "means",
    "read_metrics",
    "read_part",
    "write_metrics",
    "write_part",
]

Row = Mapping[str, Any]
"""What a step measured: its losses, and `step`, counted from 1, `epoch`, `learning_rate`, `seconds` since the
one before, `data_seconds`, for which it waited for its photographs, `time` at its end, in seconds since 1970,
and `change`, the number of the last change of options, if there was one. Metrics of earlier versions lack the
last three."""
_NUMBERS = ("step", "epoch", "change")
_NO_LOSSES = (*_NUMBERS, "learning_rate", "seconds", "data_seconds", "time")
Grouped = Callable[[Mapping[str, float]], Mapping[str, Mapping[str, float]]]
"""Losses, or their means, as people read them: see `Recipe.grouped`."""


def write_part(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_part(data: bytes) -> list[dict[str, Any]]:
    """Raises ValueError: damaged."""
    return [json.loads(line) for line in data.decode().splitlines()]


def read_metrics(store: Store) -> list[dict[str, Any]]:
    """The rows of all steps, in order, each once: steps that were done again gave the same numbers.

    Raises:
        ValueError: a part is damaged.
    """
    if METRICS in store.names(""):
        rows: list[dict[str, Any]] = read_parquet(store.read(METRICS)).to_pylist()
        return rows
    parts = (read_part(store.read(metrics_path(step))) for step in metrics_steps(store))
    found = {row["step"]: row for rows in parts for row in rows}
    return [found[step] for step in sorted(found)]


def write_metrics(rows: Sequence[Row]) -> bytes:
    """Parquet bytes: a row per step, a column per name."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {
        name: pa.array([row.get(name) for row in rows], pa.int64() if name in _NUMBERS else pa.float64())
        for name in names
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Means of the losses of some steps, each over those that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in _NO_LOSSES and value is not None:
                found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def data_share(rows: Sequence[Row]) -> float | None:
    """Which part of their time steps waited for their photographs, in [0, 1]; None: they do not say."""
    timed = [row for row in rows if row.get("data_seconds") is not None]
    seconds = math.fsum(row["seconds"] for row in timed)
    return math.fsum(row["data_seconds"] for row in timed) / seconds if seconds > 0 else None
