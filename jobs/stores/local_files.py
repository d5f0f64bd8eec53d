"""Files of a local disk that are there whole or not at all: written under a name of their own, synced, then put
in place. What a killed process leaves is found by listing one folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
import uuid
from pathlib import Path

from jobs.stores.processes import owner

__all__ = ["make_folder", "put_in_place", "remove_left_over", "temporary_name", "write_temporary"]

_FOLDER_TRIES = 50
"""Tries to write into a folder that others remove whenever it is empty."""
_TEMPORARY = re.compile(r"(?P<owner>.+)-(?P<pid>[0-9]{1,9})-[0-9a-f]{32}")
_LEFT_OVER_S = 86_400.0
"""Temporary files of another host, container or boot that are older than this have lost their owners."""


def temporary_name() -> str:
    """A name of a file of this process that is to be gone at once; if it is not, it says whose it was."""
    return f"{owner()}-{os.getpid()}-{uuid.uuid4().hex}"


def write_temporary(folder: Path, data: bytes) -> Path:
    """Write a file of its own name into `folder`, made if need be, and sync it; gives its path.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    path = folder / temporary_name()
    for left in reversed(range(_FOLDER_TRIES)):
        try:
            make_folder(folder)
            handle = path.open("xb")
            break
        except (FileNotFoundError, NotADirectoryError):  # another process has just removed the empty folder
            if not left:
                raise
    with handle:
        try:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path


def put_in_place(temporary: Path, target: Path, *, create_only: bool) -> None:
    """Give a temporary file its name, in one step.

    Raises:
        FileExistsError: `create_only`, and there is something.
        OSError: it cannot be done.
    """
    try:
        make_folder(target.parent)
        if create_only:
            _link(temporary, target)
            _sync_folder(target.parent)
        else:
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        if temporary.stat().st_nlink == 1:
            raise
        temporary.unlink()  # a network disk was asked twice, and its answer to the first time was lost
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK):
            raise
        if target.exists():  # a disk without links (exFAT, some network disks): as near as it comes
            raise FileExistsError(target) from None
        os.replace(temporary, target)
    else:
        temporary.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        NotADirectoryError: a file is there, or the folder has gone again; FileExistsError would mean that
            somebody else has published already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def remove_left_over(folder: Path) -> None:
    """Remove what dead processes of this host, or of this container, left in `folder` since its boot, and what
    any others left a day ago; and then the folder, if it is empty. What others put there stays, and so does
    what cannot be removed."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for found in filter(None, map(_TEMPORARY.fullmatch, names)):
        path = folder / found[0]
        with contextlib.suppress(OSError):  # its owner was quicker, or is somebody else
            old = time.time() - path.stat().st_mtime > _LEFT_OVER_S
            if old or (found["owner"] == owner() and not _is_alive(int(found["pid"]))):
                path.unlink()
    with contextlib.suppress(OSError):  # not empty: somebody is writing
        folder.rmdir()


def _is_alive(pid: int) -> bool:
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
