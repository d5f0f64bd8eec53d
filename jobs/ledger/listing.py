"""What photographs there are: a folder, a glob, a bucket prefix, or a table with a `url` column.

Listings come in a fixed order, a folder at a time, so that they stream.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import UsageError
from jobs.stores.filesystems import (
    STANDARD_STORAGE,
    StorageOptions,
    absolute_url,
    is_url,
    kind_of,
    open_url,
    path_url,
    refuse_secrets,
    url_to_filesystem,
)
from nst.errors import OptionError

__all__ = ["PHOTO_EXTENSIONS", "Photo", "list_photos", "pictures_in"]

# fmt: off
PHOTO_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif",
    ".heic", ".heif",
))
# fmt: on
_TABLES = (".parquet", ".csv", ".jsonl", ".ndjson")
_MAX_PART_BYTES = 200  # of a key between slashes; file systems take 255 with what is added
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph as listed."""

    key: str
    url: str
    size_bytes: int | None = None
    style: str | None = None
    """Of a table with such a column."""


def list_photos(
    source: str,
    *,
    exclude: str | None = None,
    storage: StorageOptions = STANDARD_STORAGE,
) -> Iterator[Photo]:
    """The photographs that `source` (absolute) names, but for those below the folder `exclude`.

    Raises:
        OptionError: nothing is there, or it is no folder, glob, or table.
        UsageError: a table without `url`, or with a key that is no relative path.
    """
    kind, is_table = _kind_at(source, storage), source.lower().endswith(_TABLES)
    if kind == "directory":
        return _list_folder(source, None, exclude, storage)
    if kind is None and _MAGIC.search(source):
        return _list_glob(source, exclude, storage)
    if kind is None:
        raise OptionError("photos", source, reason=f"there is no such {'file' if is_table else 'folder'}")
    if is_table:
        return _list_table(source, storage)
    reason = f"is a single file; expected a folder, a glob, or a manifest ({', '.join(_TABLES)})"
    raise OptionError("photos", source, reason=reason)


def pictures_in(
    place: str,
    *,
    exclude: str | None = None,
    storage: StorageOptions = STANDARD_STORAGE,
) -> list[str] | None:
    """Where the pictures in the folder or bucket prefix `place` (absolute) are, sorted, but for those below the
    folder `exclude`; None if it is no folder.

    Raises:
        OSError: it cannot be asked for or listed.
        UsageError: it holds folders without a name.
    """
    if place.startswith(("http://", "https://")) or _kind_at(place, storage) != "directory":
        return None  # the web has no folders
    photos = _list_folder(place, None, exclude, storage)
    return sorted(absolute_url(photo.url, Path("/")) for photo in photos)


# Folders and prefixes


def _list_folder(
    root: str, pattern: str | None, exclude: str | None, storage: StorageOptions
) -> Iterator[Photo]:
    """Photographs below `root`, sorted by folder; with `pattern`, those whose relative path matches it."""
    for folder, files in _walk(root, storage):
        if exclude is not None and f"{root.rstrip('/')}/{folder}/".startswith(f"{exclude.rstrip('/')}/"):
            continue
        wanted = []
        for name, size in sorted(files):
            relative = f"{folder}/{name}" if folder else name
            if posixpath.splitext(name)[1].lower() not in PHOTO_EXTENSIONS or name.startswith("."):
                continue
            if pattern is None or _matches(relative, pattern):
                wanted.append((relative, size))
        keys = _keys_within_folder([relative for relative, _ in wanted])
        for (relative, size), key in zip(wanted, keys, strict=True):
            url = f"{root.rstrip('/')}/{relative}"
            yield Photo(key=key, url=url if is_url(url) else path_url(url), size_bytes=size)


def _walk(root: str, storage: StorageOptions) -> Iterator[tuple[str, list[tuple[str, int | None]]]]:
    """(relative folder, its files with sizes), parents before children, each sorted by name."""
    if not is_url(root):
        for folder, inner, names in os.walk(root, onerror=_fail):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            relative = Path(folder).relative_to(root).as_posix()
            yield ("" if relative == "." else relative), [(name, _size(folder, name)) for name in names]
        return
    filesystem, base = url_to_filesystem(root, storage)
    base, again = base.rstrip("/"), storage.backoff()
    # Not filesystem.walk: below the first level it takes a folder that cannot be listed for an empty one.
    waiting = [base]
    while waiting:
        folder = waiting.pop()
        files: list[tuple[str, int | None]] = []
        folders: set[str] = set()
        for info in again(partial(filesystem.ls, folder, detail=True)):
            name = info["name"].rstrip("/").rsplit("/", 1)[-1]
            if info["type"] == "directory" and info["name"] == f"{folder}/":
                raise UsageError(
                    f"below {folder}/ is a folder without a name (`//`), which cannot be listed; "
                    f"a manifest with a `url` column can name what is in it"
                )
            if info["type"] == "directory":
                folders.add(info["name"].rstrip("/"))
            elif name and not info["name"].endswith("/"):
                files.append((name, info.get("size")))
        waiting += sorted(folders - {folder}, reverse=True)
        yield folder.removeprefix(base).strip("/"), files


def _fail(error: OSError) -> None:
    """A folder that cannot be listed must not pass for an empty one."""
    raise error


def _size(folder: str, name: str) -> int | None:
    try:
        return os.stat(os.path.join(folder, name)).st_size
    except OSError:  # a dangling link is a photograph that will fail with its reason, not one to leave out
        return None


