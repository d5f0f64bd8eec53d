"""The stores, and what is theirs alone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

import jobs.stores.processes
from jobs.stores.filesystems import absolute_url, is_url, read_url
from jobs.stores.part_store import PartStore
from jobs.stores.store import TEMPORARY, FsspecStore, LocalStore, Part, Store, open_store, temporary_path
from jobs.stores.threads import map_in_turn
from nst.errors import OptionError
from tests.contracts.store import StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(str(tmp_path / "job"))

    def test_an_interrupted_publish_shows_nothing(
        self, store: LocalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            store.publish("x", b"one")
        monkeypatch.undo()
        store.clean()
        assert store.names("") == []

    def test_clean_removes_what_dead_processes_left_and_nothing_else(self, store: LocalStore) -> None:
        script = (
            "import os, sys; from jobs.stores.store import LocalStore; "
            "os.replace = lambda *a: os._exit(9); LocalStore(sys.argv[1]).publish('x', b'half')"
        )
        assert subprocess.run([sys.executable, "-c", script, store.url]).returncode == 9
        (left,) = store.names(".tmp")
        mine = store.root / temporary_path()
        elsewhere = store.root / ".tmp" / f"another-host-{left.split('-')[-2]}-{uuid.uuid4().hex}"
        for path in (mine, elsewhere):
            path.write_bytes(b"in work")
        store.clean()
        assert store.names(".tmp") == sorted([mine.name, elsewhere.name])
        os.utime(elsewhere, (0, 0))
        store.clean()
        assert store.names(".tmp") == [mine.name]
        assert not store.exists("x")

    @pytest.mark.parametrize("changed", ["boot_id", "pid_namespace"])
    def test_clean_leaves_what_another_container_of_this_hosts_name_writes(
        self, store: LocalStore, monkeypatch: pytest.MonkeyPatch, changed: str
    ) -> None:
        """There the number is a living process's."""
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(os, "getpid", lambda: 999_999_999)  # of nobody here
            elsewhere.setattr(jobs.stores.processes, changed, lambda: "another")
            theirs = store.root / temporary_path()
        store.publish("x", b"one")
        (store.root / ".tmp").mkdir(exist_ok=True)
        theirs.write_bytes(b"in work")
        store.clean()
        assert store.names(".tmp") == [theirs.name]
        os.utime(theirs, (0, 0))
        store.clean()
        assert store.names(".tmp") == []

    def test_clean_leaves_what_others_put_there(self, store: LocalStore) -> None:
        """A file manager, a NAS, a network disk that keeps what is open; a copy of a bucket."""
        store.publish("x", b"one")
        others = [".DS_Store", ".nfs000000000042", f"clock-{uuid.uuid4().hex}", "host-x-y"]
        for name in others:
            store.publish(f"{TEMPORARY}/{name}", b"")
        (store.root / TEMPORARY / "@eaDir").mkdir()
        store.clean()
        assert store.names(TEMPORARY) == sorted([*others, "@eaDir"])

    def test_what_cannot_be_removed_stays(self, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path) -> None:
            raise PermissionError(errno.EPERM, "another user's", str(path))

        store.publish("x", b"one")
        other = store.root / TEMPORARY / f"another-host-1-{uuid.uuid4().hex}"
        other.write_bytes(b"half")
        os.utime(other, (0, 0))
        monkeypatch.setattr(Path, "unlink", refuse)
        store.clean()
        assert store.names(TEMPORARY) == [other.name]

    def test_a_link_whose_first_answer_was_lost_is_our_own(
        self, store: LocalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A network disk is asked again by the kernel, and then it is there already."""
        link = os.link

        def asked_twice(there: Path, here: Path) -> None:
            link(there, here)
            link(there, here)

        monkeypatch.setattr(os, "link", asked_twice)
        store.publish("x", b"one", create_only=True)
        with pytest.raises(FileExistsError):
            store.publish("x", b"one", create_only=True)
        assert (store.read("x"), store.names(TEMPORARY)) == (b"one", [])

    def test_a_file_in_a_folders_place_is_not_taken_for_what_is_published(self, store: LocalStore) -> None:
        """Which is what FileExistsError says of a create-only write."""
        store.publish("results", b"a file")
        with pytest.raises(NotADirectoryError):
            store.publish("results/shard", b"one", create_only=True)
        assert store.names(TEMPORARY) == []

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_the_folder_of_temporary_files_may_go_at_any_moment(
        self, store: LocalStore, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        """Others remove it when it is empty: while it is being made, or once it is."""
        make, times = os.mkdir, 5

        def goes(path: Path, *arguments: int) -> None:
            nonlocal times
            make(path, *arguments)
            if Path(path).name == TEMPORARY and times:
                times -= 1
                os.rmdir(path)
                if when == "before":
                    raise FileExistsError(errno.EEXIST, "it was there a moment ago", str(path))

        store.publish("x", b"")
        store.clean()
        monkeypatch.setattr(os, "mkdir", goes)
        store.publish("y", b"two", create_only=True)
        assert (store.read("y"), times) == (b"two", 0)


class TestPartStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return PartStore(LocalStore(str(tmp_path / "job")), Part("parts/0001"))


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        yield FsspecStore("memory://bucket/job")
        fsspec.filesystem("memory").store.clear()
        fsspec.filesystem("memory").pseudo_dirs.clear()


def test_open_store_knows_paths_from_urls(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store("memory://x"), FsspecStore)
    assert is_url("s3://bucket")
    assert is_url("zip::s3://bucket/photos.zip")
    assert not is_url("IMG:001.jpg")
    with pytest.raises(OptionError, match=r"output = 'foo://bar': .*: foo\. Choices: a path, .*, s3, "):
        open_store("foo://bar")
    with pytest.raises(OptionError, match=r"output = 'oci://bar': ImportError: [^:]*$"):
        open_store("oci://bar")
    assert not is_url("/a/b:c")
    assert not is_url("C:/photos")


def test_absolute_url(tmp_path: Path) -> None:
    assert absolute_url("photos/../x", tmp_path) == str(tmp_path / "x")
    assert absolute_url("s3://bucket/x", tmp_path) == "s3://bucket/x"
    assert absolute_url("file:///a/b%20c", tmp_path) == "/a/b c"
    assert absolute_url("~/x", tmp_path) == str(Path.home() / "x")
    assert absolute_url("~a.jpg", tmp_path) == str(tmp_path / "~a.jpg")
    assert absolute_url("~nobody-has-this-name/x", tmp_path) == str(tmp_path / "~nobody-has-this-name/x")


def test_read_url(tmp_path: Path) -> None:
    (tmp_path / "x y.bin").write_bytes(b"data")
    assert read_url(str(tmp_path / "x y.bin")) == b"data"
    fsspec.filesystem("memory").pipe_file("/r/x", b"mem")
    assert read_url("memory://r/x") == b"mem"
    with pytest.raises(FileNotFoundError):
        read_url(str(tmp_path / "none"))


def test_of_many_calls_few_wait() -> None:
    begun: list[int] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            begun.append(0)
            return super().submit(*arguments, **options)

    with Counting(2) as pool:
        numbers = map_in_turn(pool, lambda number: -number, iter(range(5000)))
        assert next(numbers) == 0
        assert len(begun) == 1024
        assert list(numbers) == [-number for number in range(1, 5000)]
