"""Paths, URLs, and how object stores are reached. Knows fsspec; knows nothing of jobs."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, unquote_to_bytes

import fsspec

from jobs.errors import StoreError
from jobs.stores.backoff import Backoff, is_lasting, is_transient
from nst.errors import OptionError

__all__ = [
    "STANDARD_STORAGE",
    "StorageOptions",
    "absolute_url",
    "is_url",
    "kind_of",
    "local_path",
    "open_ranges",
    "open_url",
    "option_place",
    "path_url",
    "read_url",
    "refuse_secret_options",
    "refuse_secrets",
    "url_to_filesystem",
    "why_unreadable",
]

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:(//|:)")
_S3 = ("s3", "s3a")
_WEB = ("http", "https", "ftp", "sftp")
_SECRET_NAME = re.compile(r"secret|token|password|passwd|credential|(^|_)key($|_)|access_?key", re.IGNORECASE)
_WHERE_SECRETS_BELONG = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, use ~/.aws/credentials, or the machine's role"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageOptions:
    """How object stores are reached. Credentials are none of it: they come from where the clients of AWS look,
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the machine's role."""

    endpoint_url: str | None = None
    """Address of a server that speaks S3; None: AWS_ENDPOINT_URL, the profile's, or AWS itself."""
    region: str | None = None
    """Region of the buckets; None: AWS_DEFAULT_REGION, or the profile's."""
    profile: str | None = None
    """Profile in ~/.aws/config; None: AWS_PROFILE, or the default one."""
    anonymous: bool = False
    """Whether requests are sent unsigned, as public buckets take them."""
    requester_pays: bool = False
    """Agree to pay for reading other people's buckets."""
    connect_timeout_s: float = 10.0
    """Time that a server has to accept a connection before the call has failed."""
    read_timeout_s: float = 30.0
    """Time that a server may send nothing after it has accepted a call before the call has failed."""
    deadline_s: float = 90.0
    """Time for which a call that fails for a moment is made again; then the job stops, resumable."""

    def __post_init__(self) -> None:
        if self.endpoint_url is not None:
            refuse_secrets("endpoint_url", self.endpoint_url)
            if not self.endpoint_url.startswith(("http://", "https://")):
                raise OptionError(
                    "endpoint_url", self.endpoint_url, reason="must begin with http:// or https://"
                )
        for option in ("connect_timeout_s", "read_timeout_s", "deadline_s"):
            if not getattr(self, option) > 0:
                raise OptionError(option, getattr(self, option), reason="must be more than 0")

    @property
    def slowest_s(self) -> float:
        """How long a single call may take before it is given up."""
        return self.deadline_s + self.connect_timeout_s + self.read_timeout_s

    def backoff(self) -> Backoff:
        return Backoff(deadline_s=self.deadline_s)


STANDARD_STORAGE = StorageOptions()


def refuse_secrets(option: str, place: str) -> None:
    """A URL is written into job files, results and messages: it must hold no password.

    Raises:
        OptionError: it does; the message does not repeat it.
    """
    for part in place.split("::"):
        scheme, found, rest = part.partition("://")
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        secret_in_bucket = scheme in _S3 and ":" in authority and not authority.startswith("arn:")
        if not found or not ("@" in authority or secret_in_bucket):
            continue
        raise OptionError(
            option,
            f"{scheme}://***",
            reason=f"a URL must not hold credentials; {_WHERE_SECRETS_BELONG}",
        )


def refuse_secret_options(table: str, options: Iterable[str]) -> None:
    """Refuse options of a job file's `table` whose names say that their values are secrets.

    Raises:
        OptionError: one does; the message does not repeat its value.
    """
    for name in options:
        if _SECRET_NAME.search(name):
            reason = f"secrets do not belong in a job file; {_WHERE_SECRETS_BELONG}"
            raise OptionError(f"{table}.{name}", "***", reason=reason)


def is_url(place: str) -> bool:
    """Whether `place` names its scheme (`s3://...`, `zip::...`) and is not a plain local path."""
    return _SCHEME.match(place) is not None


def absolute_url(place: str, base: Path) -> str:
    """`place` as it may be stored: a URL as it is (`file://` becomes a path), a path absolute from `base`."""
    path = local_path(place)
    # Not as pathlib has it, to which `~a.jpg` is an error: what names nobody's home is a name.
    return place if path is None else os.path.normpath(base / os.path.expanduser(path))


def option_place(option: str, value: Any, base: Path) -> str:
    """The absolute place that an option says; relative ones are taken from `base`.

    Raises:
        OptionError: there is none, or it has a secret in it.
    """
    if not isinstance(value, str) or not value.strip():
        raise OptionError(option, value, reason="a path or URL is required")
    refuse_secrets(option, value)
    return absolute_url(value, base)


