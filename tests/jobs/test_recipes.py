"""The second seam: a training is one file and one line, and what ran before there were recipes still runs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from jobs.cli.options import options_of
from jobs.driver.assets import by_url
from jobs.errors import JobMismatch
from jobs.stores.store import open_store
from jobs.training.evaluate import evaluate
from jobs.training.job import create_or_open_training, reopen_training
from jobs.training.job_file import HOW, option_tables, read_train_file, train_from_table, train_to_table
from jobs.training.layout import (
    STOP,
    best_step,
    checkpoint_steps,
    generator_path,
    read_evaluations,
    sample_steps,
)
from jobs.training.loop import train
from jobs.training.metrics import read_metrics, read_part
from jobs.training.recipes import TRAININGS, is_training, kind_of
from jobs.training.status import train_status
from nst.errors import OptionError
from tests.jobs import test_training, test_training_styles
from tests.jobs.test_training import curve, nst, photos, setup
from tests.jobs.test_training_styles import styles
from tests.jobs.toy_training import Toy

__all__ = ["photos", "styles"]  # the fixtures
BEGUN = Path(__file__).parents[1] / "fixtures/begun_trainings"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """The line in the registry."""
    monkeypatch.setitem(TRAININGS._places, "toy", "tests.jobs.toy_training:Toy")
    return "toy"


def toy_file(folder: Path, output: str = "out", **changes: Any) -> Path:
    values = {"batch_size": 3, "schedule.n_epochs": 2, "schedule.n_epochs_decay": 1, **changes}
    sets = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    text = f"""photos = "a"\noutput = "{output}"\n{sets}model.kind = "toy"
[data]\nload_size = 18\ncrop_size = 16\n[log]\nmetrics_every = 2\ncheckpoint_every = 5\nsamples_every = 4
[resources]\nloader_workers = 0\n"""
    (folder / "toy.toml").write_text(text)
    return folder / "toy.toml"


@pytest.mark.usefixtures("toy")
def test_a_training_in_one_file_runs_resumes_and_is_reported(photos: Path) -> None:
    whole = create_or_open_training(read_train_file(toy_file(photos, "whole")))
    assert isinstance(whole.file.spec.recipe, Toy)
    assert train(setup(whole)) == 12
    rows = curve(whole.store)
    assert rows[-1]["distance"] < rows[0]["distance"]
    assert safetensors.torch.load(whole.store.read(generator_path(12))).keys() == {"weight", "bias"}

    job = create_or_open_training(read_train_file(toy_file(photos)))
    job.store.publish(STOP, b"")
    assert train(setup(job)) == 1
    job.store.remove(STOP)
    again = reopen_training(job.store)
    assert (again.fingerprint, again.file.spec.kind) == (job.fingerprint, "toy")
    assert train(setup(again)) == 12
    assert curve(job.store) == rows
    assert job.store.read(generator_path(12)) == whole.store.read(generator_path(12))
    assert (checkpoint_steps(job.store)[-1], sample_steps(job.store)) == (12, [4, 8, 12])

    status = train_status(job.store)
    assert (status.training, status.step, dict(status.photos)) == ("toy", 12, {"photos": 11})
    code, shown = nst("status", job.store.url)
    assert (code, "11 of photos" in shown, "distance" in shown) == (0, True, True)
    assert nst("report", job.store.url)[0] == 0
    html = (photos / "out/report.html").read_text()
    for text in (
        "train toy: step 12",
        "photographs of photos, and what became of them",
        "distance",
        "<polyline",
    ):
        assert text in html, text
    with pytest.raises(JobMismatch, match=r"model.learning_rate: 0.1 in the folder, 0.2 asked for"):
        create_or_open_training(read_train_file(toy_file(photos, **{"model.learning_rate": 0.2})))


@pytest.mark.usefixtures("toy")
def test_a_training_in_one_file_is_listed_planned_and_found_out(photos: Path) -> None:
    shown = nst("train", "options")[1]
    assert "The optimizer's learning rate." in shown
    assert "A folder of photographs." in shown
    said = "11 (photos) photographs, 12 steps, 4 per epoch; nothing was written"
    path = str(toy_file(photos))
    for command in (("run",), ("train",), ("train", "cyclegan")):
        code, shown = nst(*command, path, "--dry-run")
        assert (code, shown.splitlines()[-1]) == (0, said), shown
    for changes, error in (
        ({"model.learning_rte": 1}, r"model.learning_rte = 1: unknown option .*'learning_rate'"),
        ({"model.latent": 1}, r"model.latent = 1: is an option of trainings with model.kind = 'modulated'"),
        ({"b": "b"}, r"b = 'b': is an option of trainings with model.kind = 'cyclegan'. Choices: photos"),
        ({"photos_": "s3://id:secret@bucket/x"}, r"photos_ = 's3://\*\*\*'"),
    ):
        with pytest.raises(OptionError, match=error):
            read_train_file(toy_file(photos, **changes))
    assert not (photos / "out").exists()


@pytest.mark.usefixtures("toy")
def test_what_translates_nothing_ends_with_its_last_step(photos: Path) -> None:
    evaluation = {"evaluation.every": 4, "evaluation.layer": "relu1_1"}
    job = create_or_open_training(read_train_file(toy_file(photos, **evaluation)))
    train(setup(job))
    assert evaluate(job.file, job.urls, by_url(job.assets), 4) == {}
    assert best_step(read_evaluations(job.store), "fid") is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.usefixtures("toy")
def test_what_it_ends_with_is_said_as_a_methods_option(photos: Path) -> None:
    """Of a training that is complete, by the command for any job file."""
    path = toy_file(photos)
    job = create_or_open_training(read_train_file(path))
    done = {"generator": "generator.safetensors", "sha256": "12ab", "step": 12, "steps": 12}
    job.store.publish("done.json", json.dumps(done).encode())
    code, shown = nst("run", str(path))
    assert code == 0, shown
    assert f'color = "{photos}/out/generator.safetensors"\ncolor_sha256 = "12ab"\n' in shown.replace("\r", "")
    assert train_status(job.store).state == "complete"


# Every kind


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("kind", [*TRAININGS, "toy"])
def test_every_option_is_described(kind: str) -> None:
    for table in option_tables(kind):
        helps = {option.name: option.help for option in options_of(table.cls)}
        assert {*table.names} <= helps.keys()
        if table.name != "storage":  # which is not only of trainings
            assert not [name for name in table.names if not helps[name]], table.name
    names = {f"{table.name}.{name}" for table in option_tables(kind) for name in table.names}
    assert not names & {"model.form", "model.styles", "ddp.static_graph"}


def test_a_file_says_its_kind_or_is_of_that_which_it_looks_like(photos: Path, styles: Path) -> None:
    two, many = test_training.table(photos), test_training_styles.table(styles)
    for table, kind in ((two, "cyclegan"), (many, "modulated")):
        assert is_training(table)
        assert kind_of(table) == kind
        model = {**table["model"], "kind": kind}
        if kind == "modulated":
            del model["generator"]
        said = train_from_table({**table, "model": model}, photos)
        assert said == train_from_table(table, photos)
        assert "kind" not in train_to_table(said)["model"], "as trainings from before it was an option"
    assert is_training({"photos": "x", "model": {"kind": "toy"}})
    assert not is_training({"photos": "x", "a": "a", "b": "b"})
    assert not is_training({"method": {"kind": "cyclegan"}, "model": {"kind": "cyclegan"}})


# Trainings begun by an earlier version, stopped after two steps


@pytest.fixture(params=["cyclegan", "modulated", "grouped"])
def begun(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its place in memory, and the files of its end as that version wrote them. `grouped` is a modulated one
    with an option that there is no more."""
    root = f"memory://{request.param}"
    done = {}
    with zipfile.ZipFile(BEGUN / f"{request.param}.zip") as archive:
        for name in archive.namelist():
            where, _, path = name.partition("/")
            if where == "begun":
                open_store(root).publish(path, archive.read(name))
            else:
                done[path] = archive.read(name)
    yield f"{root}/out", done
    fsspec.filesystem("memory").rm(f"/{request.param}", recursive=True)


