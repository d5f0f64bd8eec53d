"""Whole jobs on stub methods: what dies, what is blamed, what is done again, and what stays on disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from PIL.ExifTags import Base

from jobs.cli.running import execute
from jobs.console.progress import Snapshot, Summary
from jobs.console.stop import StopSignal
from jobs.driver.actions import Work
from jobs.driver.assets import by_url, read_assets
from jobs.driver.job import Job, create_or_open, plan, reopen
from jobs.driver.run import run, worker_setup
from jobs.driver.todo import retry_work
from jobs.errors import JobMismatch, StoreError, UsageError, WorkersBroken
from jobs.inspect.report import build_report
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.curves import read_curve
from jobs.ledger.receipts import JournalWriter, Ledger, read_journal
from jobs.ledger.results import Result, write_receipt
from jobs.spec import JobFile, job_from_table, job_to_table
from jobs.stores.filesystems import StorageOptions, read_url
from jobs.stores.store import LocalStore
from jobs.worker.messages import Event, Task
from jobs.worker.worker import Worker
from nst.errors import OptionError
from nst.methods import METHODS
from tests.chaos import InlinePool
from tests.charts import read_png_16
from tests.conftest import encoded, picture
from tests.jobs.reports import Report
from tests.methods import HANG, HOG, KILL, NAN, RAISE, REGISTRY, TYPED

Photos = Callable[..., Path]

LAYOUT = re.compile(
    r"job\.json|manifest\.parquet|images/.+\.(jpg|png)|results/shard-\d{5}\.parquet|"
    r"journal/shard-\d{5}/g\d+-[0-9a-f]{12}-\d{5}\.jsonl"
)


def job_file(folder: Path, **changes: Any) -> JobFile:
    table: dict[str, Any] = {
        "photos": "photos",
        "output": "out",
        "method": {"kind": "stub"},
        "image": {"format": "png"},
        "resources": {"pool": "local", "max_workers": 2},
    }
    for name, value in changes.items():
        table[name] = {**table[name], **value} if isinstance(value, dict) else value
    return job_from_table(table, folder, REGISTRY)


def begin(folder: Path, **changes: Any) -> Job:
    return create_or_open(job_file(folder, **changes), REGISTRY)


def rows(job: Job) -> list[Result]:
    ledger = Ledger(job.store)
    return [result for shard in sorted(ledger.done()) for result in ledger.receipt(shard)[0]]


def by_status(job: Job) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in rows(job):
        found.setdefault(result.status, []).append(result.key)
    return found


def images(job: Job) -> dict[str, str]:
    root = Path(job.store.url) / "images"
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def check_layout(job: Job) -> None:
    root = Path(job.store.url)
    for path in root.rglob("*"):
        if path.is_file():
            assert LAYOUT.fullmatch(str(path.relative_to(root))), path
        else:
            assert not path.name.startswith("."), path


def check_exactly_once(job: Job, count: int) -> None:
    results = rows(job)
    assert [result.row for result in results] == list(range(count))
    assert len({result.key for result in results}) == count
    pictures = images(job)
    for result in results:
        if result.status == "ok":
            assert result.output is not None
            assert pictures[result.output.removeprefix("images/")] == result.output_sha256
    assert len(pictures) == sum(result.status == "ok" for result in results)
    check_layout(job)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with 24 photographs, and the pictures that an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("reference")
    for number in range(24):
        place = folder / "photos" / ("a/b" if number % 3 == 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        picture(number, 30 + number % 5, 20 + number % 3).save(place / f"p {number:02d}.jpg")
    job = begin(folder)
    summary = run(job)
    assert summary.exit_code == 0
    check_exactly_once(job, 24)
    return folder, images(job)


def test_the_store_holds_all_there_is_to_know(reference: tuple[Path, dict[str, str]]) -> None:
    folder, _ = reference
    job = begin(folder)
    record = json.loads((folder / "out/job.json").read_bytes())
    assert record["fingerprint"] == job.fingerprint
    method = {"kind": "stub", "delay_s": 0.0, "picture": None, "tally": None, "fits": None, "broken": None}
    method |= {"steps": 0, "pictures": [], "curve": False, "change": None}
    assert record["job"]["method"] == method
    assert record["manifest"]["rows"] == 24
    assert record["versions"]["torch"]
    result = rows(job)[0]
    source = Path(result.url).read_bytes()
    assert result.source_sha256 == hashlib.sha256(source).hexdigest()
    assert result.seed > 0
    assert result.stats["mean"] > 0
    assert result.worker_pid != os.getpid()
    assert result.load_s is not None
    assert result.compute_s is not None
    assert result.save_s is not None
    assert time.time() - 600 < result.finished_at <= time.time()
    table = pq.read_table(folder / "out/results")
    assert table.num_rows == 24
    with (folder / "out/images" / "p 00.png").open("rb") as handle:
        assert handle.read(4) == b"\x89PNG"


@pytest.mark.parametrize(
    "resources",
    [
        {"max_workers": 1},
        {"max_workers": 2, "shard_size": 5},
        {"max_workers": 1, "shard_size": 24, "batch_size": 5, "load_threads": 1},
    ],
    ids=str,
)
def test_bytes_do_not_depend_on_how_the_work_is_spread(
    reference: tuple[Path, dict[str, str]], resources: dict[str, Any], tmp_path: Path
) -> None:
    folder, expected = reference
    job = begin(folder, output=str(tmp_path / "out"), resources=resources)
    assert run(job).exit_code == 0
    assert images(job) == expected


def test_and_not_on_the_pool(reference: tuple[Path, dict[str, str]], tmp_path: Path, ray_session: str) -> None:
    folder, expected = reference
    resources = {"pool": "ray", "address": ray_session, "shard_size": 5}
    job = begin(folder, output=str(tmp_path / "out"), resources=resources)
    assert run(job).exit_code == 0
    assert images(job) == expected
    check_exactly_once(job, 24)


def test_a_finished_job_run_again_does_nothing(reference: tuple[Path, dict[str, str]]) -> None:
    folder, _ = reference
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.is_file()}
    summary = run(begin(folder))
    assert summary.exit_code == 0
    assert "worker" not in summary.seconds
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.is_file()} == before


def write(folder: Path, name: str, seed: int, width: int = 40) -> None:
    path = folder / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(seed, width, 20)))


def test_every_way_to_fail_is_a_row(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"fine{number}.jpg", number)
    (tmp_path / "photos/text.jpg").write_text("not a picture")
    (tmp_path / "photos/zero.jpg").write_bytes(b"")
    (tmp_path / "photos/gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "photos/folder.jpg").mkdir()
    write(tmp_path, "folder.jpg/inside.jpg", 9)
    write(tmp_path, "huge.jpg", 9, width=120)
    for name, width in (("raise", RAISE), ("nan", NAN), ("typed", TYPED)):
        write(tmp_path, f"{name}.jpg", 1, width)
    job = begin(tmp_path, image={"max_pixels": 2000}, resources={"batch_size": 4, "shard_size": 6})
    summary = run(job)
    assert summary.exit_code == 3
    check_exactly_once(job, 13)
    errors = {
        result.key: (result.error_type, result.error) for result in rows(job) if result.status == "failed"
    }
    assert errors == {
        "text": ("DecodeError", "not a picture in a known format (it looks like text)"),
        "zero": ("DecodeError", "the file is empty (0 bytes)"),
        "gone": ("FileNotFoundError", errors["gone"][1]),
        "huge": ("ImageTooLarge", "120 x 20 pixels: more than the limit of 2000"),
        "raise": ("RuntimeError", "this one raises"),
        "nan": ("ImageError", "the method's picture is not finite or no (3, H, W): (3, 20, 64)"),
        "typed": ("ImageError", "not this one"),
    }
    assert "No such file" in (errors["gone"][1] or "")
    assert summary.counts == {"ok": 6, "failed": 7, "quarantined": 0}


@pytest.mark.parametrize("fits", [3, 1, 0])
def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path, fits: int) -> None:
    for number in range(8):
        write(tmp_path, f"p{number}.jpg", number)
    job = begin(tmp_path, method={"fits": fits}, resources={"batch_size": 8, "shard_size": 8})
    summary = run(job)
    check_exactly_once(job, 8)
    if fits:
        assert summary.exit_code == 0
        undisturbed = begin(tmp_path, output="undisturbed", resources={"batch_size": 8})
        run(undisturbed)
        assert images(undisturbed) == images(job)
    else:
        assert {result.error_type for result in rows(job)} == {"OutOfMemoryError"}


@pytest.mark.parametrize("pool", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_photograph_that_takes_all_memory_is_blamed_alone(
    tmp_path: Path, pool: str, request: pytest.FixtureRequest
) -> None:
    for number in range(6):
        write(tmp_path, f"p{number}.jpg", number)
    write(tmp_path, "hog.jpg", 9, HOG)
    address = request.getfixturevalue("ray_session") if pool == "ray" else None
    place = {"pool": pool, "address": address}
    job = begin(tmp_path, resources={**place, "memory_gb": 1.5, "shard_size": 4})
    assert run(job).exit_code == 3
    check_exactly_once(job, 7)
    assert by_status(job)["quarantined"] == ["hog"]
    (told,) = [result.error or "" for result in rows(job) if result.status == "quarantined"]
    assert "GiB of memory, more than memory_gb = 1.5" in told


def test_retry_does_what_failed_again_and_nothing_else(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"fine{number}.jpg", number)
    for name in ("bad1.jpg", "bad2.jpg"):
        (tmp_path / "photos" / name).write_text("not a picture")
    job = begin(tmp_path, resources={"shard_size": 3})
    assert run(job).exit_code == 3
    before = {result.key: result for result in rows(job)}
    with pytest.raises(UsageError, match="'fine0'"):
        retry_work(job, ["bad1", "fine0"])

    write(tmp_path, "bad1.jpg", 7)
    job = reopen(job.store, registry=REGISTRY)
    seen: list[Snapshot] = []
    summary = run(job, retry_work(job), observe=seen.append)
    assert summary.exit_code == 3
    assert seen[-1].total == 2
    after = {result.key: result for result in rows(job)}
    assert after["bad1"].status == "ok"
    assert after["bad1"].attempts == 2
    assert after["bad2"].status == "failed"
    assert after["bad2"].attempts == 2
    assert {key: result for key, result in after.items() if key.startswith("fine")} == {
        key: result for key, result in before.items() if key.startswith("fine")
    }

    write(tmp_path, "bad2.jpg", 8)
    summary = run(job, retry_work(job, ["bad2"]))
    assert summary.exit_code == 0
    check_exactly_once(job, 7)
    assert retry_work(job) == []


@pytest.mark.parametrize("pool", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_photo_that_kills_its_worker_is_quarantined_and_no_other(
    tmp_path: Path, pool: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    kind = {"local": "jobs.pools.local.LocalPool", "ray": "jobs.pools.ray.RayPool"}[pool]
    monkeypatch.setattr(f"{kind}.count", lambda _, status: counted.append(status))
    address = request.getfixturevalue("ray_session") if pool == "ray" else None
    for number in range(10):
        write(tmp_path, f"p{number}.jpg", number, KILL if number == 4 else 40)
    job = begin(tmp_path, resources={"pool": pool, "address": address, "shard_size": 5})
    messages: list[str] = []
    summary = run(job, observe=lambda snapshot: messages.extend(event.text for event in snapshot.log_events))
    assert summary.exit_code == 3
    assert by_status(job)["quarantined"] == ["p4"]
    check_exactly_once(job, 10)
    (quarantined,) = [result for result in rows(job) if result.status == "quarantined"]
    assert quarantined.error_type == "WorkerDied"
    assert quarantined.attempts == 3
    deaths = sum("is gone: crash" in message for message in messages)
    assert deaths == 3, "one in the crowd, two alone"
    assert counted == ["quarantined"], "for the metrics, which no worker can count"


def test_a_pool_that_is_gone_ends_the_run_with_all_that_is_done(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path, f"p{number}.jpg", number)
    job = begin(tmp_path, resources={"shard_size": 2})

    class Gone(InlinePool):
        def poll(self, timeout_s: float) -> list[Event]:
            if Ledger(job.store).done():
                raise WorkersBroken("the cluster does not answer")
            return super().poll(timeout_s)

    summary = run(job, pool=Gone(worker_setup(job)))
    assert str(summary.error) == "the cluster does not answer"
    assert summary.exit_code == 4
    assert summary.counts["ok"] == 2 * len(Ledger(job.store).done()) > 0
    assert summary.unfinished_shards > 0
    assert run(job).exit_code == 0
    check_exactly_once(job, 6)


@pytest.mark.parametrize("pool", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_workers_killed_from_outside_blame_nobody(
    tmp_path: Path, pool: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue("ray_session") if pool == "ray" else None
    for number in range(12):
        write(tmp_path, f"p{number:02d}.jpg", number)
    job = begin(
        tmp_path,
        method={"delay_s": 0.3},
        resources={"pool": pool, "address": address, "shard_size": 4},
    )
    killed: list[int] = []

    def kill_one(snapshot: Snapshot) -> None:
        if len(killed) < 2 and snapshot.done > 2 * len(killed):
            (pid,) = {result.worker_pid for result in _latest(job)} - set(killed) or {0}
            if pid:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    summary = run(job, observe=kill_one)
    assert killed
    assert summary.exit_code == 0
    check_exactly_once(job, 12)


def _latest(job: Job) -> list[Result]:
    """The newest record of the journals, if there is any and it is a result."""
    parts = sorted(Path(job.store.url).glob("journal/*/*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    records = [json.loads(line) for line in (parts[-1].read_text().splitlines()[-1:] if parts else [])]
    return [Result.from_json(record["result"]) for record in records if record["event"] == "result"]


def test_a_photo_that_hangs_fails_at_its_time_limit(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path, f"p{number}.jpg", number, HANG if number == 2 else 40)
    job = begin(tmp_path, resources={"shard_size": 6, "timeout_s": 2.0, "max_workers": 1})
    summary = run(job)
    assert summary.exit_code == 3
    (failed,) = [result for result in rows(job) if result.status == "failed"]
    assert (failed.key, failed.error_type) == ("p2", "TimeLimit")
    assert failed.error == "no evaluation or end within 2 s, alone on its worker"
    check_exactly_once(job, 6)


def test_a_photo_that_advances_does_not_hang(tmp_path: Path) -> None:
    """Large ones on slow machines take hours, and were lost at the time limit."""
    write(tmp_path, "p.jpg", 0)
    method = {"steps": 8, "delay_s": 0.6}
    job = begin(tmp_path, method=method, resources={"timeout_s": 2.0, "max_workers": 1})
    summary = run(job)
    assert summary.counts["ok"] == 1, [result.error for result in rows(job)]


def test_stopped_gently_and_resumed(reference: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, _ = reference
    job = begin(
        folder,
        output=str(tmp_path / "out"),
        method={"delay_s": 0.3},
        resources={"shard_size": 12},
    )
    stop = StopSignal()

    def after_some(snapshot: Snapshot) -> None:
        if snapshot.done >= 3 and not stop.gently:
            stop.ask()

    summary = run(job, observe=after_some, stop=stop)
    assert summary.exit_code == 75
    assert summary.stopped
    status = job_status(job.store)
    assert 3 <= status.done < 24
    assert status.state == "unfinished"
    finished = {path: path.stat().st_mtime_ns for path in Path(job.store.url).glob("images/**/*.png")}

    again = run(reopen(job.store, registry=REGISTRY))
    assert again.exit_code == 0
    check_exactly_once(job, 24)
    redone = [path for path, when in finished.items() if path.stat().st_mtime_ns != when]
    assert redone == [], "what was in the journal is not done again"


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    write(tmp_path, "hang.jpg", 1, HANG)
    job = begin(tmp_path)
    stop = StopSignal()
    threading.Timer(6.0, lambda: (stop.ask(), stop.ask())).start()
    began = time.monotonic()
    summary = run(job, stop=stop)
    assert summary.exit_code == 75
    assert time.monotonic() - began < 30


def test_a_worker_that_cannot_be_built_ends_the_job_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path, "p.jpg", 1)
    summary = run(begin(tmp_path, method={"broken": "build"}))
    assert isinstance(summary.error, OptionError)
    assert summary.exit_code == 2
    summary = run(begin(tmp_path, output="out2", method={"broken": "exit"}))
    assert isinstance(summary.error, WorkersBroken)
    assert summary.exit_code == 4
    assert "exit code 9" in str(summary.error)


def test_a_store_that_fails_ends_the_job_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "kill.jpg", 1, KILL)
    job = begin(tmp_path)
    with monkeypatch.context() as patch:

        def full(*_args: object, **_options: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(LocalStore, "publish", full)  # in the driver; workers have their own
        summary = run(job)
    assert isinstance(summary.error, StoreError)
    assert "No space left" in str(summary.error)
    assert summary.exit_code == 4
    assert run(job).exit_code == 3


# Curves and intermediate pictures


def other_files(job: Job) -> dict[str, bytes]:
    found = {path: job.store.read(path) for path in job.store.find()}
    return {path: data for path, data in found.items() if path.startswith(("curves/", "frames/"))}


def test_curves_and_intermediate_pictures_are_published(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", 1)
    write(tmp_path, "deep/b.jpg", 2)
    write(tmp_path, "raises.jpg", 3, RAISE)
    job = begin(tmp_path, method={"curve": True}, image={"format": "webp", "quality": 40})
    assert run(job).exit_code == 3
    found = other_files(job)
    assert set(found) == {
        *("curves/a.parquet", "frames/a/00002.webp", "frames/a/00004.webp"),
        *("curves/deep/b.parquet", "frames/deep/b/00002.webp", "frames/deep/b/00004.webp"),
    }
    (result,) = [result for result in rows(job) if result.key == "a"]
    assert read_curve(found["curves/a.parquet"]) == {
        "scale": [1.0, 1.0, 2.0, 2.0],
        "loss": [1e6, 1e4, 2e4, result.stats["mean"]],
    }
    half = Image.open(io.BytesIO(found["frames/a/00002.webp"]))
    assert (half.format, half.size) == ("WEBP", (20, 10))
    assert hashlib.sha256(found["frames/a/00004.webp"]).hexdigest() == result.output_sha256, "encoded alike"
    assert list(verify(job.store)) == []

    again = begin(
        tmp_path,
        output="again",
        method={"curve": True},
        image={"format": "webp", "quality": 40},
        resources={"shard_size": 3, "max_workers": 1, "batch_size": 2},
    )
    run(again)
    assert other_files(again) == found


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_pictures_on_the_way_are_played_by_one_file_if_asked_for(tmp_path: Path, format: str) -> None:
    write(tmp_path, "deep/b.jpg", 2)
    job = begin(tmp_path, method={"curve": True}, image={"animation": format, "frames_per_second": 4})
    assert run(job).exit_code == 0
    path = f"frames/deep/b/animation.{format}"
    assert set(other_files(job)) > {path}
    animation = Image.open(io.BytesIO(job.store.read(path)))
    assert (animation.format, animation.n_frames, animation.size) == (format.upper(), 2, (40, 20))  # type: ignore[attr-defined]
    animation.seek(1)
    animation.load()
    assert animation.info["duration"] == 250
    last = Image.open(io.BytesIO(other_files(job)["frames/deep/b/00004.png"]))
    difference = np.abs(np.asarray(animation.convert("RGB"), float) - np.asarray(last.convert("RGB"), float))
    assert difference.mean() < 12
    assert list(verify(job.store)) == []


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_pictures_of_sixteen_bits(tmp_path: Path, format: str) -> None:
    """Finer than 8 bits, with alpha and EXIF, on the way too; read again by all that reads pictures."""
    exif = Image.Exif()
    exif[Base.Artist] = "Ansel A."
    (tmp_path / "photos").mkdir()
    see_through = picture(1, 20, 10)
    see_through.putalpha(100)
    see_through.save(tmp_path / "photos/a.png", exif=exif.tobytes())
    image = {"format": format, "bit_depth": 16, "alpha": "keep"}
    job = begin(tmp_path, method={"curve": True}, image=image)
    assert run(job).exit_code == 0
    end = {"png": "png", "tiff": "tif"}[format]
    assert set(other_files(job)) == {"curves/a.parquet", f"frames/a/00002.{end}", f"frames/a/00004.{end}"}
    for path in (f"images/a.{end}", f"frames/a/00004.{end}"):
        data = job.store.read(path)
        levels = read_png_16(data)[0] if format == "png" else tifffile.imread(io.BytesIO(data))
        assert (levels.dtype, levels.shape) == (np.uint16, (10, 20, 4))
        assert (levels[..., 3] == 100 * 257).all()
        assert (levels[..., :3] % 257 != 0).mean() > 0.9, "more than 8 bits"
    assert Image.open(io.BytesIO(job.store.read(f"images/a.{end}"))).getexif()[Base.Artist] == "Ansel A."
    assert list(verify(job.store)) == []
    assert all(Report(build_report(job.store)).thumbnails("a"))


class Noting(LocalStore):
    """Notes what is published; has no room for what is called `full`."""

    def __init__(self, url: str, full: str | None = None) -> None:
        super().__init__(url)
        self.published: list[str] = []
        self._full = full

    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:
        if self._full is not None and self._full in path:
            raise OSError(28, "No space left on device")
        super().publish(path, data, create_only=create_only)
        self.published.append(path)


def test_a_picture_is_published_after_what_belongs_to_it(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", 1)
    job = begin(tmp_path, method={"curve": True})
    worker = Worker(worker_setup(job), {})
    worker.store = store = Noting(job.store.url)
    worker.run(Task(id=0, shard=0))
    expected = ["curves/a.parquet", "frames/a/00002.png", "frames/a/00004.png", "images/a.png"]
    assert store.published[:4] == expected
    assert store.published[-1] == "results/shard-00000.parquet"


@pytest.mark.parametrize("full", ["curves/", "frames/a/00004"])
def test_a_store_without_room_for_curves_has_failed(tmp_path: Path, full: str) -> None:
    write(tmp_path, "a.jpg", 1)
    job = begin(tmp_path, method={"curve": True})
    worker = Worker(worker_setup(job), {})
    worker.store = Noting(job.store.url, full)
    with pytest.raises(StoreError, match="No space left"):
        worker.run(Task(id=0, shard=0))
    assert not job.store.exists("images/a.png")
    assert run(job).exit_code == 0
    assert len(other_files(job)) == 3


def test_a_curve_whose_name_a_folder_has_is_its_own_row(tmp_path: Path, photos: Photos) -> None:
    photos(2)
    lines = [{"url": f"photos/photo 00{n}.jpg", "key": key} for n, key in enumerate(("a", "a.parquet/b"))]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = begin(tmp_path, photos="list.jsonl", method={"curve": True}, resources={"max_workers": 1})
    assert run(job).exit_code == 3
    assert {len(keys) for keys in by_status(job).values()} == {1}
    assert len(images(job)) == 1


def test_a_retry_replaces_curves_and_intermediate_pictures(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("no picture")
    job = begin(tmp_path, method={"curve": True})
    assert run(job).exit_code == 3
    assert other_files(job) == {}
    for path in ("curves/a.parquet", "frames/a/00002.png"):
        job.store.publish(path, b"of a worker that died")
    write(tmp_path, "a.jpg", 1)
    job = reopen(job.store, registry=REGISTRY)
    assert run(job, retry_work(job)).exit_code == 0
    found = other_files(job)
    assert read_curve(found["curves/a.parquet"])["scale"] == [1, 1, 2, 2]
    assert Image.open(io.BytesIO(found["frames/a/00002.png"])).size == (20, 10)


# Options that are lists of pictures


def test_pictures_in_a_list_are_assets_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "p.jpg", 1)
    for number, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(encoded(picture(number), "PNG"))
    listed = {"pictures": ["a.png", "b.png", "a.png"], "picture": "b.png"}
    read: list[str] = []

    def counted(url: str, storage: StorageOptions) -> bytes:
        read.append(url)
        return read_url(url, storage)

    with monkeypatch.context() as patch:
        patch.setattr("jobs.driver.assets.read_url", counted)
        job = begin(tmp_path, method=listed)
    assert sorted(read) == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    a, b = (hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.png", "b.png"))
    recorded = json.loads(job.store.read("job.json"))["assets"]
    digests = {option: asset["sha256"] for option, asset in recorded.items()}
    assert digests == {"picture": b, "pictures[0]": a, "pictures[1]": b, "pictures[2]": a}
    assert set(by_url(job.assets)) == set(read)
    assert reopen(job.store, registry=REGISTRY).spec == job.spec
    assert run(job).exit_code == 0
    assert list(verify(job.store)) == []

    with pytest.raises(JobMismatch, match=r"method\.pictures: \[.*asked for"):
        begin(tmp_path, method={**listed, "pictures": ["b.png", "a.png", "a.png"]})
    (tmp_path / "b.png").write_bytes(encoded(picture(7), "PNG"))
    with pytest.raises(JobMismatch, match=r"SHA-256 of pictures\[1\]"):
        begin(tmp_path, method=listed)
    (tmp_path / "b.png").unlink()
    with pytest.raises(OptionError, match=r"method\.pictures\[1\] = '.*b\.png': there is no such file"):
        begin(tmp_path, method={"pictures": ["a.png", "b.png"]})


# A folder in place of its pictures


def style_folder(folder: Path) -> list[str]:
    """`paintings/`, of three pictures and what is none; where these are, sorted."""
    names = ("b.png", "a.png", "old/c.jpg")
    for number, name in enumerate(names):
        (folder / "paintings/old").mkdir(parents=True, exist_ok=True)
        picture(number, 30, 20).save(folder / "paintings" / name)
    (folder / "paintings/notes.txt").write_text("milk, bread")
    return sorted(str(folder / "paintings" / name) for name in names)


def test_a_folder_of_pictures_is_listed_once(tmp_path: Path) -> None:
    """When the job is begun: what is in it later does not matter to a resume, and is another job to a run."""
    listed = style_folder(tmp_path)
    write(tmp_path, "p.jpg", 1)
    (tmp_path / "single.png").write_bytes(encoded(picture(9), "PNG"))
    method = {"pictures": ["single.png", "paintings/"]}
    file = job_file(tmp_path, method=method)
    planned = plan(file)
    job = create_or_open(file, REGISTRY)
    assert planned.table == job_to_table(JobFile(job.spec, job.resources))
    assert planned.fingerprint == job.fingerprint
    expected = [str(tmp_path / "single.png"), *listed]
    record = json.loads(job.store.read("job.json"))
    assert record["job"]["method"]["pictures"] == expected
    for number, path in enumerate(expected):
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert record["assets"][f"pictures[{number}]"] == {"url": path, "sha256": digest}
    assert begin(tmp_path, method=method).spec == job.spec

    (tmp_path / "paintings/d.png").write_bytes(encoded(picture(8), "PNG"))
    again = reopen(job.store, registry=REGISTRY)
    assert again.spec == job.spec
    assert run(again).exit_code == 0
    assert list(verify(job.store)) == []
    with pytest.raises(JobMismatch, match=r"method\.pictures: .*d\.png.*asked for"):
        begin(tmp_path, method=method)
    Path(listed[0]).unlink()
    with pytest.raises(OptionError, match=r"method\.pictures\[1\] = '.*a\.png': there is no such file"):
        reopen(job.store, registry=REGISTRY)


def test_a_bucket_prefix_of_pictures(tmp_path: Path) -> None:
    write(tmp_path, "p.jpg", 1)
    bucket = fsspec.filesystem("memory")
    for number, name in enumerate(("b.png", "a.png", "deep/c.png")):
        bucket.pipe_file(f"/styles/{tmp_path.name}/{name}", encoded(picture(number), "PNG"))
    root = f"memory://styles/{tmp_path.name}"
    for place in (root, f"{root}/"):
        method = {"pictures": [f"{root}/b.png", place]}
        found = json.loads(json.dumps(plan(job_file(tmp_path, method=method)).table))["method"]["pictures"]
        assert found == [f"{root}/b.png", f"{root}/a.png", f"{root}/b.png", f"{root}/deep/c.png"]


@pytest.mark.parametrize("style", ["paintings", ["paintings", "paintings"]], ids=str)
def test_a_style_may_be_a_folder(tmp_path: Path, style: Any) -> None:
    listed = style_folder(tmp_path)
    write(tmp_path, "p.jpg", 1)
    method = {"kind": "style_transfer", "network": "vgg16", "weights": "seeded", "steps": 1, "style": style}
    table = plan(job_file(tmp_path, method=method)).table
    assert table["method"]["style"] == listed * (1 if style == "paintings" else 2)
    mask = plan(job_file(tmp_path, method={**method, "style": "paintings", "style_masks": ["paintings"]}))
    assert mask.table["method"]["style_masks"] == listed
    with pytest.raises(OptionError, match=r"method\.style_blend = \(.*one entry for each of"):
        plan(job_file(tmp_path, method={**method, "style_blend": [1] if style == "paintings" else [1, 2]}))


def test_folders_that_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    style_folder(tmp_path)
    write(tmp_path, "p.jpg", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("milk, bread")
    with pytest.raises(
        OptionError, match=r"method\.pictures\[0\] = '.*empty': there is no picture in this folder"
    ):
        begin(tmp_path, method={"pictures": ["empty"]})
    with pytest.raises(OptionError, match=r"method\.picture = '.*paintings': cannot be read: Is a directory"):
        begin(tmp_path, method={"picture": "paintings"})

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("jobs.ledger.listing.walk", denied)
    with pytest.raises(OptionError, match=r"method\.pictures\[0\] = '.*paintings': cannot be listed: .*denied"):
        begin(tmp_path, method={"pictures": ["paintings"]})
    monkeypatch.setattr("jobs.ledger.listing._kind_at", denied)
    with pytest.raises(OptionError, match=r"method\.pictures\[0\] = 'memory://no/p': there is no such file"):
        begin(tmp_path, method={"pictures": ["memory://no/p"]})
    assert not (tmp_path / "out").exists()


def test_the_output_is_no_style(tmp_path: Path) -> None:
    """Whoever puts it into the folder of styles begins and goes on with the same job."""
    style_folder(tmp_path)
    write(tmp_path, "p.jpg", 1)
    changes: dict[str, Any] = {"method": {"pictures": ["paintings"]}, "output": "paintings/out"}
    job = begin(tmp_path, **changes)
    assert run(job).exit_code == 0
    assert begin(tmp_path, **changes).spec == job.spec


# Pictures that are as their photographs


def test_a_job_that_painted_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At its end, also when it is resumed or has nothing to do; in its status and report."""
    for number in range(4):
        write(tmp_path, f"p{number}.jpg", number)
    changes: dict[str, Any] = {"method": {"change": 0.001}, "resources": {"shard_size": 1, "max_workers": 1}}
    job = begin(tmp_path, **changes)
    expected = "all 4 pictures are as their photographs: nothing was painted"
    part = run(job, [Work(0), Work(1)])
    assert part.notes == ("all 2 pictures are as their photographs: nothing was painted",)
    execute(lambda: (reopen(job.store, registry=REGISTRY), None), leave=False, log_format="json")
    *_, ended, note = map(json.loads, capsys.readouterr().out.splitlines())
    assert (ended["event"], ended["exit_code"]) == ("ended", 0)
    assert (note["event"], note["message"]) == ("note", f"note: {expected}")
    execute(lambda: (reopen(job.store, registry=REGISTRY), None), leave=False)
    assert capsys.readouterr().out.splitlines()[-1] == f"note: {expected}"
    assert job_status(job.store).notes == (expected,)
    assert expected in Report(build_report(job.store)).job["notes"]
    assert list(verify(job.store)) == []


