"""Where a job lives: one folder on a local disk, or a prefix in anything that fsspec reaches.

A store publishes an object whole or not at all. Nothing is ever written through `with fs.open(path, "wb")`:
on an exception inside, fsspec publishes the half-written file.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, unquote_to_bytes

import fsspec

from jobs.errors import UsageError
from jobs.retry import Backoff

__all__ = [
    "TEMPORARY",
    "FsspecStore",
    "LocalStore",
    "Store",
    "absolute_url",
    "is_url",
    "open_store",
    "path_url",
    "read_url",
    "url_to_filesystem",
]

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:(//|:)")
TEMPORARY = ".tmp"


def is_url(place: str) -> bool:
    """Whether `place` names its scheme (`s3://...`, `zip::...`) and is not a plain local path."""
    return _SCHEME.match(place) is not None


def absolute_url(place: str, base: Path) -> str:
    """`place` as it may be stored: a URL as it is (`file://` becomes a path), a path absolute from `base`."""
    if place.startswith("file://"):
        place = _local_path(place)
    if is_url(place):
        return place
    return os.path.normpath(base / Path(place).expanduser())


def read_url(url: str) -> bytes:
    """All bytes of a local path or a URL.

    Raises:
        OSError: it is not there or cannot be read.
    """
    try:
        if not is_url(url) or url.startswith("file://"):
            return Path(_local_path(url)).read_bytes()
        filesystem, path = url_to_filesystem(url)
        return cast(bytes, Backoff()(lambda: filesystem.cat_file(path)))
    except OSError:
        raise
    except Exception as error:  # a file system that cannot even be made
        raise OSError(f"{type(error).__name__}: {error}") from error


def url_to_filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system and the path within it.

    Raises:
        OSError: the scheme is unknown, or its package is not installed.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise OSError(str(error)) from error
    return filesystem, path


def path_url(path: str) -> str:
    """A local path as it may be stored in a table: itself, or, if it is not valid UTF-8, a `file://` URL."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def _local_path(place: str) -> str:
    if place.startswith("file://"):
        return os.fsdecode(unquote_to_bytes(place.removeprefix("file://")))
    return place


class Store(ABC):
    """Objects below one root, named by relative paths with `/`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def read(self, path: str) -> bytes:
        """All bytes of an object. Raises FileNotFoundError if there is none."""

    @abstractmethod
    def open(self, path: str) -> IO[bytes]:
        """An object for random reading. Raises FileNotFoundError if there is none."""

    @abstractmethod
    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:
        """Make `data` visible under `path`, whole or not at all, replacing what is there.

        With `create_only`, raises FileExistsError if something is there already, and leaves it.
        """

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Sorted names of the entries of `folder`; none if it does not exist."""

    @abstractmethod
    def find(self, folder: str = "") -> Iterator[str]:
        """Paths of all objects below `folder`, at any depth, in no order."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is an object at `path`."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove an object if it is there."""

    def clean(self) -> None:  # noqa: B027  not every store leaves something behind
        """Remove what interrupted `publish` calls left behind."""


class LocalStore(Store):
    """A folder. Publishing is: temporary file, fsync, then link (create-only) or rename.

    Temporary files live in `<root>/.tmp`, so that what a killed process leaves is found by listing one folder.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.root = Path(url)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def open(self, path: str) -> IO[bytes]:
        return (self.root / path).open("rb")

    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:
        target = self.root / path
        temporary = self.root / TEMPORARY / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._write(temporary, data)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if create_only:
                os.link(temporary, target)
                temporary.unlink()
                _sync_folder(target.parent)
            else:
                os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _write(self, temporary: Path, data: bytes) -> None:
        for attempt in range(3):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                handle = temporary.open("xb")
                break
            except FileNotFoundError:  # another process's clean() just removed the empty folder
                if attempt == 2:
                    raise
        with handle:
            try:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []

    def find(self, folder: str = "") -> Iterator[str]:
        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        for place, _, names in os.walk(self.root / folder, onerror=fail):
            relative = Path(place).relative_to(self.root).as_posix()
            yield from (name if relative == "." else f"{relative}/{name}" for name in names)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove temporary files of this host's dead processes, and any host's after a day."""
        folder = self.root / TEMPORARY
        for name in self.names(TEMPORARY):
            host, pid, _ = name.rsplit("-", 2)
            with contextlib.suppress(FileNotFoundError):  # its owner was quicker
                old = time.time() - (folder / name).stat().st_mtime > 86_400
                if old or (host == socket.gethostname() and not _alive(int(pid))):
                    (folder / name).unlink()
        with contextlib.suppress(OSError):  # not empty: somebody is writing
            folder.rmdir()


class FsspecStore(Store):
    """A prefix in an object store, or any other fsspec file system. Publishing is one PUT.

    Calls that fail for a moment are made again (`jobs.retry`); what fails for good is an OSError.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        filesystem, root = url_to_filesystem(url)
        self.filesystem: Any = filesystem
        self.root = root.rstrip("/")
        self.backoff = Backoff()

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"

    def read(self, path: str) -> bytes:
        return cast(bytes, self.backoff(lambda: self.filesystem.cat_file(self._full(path))))

    def open(self, path: str) -> IO[bytes]:
        return cast(IO[bytes], self.backoff(lambda: self.filesystem.open(self._full(path), "rb")))

    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:
        full = self._full(path)
        if create_only:
            self.backoff(lambda: self._create(full, data))
        else:
            self.backoff(lambda: self.filesystem.pipe_file(full, data))

    def _create(self, full: str, data: bytes) -> None:
        try:
            self.filesystem.pipe_file(full, data, mode="create")
        except Exception as error:
            # An answer that was lost looks like "exists already" when the call is made again, and stores differ
            # in how they say it: read back. Equal bytes are ours, since receipts hold times and workers.
            self.filesystem.invalidate_cache()
            try:
                there = self.filesystem.cat_file(full)
            except FileNotFoundError:
                raise error from None
            if there != data:
                raise FileExistsError(full) from error

    def names(self, folder: str) -> list[str]:
        full = self._full(folder).rstrip("/")

        def listed() -> list[str]:
            self.filesystem.invalidate_cache()
            try:
                return list(self.filesystem.ls(full, detail=False))
            except FileNotFoundError:
                return []

        entries = self.backoff(listed)
        return sorted(name.rstrip("/").rsplit("/", 1)[1] for name in entries if name.rstrip("/") != full)

    def find(self, folder: str = "") -> Iterator[str]:
        def found() -> list[str]:
            self.filesystem.invalidate_cache()
            return list(self.filesystem.find(self._full(folder).rstrip("/")))

        start = len(self.root.lstrip("/")) + 1
        for path in self.backoff(found):
            yield path.lstrip("/")[start:]

    def exists(self, path: str) -> bool:
        def asked() -> bool:
            self.filesystem.invalidate_cache()
            return bool(self.filesystem.isfile(self._full(path)))

        return self.backoff(asked)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.backoff(lambda: self.filesystem.rm_file(self._full(path)))


def open_store(url: str) -> Store:
    """The store at an absolute local path or a URL.

    Raises:
        UsageError: no store has URLs like this.
    """
    if not is_url(url):
        return LocalStore(url)
    try:
        return FsspecStore(url)
    except OSError as error:
        raise UsageError(f"{url!r}: {error}") from error


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