def _keys_within_folder(paths: list[str]) -> list[str]:
    """Keys for the files of one folder: the path without its extension, or with it where two would be equal, or
    with a digest where they still are. They are compared as they will be: safe, and without regard to case."""
    keys = [_safe(posixpath.splitext(path)[0]) for path in paths]
    for longer in (_safe, lambda path: _safe(f"{path}~{_short_digest(path)}")):
        repeated = Counter(key.casefold() for key in keys)
        keys = [
            key if repeated[key.casefold()] == 1 else longer(path)
            for key, path in zip(keys, paths, strict=True)
        ]
    return keys


def _safe(key: str) -> str:
    """A file name may hold what a key must not: those characters are percent-encoded, and long names cut.
    An object store may also hold names like `../x`, which would lead out of the output folder."""
    plain = "".join(quote(c.encode("utf-8", "surrogateescape")) if _bad(c) else c for c in key)
    return "/".join(
        part.replace(".", "%2E") if part in (".", "..") else _cut(part) for part in plain.split("/")
    )


def _cut(part: str) -> str:
    if len(part.encode()) <= _MAX_PART_BYTES:
        return part
    return f"{part.encode()[: _MAX_PART_BYTES - 9].decode(errors='ignore')}~{_short_digest(part)}"


def _bad(character: str) -> bool:
    return character in "\\:" or not character.isprintable() or "\ud800" <= character <= "\udfff"


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _list_glob(source: str, exclude: str | None, storage: StorageOptions) -> Iterator[Photo]:
    head = source[: _MAGIC.search(source).start()]  # type: ignore[union-attr]
    root = head[: head.rindex("/")] if "/" in head else "."
    pattern = source[len(root) :].lstrip("/")
    if _kind_at(root, storage) != "directory":
        raise OptionError("photos", source, reason=f"there is no folder {root}")
    return _list_folder(root, pattern, exclude, storage)


def _matches(relative: str, pattern: str) -> bool:
    """`*` and `?` stay within a folder; `**` crosses folders."""
    parts, wanted = relative.split("/"), pattern.split("/")

    def match(i: int, j: int) -> bool:
        if j == len(wanted):
            return i == len(parts)
        if wanted[j] == "**":
            return match(i, j + 1) or (i < len(parts) and match(i + 1, j))
        return i < len(parts) and fnmatch.fnmatchcase(parts[i], wanted[j]) and match(i + 1, j + 1)

    return match(0, 0)


# Tables


def _list_table(source: str, storage: StorageOptions) -> Iterator[Photo]:
    base = Path(source).parent
    remote_base = source.rsplit("/", 1)[0] if is_url(source) else None
    for number, record in enumerate(_records(source, storage), start=1):
        url = record.get("url")
        if not isinstance(url, str) or not url:
            raise UsageError(f"{source}: row {number} has no `url`; columns: {', '.join(map(str, record))}")
        if any("\ud800" <= character <= "\udfff" for character in url):
            raise UsageError(f"{source}: row {number}: url {url!r} is no text")
        _refuse_secrets(url, f"{source}: row {number}")
        place = url
        if remote_base is None:
            place = path_url(_absolute(url, base))
        elif not is_url(url) and not url.startswith("/"):
            place = f"{remote_base}/{url}"
        key = record.get("key")
        if key is None or key == "":
            path = unquote(_path_of(url)) if is_url(url) else url
            key = _safe(posixpath.splitext(posixpath.basename(path))[0])
        _check_key(str(key), f"{source}: row {number}")
        yield Photo(
            key=str(key),
            url=place,
            size_bytes=_size_bytes(record, f"{source}: row {number}"),
            style=_style(record),
        )


def _refuse_secrets(url: str, where: str) -> None:
    try:
        refuse_secrets("url", url)
    except OptionError as error:
        raise UsageError(f"{where}: {error}") from None


def _absolute(url: str, base: Path) -> str:
    try:
        return absolute_url(url, base)
    except RuntimeError:  # a name like `~x.jpg`, and x has no home
        return absolute_url(str(base / url), base)


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


def _records(source: str, storage: StorageOptions) -> Iterator[dict[str, Any]]:
    try:
        with open_url(source, storage) as raw:
            if source.lower().endswith(".parquet"):
                for batch in pq.ParquetFile(raw).iter_batches(use_threads=False):
                    yield from batch.to_pylist()
            else:
                lines = (line.decode("utf-8-sig" if n == 0 else "utf-8") for n, line in enumerate(raw))
                yield from csv.DictReader(lines) if source.lower().endswith(".csv") else _json_lines(lines)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise UsageError(f"photos = {source!r}: not a readable table: {error}") from error


def _json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.strip():
            record = json.loads(line)
            if not isinstance(record, dict):
                raise UsageError(f"expected one JSON object per line, got {line.strip()[:80]!r}")
            yield record


def _check_key(key: str, where: str) -> None:
    parts = key.split("/")
    if (
        not key
        or any(part in ("", ".", "..") for part in parts)
        or any(_bad(character) for character in key)
        or any(len(part.encode()) > _MAX_PART_BYTES for part in parts)
        or len(key.encode()) > 900
    ):
        raise UsageError(f"{where}: key {key!r} is no plain relative path")


def _kind_at(place: str, storage: StorageOptions) -> str | None:
    """`directory`, or what else is there; None: nothing is."""
    if not is_url(place):
        return "directory" if os.path.isdir(place) else "file" if os.path.exists(place) else None
    filesystem, path = url_to_filesystem(place, storage)
    return storage.backoff()(lambda: kind_of(filesystem, path))