@pytest.mark.parametrize("change", [None, 0.002])
def test_one_that_painted_says_nothing(tmp_path: Path, change: float | None) -> None:
    """Nor does one whose method does not tell; or one of which a single picture is another."""
    write(tmp_path, "p.jpg", 1)
    write(tmp_path, "q.jpg", 2)
    job = begin(tmp_path, method={"change": change}, resources={"shard_size": 1})
    assert run(job).notes == job_status(job.store).notes == ()
    if change is not None:
        results, meta = Ledger(job.store).receipt(0)
        still = [replace(each, stats={"change": 0.0}) for each in results]
        data = write_receipt(still, shard=0, generation=0, fingerprint=meta["fingerprint"])
        job.store.publish("results/shard-00000.parquet", data)
        assert run(job).notes == job_status(job.store).notes == ()


def test_journals_tell_of_unchanged_pictures_too(tmp_path: Path) -> None:
    write(tmp_path, "p.jpg", 1)
    job = begin(tmp_path, method={"change": 0.0})
    assert run(job).exit_code == 0
    job.store.remove("results/shard-00000.parquet")
    assert job_status(job.store).notes == ("the picture is as its photograph: nothing was painted",)


# What a folder belongs to


def test_what_cannot_be_read_or_written_is_its_own_row(tmp_path: Path, photos: Photos) -> None:
    """A scheme nobody knows, a name that is none, a picture that its format cannot hold, a name that a folder
    has: each is one failed row, and its neighbors are done."""
    photos(2)
    picture(7, 17000, 16).save(tmp_path / "wide.png")
    lines = [
        {"url": "foo://x/b.jpg", "key": "scheme"},
        {"url": "photos/\0.jpg", "key": "null"},
        {"url": "wide.png", "key": "wide"},
        {"url": "photos/photo 000.jpg", "key": "good"},
        {"url": "photos/photo 001.jpg", "key": "taken.webp/good"},
        {"url": "photos/photo 001.jpg", "key": "taken"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = begin(
        tmp_path,
        photos="list.jsonl",
        image={"format": "webp", "max_side_px": 0},
        resources={"shard_size": 6, "max_workers": 1},
    )
    summary = run(job)
    assert summary.exit_code == 3, summary
    found = {result.key: result for result in rows(job)}
    assert found["scheme"].error_type == "OSError"
    assert "foo" in (found["scheme"].error or "")
    assert found["null"].status == "failed"
    assert "webp" in (found["wide"].error or "")
    assert found["wide"].source_sha256 is not None
    assert found["good"].status == "ok"
    assert {found["taken"].status, found["taken.webp/good"].status} == {"ok", "failed"}


def test_a_retry_after_a_retry_that_was_cut_off(tmp_path: Path) -> None:
    """What failed in a retry that never ended is tried again by the next, also if a worker dies in it."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("no picture")
    job = begin(tmp_path, resources={"max_workers": 1})
    assert run(job).exit_code == 3
    (failure,) = rows(job)
    JournalWriter(job.store, 0, 1).results([failure])  # as the retry that was cut off left it
    (tmp_path / "photos/a.jpg").write_bytes(encoded(picture(1)))
    (work,) = retry_work(job)
    assert work.generation == 2
    assert run(job, [work]).exit_code == 0
    assert Ledger(job.store).receipt(0)[1]["generation"] == 2


def test_what_a_retry_made_that_was_stopped_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in "abcd":
        (tmp_path / f"photos/{name}.jpg").write_text("no picture")
    job = begin(tmp_path, resources={"max_workers": 1, "shard_size": 4})
    assert run(job, pool=InlinePool(worker_setup(job))).exit_code == 3
    for number, name in enumerate("abc"):
        write(tmp_path, f"{name}.jpg", number)
    (work,) = retry_work(job)
    for row in (0, 1):  # and then it is stopped
        Worker(worker_setup(job), {}).run(Task(id=row, shard=0, generation=work.generation, rows=(row,)))
    made = images(job)
    assert len(made) == 2

    (work,) = retry_work(job, ["a", "c", "d"])
    report = Worker(worker_setup(job), {}).run(Task(id=0, shard=0, generation=work.generation, rows=work.rows))
    assert (dict(report.counts), report.spent.made) == ({"ok": 2, "failed": 1, "quarantined": 0}, 2)
    work = retry_work(job)
    assert set(read_journal(job.store, 0, 3).results) == {0, 1, 2}, "of both that were stopped"
    assert run(job, work, pool=InlinePool(worker_setup(job))).exit_code == 3
    assert by_status(job) == {"ok": ["a", "b", "c"], "failed": ["d"]}
    assert made.items() <= images(job).items()
    check_exactly_once(job, 4)


def test_what_decides_the_last_bits_is_fixed(tmp_path: Path, photos: Photos) -> None:
    """Once anything is done; before, tests/jobs/test_capacity.py."""
    photos(2)
    job = begin(tmp_path)
    assert run(job, pool=InlinePool(worker_setup(job))).exit_code == 0
    for option, value in (("num_cpus", 2.0), ("num_gpus", 1.0)):
        with pytest.raises(OptionError, match=rf"resources\.{option} = {value}: the job was begun with"):
            reopen(job.store, overrides={"resources": {option: value}}, registry=REGISTRY)
    assert (
        reopen(job.store, overrides={"resources": {"num_cpus": 0.5}}, registry=REGISTRY).resources.threads == 1
    )


def test_an_edited_job_is_refused(tmp_path: Path, photos: Photos) -> None:
    photos(2)
    job = begin(tmp_path)
    path = Path(job.store.url) / "job.json"
    path.write_text(path.read_text().replace('"delay_s": 0.0', '"delay_s": 0.1'))
    with pytest.raises(JobMismatch, match="fingerprint"):
        reopen(job.store, registry=REGISTRY)


def test_another_job_is_refused_with_the_differences(tmp_path: Path) -> None:
    write(tmp_path, "p.jpg", 1)
    (tmp_path / "pic.png").write_bytes(encoded(picture(3), "PNG"))
    begin(tmp_path, method={"picture": "pic.png"})
    with pytest.raises(JobMismatch) as caught:
        begin(tmp_path, method={"delay_s": 1.0, "picture": "pic.png"}, seed=4, image={"quality": 90})
    message = str(caught.value)
    assert "output = " in message
    assert "method.delay_s: 0.0 in the folder, 1.0 asked for" in message
    assert "seed: 0 in the folder, 4 asked for" in message
    assert "image.quality: 95 in the folder, 90 asked for" in message
    (tmp_path / "pic.png").write_bytes(encoded(picture(4), "PNG"))
    with pytest.raises(JobMismatch, match="SHA-256 of picture"):
        begin(tmp_path, method={"picture": "pic.png"})


def test_resources_and_new_photographs_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "p.jpg", 1)
    begin(tmp_path)
    write(tmp_path, "later.jpg", 2)
    job = begin(tmp_path, resources={"max_workers": 1, "shard_size": 9})
    assert job.manifest.rows == 1
    assert run(job).exit_code == 0


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "p.jpg", 1)
    write(tmp_path, "q.jpg", 1)
    begin(tmp_path)
    other = begin(tmp_path, output="out2", photos="photos/p*.jpg")
    (tmp_path / "out/manifest.parquet").write_bytes(Path(other.store.url, "manifest.parquet").read_bytes())
    with pytest.raises(JobMismatch, match=r"manifest\.parquet"):
        begin(tmp_path)


def test_a_moved_job_goes_on(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, f"p{number}.jpg", number)
    begin(tmp_path)
    (tmp_path / "out").rename(tmp_path / "moved")
    job = reopen(LocalStore(str(tmp_path / "moved")), registry=REGISTRY)
    assert run(job).exit_code == 0
    check_exactly_once(job, 3)
    assert not (tmp_path / "out").exists()


def test_a_job_whose_listing_was_never_published_lists_again(tmp_path: Path) -> None:
    write(tmp_path, "p.jpg", 1)
    job = begin(tmp_path)
    manifest = tmp_path / "out/manifest.parquet"
    before = manifest.read_bytes()
    manifest.unlink()
    assert reopen(job.store, registry=REGISTRY).fingerprint == job.fingerprint
    assert manifest.read_bytes() == before
    manifest.unlink()
    write(tmp_path, "later.jpg", 1)
    with pytest.raises(JobMismatch, match="photographs have changed"):
        begin(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"photos": "nowhere"}, "photos = .*nowhere.*no such folder"),
        ({"photos": "empty"}, "photos = .*empty.*no photographs found"),
        ({"photos": "list.csv"}, r"^photos = '[^' ]+/list\.csv': row 1 has no `url`"),
        ({"output": "photos"}, "output = .*photos.*is the folder of the photographs"),
        ({"output": "."}, "output = .* holds the photographs, .*photos: take a folder beside them"),
        ({"output": ".", "photos": "photos/*.jpg"}, r"output = .* holds the photographs, .*photos/\*\.jpg"),
        ({"output": "taken"}, "output = .*taken.*is not empty and no job: it holds 'thesis.doc'"),
        ({"output": "file"}, "output = .*file.*is a file"),
        ({"method": {"picture": "none.png"}}, "method.picture = .*none.png.*there is no such file"),
        ({"method": {"picture": "file"}}, "method.picture = .*file.*is no picture"),
        ({"method": {"picture": "empty"}}, "method.picture = .*cannot be read"),
    ],
    ids=str,
)
def test_wrong_places_write_nothing(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, "p.jpg", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.doc").write_text("years of work")
    (tmp_path / "file").write_text("text")
    (tmp_path / "list.csv").write_text("place\np.jpg\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OptionError, match=said):
        begin(tmp_path, **changes)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_refuses_an_output_around_the_photographs(tmp_path: Path) -> None:
    write(tmp_path, "p.jpg", 1)
    with pytest.raises(OptionError, match=r"output = .* holds the photographs"):
        plan(job_file(tmp_path, output="."))


def test_a_picture_behind_a_store_that_is_away_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def away(url: str, _: StorageOptions) -> bytes:
        asked.append(url)
        raise ConnectionRefusedError("away")

    monkeypatch.setattr("jobs.driver.assets.read_url", away)
    with pytest.raises(OptionError, match=r"style = 'https://away/x.jpg': cannot be read: away"):
        read_assets(METHODS["feed_forward"](style="https://away/x.jpg"))
    assert asked == ["https://away/x.jpg"]


def test_two_that_begin_at_once_agree(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"p{number:02d}.jpg", number)
    start, jobs = threading.Barrier(4), []

    def race(shard_size: int) -> None:
        start.wait()
        jobs.append(begin(tmp_path, resources={"shard_size": shard_size}))

    threads = [threading.Thread(target=race, args=(size,)) for size in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jobs) == 4
    assert len({job.fingerprint for job in jobs}) == 1
    recorded = json.loads((tmp_path / "out/job.json").read_bytes())["manifest"]["shard_size"]
    assert reopen(jobs[0].store, registry=REGISTRY).manifest.shard_size == recorded
    assert run(reopen(jobs[0].store, registry=REGISTRY)).exit_code == 0
    check_exactly_once(jobs[0], 20)


def test_summary_exit_codes() -> None:
    def code(ok: int, failed: int, unfinished: int, stopped: bool = False) -> int:
        counts = {"ok": ok, "failed": failed, "quarantined": 0}
        return Summary(
            total=10, counts=counts, unfinished_shards=unfinished, stopped=stopped, error=None
        ).exit_code  # type: ignore[arg-type]

    assert code(10, 0, 0) == 0
    assert code(9, 1, 0) == 3
    assert code(9, 0, 1) == 4
    assert code(5, 0, 1, stopped=True) == 75
