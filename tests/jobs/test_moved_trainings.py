"""A training whose folder was moved together with its photographs goes on where it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.driver.assets import by_url
from jobs.errors import JobMismatch
from jobs.stores.store import LocalStore
from jobs.training.evaluate import evaluate
from jobs.training.job import TrainJob, reopen_training
from jobs.training.layout import STOP, generator_path
from jobs.training.loop import train
from nst.errors import OptionError
from tests.jobs import test_training, test_training_styles
from tests.jobs.test_training import curve, photos, setup
from tests.jobs.test_training_styles import styles
from tests.vggs import caffe_vgg

__all__ = ["photos", "styles"]  # the fixtures

Begin = Callable[..., TrainJob]
BEGIN: dict[str, Begin] = {"photos": test_training.begun, "styles": test_training_styles.begun}


@pytest.fixture(params=["photos", pytest.param("styles", marks=pytest.mark.slow)])
def moved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Begin, Path, list[dict[str, Any]]]:
    """How to begin a training, where one is now that was stopped on the way, and what it gives undisturbed."""
    home, begin = request.getfixturevalue(request.param), BEGIN[request.param]
    alone = begin(home, output=str(home / "alone"))
    train(setup(alone))
    job = begin(home)
    job.store.publish(STOP, b"")
    assert 0 < train(setup(job)) < job.steps
    job.store.remove(STOP)
    expected = curve(alone.store)
    there = tmp_path_factory.mktemp("new") / "here"
    home.rename(there)
    return begin, there, expected


def test_it_goes_on(moved: tuple[Begin, Path, list[dict[str, Any]]]) -> None:
    begin, there, expected = moved
    job = reopen_training(LocalStore(str(there / "out")), overrides={})
    assert all(str(url).startswith(str(there)) for urls in job.urls for url in urls.to_pylist())
    again = begin(there)  # by its job file, which names the places of now
    assert again.fingerprint == job.fingerprint
    assert train(setup(job)) == job.steps
    assert curve(job.store) == expected


def test_with_other_photographs_it_does_not(moved: tuple[Begin, Path, list[dict[str, Any]]]) -> None:
    begin, there, _ = moved
    store = LocalStore(str(there / "out"))
    first = next(iter(reopen_training(store, overrides={}).file.spec.collections))
    photo = there / first / "2.png"
    data = photo.read_bytes()
    photo.write_bytes(data + b"\0")
    said = f"{first} = .*: does not hold the photographs.*2.png has {len(data) + 1} bytes, not {len(data)}"
    with pytest.raises(JobMismatch, match=said):
        reopen_training(store, overrides={})
    photo.unlink()
    with pytest.raises(JobMismatch, match=r"2\.png is not there"):
        begin(there)
    (there / first).rename(there / "gone")
    with pytest.raises(OptionError, match=f"{first} = .*is not there any more; put it, or a link to it"):
        reopen_training(store, overrides={})
    (there / first).symlink_to(there / "gone")
    photo.write_bytes(data)
    assert reopen_training(store, overrides={}).fingerprint


def test_what_an_evaluation_needs_is_found_where_it_was_moved_to(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Held-out photographs, and the network's weights. Who wants no evaluation needs neither."""
    shutil.copytree(photos / "a", photos / "test")
    torch.save(caffe_vgg(), photos / "vgg16.pth")
    given = {"network": "vgg16", "weights": "vgg16.pth", "layer": "relu1_1", "held_out": {"a": "test/*.png"}}
    job = test_training.begun(photos, evaluation={"every": 6, "photos": 3, **given})
    trainer = job.file.spec.recipe.build(seed=0, device=torch.device("cpu"))
    job.store.publish(generator_path(6), trainer.file_bytes())
    before = evaluate(job.file, job.urls, by_url(job.assets), 6)
    there = tmp_path_factory.mktemp("new") / "here"
    photos.rename(there)
    store = LocalStore(str(there / "out"))
    moved = reopen_training(store, overrides={})
    assert moved.file.evaluation.held_out == {"a": str(there / "test/*.png")}
    assert evaluate(moved.file, moved.urls, by_url(moved.assets), 6) == before
    for name, option in (("vgg16.pth", "weights"), ("test", "held_out.a")):
        (there / name).rename(there / f"gone-{name}")
        with pytest.raises(OptionError, match=rf"evaluation\.{option} = "):
            reopen_training(store, overrides={})
    reopen_training(store, overrides={"evaluation": {"every": 0}})
