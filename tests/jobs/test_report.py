"""The contact sheet: complete, self-contained, escaped; and seen by a real browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.driver.job import create_or_open
from jobs.driver.run import run
from jobs.inspect.report import build_report, publish_report
from jobs.ledger.curves import write_curve
from jobs.ledger.layout import REPORT
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from nst.errors import OptionError
from tests.conftest import encoded, picture
from tests.methods import RAISE, REGISTRY

EVIL = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A job with curves: two pictures, a photograph that is gone, and two failures with evil names."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "photos").mkdir()
    for number, name in enumerate(("one.jpg", f"evil {EVIL} two.jpg".replace("/", ""), "gone.jpg")):
        (folder / "photos" / name).write_bytes(encoded(picture(number, 90, 60)))
    (folder / "photos" / f"{EVIL}.jpg").write_text("no picture")
    (folder / "photos" / "raises.jpg").write_bytes(encoded(picture(5, RAISE, 40)))
    names = sorted(path.name for path in (folder / "photos").iterdir())
    listed = [
        {"url": f"photos/{name}", "key": name.removesuffix(".jpg")} for name in names
    ]  # a folder's are escaped
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, listed)))
    table = {
        "photos": "list.jsonl",
        "output": "out",
        "method": {"kind": "stub", "curve": True},
        "resources": {"pool": "local", "max_workers": 1, "shard_size": 5},
    }
    job = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
    assert run(job).exit_code == 3
    (folder / "photos/gone.jpg").unlink()
    store = job.store
    assert isinstance(store, LocalStore)
    return store


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_shows_pairs_totals_failures_settings_and_times(store: LocalStore) -> None:
    page = Page(build_report(store))
    assert [tag for tag, _ in page.tags].count("figure") == 3
    assert [tag for tag, _ in page.tags].count("img") == 5
    for part in (
        "stub: 5 of 5 images",
        "complete, with failures",
        "2 without a picture",
        "this one raises",
        "not a picture in a known format (it looks like text)",
        "photograph cannot be read",
        "method.delay_s",
        "image.quality",
        "fingerprint",
        "Time per stage",
        "compute",
    ):
        assert part in page.text, part


def test_names_are_escaped_and_nothing_is_loaded_or_run(store: LocalStore) -> None:
    text = build_report(store)
    page = Page(text)
    assert page.text.count("<img src=x onerror=alert(1)>") == 3
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "ul", "li", "b", "p"}
    allowed |= {"section", "figure", "div", "img", "figcaption", "br", "small", "table", "thead", "tbody", "tr"}
    assert {tag for tag, _ in page.tags} <= allowed | {"th", "td", "svg", "polyline"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,")
    assert not re.search(
        r"(https?:)?//|url\(|@import", text.replace("data:image/jpeg;base64,", "", 5).split("</style>")[0]
    )


@pytest.fixture
def copy(store: LocalStore, tmp_path: Path) -> LocalStore:
    return LocalStore(str(shutil.copytree(store.root, tmp_path / "copy")))


def line(text: str, key: str) -> list[tuple[float, float]]:
    """The points of a photograph's curve in the page, from its upper left corner, in [0, 1]."""
    (points,) = re.findall(rf'<title>loss of {key}:[^<]*</title><polyline points="([^"]*)"/></svg>', text)
    return [(float(x) / 300, float(y) / 50) for x, y in (point.split(",") for point in points.split())]


def test_draws_curves(copy: LocalStore) -> None:
    copy.publish("curves/one.parquet", write_curve({"loss": [1000.0, 10.0, 100.0, math.nan, 1.0]}))
    text = build_report(copy)
    assert text.count("<svg") == 3
    assert "loss of one: 1000 at evaluation 1, 1 at 5; logarithmic scale" in Page(text).text
    expected = [(0, 0), (0.25, 2 / 3), (0.5, 1 / 3), (1, 1)]
    assert line(text, "one") == [pytest.approx(point, abs=0.002) for point in expected]


def test_curves_of_every_shape(copy: LocalStore) -> None:
    copy.publish("curves/one.parquet", write_curve({"loss": [3.0, -1.0, 1.0]}))
    copy.publish("curves/gone.parquet", write_curve({"loss": [1e6 - n for n in range(100_000)]}))
    text = build_report(copy)
    assert "3 at evaluation 1, 1 at 3; linear scale" in Page(text).text
    assert line(text, "one") == [(0, 0), (0.5, 1), (1, 0.5)]
    assert len(line(text, "gone")) <= 301
    assert (line(text, "gone")[0], line(text, "gone")[-1]) == ((0, 0), (1, 1))
    copy.publish("curves/one.parquet", write_curve({"loss": [5.0]}))
    copy.publish("curves/gone.parquet", write_curve({"loss": [math.inf], "scale": [1.0]}))
    text = build_report(copy)
    assert line(text, "one") == [(0, 0)] or line(text, "one") == [(0, 1)]
    assert "its curve has no finite loss" in Page(text).text


def test_a_damaged_curve_says_so_and_a_missing_one_does_not(copy: LocalStore) -> None:
    copy.publish("curves/one.parquet", b"<b>loss</b>")
    copy.remove("curves/gone.parquet")
    text = build_report(copy)
    assert text.count("<svg") == 1
    assert text.count("loss curve cannot be read") == text.count("loss curve cannot be read: not a curve") == 1
    assert text.count("<figure>") == 3


def test_a_job_without_curves_is_not_asked_for_each(copy: LocalStore) -> None:
    asked: list[str] = []

    class Noting(LocalStore):
        def read(self, path: str) -> bytes:
            asked.append(path)
            return super().read(path)

    shutil.rmtree(copy.root / "curves")
    assert "<svg" not in build_report(Noting(copy.url))
    assert "images/one.jpg" in asked
    assert not [path for path in asked if path.startswith("curves")]


def test_is_published_beside_the_job(store: LocalStore) -> None:
    assert publish_report(store) == f"{store.url}/{REPORT}"
    assert store.read(REPORT).startswith(b"<!doctype html>")


def test_a_large_job_is_sampled(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.inspect.report._MAX_PAIRS", 2)
    assert "2 of 3 pictures shown" in Page(build_report(store)).text


def test_of_an_unfinished_job(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(encoded(picture(1)))
    table = {"photos": "photos", "output": "out", "method": {"kind": "stub"}}
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    assert "stub: 0 of 1 images" in Page(build_report(job.store)).text
    with pytest.raises(OptionError):
        job_from_table({**table, "method": {"kind": "none"}}, tmp_path, REGISTRY)


@pytest.mark.browser
def test_opens_from_disk_in_a_real_browser(store: LocalStore) -> None:
    """Chromium, without a network: the picture of the page has the heading, the pairs and no alert."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed (make test-browser)")
    publish_report(store)
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += [f"--user-data-dir={folder}/profile", "--window-size=1400,1000", f"--screenshot={shot}"]
        page = f"file://{store.root}/{REPORT}"
        done = subprocess.run(
            [browser, *flags, "--enable-logging=stderr", page], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "Content Security Policy" not in done.stderr
        seen = np.asarray(Image.open(shot).convert("RGB")).astype(int)
        dom = subprocess.run(
            [browser, *flags[:4], f"--user-data-dir={folder}/profile", "--dump-dom", page],
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
    assert seen.shape[:2] == (1000, 1400)
    colorful = (seen.max(2) - seen.min(2) > 40).mean()
    assert colorful > 0.05, "the pictures are painted"
    assert "onerror=alert" not in re.sub(r"&lt;.*?&gt;", "", dom)
