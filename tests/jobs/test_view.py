"""The page of a job: who may ask, what is told, that it grows with the job, and that marks are kept."""

from __future__ import annotations

import gc
import http.client
import io
import itertools
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from starlette.testclient import TestClient

from jobs.driver.job import Job, create_or_open
from jobs.driver.redo import redo
from jobs.errors import UsageError
from jobs.inspect.garbage import collect_garbage
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.layout import MARKS, receipt_path
from jobs.ledger.lease import STANDARD_LEASE, hold
from jobs.ledger.lease_holder import this_process
from jobs.ledger.marks import change_marks, read_marks
from jobs.ledger.receipts import JournalWriter, seal
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from jobs.view.app import COOKIE, build_app
from jobs.view.index import Index, Rows
from jobs.view.photos import Photos
from jobs.view.query import Query, headings
from jobs.view.server import serve
from jobs.view.watch import Watch, progress
from nst.errors import OptionError
from nst.methods import METHODS
from tests.conftest import encoded, picture
from tests.jobs import test_growing as growing
from tests.jobs.made_jobs import EVIL, STARTED, AskedStore, failed, finish, key, made_job, result_of
from tests.methods import REGISTRY

TOKEN = "a-token"
COUNT = 400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A complete job, with failures."""
    job = made_job(tmp_path_factory.mktemp("view"), COUNT)
    finish(job, range(job.manifest.shards))
    return job


@pytest.fixture
def watch(made: Job) -> Iterator[Watch]:
    watch = Watch(made.store)
    watch.refresh()
    yield watch
    made.store.remove(MARKS)


def client_of(watch: Watch, **options: Any) -> TestClient:
    return TestClient(build_app(watch, TOKEN), base_url="http://127.0.0.1", **options)


@pytest.fixture
def client(watch: Watch) -> TestClient:
    client = client_of(watch)
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


def keys(client: TestClient, **query: Any) -> list[str]:
    told = client.get("/api/rows", params={"count": 500, **query})
    assert told.status_code == 200, told.text
    assert told.json()["total"] == len(told.json()["rows"])
    return [row["key"] for row in told.json()["rows"]]


# Who may ask


ALL = ("/", "/static/view.js", "/api/job", "/api/rows", "/thumbnail/0/after", "/full/0/before", "/nothing")


@pytest.mark.parametrize("path", ALL)
def test_who_does_not_know_the_token_is_told_nothing(watch: Watch, path: str) -> None:
    client = client_of(watch)
    for asked in (path, f"{path}?token=wrong", f"{path}?token=", f"{path}?token=%ff"):
        assert client.get(asked).status_code == 403
    assert client.get(path, headers={"cookie": f"{COOKIE}=wrong"}).status_code == 403
    assert path == "/" or client.get(f"{path}?token={TOKEN}").status_code == 403


def test_marks_need_the_token_and_are_asked_for_by_the_page_alone(watch: Watch, client: TestClient) -> None:
    body = json.dumps({"rows": [0], "mark": "keep"})
    kind = {"content-type": "application/json"}
    assert client_of(watch).post("/api/marks", content=body, headers=kind).status_code == 403
    assert client.post("/api/marks", content=body, headers={"content-type": "text/plain"}).status_code == 415
    assert client.get("/api/marks").status_code == 405
    assert read_marks(watch.store) == {}
    assert client.post("/api/marks", content=body, headers=kind).status_code == 200
    assert read_marks(watch.store) == {key(0): "keep"}


def test_the_cookie_is_for_this_page_alone(watch: Watch) -> None:
    client = client_of(watch)
    answer = client.get(f"/?token={TOKEN}")
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "expires" not in said
    assert client.get("/").status_code == 200
    assert "set-cookie" not in client.get("/").headers


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.7", ""]
)
def test_another_hosts_name_is_refused(client: TestClient, host: str) -> None:
    """A page elsewhere may have its own name lead to this machine."""
    assert client.get("/api/job", headers={"host": host}).status_code == 400
    assert client.get("/api/job", headers={"host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize(
    "path", [f"/?token={TOKEN}", "/api/job", "/thumbnail/0/after", "/nothing", "/api/rows?first=x"]
)
def test_every_answer_says_what_the_page_may_load(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_loads_its_own_files_alone(client: TestClient) -> None:
    page = client.get("/").text
    named = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sorted(named) == [
        *("static/icon.svg", "static/server.js", "static/view.css", "static/view.js", "static/viewer.js")
    ]
    for name in named:
        text = client.get(f"/{name}").text
        assert not re.search(
            r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|insertAdjacentHTML|eval\(|@import", text
        )
    assert "style=" not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../index.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/index.html"),
        *("/thumbnail/0/..%2f..%2fjob.json", "/full/0/job.json", "/full/job.json/after", "/full/-1/after"),
        *(
            "/thumbnail/400/after",
            "/thumbnail/99999999999999999999/after",
            "/job.json",
            "/images/a.jpg",
            "//etc/passwd",
        ),
    ],
)
def test_nothing_else_is_to_be_had(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


# What is told


def test_a_job_says_how_far_it_is(client: TestClient) -> None:
    told = client.get("/api/job").json()
    bad = sum(map(failed, range(COUNT)))
    assert (told["state"], told["done"], told["total"]) == ("complete, with failures", COUNT, COUNT)
    assert told["counts"] == {"ok": COUNT - bad, "failed": bad, "quarantined": 0}
    assert (told["workers"], told["rate"], told["left_s"], told["trouble"]) == (0, 0, None, "")
    assert [each["label"] for each in told["figures"]][:4] == ["change", "style_loss", "width", "height"]


def test_ranges_are_parts_of_one_order(client: TestClient) -> None:
    found: list[int] = []
    for first in (0, 150, 300, 450):
        told = client.get("/api/rows", params={"first": first, "count": 150}).json()
        assert (told["total"], told["first"]) == (COUNT, first)
        found += [row["row"] for row in told["rows"]]
    assert found == list(range(COUNT))
    assert client.get("/api/rows", params={"count": 10**9}).json()["total"] == COUNT


@pytest.mark.parametrize(
    "asked", [{"first": "-1"}, {"count": "x"}, {"first": "9" * 30}, {"status": "good"}, {"sort": "x"}]
)
def test_what_is_asked_wrongly_is_said(client: TestClient, asked: dict[str, str]) -> None:
    answer = client.get("/api/rows", params=asked)
    assert answer.status_code == 400
    assert next(iter(asked)) in answer.text


def test_a_row_says_what_became_of_it(client: TestClient) -> None:
    rows = client.get("/api/rows", params={"count": 10}).json()["rows"]
    assert rows[7]["key"] == EVIL
    assert rows[5]["reason"] == "DecodeError: it looks like text"
    assert (rows[5]["status"], rows[5]["after"]) == ("failed", None)
    assert "compute_s" not in rows[5]["figures"]
    assert rows[1]["figures"]["stats.change"] == pytest.approx(6007 % 1000 / 2000)
    assert (rows[1]["figures"]["width"], rows[1]["figures"]["height"]) == (320, 480)


@pytest.mark.parametrize("descending", ["", "1"])
@pytest.mark.parametrize("name", ["stats.change", "compute_s", "width"])
def test_any_figure_sorts_and_what_has_none_is_last(client: TestClient, name: str, descending: str) -> None:
    asked = {"count": 500, "sort": name, "descending": descending}
    rows = client.get("/api/rows", params=asked).json()["rows"]
    values = [row["figures"].get(name) for row in rows]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=bool(descending))
    assert values[len(known) :] == [None] * sum(map(failed, range(COUNT)))
    same = [row["row"] for row in rows if row["figures"].get(name) == known[0]]
    assert same == sorted(same)


def test_keys_sort_and_are_searched_as_they_are_written(client: TestClient) -> None:
    every = [key(number) for number in range(COUNT)]
    assert keys(client) == every
    assert keys(client, descending="1") == every[::-1]
    assert keys(client, sort="key") == sorted(every)
    assert keys(client, sort="key", descending="1", search="HARBOR") == sorted(
        (each for each in every if "harbor" in each), reverse=True
    )
    assert keys(client, search="0012") == [each for each in every if "0012" in each]
    assert keys(client, search="<SCRIPT>") == [EVIL]
    assert keys(client, search=".*") == keys(client, search="%") == []
    assert keys(client, folder="2019/rome") == [each for each in every if each.startswith("2019/rome/")]
    assert keys(client, folder="2019/ro") == []


def test_a_status_filters(client: TestClient) -> None:
    assert keys(client, status="failed") == [key(number) for number in range(COUNT) if failed(number)]
    assert keys(client, status="quarantined") == []
    assert keys(client, status="ok", search="img 0000", descending="1")[0] == key(9)


def folders(keys: Iterable[str]) -> list[list[Any]]:
    """Where each folder begins among `keys`."""
    found = itertools.groupby(enumerate(keys), lambda each: each[1].rpartition("/")[0])
    return [[next(some)[0], folder] for folder, some in found]


def test_headings_say_where_folders_begin(client: TestClient) -> None:
    for query in ({}, {"sort": "key"}, {"descending": "1"}, {"search": "img 000"}):
        asked = client.get("/api/rows", params={**query, "first": 7, "count": 1, "headings": "1"}).json()
        assert asked["headings"] == folders(keys(client, **query)), query
        assert len(asked["headings"]) > 1
    assert "headings" not in client.get("/api/rows").json()
    by_figure = client.get("/api/rows", params={"sort": "width", "headings": "1"}).json()
    assert by_figure["headings"] == []


@pytest.mark.parametrize(
    ("keys", "there"),
    [
        (["a/1", "a/2", "b/1", "c/d/1"], True),
        (["1", "2", "a/1"], True),
        (["1", "2", "3"], False),
        ([], False),
        (["wave/1", "rain/1"] * 3, False),
        ([f"{number // 50 % 2}/{number}" for number in range(500)], True),
        ([f"{number}/1" for number in range(500)], False),
        ([f"{number // 4}/{number}" for number in range(20_004)], False),
        ([f"{number // 4}/{number}" for number in range(20_000)], True),
    ],
    ids=["folders", "some", "none", "nothing", "turns", "stretches", "single", "too many", "many"],
)
def test_there_are_headings_where_they_help(keys: list[str], there: bool) -> None:
    none = np.zeros(len(keys), int)
    texts = {"key": pa.array(keys, pa.string())}
    rows = Rows(version=0, number=none, part=none, status=none, worker=none, figures={}, texts=texts)
    found = headings(rows, np.arange(len(keys)), Query())
    assert [list(each) for each in found] == (folders(keys) if there else [])


def test_a_photograph_is_found_in_the_order(client: TestClient) -> None:
    asked = {"count": 0, "sort": "stats.change", "locate": key(33)}
    place = client.get("/api/rows", params=asked).json()["located"]
    told = client.get("/api/rows", params={**asked, "first": place, "count": 1}).json()
    assert told["rows"][0]["row"] == 33
    assert client.get("/api/rows", params={**asked, "status": "failed"}).json()["located"] is None
    assert client.get("/api/rows", params={**asked, "locate": "none"}).json()["located"] is None


# Marks


def mark(client: TestClient, rows: list[int], name: str | None) -> None:
    answer = client.post("/api/marks", json={"rows": rows, "mark": name})
    assert answer.status_code == 200, answer.text


def test_marks_are_kept_filtered_by_and_taken_back(client: TestClient, watch: Watch) -> None:
    mark(client, [3, 4], "again")
    mark(client, [7], "reject")
    mark(client, [4, 10**6], None)
    assert read_marks(watch.store) == {key(3): "again", EVIL: "reject"}
    assert keys(client, mark="again") == [key(3)]
    assert len(keys(client, mark="none")) == COUNT - 2
    assert client.get("/api/job").json()["marks"] == {"keep": 0, "reject": 1, "again": 1}
    assert client.get("/api/rows").json()["rows"][7]["mark"] == "reject"
    mark(client, [3], "keep")
    assert keys(client, mark="again") == []


def test_two_views_lose_none_of_each_others_marks(made: Job, client: TestClient) -> None:
    other = Watch(made.store)
    other.refresh()
    second = client_of(other)
    second.get(f"/?token={TOKEN}")
    before = client.get("/api/job").json()["version"]
    mark(second, [1], "keep")
    mark(client, [2], "reject")
    assert read_marks(made.store) == {key(1): "keep", key(2): "reject"}
    other.refresh()
    assert keys(second, mark="reject") == [key(2)]
    assert client.get("/api/job").json()["version"] != before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        *(
            b'{"rows": %s, "mark": "keep"}' % rows
            for rows in (b"1", b'"01"', b'["x"]', b"[1e400]", b"[0.7]", b"[true]")
        ),
    ],
    ids=lambda body: body[:20],
)
def test_marks_asked_for_wrongly(client: TestClient, watch: Watch, body: bytes) -> None:
    kind = {"content-type": "application/json"}
    assert client.post("/api/marks", content=body, headers=kind).status_code == 400
    assert client.post("/api/marks", json={"rows": [0], "mark": "good"}).status_code == 400
    assert client.post("/api/marks", content=b" " * (2 << 20), headers=kind).status_code == 413
    assert not watch.store.exists(MARKS)


def test_damaged_marks_are_said_and_left(made: Job, client: TestClient, watch: Watch) -> None:
    made.store.publish(MARKS, b"{")
    watch.refresh()
    assert "marks.json is damaged" in client.get("/api/job").json()["trouble"]
    answer = client.post("/api/marks", json={"rows": [0], "mark": "keep"})
    assert (answer.status_code, made.store.read(MARKS)) == (502, b"{")


@pytest.mark.usefixtures("watch")  # which removes them
def test_without_marks_that_can_be_read_the_pictures_are_shown(made: Job) -> None:
    made.store.publish(MARKS, b"{")
    anew = Watch(made.store)
    anew.refresh()
    assert (len(anew.index.rows()), anew.tell()["state"]) == (COUNT, "complete, with failures")
    assert "marks.json is damaged" in anew.trouble


def test_marks_belong_to_the_job(made: Job) -> None:
    change_marks(made.store, {key(0): "keep"})
    collect_garbage(made.store)
    assert read_marks(made.store) == {key(0): "keep"}
    assert not [fault for fault in verify(made.store) if fault.path == MARKS]
    made.store.remove(MARKS)


# Pictures


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return image.size


def test_thumbnails_are_small_and_full_ones_lie_on_each_other(client: TestClient, made: Job) -> None:
    assert size_of(client.get("/thumbnail/0/before").content) == (320, 213)
    assert size_of(client.get("/thumbnail/1/after").content) == (213, 320)
    picture = made.store.read(f"images/{key(0)}.jpg")
    assert client.get("/full/0/after").content == picture
    assert size_of(client.get("/full/0/before").content) == size_of(picture)
    assert size_of(client.get("/full/5/before").content) == (480, 270)


def test_a_picture_that_is_known_is_not_sent_again(client: TestClient) -> None:
    for path in ("/thumbnail/0/after", "/full/0/after", "/full/0/before"):
        first = client.get(path)
        tag = first.headers["etag"]
        again = client.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(path, headers={"if-none-match": '"other"'}).content == first.content
    tags = {
        client.get(f"/{size}/{row}/{side}").headers["etag"]
        for size, row, side in [
            ("full", 0, "after"),
            ("full", 1, "after"),
            ("full", 0, "before"),
            ("thumbnail", 0, "after"),
        ]
    }
    assert len(tags) == 4


def test_a_photograph_is_as_large_as_its_newest_picture(watch: Watch) -> None:
    photos, rows = Photos(watch.index), watch.index.rows()
    assert size_of(photos.full(rows, 0, "before").data) == (480, 320)
    sides = {side: rows.figures[side] // 2 for side in ("width", "height")}  # done again with image.max_side_px
    again = replace(rows, figures={**rows.figures, **sides})
    assert size_of(photos.full(again, 0, "before").data) == (240, 160)


def test_what_is_not_there_or_no_picture_is_said(tmp_path: Path) -> None:
    job = made_job(tmp_path, 4)
    finish(job, range(job.manifest.shards))
    (tmp_path / f"out/images/{key(0)}.jpg").unlink()
    (tmp_path / f"out/images/{key(1)}.jpg").write_text("no picture")
    (tmp_path / "photos/2.jpg").unlink()
    watch = Watch(job.store)
    watch.refresh()
    client = client_of(watch)
    client.get(f"/?token={TOKEN}")
    assert client.get("/thumbnail/0/after").status_code == client.get("/full/0/after").status_code == 404
    assert client.get("/thumbnail/1/after").status_code == 502
    (tmp_path / "photos/3.jpg").write_text("no picture")
    for answer in (client.get(f"/{kind}/{row}/before") for kind in ("thumbnail", "full") for row in (2, 3)):
        assert (answer.status_code, answer.content) == (204, b""), "a browser shows none, and logs no error"
    assert client.get("/thumbnail/2/after").status_code == 200


@pytest.mark.parametrize("left", ["nothing", "a folder to mount a disk at"])
def test_photographs_that_were_moved_with_the_job_are_found(tmp_path: Path, left: str) -> None:
    job = made_job(tmp_path / "before", 2)
    finish(job, range(job.manifest.shards))
    shutil.move(tmp_path / "before", tmp_path / "now")
    if left != "nothing":
        (tmp_path / "before").mkdir()
    watch = Watch(LocalStore(str(tmp_path / "now/out")))
    watch.refresh()
    client = client_of(watch)
    client.get(f"/?token={TOKEN}")
    assert client.get("/thumbnail/0/before").status_code == 200
    (tmp_path / "now/photos/0.jpg").unlink()
    gone = client.get("/full/0/before")
    assert gone.status_code == (204 if left == "nothing" else 502)
    assert ("is a disk to be mounted there?" in gone.text) == (left != "nothing")


@pytest.mark.parametrize("output", ["../secret.jpg", "images/../../secret.jpg", "/etc/passwd", "job.json"])
def test_a_receipt_cannot_name_what_is_no_picture_of_the_job(tmp_path: Path, output: str) -> None:
    job = made_job(tmp_path, 1)
    (tmp_path / "secret.jpg").write_bytes((tmp_path / "photos/0.jpg").read_bytes())
    (row,) = job.manifest.shard(0)
    result = replace(result_of(job, row), output=output, output_sha256="\r\nset-cookie: a=b")
    seal(job.store, 0, [row], [result], generation=0, fingerprint=job.fingerprint)
    watch = Watch(job.store)
    watch.refresh()
    client = client_of(watch)
    client.get(f"/?token={TOKEN}")
    for answer in (client.get("/full/0/after"), client.get("/thumbnail/0/after")):
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers


# While it runs


def test_it_grows_with_the_job(tmp_path: Path) -> None:
    job = made_job(tmp_path, 40, shard_size=10)
    finish(job, [2])
    watch = Watch(job.store)
    client = client_of(watch)
    client.get(f"/?token={TOKEN}")
    assert client.get("/api/rows").json()["total"] == 0
    assert client.get("/api/job").json()["state"] == "unfinished"
    watch.refresh()
    first = client.get("/api/rows", params={"count": 500}).json()
    assert [row["row"] for row in first["rows"]] == list(range(20, 30))
    watch.refresh()
    assert client.get("/api/job").json()["version"] == first["version"]
    rows = job.manifest.shard(0)
    JournalWriter(job.store, 0, 0).results([result_of(job, rows[3])])
    finish(job, [3])
    watch.refresh()
    told = client.get("/api/rows", params={"count": 500}).json()
    assert [row["row"] for row in told["rows"]] == [3, *range(20, 40)]
    assert told["version"] != first["version"]
    finish(job, [0, 1])
    watch.refresh()
    assert keys(client) == [key(number) for number in range(40)]
    assert client.get("/api/job").json()["done"] == 40


def test_a_receipt_of_a_retry_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    job = made_job(tmp_path, 20, shard_size=10)
    finish(job, [0, 1])
    index = Index(job.store)
    index.refresh()
    before = index.rows()
    rows = job.manifest.shard(0)
    better = replace(result_of(job, rows[6]), row=5, key=key(5), url=rows[5].url)
    seal(job.store, 0, rows, [better], generation=1, fingerprint=job.fingerprint)
    index.refresh()
    assert index.rows() is before
    index.again([])
    assert len(index.rows()) == 20
    assert index.rows().version != before.version
    assert [index.rows().text("key", place) for place in (5, 6)] == [key(5), key(6)]
    assert (before.status[5], index.rows().status[5]) == (1, 0)


def test_receipts_are_read_again_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.view.index._AT_ONCE", 2)
    job = made_job(tmp_path, 500, shard_size=100)
    finish(job, range(5))
    store = AskedStore(job.store.url)
    index = Index(store)
    index.refresh()
    store.asked.clear()
    assert [index.again([key(499)]) for _ in range(4)] == [False, False, True, False]
    assert sorted(store.asked) == [receipt_path(shard) for shard in (0, 0, 1, 1, 2, 3, 4)]


def test_a_damaged_receipt_is_told_of_and_the_others_are_shown(tmp_path: Path) -> None:
    job = made_job(tmp_path, 20, shard_size=10)
    finish(job, [1])
    job.store.publish(receipt_path(0), b"no receipt")
    watch = Watch(job.store)
    watch.refresh()
    assert len(watch.index.rows()) == 10
    assert "shard 0" in " ".join(watch.tell()["notes"])


def test_speed_and_workers_are_those_of_the_driver_at_work(tmp_path: Path) -> None:
    job = made_job(tmp_path, 80, shard_size=40)
    finish(job, [0])
    watch = Watch(job.store)
    watch.refresh()
    holder = this_process(id="x", started_at=STARTED + 19, term_s=1e9, generation=1, renewals=0)
    told = progress(watch.index, holder, STARTED + 39)
    assert (told["state"], told["workers"]) == ("running", 3)
    assert told["rate"] == pytest.approx(1.0)
    assert told["left_s"] == pytest.approx(40.0)
    assert progress(watch.index, None, STARTED + 39)["state"] == "unfinished"


def test_journals_of_shards_that_are_finished_are_let_go(tmp_path: Path) -> None:
    """Watched all night, those of a million photographs would take gigabytes."""
    job = made_job(tmp_path, 40, shard_size=20)
    index = Index(job.store)
    for shard in (0, 1):
        writer, rows = JournalWriter(job.store, shard, 0), job.manifest.shard(shard)
        for row in rows:
            writer.results([result_of(job, row)])
        index.refresh()
        assert records() == 20, "those of the shard in work"
        finish(job, [shard])
        index.refresh()
        assert (records(), len(index.rows())) == (0, 20 * (shard + 1))


def records() -> int:
    """Records of journals that are in memory."""
    return sum(type(each) is dict and each.get("event") == "result" for each in gc.get_objects())


# The command


def test_it_serves_this_machine_until_it_is_interrupted(made: Job) -> None:
    command = [sys.executable, "-m", "jobs", "view", made.store.url, "--port", "0", "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", server.stdout.readline())
        with urllib.request.urlopen(url, timeout=60) as page:
            assert b"view.js" in page.read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url.partition("?")[0], timeout=60)
        kept, took = http.client.HTTPConnection(urlsplit(url).netloc), []
        for _ in range(20):
            began = time.monotonic()
            kept.request("GET", f"/?{urlsplit(url).query}")
            assert b"view.js" in kept.getresponse().read()
            took.append(time.monotonic() - began)
        kept.close()
        assert sorted(took)[5] < 0.03, "no answer waits until the browser has told that its beginning came"
        loaded = Path(f"/proc/{server.pid}/maps").read_text()
        assert "libarrow" in loaded
        assert "libtorch" not in loaded
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=60)
        assert (server.returncode, said) == (0, "")
    finally:
        server.kill()


def test_a_port_that_is_taken_and_a_folder_without_a_job_are_said(made: Job, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(OptionError, match=rf"--port = {number}: cannot be had"):
            serve(made.store, port=number, browser=False)
    with pytest.raises(OptionError, match="--port = 70000"):
        serve(made.store, port=70_000, browser=False)
    with pytest.raises(UsageError, match="is no job"):
        serve(LocalStore(str(tmp_path)), port=0, browser=False)


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_without_its_extra_it_says_what_to_install(
    made: Job, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [each for each in sys.modules if each.split(".")[0] == name or each == "jobs.view.app"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"needs {name}.*pip install 'nst\[view\]'"):
        serve(made.store, port=0, browser=False)


# Parts of a job


def test_parts_are_shown_as_one_job(tmp_path: Path) -> None:
    growing.put(tmp_path, 0, 1, 2)
    job, _ = growing.run_all(growing.file(tmp_path))
    watch = Watch(job.store)
    watch.refresh()
    assert len(watch.index.rows()) == 3
    growing.put(tmp_path, 3)
    growing.run_all(growing.file(tmp_path))
    (again,) = growing.names(1)
    for part in redo(job, [again], {"seed": 9}, registry=REGISTRY):
        assert growing.do(part) == 0
    watch.refresh()
    rows, photos, told = watch.index.rows(), Photos(watch.index), watch.tell()
    assert rows.texts["key"].to_pylist() == growing.names(0, 1, 2, 3), "each in its place"
    assert rows.part.tolist() == [0, 2, 0, 1], "the newest version of each"
    assert rows.number.tolist() == [0, 1, 2, 3]
    assert (told["state"], told["total"], told["done"]) == ("complete", 4, 4)
    for place, path in ((3, f"images/{growing.names(3)[0]}"), (1, f"parts/0002/images/{again}")):
        assert photos.full(rows, place, "after").data == job.store.read(f"{path}.jpg")
    assert len(photos.thumbnail(rows, 1, "before").data) > 100
    client = client_of(watch)
    client.get(f"/?token={TOKEN}")
    shown = client.get("/api/rows").json()["rows"]
    assert [row["again"] for row in shown] == [None, "seed = 9", None, None], "what made it"
    told = client.get("/api/rows", params={"count": 0, "locate": again}).json()
    assert told["located"] == 1
    for part in redo(job, [again], {}, registry=REGISTRY):
        assert growing.do(part) == 0
    watch.refresh()
    assert client.get("/api/rows").json()["rows"][1]["again"] == "as before"


def test_of_a_part_it_is_told_who_is_at_it_and_what_is_left(tmp_path: Path) -> None:
    growing.put(tmp_path, 0, 1, 2)
    job, _ = growing.run_all(growing.file(tmp_path))
    watch = Watch(job.store)
    watch.refresh()
    assert (watch.tell()["state"], watch.index.left) == ("complete", 0)
    with closing(redo(job, growing.names(0, 1), {"seed": 9}, registry=REGISTRY)) as parts:
        part = next(parts)
    watch.refresh()
    told = watch.tell()
    assert (told["state"], told["done"], told["total"]) == (job_status(job.store).state, 3, 3)
    assert (told["state"], watch.index.left) == ("unfinished", 2)
    with hold(part.store, STANDARD_LEASE):  # as of `nst resume`
        watch.refresh()
        assert watch.tell()["state"] == "running"
    assert growing.do(part) == 0
    watch.refresh()
    assert (watch.tell()["state"], watch.index.left) == ("complete", 0)
    holder = this_process(id="x", started_at=0, term_s=1e9, generation=1, renewals=0)
    told = progress(watch.index, holder, time.time() + 10)
    assert (told["rate"] > 0, told["left_s"]) == (True, None), "of a retry it is not known"


def test_the_command_that_does_again_is_told(tmp_path: Path) -> None:
    growing.put(tmp_path / "all of them", 0)
    for method, example in (
        ({"kind": "stub"}, "seed=5"),
        ({"kind": "feed_forward", "style": "wave.png"}, "method.strength=0.5"),
        ({"kind": "style_transfer", "style": "wave.png"}, "method.style_scale=2"),
    ):
        (tmp_path / "all of them/wave.png").write_bytes(encoded(picture(1), "PNG"))
        output = f"out, {method['kind']}"
        table = {"photos": "photos", "output": output, "method": method, "seed": 4}
        job = create_or_open(job_from_table(table, tmp_path / "all of them", {**METHODS, **REGISTRY}))
        reach = ("--set", "storage.region=eu west")
        client = TestClient(build_app(Watch(job.store), TOKEN, reach=reach), base_url="http://127.0.0.1")
        client.get(f"/?token={TOKEN}")
        words = shlex.split(client.get("/api/job").json()["redo"])
        assert words == ["nst", "redo", job.store.url, "--marked", "again", *reach, "--set", example]
