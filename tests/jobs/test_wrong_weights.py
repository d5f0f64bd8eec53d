"""Weights of another network are refused before anything is written, and no worker is started for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.driver.job import create_or_open
from jobs.spec import job_from_table
from jobs.training.job import create_or_open_training, reopen_training
from jobs.training.job_file import train_from_table
from nst.cyclegan.training import CycleGANOptions, CycleGANTraining
from nst.errors import NstError
from nst.features.weights import published_bytes
from tests.jobs.test_training import TINY, photos, table

__all__ = ["photos"]  # the fixture
STYLE = {"kind": "feed_forward_styles", "style": "a/0.png"}


@pytest.fixture
def files(photos: Path) -> Path:
    """Photographs, with `cyclegan.safetensors` and `eyes.safetensors`, a feature network, beside them."""
    (photos / "cyclegan.safetensors").write_bytes(CycleGANTraining(CycleGANOptions(**TINY)).file_bytes())
    (photos / "eyes.safetensors").write_bytes(published_bytes("nst:embedded"))
    return photos


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"kind": "cyclegan", "weights": "eyes"}, "method.weights = '.*eyes.*': the state dict does not fit"),
        ({"kind": "feed_forward", "weights": "eyes", "style": "a/0.png"}, "method.weights = .* no painter"),
        ({"kind": "feed_forward", "weights": "cyclegan"}, r'no painter.* kind = "cyclegan" or "modulated"'),
        (
            {"kind": "feed_forward", "style": "a/0.png", "adapt_steps": 3, "teacher": "vgg16"}
            | {"teacher_weights": "eyes"},
            "method.teacher_weights = .*: the state dict is not one of vgg16",
        ),
        (
            {"kind": "style_transfer", "network": "vgg16", "weights": "eyes", "style": "a/0.png"},
            "method.weights = '.*eyes.*': the state dict is not one of vgg16",
        ),
        (
            {"kind": "deepdream", "network": "resnet50", "weights": "cyclegan"},
            "method.weights = '.*cyclegan.*': the state dict is not one of resnet50",
        ),
    ],
)
def test_of_a_method(files: Path, method: dict[str, Any], said: str) -> None:
    job = {"photos": "a", "output": "out", "method": _with_files(method)}
    with pytest.raises(NstError, match=said):
        create_or_open(job_from_table(job, files))
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"painter": "cyclegan"}, "model.painter = '.*cyclegan.*': .* no painter"),
        (
            {"teacher": "vgg16", "teacher_weights": "cyclegan"},
            "model.teacher_weights = '.*cyclegan.*': the state dict is not one of vgg16",
        ),
        ({"style": "tiny.png"}, r"model\.style = '.*tiny.png': is 6 x 6 pixels"),
    ],
)
def test_of_a_training(files: Path, model: dict[str, Any], said: str) -> None:
    Image.new("RGB", (6, 6)).save(files / "tiny.png")
    given = {
        "photos": "a",
        "output": "out",
        "model": _with_files({**STYLE, "side": 16, **model}),
        "data": {"load_size": 18, "crop_size": 16},
    }
    with pytest.raises(NstError, match=said):
        create_or_open_training(train_from_table(given, files))
    assert not (files / "out").exists()


def test_of_an_evaluation(files: Path) -> None:
    eyes = {"every": 6, "network": "vgg16", "weights": str(files / "cyclegan.safetensors")}
    said = "evaluation.weights = '.*cyclegan.*': the state dict is not one of vgg16"
    with pytest.raises(NstError, match=said):
        create_or_open_training(train_from_table(table(files, evaluation=eyes), files))
    assert not os.path.lexists(files / "out")
    job = create_or_open_training(train_from_table(table(files), files))
    with pytest.raises(NstError, match=said):
        reopen_training(job.store, overrides={"evaluation": eyes})


def _with_files(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value}.safetensors" if value in ("eyes", "cyclegan") and name != "kind" else value
        for name, value in options.items()
    }
