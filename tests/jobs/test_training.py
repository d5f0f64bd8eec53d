"""A training ends the same wherever it is interrupted: in one process, by what kills it at every write."""

from __future__ import annotations

import atexit
import errno
import io
import itertools
import json
import os
import pickle
import re
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.config.hints import PUBLIC_NAMES
from jobs.driver.assets import Asset
from jobs.driver.job import reopen
from jobs.errors import (
    JobMismatch,
    NoPhotographs,
    StepFailed,
    StoreError,
    StoreRefuses,
    TrainingDiverged,
    UsageError,
    WorkersBroken,
)
from jobs.inspect.explain import explain
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.job_record import RecordedAsset
from jobs.ledger.parquet import parquet_bytes
from jobs.stores.store import LocalStore
from jobs.training.checkpoints import checkpoint_bytes
from jobs.training.data import TrainingSet
from jobs.training.evaluate import evaluate, evaluate_beside
from jobs.training.failures import Failures
from jobs.training.job import TrainJob, create_or_open_training, plan_training, reopen_training
from jobs.training.job_file import option_tables, read_train_file, train_from_table, train_to_table
from jobs.training.layout import (
    METRICS,
    STOP,
    checkpoint_path,
    checkpoint_steps,
    evaluation_path,
    events_steps,
    generator_path,
    generator_steps,
    metrics_path,
    metrics_steps,
    read_evaluations,
    read_skipped,
    sample_path,
    sample_steps,
)
from jobs.training.loop import LoopSetup, train
from jobs.training.metrics import metrics_table, read_metrics, write_metrics, write_part
from jobs.training.monitor import Watch
from jobs.training.report import build_training_report
from jobs.training.snapshot import publish_snapshot
from jobs.training.spec import TrainFile
from jobs.training.starts import refuse_other_eyes
from jobs.training.status import train_status
from jobs.training.stopping import StopRequest
from jobs.training.tensorboard import write_events
from nst.cyclegan.method import CycleGAN
from nst.cyclegan.training import CycleGANTraining
from nst.errors import OptionError
from nst.gan.parallel import Share
from nst.gan.sampling import Preprocessing
from tests.contracts.training import untimed
from tests.vggs import caffe_vgg