def why_unreadable(error: OSError) -> str:
    """What is said of a file that an option names and that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"cannot be read: {error.strerror or error}"


def path_url(path: str) -> str:
    """A local path as it may be stored in a table: itself, or, if it is not valid UTF-8, a `file://` URL."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def local_path(place: str) -> str | None:
    """The path that a plain path or a `file://` URL stands for; None: `place` is in another store."""
    if place.startswith("file://"):
        return os.fsdecode(unquote_to_bytes(place.removeprefix("file://")))
    return None if is_url(place) else place


def read_url(url: str, options: StorageOptions = STANDARD_STORAGE) -> bytes:
    """All bytes of a local path or a URL.

    Raises:
        StoreError: an object store refuses every call (wrong credentials, no such bucket), or none succeeds.
        OSError: it is not there or cannot be read.
    """
    local = local_path(url)
    if local is not None:
        return Path(local).read_bytes()
    filesystem, path = url_to_filesystem(url, options)
    try:
        return cast(bytes, options.backoff()(lambda: filesystem.cat_file(path)))
    except OSError as error:
        # One address of the web that does not answer says nothing about the others; a bucket does.
        if url.startswith(_WEB) or not (is_lasting(error) or is_transient(error)):
            raise
        if not is_lasting(error) and _answers(filesystem, path):  # it is this object alone
            raise
        raise StoreError(f"{url}: {type(error).__name__}: {error}") from error


def _answers(filesystem: Any, path: str) -> bool:
    """Whether the store has anything to say about what is beside an object."""
    try:
        filesystem.exists(f"{path}.nst-is-there")
    except Exception:  # noqa: BLE001  whatever it is, it is no answer
        return False
    return True


def url_to_filesystem(url: str, options: StorageOptions = STANDARD_STORAGE) -> tuple[Any, str]:
    """fsspec's file system and the path within it.

    Raises:
        OSError: the scheme is unknown, or its package is not installed.
    """
    try:
        if url.partition("://")[0] in _S3:  # in fsspec's own way, a key with `::` would be two URLs
            filesystem = fsspec.filesystem("s3", **_s3_arguments(options))
            path = filesystem._strip_protocol(url)
        else:
            chained = {"s3": _s3_arguments(options)} if "::" in url else {}
            filesystem, path = fsspec.core.url_to_fs(url, **chained)
    except Exception as error:  # a file system that cannot be made: whatever it says is the user's to read
        raise OSError(f"{type(error).__name__}: {error}") from error
    if hasattr(filesystem, "retries"):
        filesystem.retries = 1  # retrying is ours alone: theirs multiply, and know no deadline
    return filesystem, path


def _s3_arguments(options: StorageOptions) -> dict[str, Any]:
    client = {"region_name": options.region} if options.region is not None else {}
    return {
        "anon": options.anonymous,
        "endpoint_url": options.endpoint_url,
        "profile": options.profile,
        "requester_pays": options.requester_pays,
        "use_listings_cache": False,
        "max_concurrency": 1,  # else every read asks for the size first, in a call of its own
        "client_kwargs": client,
        "config_kwargs": {
            "connect_timeout": options.connect_timeout_s,
            "read_timeout": options.read_timeout_s,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": 64,
        },
    }


def kind_of(filesystem: Any, path: str) -> str | None:
    """`file`, `directory`, or None if nothing is there. fsspec's own `isfile` and `isdir` take every error for
    a no."""
    try:
        return str(filesystem.info(path)["type"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_url(url: str, options: StorageOptions = STANDARD_STORAGE) -> IO[bytes]:
    """A local path or a URL for random reading.

    Raises:
        OSError: it is not there or cannot be read.
    """
    local = local_path(url)
    if local is not None:
        return Path(local).open("rb")
    if url.startswith(_WEB):  # where servers need neither tell sizes nor send parts
        return io.BytesIO(read_url(url, options))
    return open_ranges(*url_to_filesystem(url, options), options.backoff())


def open_ranges(filesystem: Any, path: str, backoff: Callable[[Callable[[], Any]], Any]) -> IO[bytes]:
    """An object for random reading, every read a call of its own that `backoff` makes, again if need be."""
    return io.BufferedReader(_Ranges(filesystem, path, backoff), 1 << 18)


class _Ranges(io.RawIOBase):
    def __init__(self, filesystem: Any, path: str, backoff: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__()
        self._filesystem, self._path, self._backoff = filesystem, path, backoff
        self._size = int(backoff(lambda: filesystem.info(path))["size"])
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        start, end = self._at, min(self._at + len(buffer), self._size)
        if start >= end:
            return 0
        data = self._backoff(lambda: self._range(start, end))
        buffer[: len(data)] = data
        self._at = end
        return len(data)

    def _range(self, start: int, end: int) -> bytes:
        data = cast(bytes, self._filesystem.cat_file(self._path, start=start, end=end))
        if len(data) != end - start:
            raise ConnectionError(f"{self._path}: asked for {end - start} bytes, got {len(data)}")
        return data
