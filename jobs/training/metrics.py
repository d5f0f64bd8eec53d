"""What a training measured: parts of JSON lines, one per step, and in the end one Parquet file."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.stores.store import Store

__all__ = [
    "METRICS",
    "PARTS",
    "Grouped",
    "Row",
    "means",
    "part_path",
    "part_step",
    "parts",
    "read_metrics",
    "read_part",
    "write_metrics",
    "write_part",
]

METRICS = "metrics.parquet"
PARTS = "metrics"
Row = Mapping[str, Any]
"""Of a step: `step`, counted from 1, `epoch`, `learning_rate`, `seconds` since the one before, its losses."""
Grouped = Callable[[Mapping[str, float]], Mapping[str, Mapping[str, float]]]
"""Losses, or their means, as people read them: see `Recipe.grouped`."""


def part_path(step: int) -> str:
    """Of the part whose last step this is."""
    return f"{PARTS}/step-{step:09d}.jsonl"


def part_step(path: str) -> int:
    return int(path.removeprefix(f"{PARTS}/step-").removesuffix(".jsonl"))


def parts(store: Store) -> list[str]:
    """Paths of the parts, oldest first."""
    return [f"{PARTS}/{name}" for name in store.names(PARTS) if name.endswith(".jsonl")]


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
        rows: list[dict[str, Any]] = pq.read_table(
            io.BytesIO(store.read(METRICS)), use_threads=False
        ).to_pylist()
        return rows
    found = {row["step"]: row for path in parts(store) for row in read_part(store.read(path))}
    return [found[step] for step in sorted(found)]


def write_metrics(rows: Sequence[Row]) -> bytes:
    """Parquet bytes: a row per step, a column per name."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {
        name: pa.array(
            [row.get(name) for row in rows], pa.int64() if name in ("step", "epoch") else pa.float64()
        )
        for name in names
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Of the losses of some steps."""
    names = (
        [name for name in rows[0] if name not in ("step", "epoch", "learning_rate", "seconds")] if rows else []
    )
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in names}
