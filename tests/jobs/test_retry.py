"""Transient faults of a store are waited out, lasting ones are not, and a lost answer loses nothing."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from s3fs.errors import translate_boto_error

from jobs.stores.backoff import Backoff, count_retries, is_lasting, is_transient
from jobs.stores.store import FsspecStore


class EndpointConnectionError(Exception):
    """Named as botocore names its own."""


class ClientError(Exception):
    """As botocore has it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class ClientResponseError(Exception):
    """As aiohttp has it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}, message='X'")
        self.status = status


def answered(status: int, code: str = "") -> OSError:
    """What s3fs makes of an answer, for which botocore finds no code in what is no XML."""
    return cast(OSError, translate_boto_error(ClientError(status, code)))


TRANSIENT = [
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError("no answer"),
    OSError(errno.EBUSY, "SlowDown"),
    OSError(errno.EREMOTEIO, "InternalError"),
    EndpointConnectionError("could not connect"),
    answered(429),
    answered(502, "502"),
    answered(504, "504"),
    answered(503, "SlowDownRead"),  # MinIO's
    ClientResponseError(429),
    ClientResponseError(503),
]
LASTING = [
    FileNotFoundError(errno.ENOENT, "gone"),
    PermissionError(errno.EACCES, "denied"),
    OSError(errno.ENOSPC, "full"),
    ValueError("a mistake"),
    answered(400, "InvalidRequest"),
    answered(501, "NotImplemented"),
    answered(507, "XMinioStorageFull"),
    ClientResponseError(403),
]


class Clock:
    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def backoff(clock: Clock, **options: Any) -> Backoff:
    return Backoff(sleep=clock.sleep, clock=lambda: clock.now, **options)


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def call() -> str:
        if left:
            raise left.pop()
        return "done"

    return call


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_passes_is_waited_out(error: Exception) -> None:
    clock = Clock()
    assert is_transient(error)
    with count_retries() as retries:
        assert backoff(clock)(failing(6, error)) == "done"
    assert retries.count == len(clock.pauses) == 6
    assert all(pause <= min(10, 0.2 * 2**number) for number, pause in enumerate(clock.pauses))


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_lasts_is_not(error: Exception) -> None:
    clock = Clock()
    with pytest.raises(OSError, match=re.escape(str(error).rsplit("] ")[-1])) as caught:
        backoff(clock)(failing(1, error))
    assert clock.pauses == []
    assert caught.value is error or caught.value.__cause__ is error


def test_the_deadline_ends_it() -> None:
    clock = Clock()
    with pytest.raises(TimeoutError) as caught:
        backoff(clock, deadline_s=30)(failing(10_000, TimeoutError("never")))
    assert 20 < clock.now <= 30
    assert "attempts in" in caught.value.__notes__[0]


class Flaky(MemoryFileSystem):
    """Every call fails at first; of writes, some after they were stored."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[str]] = []

    def _fault(self, *kinds: str) -> None:
        if self.faults and self.faults[0] in kinds:
            self.faults.pop(0)
            raise ConnectionResetError(errno.ECONNRESET, "reset by peer")

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._fault("before", "read")
        return super().cat_file(path, *args, **kwargs)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._fault("before")
        super().pipe_file(path, value, mode=mode, **kwargs)
        self._fault("after")

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self._fault("before")
        return super().ls(path, detail=detail, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        self._fault("before")
        return super().info(path, **kwargs)


@pytest.fixture
def store() -> Iterator[FsspecStore]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    found = FsspecStore("flaky://bucket/job")
    found.backoff = Backoff(first_s=0.001)
    yield found
    Flaky.store.clear()
    Flaky.faults.clear()


def test_every_call_of_a_store_is_retried(store: FsspecStore) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: store.publish("a/x", b"one"),
        lambda: store.publish("a/y", b"two", create_only=True),
        lambda: store.read("a/x"),
        lambda: store.names("a"),
        lambda: store.exists("a/y"),
    ]
    values = []
    for number, call in enumerate(calls, start=1):
        Flaky.faults[:] = ["before", "before"]
        with count_retries() as retries:
            values.append(call())
        assert Flaky.faults == []
        assert retries.count == (1 if number == 2 else 2)  # a create-only write reads back, which fails too
    assert values[2:] == [b"one", ["x", "y"], True]


class Answering(MemoryFileSystem):
    """As servers answer create-only writes: that they do them, that they know none (501), or nothing of it."""

    protocol = "answering"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    create: ClassVar[str | int] = "create"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create" and isinstance(self.create, int):
            raise OSError(self.create, "A header you provided implies functionality that is not implemented")
        super().pipe_file(path, value, mode=self.create if mode == "create" else mode, **kwargs)


@pytest.mark.parametrize(("create", "honored"), [("create", True), ("overwrite", False), (errno.ENOSYS, False)])
def test_whether_create_only_writes_are_honored_is_tried(
    create: str | int, honored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("answering", Answering, clobber=True)
    monkeypatch.setattr(Answering, "create", create)
    monkeypatch.setattr(Answering, "store", {})
    store = FsspecStore("answering://bucket/job")
    assert store.honors_create_only() is honored
    assert list(store.find()) == []
    monkeypatch.setattr(Answering, "create", errno.EACCES)
    with pytest.raises(PermissionError):  # nobody learns from that whether they are
        store.honors_create_only()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_store_that_takes_nothing_is_told_from_one_object_that_fails(number: int) -> None:
    assert is_lasting(OSError(number, os.strerror(number)))
    assert not is_lasting(OSError(errno.EIO, os.strerror(errno.EIO)))


def test_a_create_only_write_whose_answer_is_lost_was_ours(store: FsspecStore) -> None:
    Flaky.faults[:] = ["after"]
    store.publish("receipt", b"ours", create_only=True)
    assert store.read("receipt") == b"ours"
    Flaky.faults[:] = ["after", "read", "read"]  # nor can it be read back at first
    store.publish("second", b"ours", create_only=True)
    Flaky.faults[:] = ["before"]
    with pytest.raises(FileExistsError):
        store.publish("receipt", b"another's", create_only=True)
    assert store.read("receipt") == b"ours"
