"""An S3 server as a job's store: the contract, what is odd about each server, what goes wrong on the way."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
import s3fs
from fsspec.asyn import sync_wrapper

from jobs.doctor.places import check_store
from jobs.errors import StoreError, UsageError
from jobs.ledger.listing import list_photos
from jobs.stores.backoff import count_retries
from jobs.stores.filesystems import StorageOptions, open_url, read_url
from jobs.stores.store import FsspecStore, Store, open_store
from tests.contracts.store import StoreContract
from tests.s3.conftest import new_bucket, upload
from tests.s3.proxy import Fault, FaultProxy, Kind
from tests.s3.servers import Server

# fmt: off
ODD = [
    "a b", "a+b", "a%20b", "a%b", "a#b", "a?b", "é", "日本", "a::b", "a&b=c", "a;b", "a'b\"c", "[a]*",
    "a\\b", "~",
]
# fmt: on


def options(server: Server | FaultProxy) -> StorageOptions:
    return StorageOptions(endpoint_url=server.url, connect_timeout_s=1, read_timeout_s=1, deadline_s=20)


def store_at(server: Server) -> FsspecStore:
    return FsspecStore(f"s3://{new_bucket(server)}/jobs/one", options(server))


class _OnS3(StoreContract):
    def test_honors_create_only(self, store: FsspecStore) -> None:
        assert store.honors_create_only()
        assert list(store.find()) == []

    def test_the_doctor_finds_nothing_wrong_and_leaves_nothing(self, store: FsspecStore) -> None:
        assert [check.name for check in check_store(store) if check.ok] == [
            *("write", "list", "read", "create-only", "remove"),
        ]
        assert list(store.find()) == []

    @pytest.mark.parametrize("name", ODD)
    def test_any_name(self, store: FsspecStore, name: str) -> None:
        path = f"images/{name}/{name}.jpg"
        store.publish(path, name.encode())
        assert store.read(path) == name.encode()
        assert store.exists(path)
        assert list(store.find("images")) == [path]
        assert store.names("images") == [name]
        store.remove(path)
        assert not store.exists(path)


class TestMotoStore(_OnS3):
    @pytest.fixture
    def store(self, moto: Server) -> Store:
        return store_at(moto)


@pytest.mark.s3
class TestCephStore(_OnS3):
    @pytest.fixture
    def store(self, ceph: Server) -> Store:
        return store_at(ceph)


@pytest.mark.s3
def test_a_store_that_ignores_create_only_writes_is_found_out(rclone: Server) -> None:
    store = store_at(rclone)
    assert not store.honors_create_only()
    assert [check.name for check in check_store(store) if not check.ok] == ["create-only"]
    store.create_only = False
    store.publish("x", b"one", create_only=True)
    with pytest.raises(FileExistsError):
        store.publish("x", b"two", create_only=True)
    assert store.read("x") == b"one"


class _Listing:
    """Photographs in a bucket: more than a page of a listing, and odd names."""

    def test_more_than_a_page(self, server: Server) -> None:
        bucket = new_bucket(server)
        keys = {f"p/{number % 3}/{number:04d}.jpg": b"x" for number in range(1_050)}
        upload(server, bucket, keys)
        photos = list(list_photos(f"s3://{bucket}/p", storage=options(server)))
        assert len({photo.key for photo in photos}) == 1_050
        assert {photo.url for photo in photos} == {f"s3://{bucket}/{key}" for key in keys}

    def test_odd_keys(self, server: Server) -> None:
        bucket = new_bucket(server)
        names = [*ODD, "deep/er/" + ODD[0]]
        upload(server, bucket, {f"p/{name}.jpg": name.encode() for name in names})
        photos = list(list_photos(f"s3://{bucket}/p", storage=options(server)))
        assert sorted(read_url(photo.url, options(server)).decode() for photo in photos) == sorted(names)
        assert len({photo.key.casefold() for photo in photos}) == len(names)
        with open_url(photos[0].url, options(server)) as handle:
            assert handle.read() == read_url(photos[0].url, options(server))

    def test_a_folder_without_a_name_does_not_pass_for_an_empty_one(self, server: Server) -> None:
        bucket = new_bucket(server)
        upload(server, bucket, {"p/a.jpg": b"x", "p/b/c.jpg": b"x"})
        filesystem = s3fs.S3FileSystem(endpoint_url=server.url, use_listings_cache=False)
        filesystem.call_s3("put_object", Bucket=bucket, Key="p/b/", Body=b"")  # as consoles make folders
        assert len(list(list_photos(f"s3://{bucket}/p", storage=options(server)))) == 2
        filesystem.call_s3("put_object", Bucket=bucket, Key="p/b//d.jpg", Body=b"x")
        with pytest.raises(UsageError, match="without a name"):
            list(list_photos(f"s3://{bucket}/p", storage=options(server)))
        assert read_url(f"s3://{bucket}/p/b//d.jpg", options(server)) == b"x"


class TestMotoListing(_Listing):
    @pytest.fixture
    def server(self, moto: Server) -> Server:
        return moto


def test_a_page_of_a_listing_is_asked_for_again_alone(
    proxy: FaultProxy, moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a listing that takes longer than the deadline, and in which every page fails once."""
    bucket, names = new_bucket(moto), [f"{number}.jpg" for number in range(4)]
    upload(moto, bucket, {f"p/{name}": b"x" for name in names})
    store = FsspecStore(f"s3://{bucket}/p", options(proxy))
    filesystem = store.filesystem
    call, asked = type(filesystem).call_s3, list[str]()

    def one_at_a_time(self: s3fs.S3FileSystem, method: str, **options: object) -> object:
        asked.append(method)
        if len(asked) % 2:
            raise ConnectionResetError(errno.ECONNRESET, "reset by peer")
        return call(self, method, **options, MaxKeys=1)

    monkeypatch.setattr(type(filesystem), "call_s3", one_at_a_time)
    for listed in (lambda: store.names(""), lambda: sorted(store.find())):
        asked.clear()
        assert listed() == names
        assert asked == ["list_objects_v2"] * 8
    asked.clear()
    photos = list(list_photos(store.url, storage=options(proxy)))
    assert [photo.url for photo in photos] == [f"s3://{bucket}/p/{name}" for name in names]
    assert len(asked) == 8


