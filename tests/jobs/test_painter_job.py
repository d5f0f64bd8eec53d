"""The file of the teacher, which a painter's training needs at every step."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from jobs.stores.store import LocalStore
from jobs.training.job import TrainJob, create_or_open_training, plan_training, reopen_training
from jobs.training.job_file import train_from_table
from jobs.training.layout import STOP
from jobs.training.loop import LoopSetup, train
from nst.errors import OptionError
from nst.features import read_state_dict
from nst.features.weights import published_bytes
from tests.jobs.test_training import photos

__all__ = ["photos"]  # the fixture
MODEL: dict[str, Any] = {
    "kind": "feed_forward",
    "half": 4,
    "quarter": 4,
    "eighth": 4,
    "side": 8,
    "warmup_steps": 2,
    "teacher": "embedded",
    "style_layers": ["relu1_1", "relu2_1"],
}


def table(folder: Path, **model: Any) -> dict[str, Any]:
    (folder / "teacher.safetensors").write_bytes(published_bytes("nst:embedded"))
    return {
        "photos": str(folder / "a"),
        "pictures": str(folder / "b"),
        "output": str(folder / "out"),
        "batch_size": 2,
        "model": {**MODEL, "teacher_weights": "teacher.safetensors", **model},
        "data": {"load_size": 18, "crop_size": 16},
        "schedule": {"n_epochs": 1, "n_epochs_decay": 0, "steps_per_epoch": 4},
        "log": {"samples_every": 2, "checkpoint_every": 2},
        "resources": {"loader_workers": 0},
    }


def begun(folder: Path, **model: Any) -> TrainJob:
    return create_or_open_training(train_from_table(table(folder, **model), folder))


def test_it_is_recorded_and_must_stay_the_same(photos: Path) -> None:
    """Also when the training has a checkpoint, and until it has ended."""
    job = begun(photos)
    teacher = photos / "teacher.safetensors"
    recorded = json.loads(job.store.read("job.json"))["assets"]["model.teacher_weights"]
    data = teacher.read_bytes()
    assert recorded == {"url": str(teacher), "sha256": hashlib.sha256(data).hexdigest()}
    job.store.publish(STOP, b"")
    assert train(LoopSetup.of(job)) == 1
    job.store.remove(STOP)
    state = {name: value + 1 for name, value in read_state_dict(data).items()}
    teacher.write_bytes(safetensors.torch.save(state))
    with pytest.raises(OptionError, match=r"model\.teacher_weights = .*; the training was begun with"):
        reopen_training(job.store)
    teacher.unlink()
    with pytest.raises(OptionError, match=r"model\.teacher_weights = .*: there is no such file"):
        reopen_training(job.store)
    teacher.write_bytes(data)
    assert train(LoopSetup.of(reopen_training(job.store))) == 4
    assert job.store.exists("samples/step-000000004.jpg")


def test_it_may_be_moved_with_the_training(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    job = begun(photos)
    job.store.publish(STOP, b"")
    assert train(LoopSetup.of(job)) == 1
    job.store.remove(STOP)
    there = tmp_path_factory.mktemp("new") / "here"
    photos.rename(there)
    moved = reopen_training(LocalStore(str(there / "out")), overrides={})
    assert begun(there).fingerprint == moved.fingerprint == job.fingerprint
    (there / "teacher.safetensors").write_bytes(b"another")
    with pytest.raises(OptionError, match=r"model\.teacher_weights = .*not a readable state dict"):
        reopen_training(moved.store, overrides={})
    (there / "teacher.safetensors").write_bytes(published_bytes("nst:embedded"))
    assert train(LoopSetup.of(moved)) == 4


def test_another_teacher_is_another_training(photos: Path) -> None:
    job = begun(photos)
    state = read_state_dict(published_bytes("nst:embedded"))
    data = safetensors.torch.save({name: value.float() + 1 for name, value in state.items()})
    other = table(photos, teacher_weights="other.safetensors")
    (photos / "other.safetensors").write_bytes(data)
    assert plan_training(train_from_table(other, photos)).fingerprint != job.fingerprint


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"teacher_weights": "none.pth"}, r"model\.teacher_weights = '.*none\.pth': there is no such file"),
        (
            {"teacher_weights_sha256": "0" * 64},
            r"model\.teacher_weights = .*: its SHA-256 is .*, expected 0000",
        ),
        ({"teacher_weights": "imagenet"}, r"model\.teacher_weights = 'imagenet': there are none of embedded"),
        ({"side": 16}, r"data\.crop_size = 16: model\.side = 16 needs twice as much, 32"),
        ({"style_layers": ["relu9_1"]}, r"model\.style_layers = 'relu9_1': embedded has no such layer"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(photos: Path, model: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        begun(photos, **model)
    assert not (photos / "out").exists()


def test_it_is_built_as_the_loop_builds_it(photos: Path) -> None:
    """Equal runs give equal files."""
    files = []
    for output in ("one", "two"):
        torch.manual_seed(len(files))
        given = {**table(photos), "output": str(photos / output)}
        job = create_or_open_training(train_from_table(given, photos))
        train(LoopSetup.of(job))
        files.append(job.store.read("generators/step-000000004.safetensors"))
    assert files[0] == files[1]
