"""A photograph's curve: what its method measured at every evaluation, as Parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import pyarrow as pa

from jobs.ledger.parquet import DAMAGED_PARQUET, parquet_bytes, read_parquet

__all__ = ["read_curve", "write_curve"]


def write_curve(curve: Mapping[str, Sequence[float]]) -> bytes:
    """Parquet bytes: a row per evaluation, counted from 1, a column per name, their digest in the metadata.

    Raises:
        ValueError: the names do not have equally many numbers.
    """
    evaluations = range(1, len(next(iter(curve.values()))) + 1)
    columns = {
        "evaluation": pa.array(evaluations, pa.int32()),
        **{name: pa.array(numbers, pa.float64()) for name, numbers in curve.items()},
    }
    table = pa.table(columns)
    return parquet_bytes(table.replace_schema_metadata({"sha256": _digest(table)}))


def read_curve(data: bytes) -> dict[str, list[float]]:
    """The inverse of `write_curve`.

    Raises:
        ValueError: not a curve, or a damaged one.
    """
    try:
        table = read_parquet(data)
        if table.schema.metadata[b"sha256"] != _digest(table).encode():
            raise ValueError("was changed: its digest is not that of its numbers")
        curve: dict[str, list[float]] = table.drop_columns("evaluation").to_pydict()
    except DAMAGED_PARQUET as error:
        raise ValueError(f"not a curve: {error}") from error
    return curve


def _digest(table: pa.Table) -> str:
    return hashlib.sha256(json.dumps(table.to_pydict()).encode()).hexdigest()
