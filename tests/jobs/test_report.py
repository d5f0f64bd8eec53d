"""The report: complete, self-contained, and harmless, whatever a job says."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from jobs.driver.job import create_or_open
from jobs.driver.run import run
from jobs.errors import StoreError
from jobs.inspect.cards import _THREADS
from jobs.inspect.report import build_report, publish_report
from jobs.inspect.thumbnails import share, thumbnail
from jobs.ledger.curves import write_curve
from jobs.ledger.layout import REPORT
from jobs.ledger.marks import change_marks
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from jobs.view.index import Rows
from jobs.view.photos import Photos, Side
from nst.errors import OptionError
from tests.conftest import encoded, picture
from tests.jobs.made_jobs import AskedStore, failed, finish, key, made_job
from tests.jobs.reports import Report, check_harmless
from tests.methods import RAISE, REGISTRY

EVIL = "<img src=x onerror=alert(1)>&\"'</script><!--"
HASH = "100% #1?"
IMAGES = {"data:", "file:", "'self'"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A job with curves: three pictures, a photograph that is gone, and two failures; some with evil names."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "photos").mkdir()
    names = ("one.jpg", f"evil {EVIL} two.jpg".replace("/", "-"), "gone.jpg", f"{HASH}.jpg")
    for number, name in enumerate(names):
        (folder / "photos" / name).write_bytes(encoded(picture(number, 90, 60)))
    (folder / "photos" / f"{EVIL}.jpg".replace("/", "-")).write_text("no picture")
    (folder / "photos" / "raises.jpg").write_bytes(encoded(picture(5, RAISE, 40)))
    names = tuple(sorted(path.name for path in (folder / "photos").iterdir()))
    listed = [
        {"url": f"photos/{name}", "key": name.removesuffix(".jpg").replace("-s", "/s")} for name in names
    ]  # a folder's are escaped
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, listed)))
    table = {
        "photos": "list.jsonl",
        "output": "out",
        "method": {"kind": "stub", "curve": True},
        "resources": {"pool": "local", "max_workers": 1, "shard_size": 6},
    }
    job = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
    assert run(job).exit_code == 3
    (folder / "photos/gone.jpg").unlink()
    store = job.store
    assert isinstance(store, LocalStore)
    return store


def test_has_every_row_both_thumbnails_settings_and_times(store: LocalStore) -> None:
    report = Report(build_report(store))
    assert [row["status"] for row in report.rows].count("ok") == 4
    assert len(report.rows) == 6
    assert (report.job["done"], report.job["total"], report.job["state"]) == (6, 6, "complete, with failures")
    assert report.job["notes"] == []
    assert report.row("raises")["reason"].endswith("this one raises")
    (text,) = (row for row in report.rows if "it looks like text" in row["reason"])
    assert text["status"] == "failed"
    assert [each and each.size for each in report.thumbnails("one")] == [(90, 60), (90, 60)]
    assert [each and each.size for each in report.thumbnails("gone")] == [None, (90, 60)]
    assert report.row("gone")["small"] == ["after"]
    assert report.row("gone")["problem"].startswith("photograph cannot be read: ")
    assert report.row("one")["problem"] == ""
    assert report.row("one")["figures"]["width"] == 90
    for part in ("method.delay_s", "image.quality", "fingerprint", "Time per stage", "compute"):
        assert part in report.text, part


def test_thumbnails_are_of_the_photograph_and_of_its_picture(store: LocalStore) -> None:
    shown = Report(build_report(store)).thumbnails("one")
    files = [store.root.parent / "photos/one.jpg", store.root / "images/one.jpg"]
    for small, path in zip(shown, files, strict=True):
        assert small is not None
        levels = [np.asarray(each.convert("RGB")).astype(float) for each in (small, Image.open(path))]
        assert np.abs(levels[0] - levels[1]).mean() < 6


def test_names_are_text_and_nothing_is_loaded_or_run(store: LocalStore) -> None:
    html = build_report(store)
    check_harmless(html, IMAGES)
    assert sum("onerror=alert(1)>&\"'</script><!--" in row["key"] for row in Report(html).rows) == 2
    assert "<img src=x" not in html
    assert html.count("<!--") == 0


def test_files_are_found_from_where_the_report_is(store: LocalStore) -> None:
    for row in Report(build_report(store)).rows:
        for side, made in (("before", row["key"] != "gone"), ("after", row["status"] == "ok")):
            address = row["full"][side]
            assert (address is not None) == made, (row["key"], side)
            if address is not None:
                assert not set(address) & set("#?\"'<>& ")
                assert (store.root / unquote(address)).is_file()
    assert Report(build_report(store)).row(HASH)["full"] == {
        "before": "../photos/100%25%20%231%3F.jpg",
        "after": "images/100%25%20%231%3F.jpg",
    }


def test_moved_files_are_found(store: LocalStore, tmp_path: Path) -> None:
    shutil.copytree(store.root.parent, tmp_path / "elsewhere")
    (tmp_path / "elsewhere/photos/gone.jpg").write_bytes(encoded(picture(2, 90, 60)))
    report = Report(build_report(LocalStore(str(tmp_path / "elsewhere/out"))))
    assert report.row("gone")["full"]["before"] == "../photos/gone.jpg"
    assert all(report.thumbnails("gone"))


@pytest.fixture
def copy(store: LocalStore, tmp_path: Path) -> LocalStore:
    return LocalStore(str(shutil.copytree(store.root, tmp_path / "copy")))


def line(report: Report, key: str) -> list[tuple[float, float]]:
    """The points of a photograph's curve, from its upper left corner, in [0, 1]."""
    points = report.row(key)["curve"][0]
    return [(float(x) / 300, float(y) / 50) for x, y in (point.split(",") for point in points.split())]


