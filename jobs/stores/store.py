"""Where a job lives: one folder on a local disk, or a prefix in anything that fsspec reaches.

A store publishes an object whole or not at all. Nothing is ever written through `with fs.open(path, "wb")`:
on an exception inside, fsspec publishes the half-written file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import fsspec

from jobs.stores.entries import entries, objects
from jobs.stores.filesystems import (
    STANDARD_STORAGE,
    StorageOptions,
    is_url,
    kind_of,
    open_ranges,
    url_to_filesystem,
)
from jobs.stores.local_files import put_in_place, remove_left_over, temporary_name, write_temporary
from nst.errors import OptionError

__all__ = ["TEMPORARY", "FsspecStore", "LocalStore", "Part", "Store", "open_store", "temporary_path"]

TEMPORARY = ".tmp"


def temporary_path() -> str:
    """The path of an object that is to be gone at once; if it is not, `Store.clean` knows whose it was."""
    return f"{TEMPORARY}/{temporary_name()}"


@dataclass(frozen=True, slots=True)
class Part:
    """What a store is that is a folder of another one; see `jobs.stores.part_store`."""

    folder: str
    shared: tuple[str, ...] = ()
    """Folders that it has in common with the other one."""


class Store(ABC):
    """Objects below one root, named by relative paths with `/`."""

    create_only = True
    """Whether create-only writes are known to be honored by what is behind it."""
    bad_name: tuple[int, ...] = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
    """Numbers of the errors that say that an object of this name cannot be there. The store has not failed."""
    part: Part | None = None
    """None: it is no folder of another store."""

    def __init__(self, url: str) -> None:
        self.url = url

    def place(self, path: str) -> str:
        """Where the object at `path` is, for people."""
        return f"{self.url.rstrip('/')}/{path}"

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

    @abstractmethod
    def age_s(self, path: str) -> float | None:
        """How long ago an object was published, by the store's clock alone: against an object that is published
        now. None: the store does not tell. Raises FileNotFoundError if there is none."""

    def honors_create_only(self) -> bool:
        """Try whether create-only writes leave what is there.

        Raises:
            OSError: nothing can be written.
        """
        path = temporary_path()
        try:
            self.publish(path, b"first", create_only=True)
            try:
                self.publish(path, b"second", create_only=True)
            except FileExistsError:
                return self.read(path) == b"first"
            return False
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            return False
        finally:
            with contextlib.suppress(OSError):  # who may not delete leaves a few bytes behind
                self.remove(path)

    def clean(self) -> None:  # noqa: B027  not every store leaves something behind
        """Remove what interrupted `publish` calls left behind."""


class LocalStore(Store):
    """A folder. Publishing is: temporary file, fsync, then link (create-only) or rename.

    Temporary files live in `<root>/.tmp`, so that what a killed process leaves is found by listing one folder.
    """

    # Of exFAT; and of disks that take UTF-8 only. Of an object store they may say anything.
    bad_name = (*Store.bad_name, errno.EINVAL, errno.EILSEQ)

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.root = Path(url)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def open(self, path: str) -> IO[bytes]:
        return (self.root / path).open("rb")

    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:
        try:
            temporary = write_temporary(self.root / TEMPORARY, data)
            put_in_place(temporary, self.root / path, create_only=create_only)
        except OSError as error:
            if error.filename is None:  # a full disk does not say which it is
                error.add_note(self.place(path))
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

    def honors_create_only(self) -> bool:
        """Links do, and no job need try."""
        return True

    def age_s(self, path: str) -> float | None:
        written = (self.root / path).stat().st_mtime
        probe = write_temporary(self.root / TEMPORARY, b"")
        try:
            return max(0.0, probe.stat().st_mtime - written)
        finally:
            probe.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                probe.parent.rmdir()

    def clean(self) -> None:
        """Remove temporary files of this host's or container's dead processes, and any other's after a day."""
        remove_left_over(self.root / TEMPORARY)


