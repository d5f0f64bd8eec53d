"""What TensorBoard shows of a training, read with its own reader."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.training.job import TrainJob, record_change, reopen_training
from jobs.training.layout import checkpoint_steps, events_steps, read_evaluations, sample_path
from jobs.training.loop import train
from jobs.training.metrics import data_share, means, read_metrics, read_part
from jobs.training.monitor import Watch
from jobs.training.report import build_training_report
from jobs.training.tensorboard import write_events
from tests.jobs.test_training import begun, ended, photos, setup

__all__ = ["photos"]  # the fixture
EVALUATIONS = {6: {"fid_A2B": 3.0, "kid_A2B": 0.5}, 12: {"fid_A2B": 2.0, "kid_A2B": 0.25}}


def read(job: TrainJob) -> Any:
    """All of its files, as TensorBoard loads them."""
    pytest.importorskip("tensorboard", reason="TensorBoard's reader is not installed: make test installs it")
    from tensorboard.backend.event_processing import event_accumulator

    found = event_accumulator.EventAccumulator(
        f"{job.store.url}/tensorboard", size_guidance={"scalars": 0, "images": 0}
    )
    return found.Reload()


def evaluated(job: TrainJob, watch: Watch, steps: tuple[int, ...]) -> None:
    for step in steps:
        job.store.publish(f"evaluations/step-{step:09d}.json", json.dumps(EVALUATIONS[step]).encode())
    watch.look()
    watch.evaluated(read_evaluations(job.store))


def test_losses_times_pictures_and_distances_are_read_back(photos: Path) -> None:
    began = time.time()
    job = begun(photos)
    train(setup(job))
    evaluated(job, Watch(job), (6, 12))
    found, rows = read(job), read_metrics(job.store)
    losses = found.Scalars("loss/gan_A")
    assert [event.step for event in losses] == [2, 4, 6, 8, 10, 12]
    assert losses[0].value == pytest.approx((rows[0]["gan_A"] + rows[1]["gan_A"]) / 2)
    assert [event.wall_time for event in losses] == pytest.approx([row["time"] for row in rows[1::2]], abs=1e-3)
    assert all(began <= event.wall_time <= time.time() for event in losses)
    for name in ("fid_A2B", "kid_A2B"):
        events = found.Scalars(f"evaluation/{name}")
        assert [(event.step, event.value) for event in events] == [
            (step, EVALUATIONS[step][name]) for step in (6, 12)
        ]
        assert all(began <= event.wall_time <= time.time() for event in events)
    pictures = found.Images("samples")
    assert [event.step for event in pictures] == [5, 10, 12]
    assert pictures[0].encoded_image_string == job.store.read(sample_path(5))
    with Image.open(io.BytesIO(pictures[0].encoded_image_string)) as opened:
        assert (pictures[0].width, pictures[0].height) == opened.size == (96, 32)
    assert 0 < found.Scalars("time/data_share")[0].value < 1
    assert found.Scalars("time/seconds")[0].value == pytest.approx(
        (rows[0]["seconds"] + rows[1]["seconds"]) / 2
    )


def test_what_comes_late_is_in_files_that_come_after_what_was_read(photos: Path) -> None:
    """TensorBoard, while it runs, looks into no file whose name comes before that of one that it has read."""
    job = ended(photos)
    watch = Watch(job)
    watch.look()
    newest = job.store.names("tensorboard")[-1]
    evaluated(job, watch, (6,))
    new = job.store.names("tensorboard")
    assert new[-1] > newest
    assert new[-1].endswith("evaluation-000000006")
    # The next driver does none of it again.
    kept = {name: (photos / "out/tensorboard" / name).stat().st_mtime_ns for name in new[-4:]}
    assert all(".samples-" in name or ".evaluation-" in name for name in kept)
    evaluated(job, Watch(job), (6,))
    assert job.store.names("tensorboard") == new
    assert {name: (photos / "out/tensorboard" / name).stat().st_mtime_ns for name in kept} == kept
    assert len(events_steps(job.store)) == 6


def test_what_a_change_takes_back_is_shown_anew(photos: Path) -> None:
    job = ended(photos)
    for step in checkpoint_steps(job.store)[1:]:
        job.store.remove(f"checkpoints/step-{step:09d}.pt")
    evaluated(job, Watch(job), (6, 12))
    job = record_change(reopen_training(job.store, overrides={"model": {"lambda_a": 1.0}}))
    train(setup(job))
    evaluated(job, Watch(job), ())
    found = read(job)
    assert [event.step for event in found.Images("samples")] == [5, 10, 12]
    assert [event.step for event in found.Scalars("loss/gan_A")] == [2, 4, 6, 8, 10, 12]
    assert [event.step for event in found.Scalars("evaluation/fid_A2B")] == [6]


def test_the_report_has_axes_with_units_speed_and_what_photographs_cost(photos: Path) -> None:
    job = ended(photos)
    html = build_training_report(job.store)
    rows = read_metrics(job.store)
    share = data_share(rows)
    assert share is not None
    assert 0 < share < 1
    slowest = max(row["seconds"] for row in rows)
    for text in (
        f"<span>{slowest:.4g} s</span>",
        "<span>step 1</span><span>12</span>",
        "images per second",
        "1/s</figcaption>",
        "<b>waiting for photographs</b>",
        "%</figcaption>",
        "<b>0:00:0",
    ):
        assert text in html, text


def test_metrics_of_earlier_versions_are_read(photos: Path) -> None:
    """Without times of their own."""
    job = ended(photos)
    for name in job.store.names("metrics"):
        rows = read_part(job.store.read(f"metrics/{name}"))
        for row in rows:
            del row["data_seconds"], row["time"]
        job.store.publish(f"metrics/{name}", "".join(json.dumps(row) + "\n" for row in rows).encode())
    old = read_metrics(job.store)
    assert data_share(old) is None
    assert "seconds" not in means(old)
    html = build_training_report(job.store)
    assert "images per second" in html
    assert "waiting for photographs" not in html
    assert len(write_events(old, job.file.spec.recipe.grouped)) > 100
