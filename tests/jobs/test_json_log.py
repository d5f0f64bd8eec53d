"""What a job tells programs: every line an object, every photograph without a picture named once."""

from __future__ import annotations

import inspect
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.console.json_log import JsonLog
from jobs.console.log_events import LogEvent
from jobs.console.progress import Snapshot
from jobs.driver.job import create_or_open
from jobs.driver.run import run
from jobs.driver.run_log import RunLog
from jobs.driver.todo import retry_work
from jobs.spec import job_from_table
from jobs.worker.messages import Finished, Spent, TaskReport
from nst.images.decode import Photograph
from tests.conftest import encoded, picture
from tests.methods import KILL, REGISTRY


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    """Two shards: one with a file that is no picture, one with a photograph that kills its worker."""
    (tmp_path / "photos").mkdir()
    for number in range(8):
        side = KILL if number == 6 else 40
        (tmp_path / f"photos/p{number}.png").write_bytes(encoded(picture(number, side, side), "PNG"))
    (tmp_path / "photos/p2.png").write_text("no picture")
    return {
        "photos": "photos",
        "output": "out",
        "method": {"kind": "stub"},
        "image": {"format": "png"},
        "resources": {"pool": "local", "max_workers": 1, "shard_size": 4},
    }


def lines_of(folder: Path, table: dict[str, Any], *, retry: bool = False) -> list[dict[str, Any]]:
    job = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
    out = io.StringIO()
    with JsonLog(job.store.url, out) as log:
        run(job, retry_work(job) if retry else None, observe=log)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_all_that_happens_is_told_once(tmp_path: Path, table: dict[str, Any]) -> None:
    lines = lines_of(tmp_path, table)
    for line in lines:
        assert line["job"] == str(tmp_path / "out")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    counts = Counter(line["event"] for line in lines)
    assert counts.pop("progress") >= 1
    assert counts == {
        "worker_ready": 4,
        "worker_gone": 3,
        "photo_failed": 1,
        "photo_quarantined": 1,
        "shard_done": 2,
    }
    by_event = {line["event"]: line for line in lines}
    failed, quarantined = by_event["photo_failed"], by_event["photo_quarantined"]
    assert (failed["key"], failed["shard"], failed["error_type"]) == ("p2", 0, "DecodeError")
    assert "it looks like text" in failed["message"]
    assert failed["level"] == "warning"
    assert (quarantined["key"], quarantined["shard"], quarantined["attempts"]) == ("p6", 1, 3)
    assert by_event["worker_gone"]["cause"] == "crash"
    assert {line["shard"]: line["images"]["ok"] for line in lines if line["event"] == "shard_done"} == {
        0: 3,
        1: 3,
    }
    assert by_event["worker_ready"].keys() >= {"worker", "host", "pid", "device"}

    assert [line["event"] for line in lines_of(tmp_path, table)] == [], "nothing is left to do"


def test_a_retry_tells_of_what_fails_again(tmp_path: Path, table: dict[str, Any]) -> None:
    (tmp_path / "photos/p6.png").unlink()
    lines_of(tmp_path, table)
    again = lines_of(tmp_path, table, retry=True)
    failed = [line for line in again if line["event"] == "photo_failed"]
    assert [(line["key"], line["shard"]) for line in failed] == [("p2", 0)]


def test_what_is_odd_about_files_is_told_once(tmp_path: Path, table: dict[str, Any]) -> None:
    """Of two shards, in which several photographs are too large, and one has no usable profile."""
    (tmp_path / "photos/p5.png").write_bytes(encoded(picture(5, 40, 40), "PNG", icc_profile=b"no profile"))
    lines = lines_of(tmp_path, {**table, "image": {"format": "png", "max_side_px": 24}})
    told = {line["mark"]: line["message"] for line in lines if line["event"] == "note"}
    assert sum(line["event"] == "note" for line in lines) == 2
    assert told == {
        "shrunk": "note: some photographs are larger than image.max_side_px, and are painted at that size",
        "profile_skipped": "note: some photographs have a color profile that cannot be used; their colors are "
        "taken for sRGB",
    }


def test_every_mark_of_a_photograph_can_be_told() -> None:
    documented = re.findall(r"`(\w+)`, of", inspect.getsource(Photograph))
    log = RunLog(1)
    log.heard(
        Finished(
            0,
            1,
            TaskReport(
                shard=0, counts={}, complete=True, sealed=True, spent=Spent(marks=frozenset(documented))
            ),
        )
    )
    assert [event.values["mark"] for event in log.take()] == sorted(documented)
    assert len(documented) == 5


def test_people_are_not_told_of_every_shard(tmp_path: Path, table: dict[str, Any]) -> None:
    (tmp_path / "photos/p6.png").unlink()
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    events: list[LogEvent] = []

    def observe(snapshot: Snapshot) -> None:
        events.extend(snapshot.log_events)

    run(job, observe=observe)
    assert {each.event for each in events if each.shown} == {"worker_ready"}
    assert {each.event for each in events} > {"photo_failed", "shard_done"}


def test_a_line_is_a_line_whatever_is_said() -> None:
    out = io.StringIO()
    JsonLog("s3://b/\ud800", out).emit(LogEvent(event="note", text="two\nlines \x1b[31m", key="a\u2028b"))
    (line,) = out.getvalue().split("\n")[:-1]
    assert line.isascii()
    assert json.loads(line)["key"] == "a\u2028b"
    assert "worker" not in json.loads(line)


def test_the_docs_name_every_event() -> None:
    """What the code tells, wherever it does."""
    root = Path(__file__).parents[2]
    code = "".join(path.read_text() for path in (root / "jobs").rglob("*.py"))
    told = set(re.findall(r"""(?:event=|tell\(|_log\(|_tell\(log, |(?:tell|_log)\(\n\s*)"([a-z_]+)\"""", code))
    told |= {"photo_failed", "photo_quarantined"}
    (listed,) = re.findall(r"The events are (.*?)\. Where", (root / "docs/results.md").read_text(), re.S)
    assert set(re.findall(r"`([a-z_]+)`", listed)) == told