class FsspecStore(Store):
    """A prefix in an object store, or any other fsspec file system. Publishing is one PUT.

    Calls that fail for a moment are made again (`jobs.stores.backoff`); what fails for good is an OSError with
    the object's URL as a note.

    Args:
        create_only: whether the store honors create-only writes, as `honors_create_only` found out. If not,
            what exists is left alone as far as can be seen; of two writers at once the last one counts.
    """

    def __init__(
        self,
        url: str,
        options: StorageOptions = STANDARD_STORAGE,
        *,
        create_only: bool = True,
    ) -> None:
        super().__init__(url)
        filesystem, root = url_to_filesystem(url, options)
        self.filesystem: Any = filesystem
        self.root = root.rstrip("/")
        self.backoff = options.backoff()
        self.create_only = create_only

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _call(self, path: str, call: Callable[[], Any]) -> Any:
        """Make a call, again if need be; clients' errors do not say where they were."""
        try:
            return self.backoff(call)
        except OSError as error:
            error.add_note(self.place(path))  # as its `filename` it would hide a text without number
            raise

    def read(self, path: str) -> bytes:
        return cast(bytes, self._call(path, lambda: self.filesystem.cat_file(self._full(path))))

    def open(self, path: str) -> IO[bytes]:
        return open_ranges(self.filesystem, self._full(path), partial(self._call, path))

    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:
        full = self._full(path)
        if create_only:
            self._call(path, lambda: self._create(full, data))
        else:
            self._call(path, lambda: self.filesystem.pipe_file(full, data))

    def _create(self, full: str, data: bytes) -> None:
        try:
            if self.create_only:
                self.filesystem.pipe_file(full, data, mode="create")
                return
            if not self._there(full):
                self.filesystem.pipe_file(full, data)
            error: Exception | None = None
        except Exception as failed:  # noqa: BLE001  raised again unless the object is there
            error = failed
        # An answer that was lost looks like "exists already" when the call is made again, and stores differ in
        # how they say it: read back. Equal bytes are ours, since receipts hold times and workers.
        self.filesystem.invalidate_cache()
        try:
            there = self.filesystem.cat_file(full)
        except FileNotFoundError:
            if error is None:
                raise ConnectionError(f"{full} was written and is not there") from None
            raise error from error.__cause__
        if there != data:
            raise FileExistsError(full) from error

    def _there(self, full: str) -> bool:
        self.filesystem.invalidate_cache()
        return kind_of(self.filesystem, full) == "file"

    def age_s(self, path: str) -> float | None:
        probe = f"{TEMPORARY}/clock-{uuid.uuid4().hex}"
        try:
            written = self._written_at(path)
            if written is None:
                return None
            self.publish(probe, b"now")
            now = self._written_at(probe)
            return None if now is None else max(0.0, (now - written).total_seconds())
        finally:
            with contextlib.suppress(OSError):
                self.remove(probe)

    def _written_at(self, path: str) -> datetime | None:
        def ask() -> datetime | None:
            self.filesystem.invalidate_cache()
            try:
                return cast(datetime, self.filesystem.modified(self._full(path)))
            except NotImplementedError:
                return None

        return cast("datetime | None", self._call(path, ask))

    def names(self, folder: str) -> list[str]:
        full = self._full(folder).rstrip("/")
        try:
            found = [entry.name for entry in entries(self.filesystem, full, partial(self._ask_anew, folder))]
        except FileNotFoundError:
            return []
        return sorted(filter(None, found))

    def find(self, folder: str = "") -> Iterator[str]:
        full = self._full(folder).rstrip("/")
        start = len(self.root.lstrip("/")) + 1
        for path in objects(self.filesystem, full, partial(self._ask_anew, folder)):
            yield path.lstrip("/")[start:]

    def exists(self, path: str) -> bool:
        return bool(self._call(path, lambda: self._there(self._full(path))))

    def _ask_anew(self, path: str, call: Callable[[], Any]) -> Any:
        """Not from the client's cache of listings."""

        def anew() -> Any:
            self.filesystem.invalidate_cache()
            return call()

        return self._call(path, anew)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call(path, lambda: self.filesystem.rm_file(self._full(path)))


def open_store(
    url: str,
    options: StorageOptions = STANDARD_STORAGE,
    *,
    create_only: bool = True,
    option: str = "output",
) -> Store:
    """The store at an absolute local path or a URL; see `FsspecStore`.

    Raises:
        OptionError: no store has URLs like this one of `option`.
    """
    if not is_url(url):
        return LocalStore(url)
    try:
        return FsspecStore(url, options, create_only=create_only)
    except OSError as error:
        unknown = isinstance(error.__cause__, ValueError)  # and no package that is missing
        choices = ("a path", *fsspec.available_protocols()) if unknown else None
        raise OptionError(option, url, choices=choices, reason=str(error)) from error
