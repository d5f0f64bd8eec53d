"""Photographs as a table names them: .csv, .tsv, .jsonl or .parquet, with a column of their places."""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from jobs.config.listing import ListingOptions
from jobs.errors import UsageError
from jobs.ledger.folders import Photo
from jobs.ledger.names import check_key, safe_path
from jobs.ledger.parquet import open_parquet
from jobs.stores.filesystems import StorageOptions, absolute_url, is_url, open_url, path_url, refuse_secrets
from nst.errors import OptionError

__all__ = ["TABLES", "list_table"]

_COLUMNS = ("key", "style", "size_bytes")
"""Columns that are read if they are there, beside that of places."""
_MOST_OF_A_CELL = 64 << 20
"""Bytes in a cell of .csv: captions, embeddings or whole pictures in columns that nobody reads here."""
TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


def list_table(source: str, options: ListingOptions, storage: StorageOptions) -> Iterator[Photo]:
    """The photographs of a table, in its order.

    Raises:
        OptionError: no table.
        UsageError: one without the column of places, or with a key that is no relative path.
    """
    base, column = Path(source).parent, options.url_column
    remote_base = source.rsplit("/", 1)[0] if is_url(source) else None
    for number, record in enumerate(_records(source, options, storage), start=1):
        url = record.get(column)
        if not isinstance(url, str) or not url:
            raise UsageError(_without_url(source, number, record, options))
        if any("\ud800" <= character <= "\udfff" for character in url):
            raise UsageError(f"{source}: row {number}: {column} {url!r} is no text")
        _refuse_secrets(column, url, f"{source}: row {number}")
        place = url
        if remote_base is None:
            place = path_url(absolute_url(url, base))
        elif not is_url(url) and not url.startswith("/"):
            place = f"{remote_base}/{url}"
        key = record.get("key")
        if key is None or key == "":
            path = unquote(_path_of(url)) if is_url(url) else url
            key = safe_path(posixpath.splitext(posixpath.basename(path))[0])
        check_key(str(key), f"{source}: row {number}")
        yield Photo(
            key=str(key),
            url=place,
            size_bytes=_size_bytes(record, f"{source}: row {number}"),
            style=_style(record),
        )


def _without_url(source: str, number: int, record: dict[str, Any], options: ListingOptions) -> str:
    column = options.url_column
    columns = [str(name) for name in record if name is not None]  # under None are cells of no column
    if column in columns:
        value = record[column]
        what = "is empty" if value in (None, "") else f"is {value!r}, which is no text"
        return f"{source}: row {number} has no place: its `{column}` {what}"
    text = f"{source}: row {number} has no `{column}`; columns: {', '.join(columns)}"
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        return f"{text}; `separator` says what is between them"
    return f"{text}; `url_column` says which one names the photographs"


def _refuse_secrets(column: str, url: str, where: str) -> None:
    try:
        refuse_secrets(column, url)
    except OptionError as error:
        raise UsageError(f"{where}: {error}") from None


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:  # another scheme's grammar, e.g. with brackets; if reading it fails, that is its own row
        return url


def _style(record: dict[str, Any]) -> str | None:
    """As text: what is no name of a style is nothing worse than an unknown one."""
    style = record.get("style")
    return None if style in (None, "") else str(style).encode("utf-8", "backslashreplace").decode()


def _size_bytes(record: dict[str, Any], where: str) -> int | None:
    size = record.get("size_bytes")
    try:
        number = int(size) if size not in (None, "") else None
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{where}: size_bytes {size!r} is no number") from error
    if number is not None and not 0 <= number < 2**63:
        raise UsageError(f"{where}: size_bytes {size!r} is no size")
    return number


def _records(source: str, options: ListingOptions, storage: StorageOptions) -> Iterator[dict[str, Any]]:
    name = source.lower()
    try:
        with open_url(source, storage) as raw:
            if name.endswith(".parquet"):
                file, wanted = open_parquet(raw), (options.url_column, *_COLUMNS)
                names = file.schema_arrow.names
                # Others may be large, as pictures and embeddings are; if that of places is none, all are named.
                columns = [name for name in names if name in wanted] if options.url_column in names else None
                for batch in file.iter_batches(columns=columns, use_threads=False):
                    yield from batch.to_pylist()
                return
            lines = (line.decode("utf-8-sig" if n == 0 else "utf-8") for n, line in enumerate(raw))
            if name.endswith((".csv", ".tsv")):
                yield from _csv_rows(source, lines, options)
            else:
                yield from _json_lines(source, lines)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise OptionError("photos", source, reason=f"not a readable table: {error}") from error


def _csv_rows(source: str, lines: Iterator[str], options: ListingOptions) -> Iterator[dict[str, Any]]:
    """Cells by the names of their columns; those that are missing at a row's end are None."""
    separator = options.separator or ("\t" if source.lower().endswith(".tsv") else ",")
    csv.field_size_limit(_MOST_OF_A_CELL)
    # Strict: else a double quote that nobody closes takes all rows that follow into its cell, unsaid.
    rows = csv.DictReader(lines, delimiter=separator, strict=True)
    for name in rows.fieldnames or ():
        if name != name.strip() and name.strip() in (options.url_column, *_COLUMNS):
            reason = f"has blanks around it: what stands between two {separator!r} is taken as it is"
            raise UsageError(f"{source}: the name of the column {name!r} {reason}")
    for record in _whole_rows(source, rows):
        if options.url_column in record and any(record.get(None, ())):
            raise UsageError(
                f"{source}: line {rows.line_num} has more cells than the header; "
                f"a cell with a {separator!r} in it stands in double quotes"
            )
        yield record


def _whole_rows(source: str, rows: csv.DictReader[str]) -> Iterator[dict[Any, Any]]:
    while True:
        before = rows.line_num
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(
                f"{source}: the row after line {before} cannot be read: {error}; a cell that begins with a "
                f"double quote ends with one, and those within it are doubled"
            ) from error


def _json_lines(source: str, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                where = f"line {number} is no JSON: {error.msg}, at character {error.pos + 1}"
                raise OptionError("photos", source, reason=f"not a readable table: {where}") from error
            except (ValueError, RecursionError) as error:  # numbers of thousands of digits, endless brackets
                reason = f"not a readable table: line {number}: {error}"
                raise OptionError("photos", source, reason=reason) from error
            if not isinstance(record, dict):
                raise UsageError(
                    f"{source}: line {number}: expected one JSON object, got {line.strip()[:80]!r}"
                )
            yield record
