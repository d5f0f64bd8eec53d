"""Reading a photograph's file: of a large one, first as much as says how many pixels it has."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from jobs.errors import StoreError
from jobs.stores.filesystems import STANDARD_STORAGE, StorageOptions, local_path, read_url, url_to_filesystem
from nst.errors import ImageTooLarge
from nst.images.decode import refuse_bomb
from nst.images.headers import ReadAt, picture_size

__all__ = ["HEAD_BYTES", "photo_size", "read_photo_file"]

HEAD_BYTES = 1 << 20
"""No more is read of a photograph of too many pixels. A file that is not larger is simply read."""
_BLOCK_BYTES = 1 << 14


def read_photo_file(
    url: str,
    *,
    size_bytes: int | None,
    max_pixels: int,
    storage: StorageOptions = STANDARD_STORAGE,
) -> bytes:
    """All bytes of a photograph at a local path or a URL.

    Args:
        size_bytes: as it was listed, if it was.

    Raises:
        ImageTooLarge: its header promises more than `max_pixels`; the rest was not read.
        StoreError: an object store refuses every call, or none succeeds; or the disk of a file is away.
        OSError: it is not there, is no file, or cannot be read.
    """
    local = local_path(url)
    if local is not None:
        return _read_file(local, max_pixels)
    if size_bytes is None or size_bytes > HEAD_BYTES:
        _look_at_object(url, max_pixels, storage)
    return read_url(url, storage)


def _read_file(path: str, max_pixels: int) -> bytes:
    try:
        _look_at_file(path, max_pixels)
        return Path(path).read_bytes()
    except OSError as error:
        away = _disk_away(path)
        if away is None:
            raise
        raise StoreError(f"{path}: {type(error).__name__}: {error}; {away}") from error


def _disk_away(path: str) -> str | None:
    """How the disk of a file that cannot be read seems to be away, so that the others on it cannot be read
    either; None: it is there."""
    for folder in Path(path).parents:
        try:
            with os.scandir(folder) as entries:
                there = next(entries, None) is not None
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            return None
        except OSError as error:
            return f"{folder} does not answer: {error.strerror or error}"
        return None if there else f"there is nothing in {folder}: is a disk to be mounted there?"
    return None


def photo_size(url: str, storage: StorageOptions = STANDARD_STORAGE) -> tuple[int, int] | None:
    """(width, height) of a photograph as its header says, not turned upright; None: it does not say, or cannot
    be read."""
    local = local_path(url)
    try:
        if local is None:
            return picture_size(_read_at(url, storage))
        _size_bytes(local)
        with open(local, "rb", buffering=0) as file:
            return picture_size(lambda start, length: os.pread(file.fileno(), length, start))
    except Exception:  # noqa: BLE001  whatever a store answers: why, is said when it is read whole
        return None


def _size_bytes(path: str) -> int:
    try:
        about = os.stat(path)
    except ValueError as error:  # a zero byte, which tables may hold, and no path
        raise FileNotFoundError(errno.ENOENT, str(error), path) from error
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
        raise OSError(errno.EINVAL, "Not a file", path)  # reading a pipe might never end
    return about.st_size


def _look_at_file(path: str, max_pixels: int) -> None:
    if _size_bytes(path) > HEAD_BYTES:
        with open(path, "rb", buffering=0) as file:
            refuse_bomb(lambda start, length: os.pread(file.fileno(), length, start), max_pixels)


def _read_at(url: str, storage: StorageOptions) -> ReadAt:
    """Read parts of an object, of its first mebibyte in all."""
    blocks: dict[int, bytes] = {}

    def block(number: int) -> bytes:
        if number not in blocks:
            if (len(blocks) + 1) * _BLOCK_BYTES > HEAD_BYTES:
                raise OSError("its header is spread too far")
            start = number * _BLOCK_BYTES
            blocks[number] = filesystem.cat_file(path, start=start, end=start + _BLOCK_BYTES)
            if len(blocks[number]) > _BLOCK_BYTES:
                raise OSError("the server does not send parts")
        return blocks[number]

    def read_at(start: int, length: int) -> bytes:
        first, last = start // _BLOCK_BYTES, (start + length - 1) // _BLOCK_BYTES
        data = b"".join(block(number) for number in range(first, last + 1))
        return data[start - first * _BLOCK_BYTES :][:length]

    filesystem, path = url_to_filesystem(url, storage)
    return read_at


def _look_at_object(url: str, max_pixels: int, storage: StorageOptions) -> None:
    try:
        refuse_bomb(_read_at(url, storage), max_pixels)
    except ImageTooLarge:
        raise
    except Exception:  # noqa: BLE001  then it is read whole, which has the retries, and says what is wrong
        return
