"""A job goes on where it was moved to, with what lies beside it or without, if that is what it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.driver.job import Job, create_or_open, reopen
from jobs.driver.run import run, worker_setup
from jobs.driver.todo import shards_to_do
from jobs.errors import JobMismatch
from jobs.inspect.report import build_report
from jobs.inspect.verify import verify
from jobs.ledger.listing import root_of
from jobs.ledger.receipts import Ledger
from jobs.spec import job_from_table
from jobs.stores.moved import Move, moved_along
from jobs.stores.store import LocalStore
from nst.errors import OptionError
from nst.methods import METHODS
from tests.chaos import InlinePool
from tests.conftest import encoded, picture
from tests.jobs.reports import Report
from tests.methods import REGISTRY

Photos = Callable[..., Path]


def begin(folder: Path, **changes: Any) -> Job:
    table = {
        "photos": "photos",
        "output": "out",
        "method": {"kind": "stub", "picture": "style.png", "pictures": ["style.png"]},
        "resources": {"pool": "local", "shard_size": 2},
        **changes,
    }
    return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)


def again(out: Path, photos: Path | str | None = None) -> Job:
    return reopen(LocalStore(str(out)), registry=REGISTRY, photos=None if photos is None else str(photos))


def code(job: Job, shards: int | None = None) -> int:
    return run(job, shards_to_do(job)[:shards], pool=InlinePool(worker_setup(job))).exit_code


@pytest.fixture
def home(tmp_path: Path, photos: Photos) -> Path:
    """A job of which one shard of three is done, with its photographs and its style picture beside it."""
    photos(6)
    (tmp_path / "style.png").write_bytes(encoded(picture(99), "PNG"))
    home = tmp_path / "home"
    home.mkdir()
    for name in ("photos", "style.png"):
        (tmp_path / name).rename(home / name)
    assert code(begin(home), 1) == 4
    return home


def check_done(out: Path, rows: int = 6) -> None:
    """Every row once, each under the place on record, and all is well for who reads it again."""
    store = LocalStore(str(out))
    ledger = Ledger(store)
    results = [result for shard in sorted(ledger.done()) for result in ledger.receipt(shard)[0]]
    assert [result.status for result in results] == ["ok"] * rows, [result.error for result in results]
    record = json.loads((out / "job.json").read_text())
    assert {Path(result.url).is_relative_to(record["job"]["photos"]) for result in results} == {True}
    assert list(verify(store)) == []


def test_all_that_lies_together_may_be_moved(home: Path) -> None:
    moved = home.rename(home.with_name("elsewhere"))
    job = again(moved / "out")
    assert job.moved == Move(str(home / "photos"), str(moved / "photos"))
    assert any(f"read from {moved / 'photos'}" in note for note in job.notes)
    assert code(job) == 0
    check_done(moved / "out")
    report = Report(build_report(job.store))
    assert all(row["small"] == ["before", "after"] and not row["problem"] for row in report.rows)


def test_the_job_file_may_be_moved_along(home: Path) -> None:
    """`nst run` says the same job of another place."""
    moved = home.rename(home.with_name("elsewhere"))
    assert code(begin(moved)) == 0
    check_done(moved / "out")


def test_the_folder_alone_may_be_moved(home: Path) -> None:
    out = (home / "out").rename(home.parent / "out elsewhere")
    job = again(out)
    assert job.moved is None
    assert code(job) == 0
    check_done(out)


def test_photographs_alone_may_be_moved_if_somebody_says_where_to(home: Path) -> None:
    photos = (home / "photos").rename(home.parent / "all photos")
    with pytest.raises(
        OptionError, match=r"photos = .*/home/photos': is not there any more; say with --photos"
    ):
        again(home / "out")
    job = again(home / "out", photos)
    assert code(job) == 0
    check_done(home / "out")
    assert again(home / "out").moved is None, "it is done: nobody has to know"


@pytest.mark.parametrize("name", ["Rome [2019]", "Rome [2019]/*.jpg"])
def test_folders_whose_names_look_like_globs_are_missed_like_others(
    tmp_path: Path, photos: Photos, name: str
) -> None:
    folder = photos(4).rename(tmp_path / "Rome [2019]")
    (tmp_path / "style.png").write_bytes(encoded(picture(99), "PNG"))
    assert code(begin(tmp_path, photos=name), 1) == 4
    folder.rename(tmp_path / "Rome")
    with pytest.raises(OptionError, match=r"Rome \[2019\].*is not there any more; say with --photos"):
        again(tmp_path / "out")
    assert code(again(tmp_path / "out", tmp_path / "Rome")) == 0


def test_style_pictures_are_what_their_bytes_are(home: Path) -> None:
    """Under another name for who runs the job file; a picture that was changed is another job's."""
    (home / "style.png").rename(home / "wave.png")
    method = {"kind": "stub", "picture": "wave.png", "pictures": ["wave.png"]}
    assert code(begin(home, method=method), 1) == 4
    (home / "wave.png").write_bytes(encoded(picture(98), "PNG"))
    with pytest.raises(
        JobMismatch, match=r"SHA-256 of picture.*(?s:.)*choose another output; that job goes on"
    ):
        begin(home, method=method)


