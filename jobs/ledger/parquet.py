"""Parquet as jobs have it: written with checksums, read without threads, and what damage raises then."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["DAMAGED_PARQUET", "open_parquet", "parquet_bytes", "read_parquet"]

DAMAGED_PARQUET = (pa.ArrowException, OSError, KeyError, TypeError, MemoryError)
"""What reading a damaged Parquet file may raise."""


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of a file, each page with its checksum."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def open_parquet(source: Any, **options: Any) -> pq.ParquetFile:
    """A path or file, to be read in the caller's thread with `use_threads=False`: pyarrow's own may still be
    ending when the interpreter does, and abort it."""
    return pq.ParquetFile(source, pre_buffer=False, **options)


def read_parquet(data: bytes) -> pa.Table:
    """The table in the bytes of a file, its pages checked. Unlike `pq.read_table`, it does not load pandas.

    Raises: `DAMAGED_PARQUET`.
    """
    file = open_parquet(io.BytesIO(data), page_checksum_verification=True)
    return file.read(use_threads=False)
