"""Parquet as receipts and curves have it: in memory, with checksums, and what damage raises when it is read."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["DAMAGED_PARQUET", "parquet_bytes"]

DAMAGED_PARQUET = (pa.ArrowException, OSError, KeyError, TypeError, MemoryError)
"""What reading a damaged Parquet file may raise."""


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of a file, each page with its checksum."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()