def test_the_picture_that_was_moved_along_counts_where_another_took_its_place(home: Path) -> None:
    moved = Path(shutil.copytree(home, home.with_name("copy")))
    (home / "style.png").write_bytes(encoded(picture(98), "PNG"))
    assert code(again(moved / "out")) == 0
    check_done(moved / "out")


@pytest.mark.parametrize("harm", ["missing", "another"])
def test_other_photographs_are_refused(home: Path, harm: str) -> None:
    photos = Path(shutil.copytree(home / "photos", home / "others"))
    one = photos / "photo 001.jpg"
    one.unlink() if harm == "missing" else one.write_bytes(one.read_bytes() + b"more")
    said = "is not there" if harm == "missing" else r"has \d+ bytes, not \d+"
    with pytest.raises(JobMismatch, match=f"photos = .*others': does not hold .*photo 001.jpg {said}"):
        again(home / "out", photos)
    with pytest.raises(JobMismatch, match="does not hold the photographs of this job"):
        begin(home, photos="others")
    with pytest.raises(JobMismatch, match="no such folder"):
        again(home / "out", home / "nowhere")


def test_more_photographs_than_there_were_do_not_matter(home: Path) -> None:
    moved = home.rename(home.with_name("elsewhere"))
    (moved / "photos/later.jpg").write_bytes(encoded(picture(7)))
    assert code(again(moved / "out")) == 0
    check_done(moved / "out")


def test_the_command_line_says_where_photographs_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS._places, "stub", "tests.methods:Stub")  # type: ignore[attr-defined]
    monkeypatch.chdir(home)
    (home / "photos").rename(home / "now")
    done = CliRunner().invoke(app, ["resume", "out"])
    assert (done.exit_code, "--photos" in done.stderr) == (2, True)
    refused = CliRunner().invoke(app, ["resume", "out", "--photos", "nowhere"])
    assert (refused.exit_code, "no such folder" in refused.stderr) == (2, True), refused.output


# Places


@pytest.mark.parametrize(
    ("source", "root"),
    [
        ("/a/photos", "/a/photos"),
        ("/a/photos/*/x?.jpg", "/a/photos"),
        ("/a/list.csv", "/a"),
        ("s3://b/prefix", "s3://b/prefix"),
        ("s3://b/all.parquet", "s3://b"),
        ("s3://b/p*/x", "s3://b"),
    ],
)
def test_roots(source: str, root: str) -> None:
    assert root_of(source) == root


def test_what_was_below_a_folder_is_below_the_other() -> None:
    move = Move("/a/b", "s3://c/d/")
    assert move.place("/a/b/x/y.jpg") == "s3://c/d/x/y.jpg"
    assert move.place("/a/b") == "s3://c/d"
    assert move.place("/a/bc/y.jpg") == "/a/bc/y.jpg"
    assert Move("s3://c/d", "/n").place("s3://c/d/y.jpg") == "/n/y.jpg"
    odd = Move("/a", "/n").place("file:///a/%FF.jpg")
    assert odd == "file:///n/%FF.jpg"


def test_what_was_moved_along() -> None:
    assert moved_along("/a/b/x.png", "/a/out", "/n/out") == "/n/b/x.png"
    assert moved_along("/z/x.png", "/a/out", "/n/m/out") == "/n/z/x.png"
    assert moved_along("/a/x.png", "/a/out", "/a/out") is None
    assert moved_along("s3://b/x.png", "/a/out", "/n/out") is None
    assert moved_along("/a/x.png", "s3://b/out", "/n/out") is None
