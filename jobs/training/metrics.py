"""What a training measured: parts of JSON lines, one per step, and in the end one Parquet file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.ledger.parquet import parquet_bytes, read_parquet
from jobs.stores.store import Store
from jobs.training.layout import METRICS, metrics_path, metrics_steps

__all__ = [
    "Grouped",
    "Row",
    "data_share",
    "means",
    "metrics_table",
    "read_metrics",
    "read_part",
    "rows_of",
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
_AT_ONCE = 2000
"""Rows that are there as such at once."""
Grouped = Callable[[Mapping[str, float]], Mapping[str, Mapping[str, float]]]
"""Losses, or their means, as people read them: see `Recipe.grouped`."""


def write_part(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_part(data: bytes) -> list[dict[str, Any]]:
    """Raises ValueError: damaged."""
    return [json.loads(line) for line in data.decode().splitlines()]


def metrics_table(store: Store) -> pa.Table:
    """The metrics of all steps, in order, each once: a row per step, a column per name, null where a step did
    not measure it. Steps that were done again gave the same numbers.

    Raises:
        ValueError: a part is damaged.
        DAMAGED_PARQUET: the file of all is.
    """
    if METRICS in store.names(""):
        return read_parquet(store.read(METRICS))
    tables: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    for step in metrics_steps(store):
        rows += read_part(store.read(metrics_path(step)))
        if len(rows) >= _AT_ONCE:
            tables.append(_table(rows))
            rows = []
    table = pa.concat_tables([*tables, _table(rows)], promote_options="default").combine_chunks()
    if not table.num_rows:
        return table
    last = {step: place for place, step in enumerate(table["step"].to_pylist())}
    order = [last[step] for step in sorted(last)]
    return table if order == list(range(table.num_rows)) else table.take(order)


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of `metrics_table`, each with what its step measured. All at once take ten times the memory of
    the table."""
    for start in range(0, table.num_rows, _AT_ONCE):
        for row in table.slice(start, _AT_ONCE).to_pylist():
            yield {name: value for name, value in row.items() if value is not None}


def read_metrics(store: Store) -> list[dict[str, Any]]:
    """The rows of `metrics_table`. Raises as it does."""
    return list(rows_of(metrics_table(store)))


def write_metrics(rows: Sequence[Row]) -> bytes:
    """Rows as `metrics_table` reads them in the end."""
    return parquet_bytes(_table(rows))


def _table(rows: Sequence[Row]) -> pa.Table:
    """Raises ValueError: they are damaged."""
    try:
        kinds = {name: pa.int64() if name in _NUMBERS else pa.float64() for row in rows for name in row}
        return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items()})
    except (pa.ArrowException, AttributeError, TypeError) as error:
        raise ValueError(f"a row of metrics has no numbers: {error}") from error


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