def test_a_training_from_before_is_read_resumed_and_finished(begun: tuple[str, dict[str, bytes]]) -> None:
    """To the same numbers, but for the rounding of another machine."""
    url, done = begun
    store = open_store(url)
    record = json.loads(store.read("job.json"))
    job = reopen_training(store)
    assert job.fingerprint == record["fingerprint"]
    now = train_to_table(job.file)
    for name, before in record["job"].items():
        if name in HOW and isinstance(before, dict):  # there are more such options now
            kept = {option: value for option, value in before.items() if option in now[name]}
            assert kept.items() <= now[name].items(), name
            assert kept == before or name == "ddp", name
        else:
            assert now[name] == before, name
    assert train_status(store).step == 2
    assert train(setup(job)) == job.steps
    pictures = {path.removeprefix("out/"): data for path, data in done.items() if path.endswith(".jpg")}
    assert {*store.find("samples")} == pictures.keys()
    for path, data in pictures.items():
        found, expected = (np.asarray(Image.open(io.BytesIO(each)), float) for each in (store.read(path), data))
        assert found.shape == expected.shape
        assert abs(found - expected).mean() < 2, path
    rows = [row for path in sorted(done) if path.endswith(".jsonl") for row in read_part(done[path])]
    assert [row["step"] for row in rows] == list(range(1, job.steps + 1))
    for row, expected in zip(read_metrics(store), rows, strict=True):
        assert row.keys() - {"data_seconds", "time"} == expected.keys()
        for name in expected.keys() - {"seconds"}:
            assert row[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-6), (row["step"], name)


def test_a_file_with_options_that_are_no_more_is_read(styles: Path) -> None:
    table = test_training_styles.table(styles, ddp={"static_graph": False, "bucket_cap_mb": 5.0})
    file = train_from_table(table, styles)
    assert file.ddp.bucket_cap_mb == 5
    assert "static_graph" not in {item.name for item in fields(file.ddp)}
    for form in ("grouped", "scaled"):
        read = train_from_table({**table, "model": {**table["model"], "form": form}}, styles)
        assert train_to_table(read)["model"]["form"] == form
