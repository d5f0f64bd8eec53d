"""What a run shows of how far it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.console.display import Display
from jobs.console.log_events import LogEvent
from jobs.console.progress import Snapshot
from jobs.driver.run import run, worker_setup
from jobs.driver.tally import RunTally
from jobs.ledger.receipts import JournalWriter
from jobs.ledger.results import Status
from jobs.worker.messages import Task
from tests.chaos import InlinePool
from tests.jobs.made_jobs import made_job, result_of


def counts(ok: int, failed: int = 0, quarantined: int = 0) -> Mapping[Status, int]:
    return {"ok": ok, "failed": failed, "quarantined": quarantined}


def test_a_task_is_counted_as_last_heard_and_no_more_once_it_is_over() -> None:
    tally = RunTally(20, counts(4), time.monotonic())
    tally.submitted(Task(id=1, shard=0))
    tally.progressed(1, counts(0))
    assert "first_result" not in tally.seconds
    tally.progressed(1, counts(2))
    tally.progressed(1, counts(3, failed=1))
    assert "first_result" in tally.seconds
    assert tally.counts() == counts(7, failed=1)
    tally.finished(1, counts(4, failed=1))
    tally.progressed(1, counts(9))
    assert tally.counts() == counts(8, failed=1)
    snapshot = tally.snapshot(2, ())
    assert (snapshot.total, snapshot.done, snapshot.already, snapshot.workers) == (20, 9, 4, 2)
    assert snapshot.elapsed_s == 0, "no worker was ready"


def test_of_a_task_that_ended_badly_the_journal_counts() -> None:
    tally = RunTally(20, counts(0), time.monotonic())
    tally.submitted(Task(id=1, shard=0))
    tally.progressed(1, counts(5))
    tally.corrected(1, ["ok", "failed"])
    tally.progressed(1, counts(6))
    tally.concluded("quarantined")
    assert tally.counts() == counts(1, failed=1, quarantined=1)


def test_evaluations_of_what_is_in_work_count_until_its_result_does() -> None:
    tally = RunTally(20, counts(4), time.monotonic(), schedule=[(0.5, 40), (1.0, 60)])
    tally.ready()
    tally.submitted(Task(id=1, shard=0))
    tally.computing(0, 50)
    tally.computing(1, 30)
    snapshot = tally.snapshot(2, ())
    assert (snapshot.done_evaluations, snapshot.all_evaluations) == (480, 2000)
    assert snapshot.progress()["evaluations"] == 480
    tally.computing(0, 0)
    tally.progressed(1, counts(1))
    assert tally.snapshot(2, ()).done_evaluations == 530
    assert "evaluations" not in RunTally(20, counts(4), time.monotonic()).snapshot(2, ()).progress()


def test_the_time_left_is_known_before_the_first_photograph_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    def line(**values: Any) -> str:
        known = {"total": 4, "counts": counts(1), "already": 1, "workers": 2, "elapsed_s": 30.0, **values}
        Display(Console(width=200))(Snapshot(**known))
        return capsys.readouterr().out.strip()

    assert line(evaluations=50, evaluations_per_image=100, in_work=0.5) == (
        "1 of 4 images, 2 workers, 150 of 400 evaluations, 1.00 images/min, 0:02:30 left"
    )
    assert line() == "1 of 4 images, 2 workers"
    assert line(counts=counts(2)) == "2 of 4 images, 2 workers, 2.00 images/min, 0:01:00 left"


def test_evaluations_count_by_the_pixels_of_their_size() -> None:
    """Of a large photograph, half an hour was said to be left when the half-sized 40 of its 90 were done, and
    it took two."""
    tally = RunTally(4, counts(0), time.monotonic(), schedule=[(0.5, 40), (1.0, 50)])
    for evaluations, worth in ((0, 0.0), (40, 10 / 60), (65, 35 / 60), (90, 1.0), (95, 1.0)):
        tally.computing(0, evaluations)
        assert tally.snapshot(1, ()).in_work == pytest.approx(worth)
    batches = RunTally(4, counts(0), time.monotonic(), schedule=[(0.5, 40), (1.0, 50)], batch_size=2)
    batches.computing(0, 130)
    assert batches.snapshot(1, ()).in_work == pytest.approx(2 * 35 / 60)


def test_results_of_the_journal_are_nobodys_speed() -> None:
    """A shard that is taken up again has them at once."""
    tally = RunTally(100, counts(10), time.monotonic())
    tally.submitted(Task(id=1, shard=0))
    tally.submitted(Task(id=2, shard=1))
    tally.progressed(1, counts(30), made=1)
    tally.progressed(2, counts(5), made=6)
    assert (tally.snapshot(2, ()).done, tally.snapshot(2, ()).already) == (45, 10 + 29)
    tally.progressed(1, counts(31), made=3)
    tally.finished(1, counts(33), made=4)
    tally.corrected(2, ["ok"] * 7)
    assert (tally.snapshot(2, ()).done, tally.snapshot(2, ()).already) == (50, 10 + 29)


def test_who_goes_on_tells_its_own_speed(tmp_path: Path) -> None:
    job = made_job(tmp_path, 20, shard_size=10)
    rows, told = job.manifest.shard(1), list[Snapshot]()
    JournalWriter(job.store, 1, 0).results([result_of(job, row) for row in rows[:6]])
    assert run(job, pool=InlinePool(worker_setup(job)), observe=told.append).exit_code == 0
    assert (told[-1].done, told[-1].already, told[-1].total) == (20, 6, 20)


def test_sealing_counts_no_row_again() -> None:
    tally = RunTally(20, counts(0), time.monotonic())
    tally.submitted(Task(id=1, shard=0, rows=(0, 1)))
    tally.finished(1, counts(2))
    tally.submitted(Task(id=2, shard=0, sealing=True))
    tally.finished(2, counts(2))
    tally.corrected(2, ["ok", "ok"])
    assert tally.counts() == counts(2)


def test_an_error_keeps_its_lines_and_none_of_its_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    text = "workers cannot start: CUDA error\nCUDA_LAUNCH_BLOCKING=1\x1b[2J"
    Display(Console()).emit(LogEvent(event="error", level="error", text=text))
    assert capsys.readouterr().err == (
        "error: workers cannot start: CUDA error\nCUDA_LAUNCH_BLOCKING=1\N{REPLACEMENT CHARACTER}[2J\n"
    )


def test_paths_are_said_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in colors nor as emojis, which are names between brackets and colons elsewhere."""
    path = "/photos/12:b:30 [red]x[/red] :smile: \\[bold].jpg"
    Display(Console()).say(path)
    assert capsys.readouterr().out == f"{path}\n"