TINY: dict[str, Any] = {
    "generator": "resnet_6blocks",
    "generator_channels": 1,
    "discriminator": "n_layers",
    "discriminator_layers": 1,
    "discriminator_channels": 1,
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with eleven photographs of A and seven of B, one of which is none."""
    write_photos(tmp_path)
    return tmp_path


def write_photos(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for side, count in (("a", 11), ("b", 7)):
        (folder / side).mkdir()
        for number in range(count):
            levels = torch.randint(0, 256, (20, 24, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(levels.numpy()).save(folder / side / f"{number}.png")
    (folder / "b/3.png").write_text("no picture")


def table(folder: Path, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "a": str(folder / "a"),
        "b": str(folder / "b"),
        "output": str(folder / "out"),
        "batch_size": 2,
        "model": {**TINY, "pool_size": 3, "ema_decay": 0.5},
        "data": {"load_size": 18, "crop_size": 16},
        "schedule": {"n_epochs": 1, "n_epochs_decay": 1},
        "log": {"metrics_every": 2, "checkpoint_every": 4, "samples_every": 5, "samples": 2},
        "resources": {"loader_workers": 0},
    }
    return {**base, **changes}


def begun(folder: Path, **changes: Any) -> TrainJob:
    return create_or_open_training(train_from_table(table(folder, **changes), folder))


setup = LoopSetup.of


def ended(folder: Path) -> TrainJob:
    """What `begun` begins and `train` ends with, of photographs elsewhere: a copy, which takes no time."""
    shutil.copytree(_ended_once() / "out", folder / "out")
    return reopen_training(LocalStore(str(folder / "out")))


@cache
def _ended_once() -> Path:
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    write_photos(home)
    train(setup(begun(home)))
    return home


def curve(store: Any) -> list[dict[str, Any]]:
    return [untimed(row) for row in read_metrics(store)]


class Killed(BaseException):
    """The process is gone."""


def test_ends_with_every_step_generators_samples_and_checkpoints(photos: Path) -> None:
    job = begun(photos)
    assert (job.epoch_steps, job.steps) == (6, 12)
    assert train(setup(job)) == 12
    rows = curve(job.store)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["epoch"] for row in rows] == [0] * 6 + [1] * 6
    assert rows[0]["learning_rate"] == pytest.approx(2e-4)
    assert rows[6]["learning_rate"] == pytest.approx(1e-4)
    assert {"gan_A", "gan_B", "cycle_A", "cycle_B", "identity_A", "identity_B", "D_A", "D_B"} < rows[0].keys()
    assert checkpoint_steps(job.store) == [8, 12]
    assert generator_steps(job.store) == [12]
    assert sample_steps(job.store) == [5, 10, 12]
    with Image.open(io.BytesIO(job.store.read(sample_path(5)))) as grid:
        assert grid.size == (6 * 16, 2 * 16)
    (skipped,) = read_skipped(job.store).values()
    assert skipped["url"].endswith("b/3.png")


def test_who_does_not_know_that_others_took_its_place_removes_none_of_their_checkpoints(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begun(photos, log={**table(photos)["log"], "keep_checkpoints": 1})

    def overtaken(*arguments: Any) -> bytes:
        job.store.publish(checkpoint_path(8), b"of those who took its place")
        return checkpoint_bytes(*arguments)

    monkeypatch.setattr("jobs.training.loop.checkpoint_bytes", overtaken)
    assert train(replace(setup(job), steps=2)) == 2
    assert checkpoint_steps(job.store) == [2, 8]


def test_a_checkpoint_of_a_version_that_trained_otherwise_is_told(photos: Path) -> None:
    """And nobody tries it again."""
    job = begun(photos)
    assert train(replace(setup(job), steps=2)) == 2
    state = torch.load(io.BytesIO(job.store.read(checkpoint_path(2))), weights_only=True)
    del state["training"]["optimizers"]["d"]
    data = io.BytesIO()
    torch.save(state, data)
    job.store.publish(checkpoint_path(2), data.getvalue())
    for go_on in (lambda: train(setup(job)), lambda: publish_snapshot(job.store)):
        with pytest.raises(JobMismatch, match=r"step-000000002\.pt is of a version .*init\.weights") as raised:
            go_on()
        assert not Failures(-1, 0).go_on(raised.value, 2)


def test_a_checkpoint_of_other_networks_is_told_too(photos: Path) -> None:
    """Of a version whose layers have other names, which torch tells by an error of its own."""
    job = begun(photos)
    assert train(replace(setup(job), steps=2)) == 2
    state = torch.load(io.BytesIO(job.store.read(checkpoint_path(2))), weights_only=True)
    weights = state["training"]["networks"]["G_A"]
    weights["other.weight"] = weights.pop(next(iter(weights)))
    data = io.BytesIO()
    torch.save(state, data)
    job.store.publish(checkpoint_path(2), data.getvalue())
    with pytest.raises(JobMismatch, match=r"step-000000002\.pt is of a version .*init\.weights"):
        publish_snapshot(job.store)


def test_a_damaged_checkpoint_is_named(photos: Path) -> None:
    """And what to do: without it the training goes on from the one before, to the same numbers."""
    job = begun(photos, log={"checkpoint_every": 2, "samples_every": 0})
    assert train(replace(setup(job), steps=4)) == 4
    path, whole = checkpoint_path(4), job.store.read(checkpoint_path(4))
    for damaged in (whole[: len(whole) // 2], b"", b"PK" + bytes(99), whole[:2000] + bytes(99) + whole[2099:]):
        job.store.publish(path, damaged)
        for go_on in (lambda: train(setup(job)), lambda: publish_snapshot(job.store)):
            with pytest.raises(StoreError, match=r"step-000000004\.pt is damaged .* remove it: `nst resume`"):
                go_on()
    job.store.remove(path)
    assert train(replace(setup(job), steps=4)) == 4
    again, first = (torch.load(io.BytesIO(data), weights_only=True) for data in (job.store.read(path), whole))
    weights = [each["training"]["networks"]["G_A"]["model.1.weight"] for each in (again, first)]
    assert torch.equal(*weights)


BEFORE = pytest.mark.parametrize(
    "before",
    [pytest.param(True, id="before a write"), pytest.param(False, id="after a write", marks=pytest.mark.slow)],
)


@BEFORE
def test_killed_at_any_write_it_ends_as_if_it_was_not(
    photos: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    schedule = {"n_epochs": 1, "n_epochs_decay": 1, "steps_per_epoch": 4, "lr_policy": "plateau"}
    changes = {"schedule": schedule, "log": {**table(photos)["log"], "checkpoint_every": 3}}
    kill_at_any_write(begun, photos, monkeypatch, before=before, **changes)


def kill_at_any_write(
    begin: Callable[..., TrainJob], home: Path, monkeypatch: pytest.MonkeyPatch, *, before: bool, **changes: Any
) -> None:
    """The same losses of every step, the same bytes of the generators, nothing left over."""
    whole = begin(home, **changes)
    train(setup(whole))
    expected = curve(whole.store)
    files = {path: whole.store.read(path) for path in whole.store.find("generators")}
    names = {path for path in whole.store.find() if not path.startswith("metrics/")}
    publish, writes, kills, at = LocalStore.publish, 0, 0, 1

    def deadly(store: LocalStore, path: str, data: bytes, *, create_only: bool = False) -> None:
        nonlocal writes
        writes += 1
        if writes == at and before:
            raise Killed
        publish(store, path, data, create_only=create_only)
        if writes == at:
            raise Killed

    job = begin(home, output=str(home / "killed"), **changes)
    monkeypatch.setattr(LocalStore, "publish", deadly)
    for chosen in range(1, 30):
        writes, at = 0, chosen
        newest = max(checkpoint_steps(job.store), default=0)
        try:
            end = train(setup(job))
        except Killed:
            kills += 1
            assert max(checkpoint_steps(job.store), default=0) >= newest, "nothing that was committed is lost"
            continue
        assert end == job.steps
        break
    assert kills >= 3, "each later than the one before, until it is done"
    assert curve(job.store) == expected
    assert files
    assert {path: job.store.read(path) for path in job.store.find("generators")} == files
    assert {path for path in job.store.find() if not path.startswith("metrics/")} == names


def test_the_next_driver_reads_what_is_new(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the newest part of the metrics, which says how far the training is."""
    job = ended(photos)
    whole = [metrics_path(step) for step in metrics_steps(job.store)]
    assert Watch(job).look().step == 12
    first, *_, last = job.store.names("tensorboard")
    for name in (first, last):
        job.store.remove(f"tensorboard/{name}")
    reads, read = list[str](), LocalStore.read

    def noted(store: LocalStore, path: str) -> bytes:
        reads.append(path)
        return read(store, path)

    monkeypatch.setattr(LocalStore, "read", noted)
    assert Watch(job).look().step == 12
    assert [path for path in reads if path.startswith("metrics/")] == [whole[0], whole[-1]]
    assert len(events_steps(job.store)) == len(whole) > 2


def test_stops_with_a_checkpoint_when_asked(photos: Path) -> None:
    job = begun(photos)
    job.store.publish(STOP, b"")
    loop = setup(job)
    assert train(loop) == 1
    assert checkpoint_steps(job.store) == [1]
    job.store.remove(STOP)
    assert train(loop) == 12
    whole = begun(photos, output=str(photos / "whole"))
    train(setup(whole))
    assert curve(job.store) == curve(whole.store)


@pytest.mark.parametrize(("step_s", "least", "most"), [(0.01, 15, 120), (0.5, 1, 9), (5.0, 1, 2)])
def test_workers_on_gpus_stop_within_their_grace_period_however_long_their_steps_take(
    photos: Path, monkeypatch: pytest.MonkeyPatch, step_s: float, least: int, most: int
) -> None:
    """They are told of it every twentieth step, or sooner."""
    now, told = [1000.0], 0

    def broadcast(*_: object) -> None:
        nonlocal told
        told += 1

    monkeypatch.setattr("jobs.training.stopping.time.monotonic", lambda: now[0])
    monkeypatch.setattr("jobs.training.stopping.dist.broadcast", broadcast)
    store = LocalStore(str(photos / "out"))
    request = StopRequest(store, Share(2, 0, 2), torch.device("cpu"), waits=True)
    for step in range(1, 1000):
        now[0] += step_s
        if step == 601:
            store.publish(STOP, b"")
        if request.after(step):
            break
    assert least <= step - 600 <= most  # it is looked for every two seconds
    assert step / told == pytest.approx(min(20, max(1, 2 / step_s)), rel=0.1)


def test_steps_that_float16_leaves_out_are_in_the_metrics_and_the_same_when_resumed(photos: Path) -> None:
    """With the vectors of spectral norms, too, and generators that are trained in every second step."""
    model = {**TINY, "precision": "float16", "critic_steps": 2, "spectral_norm": True, "gan_mode": "hinge"}
    whole = begun(photos, model=model)
    train(setup(whole))
    expected = curve(whole.store)
    skipped = [row["skipped_G"] for row in expected]
    assert set(skipped) == {0.0, 1.0}
    assert skipped[::2] == [0.0] * 6, "there is nothing to leave out"
    assert {row["skipped_D"] for row in expected} <= {0.0, 1.0}
    job = begun(photos, model=model, output=str(photos / "stopped"))
    job.store.publish(STOP, b"")
    assert [train(setup(job)) for _ in range(4)] == [1, 2, 3, 4]
    job.store.remove(STOP)
    assert train(setup(job)) == 12
    assert curve(job.store) == expected
    assert job.store.read(generator_path(12)) == whole.store.read(generator_path(12))


def test_decoding_ahead_changes_nothing(photos: Path) -> None:
    curves = []
    for workers in (0, 2):
        job = begun(photos, output=str(photos / f"out{workers}"), resources={"loader_workers": workers})
        train(setup(job))
        curves.append(curve(job.store))
    assert curves[0] == curves[1]


def test_a_loss_that_is_not_finite_ends_it(photos: Path) -> None:
    job = begun(photos, model={**TINY, "learning_rate": 1e30})
    said = (
        r"^the training diverged: loss \w+ is (nan|inf) in step \d\. It goes on from its beginning, and would "
    )
    with pytest.raises(TrainingDiverged, match=said):
        train(setup(job))


def test_failures_count_since_the_newest_checkpoint() -> None:
    lost = WorkersBroken("a node is gone")
    failures = Failures(2, 100)
    steps = (100, 100, 200, 200, 300, 300, 300)
    assert [failures.go_on(lost, step) for step in steps] == [True] * 6 + [False]
    assert not Failures(0, 0).go_on(lost, 100)
    endless = Failures(-1, 0)
    assert all(endless.go_on(lost, 0) for _ in range(1000))


def test_a_step_that_fails_three_times_is_not_tried_again_and_names_its_photographs(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begun(photos)
    step = CycleGANTraining.step

    def third(training: CycleGANTraining, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        if training.steps == 2:
            raise RuntimeError("Kernel size can't be greater\nthan this")
        return step(training, images)

    monkeypatch.setattr(CycleGANTraining, "step", third)
    failures, going = Failures(-1, 0), []
    for _ in range(3):
        with pytest.raises(StepFailed) as caught:
            train(setup(job))
        error = pickle.loads(pickle.dumps(caught.value))
        going.append(failures.go_on(error, 0))
    assert going == [True, True, False]
    text = str(error)
    assert text.startswith(
        "step 3 fails of RuntimeError: Kernel size can't be greater than this; its photographs: "
    )
    spec = job.file.spec
    chosen = [each for sample in (4, 5) for each in spec.recipe.choose(sample, {"a": 11, "b": 7}, spec.seed)]
    assert text.partition("photographs: ")[2].split(", ") == [
        f"{photos}/{each.collection}/{sorted((photos / each.collection).iterdir())[each.place].name}"
        for each in chosen
    ]
    # What fails elsewhere between is another matter.
    failures = Failures(-1, 0)
    others = [StepFailed(step, "x") for step in (3, 3, 4, 3, 3)]
    assert all(failures.go_on(each, 0) for each in others)


@pytest.mark.parametrize(
    "final", [TrainingDiverged("loss D_A is nan in step 7"), JobMismatch("another")], ids=str
)
def test_what_would_end_the_same_way_is_not_tried_again(final: Exception) -> None:
    assert not Failures(-1, 0).go_on(final, 100)


def test_a_full_disk_is_not_tried_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps since the newest checkpoint would be done again for nothing."""
    job, publish = begun(photos), LocalStore.publish

    def full(store: LocalStore, path: str, data: bytes, *, create_only: bool = False) -> None:
        if path.startswith("checkpoints/"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        publish(store, path, data, create_only=create_only)

    monkeypatch.setattr(LocalStore, "publish", full)
    with pytest.raises(StoreRefuses, match=r"out: OSError: .*No space left on device") as caught:
        train(setup(job))
    assert metrics_steps(job.store) == [2, 4], "nothing is published after it"
    error = pickle.loads(pickle.dumps(caught.value))
    assert not Failures(-1, 0).go_on(error, 0)
    assert Failures(-1, 0).go_on(StoreError("it does not answer"), 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hanging(Preprocessing):
    """Never ends with photographs of one width, or ends the process."""

    width: int = 30
    dies: bool = False

    def image_size(self, width: int, height: int, multiple: int = 4) -> tuple[int, int]:
        if width == self.width:
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return Preprocessing.image_size(self, width, height, multiple)


@pytest.mark.parametrize("dies", [False, True], ids=["hangs", "dies"])
def test_a_photograph_that_ends_the_process_that_loads_it_is_named(photos: Path, dies: bool) -> None:
    """Also one that never would end: else nobody ends the training."""
    Image.new("RGB", (30, 20), "red").save(photos / "a/5.png")
    loop = setup(begun(photos))
    assert loop.timeout_s == 600
    data = Hanging(load_size=18, crop_size=16, dies=dies)
    loop = replace(loop, spec=replace(loop.spec, data=data), loader_workers=1, timeout_s=6.0)
    said = r"^step \d fails of a process that loads photographs: .*resources\.timeout_s = 6; its photographs: "
    with pytest.raises(StepFailed, match=said) as caught:
        train(loop)
    urls = str(caught.value).partition("its photographs: ")[2].split(", ")
    assert urls[0] == str(photos / "a/5.png")
    assert len(urls) == 2
    at = next(step for step in range(1, 7) if str(photos / "a/5.png") in _chosen(loop, step))
    assert caught.value.step == at


def _chosen(loop: LoopSetup, step: int) -> list[str]:
    photographs = TrainingSet.of(loop.spec, loop.urls, loop.storage)
    return photographs.chosen(range(2 * step - 2, 2 * step))


def test_what_a_process_that_loads_photographs_raises_is_told_without_its_traceback(photos: Path) -> None:
    loop = replace(setup(begun(photos)), loader_workers=1)
    for data, error, said in (
        (Failing(load_size=18, crop_size=16), StoreError, "^s3://bucket: it is away$"),
        (
            Failing(load_size=18, crop_size=16, ours=False),
            StepFailed,
            "^step 1 fails of ValueError: a strange one; its photographs: /",
        ),
    ):
        with pytest.raises(error, match=said):
            train(replace(loop, spec=replace(loop.spec, data=data)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Failing(Preprocessing):
    """Raises, at every photograph."""

    ours: bool = True

    def image_size(self, width: int, height: int, multiple: int = 4) -> tuple[int, int]:  # noqa: ARG002
        if self.ours:
            raise StoreError("s3://bucket: it is away")
        raise ValueError("a strange one")


def test_collections_without_photographs_are_refused(photos: Path) -> None:
    job = begun(photos)
    for path in (photos / "b").iterdir():
        path.write_text("no picture")
    said = r"b: none of \d+ photographs can be trained on; the last one: .*not a picture[^\n]*$"
    with pytest.raises(NoPhotographs, match=f"^{said}"):
        train(setup(job))
    with pytest.raises(NoPhotographs, match=f"^{said}"):
        train(replace(setup(job), loader_workers=1))
    with pytest.raises(OptionError, match=rf"^b = '.*/b': {said}"):
        plan_training(job.file)


def test_a_photograph_too_small_for_the_networks_is_left_out_by_name(photos: Path) -> None:
    """A panorama of 12 pixels' height, which the discriminator cannot take when it is scaled to a width."""
    Image.new("RGB", (600, 12), "red").save(photos / "a/0.png")
    job = begun(
        photos,
        batch_size=1,
        model={**TINY, "discriminator_layers": 2},
        data={"preprocess": "scale_width", "load_size": 24},
        schedule={"n_epochs": 1, "n_epochs_decay": 0},
    )
    assert train(setup(job)) == job.steps
    small = {each["url"].rpartition("/")[2]: each["error"] for each in read_skipped(job.store).values()}
    assert small["0.png"] == (
        "ImageTooSmall: 24 x 8 pixels are too few for generator = 'resnet_6blocks', "
        "discriminator = 'n_layers', discriminator_layers = 2"
    )


def test_a_line_of_pixels_is_left_out_and_not_enlarged(photos: Path) -> None:
    """To a crop's width, it would take all memory."""
    Image.new("RGB", (1, 900), "red").save(photos / "a/0.png")
    data = {"preprocess": "crop", "crop_size": 16}
    job = begun(photos, data=data, max_pixels=100_000, schedule={"n_epochs": 1, "n_epochs_decay": 0})
    assert train(setup(job)) == job.steps
    found = {note["url"]: note["error"] for note in read_skipped(job.store).values()}
    said = "ImageTooLarge: 1 x 900 pixels, scaled to 16 x 14400: more than the limit of 100000"
    assert found[str(photos / "a/0.png")] == said


@pytest.mark.parametrize(
    ("model", "crop", "least"),
    [
        ({"discriminator": "basic"}, 16, 24),
        ({"discriminator": "n_layers", "discriminator_layers": 5}, 32, 96),
        pytest.param({"discriminator": "n_layers", "discriminator_layers": 5}, 92, 96, marks=pytest.mark.slow),
        ({"discriminator": "pixel"}, 4, 8),
    ],
    ids=str,
)
def test_a_crop_too_small_for_the_networks_is_refused_with_the_least(
    photos: Path, model: dict[str, Any], crop: int, least: int
) -> None:
    def file(side: int) -> TrainFile:
        changes = {"model": {**TINY, **model}, "data": {"load_size": side, "crop_size": side}}
        return train_from_table(table(photos, **changes), photos)

    with pytest.raises(
        OptionError, match=rf"^data\.crop_size = {crop}: .*too few for .*; the least is {least}$"
    ):
        file(crop)
    trainer = file(least).spec.recipe.build(seed=0, device=torch.device("cpu"))
    trainer.step([torch.rand(1, 3, least, least) for _ in range(2)])


@pytest.mark.parametrize("model", [{}, {"gan_mode": "wgangp"}, {"penalty": "zero_centered"}], ids=str)
def test_photographs_of_several_sizes_are_trained_one_by_one(photos: Path, model: dict[str, Any]) -> None:
    """Also with penalties at what is between a photograph and a fake, which is of another size."""
    job = begun(
        photos,
        batch_size=1,
        data={"preprocess": "none"},
        schedule={"n_epochs": 1, "n_epochs_decay": 0},
        model={**TINY, **model},
    )
    Image.new("RGB", (33, 17), "red").save(photos / "a/0.png")
    assert train(setup(job)) == 11


# What a training is


def test_a_training_is_recorded_and_compared(photos: Path) -> None:
    job = begun(photos)
    again = begun(photos, log={"metrics_every": 3}, resources={"max_workers": 2, "loader_workers": 1})
    assert again.fingerprint == job.fingerprint
    assert reopen_training(job.store).fingerprint == job.fingerprint
    with pytest.raises(JobMismatch, match=r"model.gan_mode: 'lsgan' in the folder, 'hinge' asked for"):
        begun(photos, model={**TINY, "pool_size": 3, "ema_decay": 0.5, "gan_mode": "hinge"})
    Image.new("RGB", (8, 8)).save(photos / "a/new.png")
    assert reopen_training(job.store).manifests["a"].rows == 11, "the listing is frozen"
    with pytest.raises(UsageError, match="is no job"):
        reopen_training(LocalStore(str(photos / "a")))


def test_checkpoints_of_other_trainings_are_refused(photos: Path) -> None:
    job, other = begun(photos), begun(photos, output=str(photos / "other"), seed=1)
    train(setup(other))
    for path in list(other.store.find("checkpoints")):
        job.store.publish(path, other.store.read(path))
    with pytest.raises(JobMismatch, match="is not a checkpoint of this training"):
        train(setup(job))


def test_the_example_is_a_job_file() -> None:
    file = read_train_file(Path(__file__).parents[2] / "examples/train_cyclegan.toml")
    assert train_from_table(train_to_table(file), Path("/")) == file


def test_tables_are_resolved_and_come_back(photos: Path) -> None:
    (photos / "job.toml").write_text('a = "a"\nb = "b"\noutput = "out"\n[model]\ngan_mode = "wgangp"\n')
    file = read_train_file(photos / "job.toml", ["schedule.n_epochs=7", "resources.max_workers=1"])
    assert file.spec.collections["a"] == str(photos / "a")
    assert (file.spec.schedule.n_epochs, file.spec.recipe.model.penalty) == (7, "wgangp")
    assert train_from_table(train_to_table(file), Path("/")) == file


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modle": {}}, "modle.*model"),
        ({"model": {"gan_mode": "wgan"}}, r"model.gan_mode = 'wgan'.*wgangp"),
        ({"model": {"norm": "batch", "penalty": "r1"}}, r"model.penalty = 'r1'.*batch norm"),
        ({"data": {"crop_size": 250}}, "data.crop_size = 250.*multiple of 4"),
        ({"data": {"flop": True}}, "data.flop.*unknown option.*flip"),
        ({"ddp": {"static_graph": True}}, "ddp.static_graph = True"),
        ({"resources": {"max_workers": 3}}, "batch_size = 2: fewer images than the 3 workers"),
        ({"resources": {"backend": "nccl", "num_gpus": 0}}, "resources.backend = 'nccl'.*gloo"),
        ({"data": {"preprocess": "none"}}, "batch_size = 2: images of several sizes"),
        ({"evaluation": {"layer": "relu9_1"}}, "evaluation.layer = 'relu9_1'.*relu1_1"),
        ({"seed": -1}, "seed = -1"),
        ({"a": ""}, "a = ''.*required"),
        ({"a": "s3://id:secret@bucket/x"}, r"a = 's3://\*\*\*'"),
        (
            {"log": {"keep_every": "epochs"}},
            r"log.keep_every = 'epochs': .*did you mean 'epoch'.*a number of steps",
        ),
        ({"log": {"keep_every": -1}}, r"log.keep_every = -1"),
        ({"storage": {"aws_secret": "x"}}, r"storage.aws_secret = '\*\*\*'"),
        ({"schedule": 3}, r"schedule = 3: must be a table"),
    ],
    ids=str,
)
def test_bad_options_are_named(photos: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        train_from_table(table(photos, **changes), photos)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
@pytest.mark.parametrize("place", ["", "model", "schedule"])
def test_names_that_people_know_are_told_by_ours(photos: Path, name: str, place: str) -> None:
    changes = {place: {name: 1}} if place else {name: 1}
    with pytest.raises(OptionError) as caught:
        train_from_table(table(photos, **changes), photos)
    assert str(caught.value).startswith(f"{place}.{name} = 1: there is none in [{place}]; " if place else name)
    assert str(caught.value).endswith(PUBLIC_NAMES[name])
    known = {each.name: each.names for each in option_tables("cyclegan")}
    for option in re.findall(r"(\w+)\.(\w+)", PUBLIC_NAMES[name]):
        assert option[1] in known[option[0]], PUBLIC_NAMES[name]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": {"n_epochs": 3}},
            r"^model\.n_epochs = 3: there is none in \[model\]; it is schedule\.n_epochs$",
        ),
        ({"gan_mode": "lsgan"}, r"outside of all tables; it is model\.gan_mode$"),
        ({"schedule": {"batch_size": 1}}, r"none in \[schedule\]; it is batch_size$"),
    ],
)
def test_options_in_the_wrong_table_are_told_the_right_one(
    photos: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        train_from_table(table(photos, **changes), photos)


def test_what_a_collection_leaves_out_is_said(photos: Path) -> None:
    """Without advice that trainings do not have: `hidden` is an option of jobs of photographs."""
    (photos / "a/notes.txt").write_text("-")
    (photos / "b/@eaDir").mkdir()
    (photos / "b/@eaDir/0.png").write_bytes((photos / "b/0.png").read_bytes())
    planned = plan_training(train_from_table(table(photos), photos))
    assert [note for note in planned.notes if "left out" in note] == [
        "a: left out: 1 (1 .txt): no photographs, by their names and first bytes",
        "b: left out: 1 (1 @eaDir/): hidden, or thumbnails and other helpers of programs",
    ]


def test_places_without_photographs_are_named_and_nothing_is_written(photos: Path) -> None:
    with pytest.raises(OptionError, match=r"b = .*nowhere"):
        plan_training(train_from_table(table(photos, b=str(photos / "nowhere")), photos))
    with pytest.raises(OptionError, match=r"output = .*is the folder of a's photographs"):
        begun(photos, output=str(photos / "a"))
    assert not (photos / "out").exists()


def test_what_is_for_other_jobs_says_so(photos: Path) -> None:
    job = begun(photos)
    for use in (job_status, reopen, lambda store: list(verify(store)), lambda store: list(explain(store, "x"))):
        with pytest.raises(
            UsageError,
            match="another kind: it is a training; resume, status, report, verify and snapshot know it",
        ):
            use(job.store)


def nst(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_the_command_line_shows_options_plans_and_states(photos: Path) -> None:
    code, shown = nst("train", "options")
    assert code == 0
    for text in ("batch_size", "[model]", "lambda_identity", "checkpoint_every", "read_timeout_s"):
        assert text in shown, text
    (photos / "job.toml").write_text('a = "a"\nb = "b"\noutput = "out"\n')
    code, shown = nst("train", "cyclegan", str(photos / "job.toml"), "--dry-run", "--set", "batch_size=2")
    assert (code, shown.splitlines()[-1]) == (
        0,
        "11 (a) and 7 (b) photographs, 1200 steps, 6 per epoch; nothing was written",
    )
    assert not (photos / "out").exists()
    code, shown = nst("train", "cyclegan", str(photos / "job.toml"), "--set", "model.norm=bach")
    assert code == 2
    assert "model.norm = 'bach'" in shown
    job = ended(photos)
    code, shown = nst("status", job.store.url)
    assert code == 0
    assert "12; the newest checkpoint is of 12" in shown
    assert "1 photographs that cannot be read" in shown
    assert json.loads(nst("status", job.store.url, "--json")[1])["step"] == 12
    code, shown = nst("report", job.store.url)
    assert code == 0
    assert (photos / "out/report.html").read_text().startswith("<!doctype html>")
    assert nst("verify", job.store.url)[0] == 0
    for command in ("retry", "gc"):
        code, shown = nst(command, job.store.url)
        assert code == 2
        assert "a job of another kind" in shown


# What becomes of it


def test_evaluation_status_and_report(photos: Path) -> None:
    job = begun(photos, evaluation={"every": 6, "photos": 6, "layer": "relu1_1"})
    train(setup(job))
    assert generator_steps(job.store) == [6, 12]
    assets = {asset.url: asset.data for asset in job.assets}
    for step in (6, 12):
        found = evaluate(job.file, setup(job).urls, assets, step)
        assert found.keys() == {"fid_A2B", "fid_B2A", "kid_A2B", "kid_B2A"}
        assert found["fid_A2B"] > 0
    assert read_evaluations(job.store)[12] == found
    status = train_status(job.store)
    assert (status.step, status.checkpoint, status.state, status.skipped) == (12, 12, "unfinished", 1)
    assert status.photos == {"a": 11, "b": 7}
    json.dumps(status.to_json())
    html = build_training_report(job.store)
    for text in ("cycle_A", "samples of step 5", "fid_A2B", "model.gan_mode", "b/3.png", "<polyline"):
        assert text in html, text


@pytest.mark.parametrize(
    ("gpus", "there", "error", "devices"),
    [
        (1, True, None, ["cuda"]),
        (1, True, torch.OutOfMemoryError("the training takes it all"), ["cuda", "freed", "cpu"]),
        (1, True, torch.AcceleratorError("CUDA error: out of memory"), ["cuda", "freed", "cpu"]),
        (1, True, torch.AcceleratorError("CUDA-capable device(s) is/are busy"), ["cuda", "freed", "cpu"]),
        (1, False, None, ["cpu"]),
        (0, True, None, ["cpu"]),
    ],
)
def test_evaluations_of_a_training_on_gpus_are_on_one_if_it_has_room(
    gpus: int,
    there: bool,
    error: Exception | None,
    devices: list[str],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[str] = []
    shares: list[float] = []

    def evaluated(*arguments: Any) -> None:
        used.append(arguments[4].type if len(arguments) > 4 else "cpu")
        if used[-1] == "cuda" and error is not None:
            raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: used.append("freed"))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr("jobs.training.evaluate.evaluate", evaluated)
    file = begun(photos).file
    evaluate_beside(replace(file, resources=replace(file.resources, num_gpus=gpus)), (), {}, 6)
    assert used == devices
    assert shares == [0.1] * ("cuda" in devices)


def test_distances_are_of_held_out_photographs_if_there_are_any(photos: Path) -> None:
    """Copies of those that are trained on give what these give; others give others."""
    shutil.copytree(photos / "a", photos / "same")
    (photos / "other").mkdir()
    for number in range(3):
        Image.new("RGB", (20, 24), (80 * number, 0, 9)).save(photos / "other" / f"{number}.png")
    found = []
    for held_out in (None, {"a": "same"}, {"a": "same", "b": "other"}):
        output = str(photos / f"out-{len(found)}")
        own = {
            "every": 6,
            "photos": 6,
            "layer": "relu1_1",
            **({} if held_out is None else {"held_out": held_out}),
        }
        job = begun(photos, output=output, evaluation=own)
        job.store.publish(
            generator_path(6), job.file.spec.recipe.build(seed=0, device=torch.device("cpu")).file_bytes()
        )
        assets = {asset.url: asset.data for asset in job.assets}
        found.append(evaluate(job.file, setup(job).urls, assets, 6))
        stored = json.loads(job.store.read("job.json"))["job"]["evaluation"]
        assert stored.get("held_out") == (
            held_out and {name: str(photos / at) for name, at in held_out.items()}
        )
        assert reopen_training(job.store).file == job.file
    assert found[0] == found[1]
    assert all(found[2][name] != found[1][name] for name in found[1])


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ({"c": "a"}, r"evaluation\.held_out\.c = 'a': not one of the choices.*Choices: a, b"),
        ({"a": "nowhere"}, r"evaluation\.held_out\.a = '.*/nowhere': "),
        (
            {"a": "a/0.png"},
            r"evaluation\.held_out\.a = '.*0\.png': two photographs are needed, and there are 1",
        ),
        ({"a": ""}, r"evaluation\.held_out\.a = '': a path or URL is required"),
        ({"a": "s3://me:secret@bucket/x"}, r"evaluation\.held_out\.a = 's3://\*\*\*'"),
    ],
    ids=str,
)
def test_held_out_photographs_that_are_none_are_named(
    photos: Path, held_out: dict[str, str], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        begun(photos, evaluation={"every": 6, "held_out": held_out})
    assert not (photos / "out").exists()


def test_photographs_that_are_held_out_are_not_trained_on(photos: Path) -> None:
    """As those of a folder within the collection's."""
    (photos / "a/test").mkdir()
    for number in (0, 1):
        shutil.copy(photos / f"a/{number}.png", photos / f"a/test/{number}.png")
    said = (
        r"evaluation\.held_out\.a = '.*/a/test': 2 of its 2 photographs are trained on, too, as .*/test/0\.png"
    )
    with pytest.raises(OptionError, match=said):
        begun(photos, evaluation={"every": 6, "held_out": {"a": "a/test"}})
    assert not (photos / "out").exists()


def test_distances_that_do_not_compare_are_refused(photos: Path) -> None:
    """The least one decides which generators are kept."""
    job = begun(photos, evaluation={"every": 6, "photos": 6, "layer": "relu1_1"})
    other = {"evaluation": {"layer": "relu2_1"}}
    assert reopen_training(job.store, overrides=other).file.evaluation.layer == "relu2_1", "there are none yet"
    file = job.file
    job.store.publish(
        generator_path(6), file.spec.recipe.build(seed=0, device=torch.device("cpu")).file_bytes()
    )
    evaluate(file, job.urls, {asset.url: asset.data for asset in job.assets}, 6)
    assert list(read_evaluations(job.store)) == [6]
    assert reopen_training(job.store).file == file
    for given, said in (
        (other, r"evaluation\.layer = 'relu2_1': there are distances that were found with 'relu1_1'"),
        ({"evaluation": {"photos": 5}}, r"evaluation\.photos = 5: there are distances .* with 6.*every=0"),
        ({"evaluation": {"held_out": {"a": str(photos / "b")}}}, r"evaluation\.held_out = \['a'\]: there"),
    ):
        with pytest.raises(OptionError, match=said):
            reopen_training(job.store, overrides=given)
    reopen_training(job.store, overrides={"evaluation": {**other["evaluation"], "every": 0}})
    reopen_training(job.store, overrides={"evaluation": {"metric": "kid", "every": 3}})
    job.store.remove(evaluation_path(6))
    assert reopen_training(job.store, overrides=other).file.evaluation.layer == "relu2_1", "they are gone"


def test_no_photograph_is_compared_twice_in_the_place_of_one_that_cannot_be_read(photos: Path) -> None:
    job = begun(photos)
    found = TrainingSet.of(job.file.spec, job.urls, job.file.storage)
    images = list(found.images("b", 7, alike=True))
    assert len(images) == 6
    assert all(not torch.equal(one, two) for one, two in itertools.combinations(images, 2))
    (photos / "b/6.png").write_text("no picture")
    assert len(list(found.images("b", 7))) == 5
    assert len(list(found.images("b", 2))) == 2
    assert len(list(found.images("a", 20))) == 11


def test_what_cannot_be_evaluated_is_refused_at_the_start(photos: Path) -> None:
    (photos / "one").mkdir()
    Image.new("RGB", (20, 24), "red").save(photos / "one/0.png")
    alone = {"b": str(photos / "one"), "evaluation": {"every": 6, "layer": "relu1_1"}}
    with pytest.raises(OptionError, match=r"^evaluation\.every = 6: b has 1 photograph, and two are needed"):
        begun(photos, **alone)
    assert not (photos / "out").exists()
    plan_training(
        train_from_table(table(photos, **{**alone, "evaluation": {"every": 6, "held_out": {"b": "b"}}}), photos)
    )
    painter = {"kind": "feed_forward_styles", "style": "nst:style/rose", "side": 8, "painter": None}
    given = {"photos": str(photos / "one"), "output": str(photos / "out"), "model": painter}
    given |= {"data": {"load_size": 18, "crop_size": 16}, "evaluation": {"every": 6}}
    plan_training(train_from_table(given, photos))  # which compares nothing


def test_a_gray_side_is_compared_with_gray_photographs(photos: Path) -> None:
    """Distances to photographs in color are those to the same in gray; of the other side nothing changes."""
    shutil.copytree(photos / "b", photos / "gray")
    for path in (photos / "gray").glob("*.png"):
        if path.name != "3.png":  # which is none
            Image.open(path).convert("L").save(path)
    model = {**TINY, "output_channels": 1, "lambda_identity": 0.0}
    found = []
    for number, held_out in enumerate((None, {"b": "gray"})):
        own = {"every": 6, "photos": 6, "layer": "relu1_1", "held_out": held_out}
        job = begun(photos, output=str(photos / f"out-{number}"), evaluation=own, model=model)
        weights = job.file.spec.recipe.build(seed=0, device=torch.device("cpu")).file_bytes()
        job.store.publish(generator_path(6), weights)
        assets = {asset.url: asset.data for asset in job.assets}
        found.append(evaluate(job.file, setup(job).urls, assets, 6))
    for name in ("fid_A2B", "kid_A2B"):
        assert found[0][name] == pytest.approx(found[1][name], rel=0.02), name
    colors = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    to_b, to_a = job.file.spec.recipe.translations(weights, 2, torch.device("cpu"))
    assert len(to_b.shown(colors).unique(dim=1)[0]) == 1
    assert torch.equal(to_a.shown(colors), colors)


@pytest.mark.parametrize("every", [0, 6])
def test_weights_of_an_evaluation_are_taken_from_the_job_files_folder(photos: Path, every: int) -> None:
    def resolved(network: str, weights: str) -> str | None:
        own = {"every": every, "network": network, "weights": weights}
        return train_from_table(table(photos, evaluation=own), photos).evaluation.weights

    assert resolved("vgg19", "nets/vgg.pth") == str(photos / "nets/vgg.pth")
    assert resolved("vgg19", str(photos / "vgg.pth")) == str(photos / "vgg.pth")
    assert resolved("vgg19", "s3://bucket/vgg.pth") == "s3://bucket/vgg.pth"
    for network, named in (
        ("vgg19", "imagenet"),
        ("vgg16", "imagenet_features"),
        ("vgg19", "seeded"),
        ("embedded", "embedded"),
    ):
        assert resolved(network, named) == named
    with pytest.raises(OptionError, match=r"evaluation\.weights = 's3://\*\*\*'"):
        resolved("vgg19", "s3://me:secret@bucket/vgg.pth")
    if every:
        with pytest.raises(OptionError, match=rf"evaluation\.weights = '{photos}/none\.pth'"):
            begun(photos, evaluation={"every": every, "network": "vgg19", "weights": "none.pth"})


def test_every_place_of_a_training_is_taken_from_the_job_files_folder(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is begun: no relative path is left in the job."""
    monkeypatch.chdir("/")
    own = {"every": 6, "network": "vgg19", "weights": "vgg.pth", "held_out": {"a": "b"}}
    given = table(photos, a="a", b="b", output="out", evaluation=own, init={"weights": ["x.pth", "y.pth"]})
    found = train_to_table(train_from_table(given, photos))
    assert [found[name] for name in ("a", "b", "output")] == [str(photos / name) for name in ("a", "b", "out")]
    assert found["init"]["weights"] == [str(photos / "x.pth"), str(photos / "y.pth")]
    assert found["evaluation"]["weights"] == str(photos / "vgg.pth")
    assert found["evaluation"]["held_out"] == {"a": str(photos / "b")}


def test_evaluation_knows_the_conventions_of_weights(photos: Path) -> None:
    """Recognized, and said; the option wins."""
    (photos / "vgg.safetensors").write_bytes(safetensors.torch.save(caffe_vgg()))
    evaluation = {"every": 12, "photos": 4, "network": "vgg16", "weights": str(photos / "vgg.safetensors")}
    job = begun(photos, evaluation={**evaluation, "layer": "relu1_1"})
    train(setup(job))
    assets = {asset.url: asset.data for asset in job.assets}
    said = "recognized as the original Caffe convention (BGR, 0..255)"
    assert any(said in note for note in job.notes)
    assert any(said in note for note in reopen_training(job.store).notes)
    found = []
    for convention in (None, "caffe", "torchvision"):
        given = replace(job.file.evaluation, weights_convention=convention)
        found.append(evaluate(replace(job.file, evaluation=given), setup(job).urls, assets, 12))
    assert found[0] == found[1]
    assert found[0]["fid_A2B"] > 2 * found[2]["fid_A2B"]


def test_generators_are_what_the_batch_job_takes(photos: Path) -> None:
    job = ended(photos)
    data = job.store.read("generators/step-000000012.safetensors")
    for direction in ("A2B", "B2A"):
        stylizer = CycleGAN(weights="x", direction=direction).build({"x": data}, torch.device("cpu"))  # type: ignore[arg-type]
        (found,) = stylizer([torch.rand(3, 21, 30)], [torch.Generator()])
        assert found.image.shape == (3, 21, 30)  # type: ignore[union-attr]


def test_metrics_become_parquet_and_events(photos: Path) -> None:
    job = ended(photos)
    rows = read_metrics(job.store)
    read = pq.read_table(io.BytesIO(write_metrics(rows))).to_pylist()
    assert read == rows
    loader = _events(write_events(rows[:2], job.file.spec.recipe.grouped))
    assert loader[1].step == 2
    values = {value.tag: value.simple_value for value in loader[1].summary.value}
    assert values["loss/gan_A"] == pytest.approx((rows[0]["gan_A"] + rows[1]["gan_A"]) / 2)


def test_metrics_of_many_steps_are_joined_in_order_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of runs overlap, and losses come and go; rows are few at once, whatever there is of them."""
    monkeypatch.setattr("jobs.training.metrics._AT_ONCE", 3)
    store = LocalStore(str(tmp_path))
    parts = {4: range(1, 5), 6: range(3, 7), 5: range(5, 6), 9: range(7, 10)}
    for last, steps in parts.items():
        rows: list[dict[str, Any]] = [
            {"step": step, "epoch": 0, "seconds": 0.5, **({"gan": last + step / 8} if step > 4 else {})}
            for step in steps
        ]
        store.publish(metrics_path(last), write_part(rows))
    found = read_metrics(store)
    assert [row["step"] for row in found] == list(range(1, 10))
    assert [row.get("gan") for row in found] == [None] * 4 + [6.625, 6.75, 9.875, 10.0, 10.125]
    assert all(type(row["step"]) is int and "gan" not in row for row in found[:4])
    store.publish(METRICS, parquet_bytes(metrics_table(store)))
    assert store.read(METRICS) == write_metrics(found)
    assert read_metrics(store) == found
    store.remove(METRICS)
    store.publish(metrics_path(10), b'{"step": "ten"}\n')
    with pytest.raises(ValueError, match="a row of metrics has no numbers"):
        read_metrics(store)
    assert read_metrics(LocalStore(str(tmp_path / "none"))) == []


def _events(data: bytes) -> list[Any]:
    """As TensorFlow's record files are read: length, its checksum, bytes, their checksum."""

    def masked(part: bytes) -> int:
        crc = crc32c(part)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked(data[12 : 12 + length])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


# An option that came later


def test_a_training_from_before_upsample_was_an_option_goes_on(photos: Path) -> None:
    job = begun(photos)
    assert "upsample" not in json.loads(job.store.read("job.json"))["job"]["model"]
    said = begun(photos, model={**TINY, "pool_size": 3, "ema_decay": 0.5, "upsample": "transposed"})
    assert said.fingerprint == job.fingerprint
    with pytest.raises(JobMismatch, match=r"model.upsample: None in the folder, 'blur' asked for"):
        begun(photos, model={**TINY, "pool_size": 3, "ema_decay": 0.5, "upsample": "blur"})


def test_blurred_upsampling_is_trained_and_handed_over(photos: Path) -> None:
    job = begun(photos, model={**TINY, "upsample": "blur"})
    assert reopen_training(job.store).file.spec.recipe.model.upsample == "blur"
    train(setup(job))
    data = job.store.read("generators/step-000000012.safetensors")
    assert b"upsample" in data
    stylizer = CycleGAN(weights="x").build({"x": data}, torch.device("cpu"))
    (found,) = stylizer([torch.rand(3, 21, 30)], [torch.Generator()])
    assert found.image.shape == (3, 21, 30)  # type: ignore[union-attr]


def test_distances_through_another_network_are_refused() -> None:
    """At the same place, as what comes with this package may be another one in another version."""
    mine = [Asset("weights", "nst:embedded", b"", "b")]
    recorded = {"weights": RecordedAsset("nst:embedded", "a"), "teacher_weights": RecordedAsset("/t", "c")}
    with pytest.raises(OptionError, match=r"evaluation\.weights = 'nst:embedded': .* begun with a.*every=0"):
        refuse_other_eyes(mine, recorded)
    for before in ({}, {"weights": RecordedAsset("nst:embedded", "b")}, {"weights": RecordedAsset("/w", "a")}):
        refuse_other_eyes(mine, before)