def test_has_curves(copy: LocalStore) -> None:
    copy.publish("curves/one.parquet", write_curve({"loss": [1000.0, 10.0, 100.0, math.nan, 1.0]}))
    report = Report(build_report(copy))
    assert sum("curve" in row for row in report.rows) == 4
    assert report.row("one")["curve"][1] == "loss of one: 1000 at evaluation 1, 1 at 5; logarithmic scale"
    expected = [(0, 0), (0.25, 2 / 3), (0.5, 1 / 3), (1, 1)]
    assert line(report, "one") == [pytest.approx(point, abs=0.002) for point in expected]


def test_curves_of_every_shape(copy: LocalStore) -> None:
    copy.publish("curves/one.parquet", write_curve({"loss": [3.0, -1.0, 1.0]}))
    copy.publish("curves/gone.parquet", write_curve({"loss": [1e6 - n for n in range(100_000)]}))
    report = Report(build_report(copy))
    assert report.row("one")["curve"][1].endswith("3 at evaluation 1, 1 at 3; linear scale")
    assert line(report, "one") == [(0, 0), (0.5, 1), (1, 0.5)]
    assert len(line(report, "gone")) <= 301
    assert (line(report, "gone")[0], line(report, "gone")[-1]) == ((0, 0), (1, 1))
    copy.publish("curves/one.parquet", write_curve({"loss": [5.0]}))
    copy.publish("curves/gone.parquet", write_curve({"loss": [math.inf], "scale": [1.0]}))
    report = Report(build_report(copy))
    assert line(report, "one") == [(0, 0)] or line(report, "one") == [(0, 1)]
    assert report.row("gone")["curve"] == ["", "its curve has no finite loss"]


def test_a_damaged_curve_says_so_and_a_missing_one_does_not(copy: LocalStore) -> None:
    copy.publish("curves/one.parquet", b"<b>loss</b>")
    copy.remove("curves/gone.parquet")
    report = Report(build_report(copy))
    points, what = report.row("one")["curve"]
    assert (points, what.partition(": not a curve")[0]) == ("", "loss curve cannot be read")
    assert report.row("gone")["curve"] is None


def test_a_job_without_curves_is_not_asked_for_each(copy: LocalStore) -> None:
    store = AskedStore(copy.url)
    shutil.rmtree(copy.root / "curves")
    assert "curve" not in Report(build_report(store)).row("one")
    assert "images/one.jpg" in store.asked
    assert not [path for path in store.asked if path.startswith("curves")]


def test_marks_are_shown(copy: LocalStore) -> None:
    change_marks(copy, {"one": "keep"})
    report = Report(build_report(copy))
    assert (report.row("one")["mark"], report.row("gone")["mark"]) == ("keep", None)
    assert report.job["marks"] == {"keep": 1, "reject": 0, "again": 0}


def test_is_published_beside_the_job_and_tells_how_far_it_is(store: LocalStore) -> None:
    told: list[tuple[int, int]] = []
    assert publish_report(store, lambda *numbers: told.append(numbers)) == f"{store.url}/{REPORT}"
    assert store.read(REPORT).startswith(b"<!doctype html>")
    assert told == [(number, 6) for number in range(1, 7)]


def test_a_damaged_receipt_is_noted(copy: LocalStore) -> None:
    copy.publish("results/shard-00000.parquet", b"nothing")
    report = Report(build_report(copy))
    assert report.rows == []
    assert report.job["notes"][0].startswith("shard 0: ")