def test_a_folder_that_is_not_there_has_nobody_elses_listed(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beside a new job may be millions of photographs."""
    bucket = new_bucket(moto)
    upload(moto, bucket, {"a.jpg": b"x", "jobs.txt": b"x"})
    call, seen = s3fs.S3FileSystem._call_s3, list[object]()

    async def look(self: s3fs.S3FileSystem, method: str, *arguments: object, **options: object) -> object:
        seen.append(options.get("Prefix"))
        return await call(self, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", look)
    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", sync_wrapper(look))
    store = FsspecStore(f"s3://{bucket}/jobs", options(moto))
    assert (store.names(""), store.names("results"), list(store.find())) == ([], [], [])
    assert seen == ["jobs/", "jobs/results/", "jobs/"]


@pytest.mark.s3
class TestCephListing(_Listing):
    @pytest.fixture
    def server(self, ceph: Server) -> Server:
        return ceph


@pytest.fixture
def proxy(moto: Server) -> Iterator[FaultProxy]:
    with FaultProxy(moto.port) as found:
        yield found


HARMS: list[Kind] = ["503", "500", "502", "reset", "lost", "cut", "request cut", "stall"]


@pytest.mark.parametrize("kind", HARMS)
def test_harm_that_passes_is_waited_out(proxy: FaultProxy, moto: Server, kind: Kind) -> None:
    store = FsspecStore(f"s3://{new_bucket(moto)}/job", options(proxy))
    for call in (
        lambda: store.publish("x", b"one" * 100),
        lambda: store.publish("y", b"two" * 100, create_only=True),
        lambda: store.read("x") == b"one" * 100 or pytest.fail("wrong bytes"),
        lambda: store.names("") == ["x", "y"] or pytest.fail("wrong names"),
        lambda: store.exists("y") or pytest.fail("not there"),
    ):
        proxy.faults[:] = [Fault(kind, times=2)]
        with count_retries() as retries:
            call()
        if proxy.faults[0].done and kind in (
            "503",
            "500",
            "502",
            "stall",
        ):  # aiohttp itself sends again after a reset
            assert retries.count >= 1
    proxy.faults.clear()
    assert store.read("y") == b"two" * 100


def test_a_create_only_write_of_another_is_seen_through_lost_answers(proxy: FaultProxy, moto: Server) -> None:
    store = FsspecStore(f"s3://{new_bucket(moto)}/job", options(proxy))
    proxy.faults[:] = [Fault("lost", method="PUT", times=1)]
    store.publish("x", b"ours", create_only=True)
    assert proxy.faults[0].done == 1
    proxy.faults[:] = [Fault("lost", method="PUT", times=1)]
    with pytest.raises(FileExistsError):
        store.publish("x", b"theirs", create_only=True)
    assert store.read("x") == b"ours"


def test_a_server_that_never_answers_is_given_up_at_the_deadline(proxy: FaultProxy, moto: Server) -> None:
    quick = StorageOptions(endpoint_url=proxy.url, connect_timeout_s=1, read_timeout_s=0.5, deadline_s=2)
    bucket = new_bucket(moto)
    proxy.faults[:] = [Fault("stall")]
    with pytest.raises(StoreError, match=bucket):
        read_url(f"s3://{bucket}/photo.jpg", quick)
    assert 2 <= proxy.requests.total() <= 8


@pytest.mark.s3
def test_what_is_wrong_with_the_whole_store_is_told_from_one_missing_photo(
    ceph: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = new_bucket(ceph)
    with pytest.raises(FileNotFoundError):
        read_url(f"s3://{bucket}/none.jpg", options(ceph))
    with pytest.raises(StoreError, match="bucket"):
        read_url("s3://no-such-bucket/none.jpg", options(ceph))
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="PermissionError"):
        read_url(f"s3://{bucket}/none.jpg", options(ceph))
    with pytest.raises(PermissionError):
        open_store(f"s3://{bucket}/job", options(ceph)).names("")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreError, match="credentials"):
        read_url(f"s3://{bucket}/none.jpg", options(ceph))
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_full_disk_is_not_retried(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_at(moto)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.filesystem, "pipe_file", full)
    with count_retries() as retries, pytest.raises(OSError, match="No space"):
        store.publish("x", b"one")
    assert retries.count == 0
