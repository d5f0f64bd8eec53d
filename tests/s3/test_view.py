"""The page of a job in a bucket, through its interface, and how often the store is asked for it."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from jobs.driver.job import Job, create_or_open
from jobs.ledger.marks import read_marks
from jobs.ledger.receipts import JournalWriter, seal
from jobs.spec import job_from_table
from jobs.stores.filesystems import StorageOptions
from jobs.stores.store import open_store
from jobs.view.app import build_app
from jobs.view.watch import Watch
from tests.conftest import encoded, picture
from tests.jobs.made_jobs import PICTURES, failed, key, result_of
from tests.methods import REGISTRY
from tests.s3.conftest import new_bucket, upload
from tests.s3.proxy import FaultProxy
from tests.s3.servers import Server

COUNT, SHARD, SEEN, TOKEN = 2_000, 64, 40, "a-token"


@pytest.fixture
def proxy(moto: Server) -> Iterator[FaultProxy]:
    """Counts what is asked of the store."""
    with FaultProxy(moto.port) as counting:
        yield counting


@pytest.fixture
def job(moto: Server, proxy: FaultProxy, tmp_path: Path) -> Job:
    """All but its last shard is done; of its pictures those that are seen first are there."""
    bucket = new_bucket(moto)
    upload(moto, bucket, {f"photos/{n}.jpg": encoded(picture(n, 480, 320)) for n in range(PICTURES)})
    lines = [{"url": f"s3://{bucket}/photos/{n % PICTURES}.jpg", "key": key(n)} for n in range(COUNT)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    table = {
        "photos": "list.jsonl",
        "output": f"s3://{bucket}/out",
        "method": {"kind": "stub"},
        "resources": {"pool": "local", "shard_size": SHARD},
        "storage": {"endpoint_url": proxy.url},
    }
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    for shard in range(job.manifest.shards - 1):
        rows = job.manifest.shard(shard)
        seal(
            *(job.store, shard, rows, [result_of(job, row) for row in rows]),
            generation=0,
            fingerprint=job.fingerprint,
        )
    painted = {result_of(job, row).output: encoded(picture(row.index, 480, 320)) for row in rows_seen(job)}
    upload(moto, bucket, {f"out/{path}": data for path, data in painted.items() if path is not None})
    return job


def rows_seen(job: Job) -> list[Any]:
    return job.manifest.shard(0)[:SEEN]


def test_a_job_in_a_bucket_is_looked_at(job: Job, proxy: FaultProxy) -> None:
    def asked() -> Counter[str]:
        found: Counter[str] = Counter()
        for (method, path), count in proxy.places.items():
            kinds = [kind for kind in ("results", "images", "photos", "marks") if f"/{kind}" in path]
            found[f"{method} {kinds[0] if kinds else 'other'}"] += count
        proxy.places.clear()
        return found

    store = open_store(job.store.url, StorageOptions(endpoint_url=proxy.url))
    asked()
    watch = Watch(store)
    client = TestClient(build_app(watch, TOKEN), base_url="http://127.0.0.1")
    assert b"view.js" in client.get(f"/?token={TOKEN}").content
    assert client.get("/api/job").json()["state"] == "unfinished"
    assert asked().total() < 6, "the page is there before anything is read"
    watch.refresh()
    found = asked()
    assert found.pop("GET results") == job.manifest.shards - 1
    assert found.total() < 12, found
    done = COUNT - len(job.manifest.shard(job.manifest.shards - 1))
    told = client.get("/api/job").json()
    assert (told["done"], told["total"], told["state"]) == (done, COUNT, "unfinished")
    rows = client.get("/api/rows", params={"count": 100}).json()["rows"]
    assert [row["key"] for row in rows] == [key(number) for number in range(100)]
    assert client.get("/api/rows", params={"search": "rome/img 000", "count": 500}).json()["total"] == 49
    assert client.get("/api/rows", params={"sort": "compute_s", "descending": "1"}).json()["total"] == done
    assert asked().total() == 0, "rows are not asked for"
    good = [number for number in range(SEEN) if not failed(number)]
    for _ in range(2):
        for number in good:
            shown = Image.open(io.BytesIO(client.get(f"/thumbnail/{number}/after").content))
            assert max(shown.size) == 320
    assert asked() == {"GET images": len(good)}, "each picture once"
    before = client.get("/thumbnail/3/before")
    assert Image.open(io.BytesIO(before.content)).size[0] == 320
    assert client.get("/full/3/after").content == store.read(result_of(job, rows_seen(job)[3]).output or "")
    assert client.get("/full/3/before").status_code == 200
    assert asked().total() < 8
    assert client.post("/api/marks", json={"rows": [1, 2], "mark": "again"}).status_code == 200
    assert read_marks(store) == {key(1): "again", key(2): "again"}
    assert client.get("/api/rows", params={"mark": "again"}).json()["total"] == 2
    assert asked().total() < 8
    # While it runs: what is known is not read again.
    last = job.manifest.shard(job.manifest.shards - 1)
    JournalWriter(job.store, job.manifest.shards - 1, 0).results([result_of(job, row) for row in last[:3]])
    asked()
    for _ in range(3):
        watch.refresh()
    found = asked()
    assert found["GET results"] == 0
    assert found.total() < 3 * 13, found
    assert client.get("/api/job").json()["done"] == done + 3
    image = client.get(f"/thumbnail/{COUNT - 1}/after")
    assert image.status_code == 404
