"""What is in a folder or prefix: of S3 in pages of a thousand, each a call of its own.

A listing of millions takes longer than any deadline: as one call, which s3fs makes of it, it could not be made
again, and it would be in memory whole. And where s3fs finds nothing it lists the folder above, which may hold
all of a bucket's photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

__all__ = ["Entry", "entries", "objects"]

Call: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Makes a call of a store, again if need be."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is right in a folder."""

    name: str
    """Empty, of a folder: an object store has objects in it whose names go on with `//`."""
    is_folder: bool
    size_bytes: int | None


def entries(filesystem: Any, path: str, call: Call) -> Iterator[Entry]:
    """What is right in the folder at `path`.

    Raises:
        FileNotFoundError: it does not exist, and the file system tells that from an empty one.
    """
    if _speaks_s3(filesystem):
        prefix = _prefix(filesystem, path)
        for page in _pages(filesystem, path, call, delimiter="/"):
            for each in page.get("CommonPrefixes", ()):
                yield Entry(each["Prefix"][len(prefix) : -1], True, None)
            for each in page.get("Contents", ()):
                if each["Key"] != prefix:  # as consoles make folders
                    yield Entry(each["Key"][len(prefix) :], False, each["Size"])
        return
    for info in call(partial(filesystem.ls, path, detail=True)):
        whole, is_folder = info["name"], info["type"] == "directory"
        if whole == path or (whole.endswith("/") and not is_folder):
            continue
        name = "" if whole == f"{path}/" else whole.rstrip("/").rpartition("/")[2]
        yield Entry(name, is_folder, info.get("size"))


def objects(filesystem: Any, path: str, call: Call) -> Iterator[str]:
    """Paths of all objects below the folder at `path`, at any depth; none if it does not exist."""
    if not _speaks_s3(filesystem):
        yield from call(lambda: filesystem.find(path))
        return
    bucket, prefix = filesystem.split_path(path)[0], _prefix(filesystem, path)
    for page in _pages(filesystem, path, call):
        for each in page.get("Contents", ()):
            if each["Key"] != prefix:
                yield f"{bucket}/{each['Key']}"


def _speaks_s3(filesystem: Any) -> bool:
    return hasattr(type(filesystem), "call_s3")  # and not only what it may be chained with


def _prefix(filesystem: Any, path: str) -> str:
    key = filesystem.split_path(path)[1]
    return f"{key}/" if key else ""


def _pages(filesystem: Any, path: str, call: Call, *, delimiter: str = "") -> Iterator[dict[str, Any]]:
    options: dict[str, Any] = {
        "Bucket": filesystem.split_path(path)[0],
        "Prefix": _prefix(filesystem, path),
        "Delimiter": delimiter,
    }
    while True:
        page = call(partial(filesystem.call_s3, "list_objects_v2", **options))
        yield page
        if not page.get("IsTruncated"):
            return
        options["ContinuationToken"] = page["NextContinuationToken"]
