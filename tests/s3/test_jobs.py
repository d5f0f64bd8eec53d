"""Whole jobs on S3: through harm, a killed server, two drivers at once, and with what users get wrong."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import s3fs
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.console.progress import Snapshot, Summary
from jobs.driver.job import Job, create_or_open
from jobs.driver.run import run
from jobs.errors import StoreError
from jobs.inspect.verify import verify
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import Result
from jobs.spec import job_from_table
from nst.errors import OptionError
from tests.conftest import encoded, picture
from tests.methods import REGISTRY
from tests.s3.conftest import new_bucket, upload
from tests.s3.proxy import Fault, FaultProxy
from tests.s3.servers import SECRET_KEY, Server


def begin(bucket: str, url: str, folder: str = "out", **changes: Any) -> Job:
    table: dict[str, Any] = {
        "photos": f"s3://{bucket}/photos",
        "output": f"s3://{bucket}/{folder}",
        "method": {"kind": "stub"},
        "image": {"format": "png"},
        "resources": {"pool": "local", "max_workers": 2, "load_threads": 8, "save_threads": 8},
        "storage": {"endpoint_url": url, "connect_timeout_s": 2, "read_timeout_s": 2},
    }
    for name, value in changes.items():
        table[name] = {**table[name], **value} if isinstance(value, dict) else value
    return create_or_open(job_from_table(table, Path.cwd(), REGISTRY), REGISTRY)


def photographs(server: Server, count: int) -> str:
    """A new bucket with so many small photographs."""
    bucket = new_bucket(server)
    files = {
        f"photos/{number % 7}/p +{number:04d}.jpg": encoded(picture(number, 30 + number % 5, 20))
        for number in range(count)
    }
    upload(server, bucket, files)
    return bucket


def rows(job: Job) -> list[Result]:
    ledger = Ledger(job.store)
    return [result for shard in range(job.manifest.shards) for result in ledger.receipt(shard)[0]]


def digests(job: Job) -> dict[str, str | None]:
    return {result.key: result.output_sha256 for result in rows(job)}


def check(job: Job, summary: Summary, count: int) -> None:
    """Every row once and ok, and every object as the receipts say."""
    assert summary.error is None
    assert summary.exit_code == 0
    assert [result.row for result in rows(job)] == list(range(count))
    assert list(verify(job.store)) == []


def test_a_job_from_bucket_to_bucket(moto: Server) -> None:
    bucket = photographs(moto, 12)
    upload(moto, bucket, {"styles/wave + sky.jpg": encoded(picture(99))})
    style = f"s3://{bucket}/styles/wave + sky.jpg"
    job = begin(bucket, moto.url, method={"picture": style})
    check(job, run(job), 12)
    assert begin(bucket, moto.url, method={"picture": style}).fingerprint == job.fingerprint
    arguments = [f"s3://{bucket}/out", "--set", f"storage.endpoint_url={moto.url}"]
    for command, words in (("status", "complete"), ("verify", "no faults"), ("gc", "removed")):
        done = CliRunner().invoke(app, [command, *arguments])
        assert done.exit_code == 0, done.output
        assert words in done.output
    assert list(verify(job.store)) == []


def test_the_endpoint_may_come_from_the_environment(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = photographs(moto, 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.url)
    s3fs.S3FileSystem.clear_instance_cache()
    job = begin(bucket, moto.url, storage={"endpoint_url": None})
    check(job, run(job), 2)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"secret": "hunter2"}, "storage.secret"),
        ({"aws_secret_access_key": "hunter2"}, "storage.aws_secret_access_key"),
        ({"key": "hunter2"}, "AWS_ACCESS_KEY_ID"),
        ({"token": "hunter2"}, "credentials"),
        ({"endpoint_url": "http://me:hunter2@host"}, "storage.endpoint_url"),
    ],
)
def test_secrets_are_refused_and_not_repeated(table: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        begin("bucket", "http://127.0.0.1:9", storage=table)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_nothing_tells_the_secret(moto: Server) -> None:
    bucket = photographs(moto, 2)
    job = begin(bucket, moto.url)
    check(job, run(job), 2)
    for path in job.store.find():
        assert SECRET_KEY.encode() not in job.store.read(path), path


def test_a_photograph_that_is_not_there_is_a_row_and_a_bucket_is_not(moto: Server, tmp_path: Path) -> None:
    bucket = photographs(moto, 1)
    lines = [{"url": f"s3://{bucket}/photos/0/p +0000.jpg"}, {"url": f"s3://{bucket}/photos/none.jpg"}]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = begin(bucket, moto.url, photos=str(tmp_path / "some.jsonl"))
    assert run(job).exit_code == 3
    assert [(each.status, each.error_type) for each in rows(job)] == [
        ("ok", None),
        ("failed", "FileNotFoundError"),
    ]
    (tmp_path / "more.jsonl").write_text(json.dumps({"url": "s3://no-such-bucket-at-all/x.jpg"}))
    job = begin(bucket, moto.url, "other", photos=str(tmp_path / "more.jsonl"))
    summary = run(job)
    assert isinstance(summary.error, StoreError)
    assert "no-such-bucket-at-all" in str(summary.error)
    assert summary.exit_code == 4
    assert Ledger(job.store).done() == set()


def test_a_missing_bucket_is_said_at_once(moto: Server) -> None:
    bucket = photographs(moto, 1)
    with pytest.raises(OptionError, match="does not exist") as caught:
        begin(bucket, moto.url, output="s3://no-such-bucket-at-all/out")
    assert caught.value.option == "output"


# Against the real server


@pytest.fixture(scope="module")
def library(ceph: Server) -> tuple[str, dict[str, str | None]]:
    """3,000 photographs on Ceph, and the digests of an undisturbed run."""
    bucket = photographs(ceph, 3_000)
    job = begin(bucket, ceph.url, "undisturbed")
    check(job, run(job), 3_000)
    retried = sum(result.retries for result in rows(job))
    assert retried < 30, "a few, where other things keep the machine busy for seconds"
    return bucket, digests(job)


@pytest.mark.s3
@pytest.mark.timeout(900)
def test_harm_at_every_twentieth_request(ceph: Server, library: tuple[str, dict[str, str | None]]) -> None:
    bucket, undisturbed = library
    with FaultProxy(ceph.port, seed=4) as proxy:
        proxy.faults[:] = [Fault(kind, 0.05 / 5) for kind in ("503", "reset", "stall", "cut", "request cut")]
        job = begin(bucket, proxy.url, "harmed")
        summary = run(job)
        done = {fault.kind: fault.done for fault in proxy.faults}
        requests = proxy.requests.total()
        proxy.faults.clear()
        check(job, summary, 3_000)
        assert digests(job) == undisturbed
        retried = sum(result.retries for result in rows(job))
    print(f"\n{requests} requests, harmed {done}, {retried} calls for photographs made again")
    assert 0.03 < sum(done.values()) / requests < 0.07
    assert min(done.values()) > 10
    assert retried > 100


@pytest.mark.s3
@pytest.mark.timeout(900)
def test_the_server_is_killed_and_comes_back(ceph: Server, library: tuple[str, dict[str, str | None]]) -> None:
    bucket, undisturbed = library
    killed: list[int] = []

    def watch(snapshot: Snapshot) -> None:
        if not killed and snapshot.done > 1_000:
            killed.append(snapshot.done)
            threading.Thread(target=lambda: (ceph.kill(), time.sleep(5), ceph.start())).start()

    job = begin(bucket, ceph.url, "killed", method={"delay_s": 0.01})
    summary = run(job, observe=watch)
    check(job, summary, 3_000)
    assert digests(job) == undisturbed
    retried = sum(result.retries for result in rows(job))
    print(f"\nkilled after {killed} of 3,000; {retried} calls for photographs made again")
    assert killed
    assert retried > 0


@pytest.mark.s3
def test_a_server_that_stays_away_stops_the_job_and_leaves_it_resumable(
    ceph: Server, library: tuple[str, dict[str, str | None]]
) -> None:
    bucket, undisturbed = library
    with FaultProxy(ceph.port) as proxy:

        def watch(snapshot: Snapshot) -> None:
            if snapshot.done > 500:
                proxy.faults[:] = [Fault("503")]

        job = begin(bucket, proxy.url, "away", storage={"deadline_s": 3})
        summary = run(job, observe=watch)
        assert isinstance(summary.error, StoreError) or summary.error is None
        proxy.faults.clear()
        again = begin(bucket, proxy.url, "away", storage={"deadline_s": 3})
        print(f"\n{summary.error}; sealed {len(Ledger(again.store).done())} of {again.manifest.shards}")
        assert isinstance(summary.error, StoreError)
        assert 0 < len(Ledger(again.store).done()) < again.manifest.shards
        check(again, run(again), 3_000)
        assert digests(again) == undisturbed


@pytest.mark.s3
def test_two_drivers_on_a_store_that_ignores_create_only_writes(rclone: Server) -> None:
    """Both do all the work; what is there in the end is one result and one picture for each photograph."""
    bucket = photographs(rclone, 60)
    jobs = [begin(bucket, rclone.url, resources={"shard_size": 4, "max_workers": 1}) for _ in range(2)]
    assert any("ignores create-only" in note for note in jobs[0].notes)
    threads = [threading.Thread(target=run, args=(job,), kwargs={"lease": None}) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(jobs[0], run(jobs[0]), 60)