def test_what_is_no_file_is_said_and_not_read(tmp_path: Path) -> None:
    """Reading a pipe or a device might never end; a table may hold a path that none can be."""
    names = (os.devnull, "zero\0.jpg")
    listed = [json.dumps({"url": name, "key": str(number)}) for number, name in enumerate(names)]
    (tmp_path / "list.jsonl").write_text("\n".join(listed))
    table = {
        "photos": "list.jsonl",
        "output": "out",
        "method": {"kind": "stub"},
        "resources": {"pool": "local", "max_workers": 1},
    }
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    assert run(job).exit_code == 3
    report = Report(build_report(job.store))
    for number, why in enumerate(("Not a file", "embedded null byte")):
        row = report.row(str(number))
        assert row["status"] == "failed"
        assert why in row["reason"]
        assert why in row["problem"]


def test_needs_no_server() -> None:
    """Nor torch, nor ray."""
    script = """
import sys
sys.modules |= dict.fromkeys(("starlette", "uvicorn", "torch", "ray"))
import jobs.inspect.report, jobs.training.report
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# Jobs of other sizes


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """200 photographs, three of which have no picture."""
    job = made_job(tmp_path_factory.mktemp("large"), 200)
    finish(job, range(job.manifest.shards))
    assert isinstance(job.store, LocalStore)
    return job.store


def test_a_store_that_does_not_answer_is_not_waited_for_again(
    large: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time may take minutes."""
    asked, real = list[int](), Photos.open

    def opened(photos: Photos, rows: Rows, place: int, side: Side, most: int) -> Image.Image:
        if side == "after":
            return real(photos, rows, place, side, most)
        asked.append(place)
        raise StoreError("s3://bucket: no answer")

    monkeypatch.setattr(Photos, "open", opened)
    report = Report(build_report(large))
    assert 1 <= len(asked) <= _THREADS
    assert {row["problem"] for row in report.rows} == {"photograph cannot be read: s3://bucket: no answer"}
    assert report.row(key(0))["small"] == ["after"]


def test_of_a_large_job_some_are_shown_and_it_says_so_first(
    large: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.inspect.report._MOST_ROWS", 50)
    report = Report(build_report(large))
    keys = [row["key"] for row in report.rows]
    numbers = [number for number in range(200) if key(number) in keys]
    assert keys == [key(number) for number in numbers], "in order"
    bad = [number for number in range(200) if failed(number)]
    assert [number for number in numbers if failed(number)] == bad == [5, 102, 199]
    good = [number for number in numbers if not failed(number)]
    assert len(good) == 47
    gaps = np.diff(good)
    assert 1 <= gaps.min() < gaps.max() <= 9, "spread over all"
    assert report.job["notes"][0] == (
        "47 of 197 pictures are here, evenly spread, and all 3 photographs without one; nst view shows all"
    )
    assert (report.job["done"], report.job["counts"]["failed"]) == (200, 3)


def test_of_many_failures_the_first_are_shown(large: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.inspect.report._MOST_ROWS", 10)
    monkeypatch.setattr("jobs.inspect.report._MOST_FAILURES", 2)
    report = Report(build_report(large))
    assert [row["key"] for row in report.rows if row["status"] != "ok"] == [key(5), key(102)]
    assert len(report.rows) == 10
    assert ", and the first 2 of 3 photographs without one;" in report.job["notes"][0]


def test_a_job_that_just_fits_is_shown_whole(large: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.inspect.report._MOST_ROWS", 200)
    report = Report(build_report(large))
    assert [row["key"] for row in report.rows] == [key(number) for number in range(200)]
    assert report.job["notes"] == []
    for row in report.rows:
        assert [
            side for side, each in zip(("before", "after"), report.thumbnails(row["key"]), strict=True) if each
        ] == (["before"] if row["status"] == "failed" else ["before", "after"])


def test_thumbnails_are_large_where_there_are_few_and_fit_where_there_are_many() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8))
    sizes = []
    for count in (2, 200, 2_000, 6_000):
        for image in (picture(1, 1200, 900), noise):
            data, side_px = thumbnail(image, share(count))
            assert len(data) * 4 / 3 * count <= 34e6
        sizes.append(side_px)
        plain, side_px = thumbnail(picture(1, 1200, 900), share(count))
        assert max(Image.open(io.BytesIO(plain)).size) == side_px
        assert side_px >= 240
    assert sizes == sorted(sizes, reverse=True)
    assert thumbnail(picture(1, 1200, 900), share(2))[1] == 720
    assert thumbnail(picture(1, 90, 60), share(2))[1] == 90, "never enlarged"


def test_of_an_unfinished_job(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(encoded(picture(1)))
    table = {"photos": "photos", "output": "out", "method": {"kind": "stub"}}
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    report = Report(build_report(job.store))
    assert (report.job["done"], report.job["total"], report.job["state"]) == (0, 1, "unfinished")
    assert report.rows == []
    with pytest.raises(OptionError):
        job_from_table({**table, "method": {"kind": "none"}}, tmp_path, REGISTRY)
