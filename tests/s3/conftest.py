"""S3 servers for the tests: the quick stand-in always; the real ones are installed by `make test-s3`."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

import pytest
import s3fs

from tests.s3.servers import ACCESS_KEY, SECRET_KEY, Ceph, Moto, Rclone, Server

_buckets = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def credentials() -> Iterator[None]:
    """As a user gives them: in the environment. No file of this machine's user is read."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert Ceph.installed(), "Ceph is not installed: make test-s3 does it"
    with Ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert Rclone.program(), "rclone is not installed: make test-s3 does it"
    with pytest.MonkeyPatch.context() as patch, Rclone(tmp_path_factory.mktemp("rclone")) as server:
        # It keeps a replaced object's first checksum. Real users set the same.
        patch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        s3fs.S3FileSystem.clear_instance_cache()
        yield server


def new_bucket(server: Server) -> str:
    """Makes a bucket and gives its name. The machine's host name keeps those of several runs apart."""
    name = f"nst-{socket.gethostname().lower()[:20]}-{os.getpid()}-{next(_buckets)}"
    s3fs.S3FileSystem(endpoint_url=server.url, use_listings_cache=False).mkdir(name)
    return name


def upload(server: Server, bucket: str, files: dict[str, bytes]) -> None:
    """Many objects at once, by key."""
    filesystem = s3fs.S3FileSystem(endpoint_url=server.url, use_listings_cache=False)
    filesystem.pipe({f"{bucket}/{key}": data for key, data in files.items()}, batch_size=32)
