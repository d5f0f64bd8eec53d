"""`nst verify` on trainings: what is well, and every way in which it is not."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.console.stop import StopSignal
from jobs.ledger.parquet import DAMAGED_PARQUET
from jobs.stores.store import LocalStore, Store
from jobs.training.driver import _Run
from jobs.training.job import record_change, reopen_training
from jobs.training.layout import (
    DONE,
    GENERATOR,
    METRICS,
    change_path,
    checkpoint_path,
    evaluation_path,
    generator_path,
    manifest_path,
    metrics_path,
    snapshot_path,
)
from jobs.training.loop import train
from jobs.training.metrics import read_metrics, write_metrics
from jobs.training.verify import verify_training
from tests.jobs.test_training import begun, ended, nst, photos, setup

__all__ = ["photos"]  # the fixture


@pytest.fixture
def finished(photos: Path) -> Store:
    """A training of 12 steps, with checkpoints of the steps 8 and 12."""
    job = ended(photos)
    _Run(job, lambda _: None, StopSignal(), None)._finish()
    job.store.publish(evaluation_path(4), b'{"fid_A2B": 1.5}')
    return job.store


def told(store: Store) -> list[str]:
    return [f"{fault.path}: {fault.problem}" for fault in verify_training(store)]


def test_a_training_is_well_at_every_stage(photos: Path) -> None:
    job = begun(photos)
    assert told(job.store) == []
    train(setup(job))
    assert told(job.store) == []
    _Run(job, lambda _: None, StopSignal(), None)._finish()
    assert told(job.store) == []
    assert nst("verify", str(photos / "out")) == (0, "no faults: every checkpoint and step\n")


def edited(path: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Store], None]:
    def edit(store: Store) -> None:
        table = json.loads(store.read(path))
        change(table)
        store.publish(path, json.dumps(table).encode())

    return edit


def checkpoint(change: Callable[[dict[str, Any]], object]) -> Callable[[Store], None]:
    def edit(store: Store) -> None:
        state = torch.load(io.BytesIO(store.read(checkpoint_path(12))), weights_only=True)
        change(state)
        out = io.BytesIO()
        torch.save(state, out)
        store.publish(checkpoint_path(12), out.getvalue())

    return edit


def flipped(path: str) -> Callable[[Store], None]:
    """A bit of it is another: of the data, not of what is around it."""

    def edit(store: Store) -> None:
        data = bytearray(store.read(path))
        place = 60 if path.endswith(".parquet") else len(data) // 2
        if path.endswith(".pt"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                place = data.index(archive.read(max(archive.infolist(), key=lambda each: each.file_size)))
        data[place] ^= 1
        store.publish(path, bytes(data))

    return edit


def cut(path: str) -> Callable[[Store], None]:
    return lambda store: store.publish(path, store.read(path)[:-30])


def rows(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Store], None]:
    def edit(store: Store) -> None:
        found = read_metrics(store)
        change(found)
        store.publish(METRICS, write_metrics(found))

    return edit


def swap_manifests(store: Store) -> None:
    store.publish(manifest_path("a"), store.read(manifest_path("b")))


def without(*paths: str) -> Callable[[Store], None]:
    return lambda store: [store.remove(path) for path in paths] and None


FAULTS: dict[str, tuple[Callable[[Store], object], list[str]]] = {
    "job": (
        edited("job.json", lambda table: table["job"]["model"].update(lambda_a=3.0)),
        ["job.json: was changed: its fingerprint is not that of the training in it"],
    ),
    "manifest": (
        swap_manifests,
        ["manifest_a.parquet: is not the one that the training was begun with"],
    ),
    "no manifest": (
        without("manifest_b.parquet"),
        ["manifest_b.parquet: cannot be read: .* has no manifest_b"],
    ),
    "checkpoint, cut": (cut(checkpoint_path(8)), ["checkpoints/step-000000008.pt: cannot be read: "]),
    "checkpoint, flipped": (flipped(checkpoint_path(12)), ["checkpoints/step-000000012.pt: cannot be read: "]),
    "checkpoint, another's": (
        checkpoint(lambda state: state.update(fingerprint="x")),
        ["checkpoints/step-000000012.pt: is not a checkpoint of this training"],
    ),
    "checkpoint, of another step": (
        checkpoint(lambda state: state.update(step=8)),
        ["checkpoints/step-000000012.pt: is the checkpoint of step 8"],
    ),
    "done, another's": (
        edited(DONE, lambda table: table.update(fingerprint="x")),
        ["done.json: is of another training"],
    ),
    "done, damaged": (cut(DONE), ["done.json: cannot be read: "]),
    "generator": (flipped(GENERATOR), ["generator.safetensors: is not the generator that was trained"]),
    "no generator": (without(GENERATOR), ["generator.safetensors: the generator is not there"]),
    "generators": (
        lambda store: store.publish(generator_path(12), b"none"),
        ["generators/step-000000012.safetensors: cannot be read: not a readable state dict"],
    ),
    "evaluation": (
        lambda store: store.publish(evaluation_path(4), b'{"fid_A2B": "good"}'),
        ["evaluations/step-000000004.json: is no table of distances"],
    ),
    "metrics": (
        rows(lambda found: found.__delitem__(slice(2, 5))),
        ["metrics.parquet: lacks 3 of 12 steps: 3-5"],
    ),
    "metrics, twice": (
        rows(lambda found: found.append(found[0])),
        ["metrics.parquet: has 1 steps more than once"],
    ),
    "metrics, not finite": (
        rows(lambda found: found[6].update(D_A=float("nan"))),
        ["metrics.parquet: has numbers that are not finite in 1 steps: 7"],
    ),
    "metrics, damaged": (flipped(METRICS), ["metrics.parquet: cannot be read: "]),
    "part of metrics": (
        lambda store: store.publish(metrics_path(4), b'{"step": 3'),
        ["metrics/step-000000004.jsonl: cannot be read: "],
    ),
    "no metrics yet": (
        without(DONE, METRICS, metrics_path(2), metrics_path(12)),
        ["metrics: lacks 4 of 12 steps: 1-2, 11-12"],
    ),
}


def test_every_fault_is_found(finished: Store) -> None:
    """And no other, one after the other; what is mended is well again."""
    assert isinstance(finished, LocalStore)
    files = {path: finished.read(path) for path in finished.find()}
    for name, (damage, expected) in FAULTS.items():
        damage(finished)
        found = told(finished)
        assert len(found) == len(expected), (name, found)
        for text, pattern in zip(found, expected, strict=True):
            assert text.startswith(pattern.partition(" .*")[0]), (name, text)
        for path in finished.find():
            if path not in files:
                finished.remove(path)
        for path, data in files.items():
            finished.publish(path, data)
    assert told(finished) == []


def test_no_bit_of_the_metrics_can_be_another_unseen(tmp_path: Path) -> None:
    """Numbers are read as they were written, or not at all."""
    store = LocalStore(str(tmp_path))
    draws = random.Random(0)
    expected = [{"step": step, "D_A": draws.random()} for step in range(1, 20)]
    data = write_metrics(expected)
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    noticed = 0
    for place in range(4, end, 3):
        store.publish(METRICS, data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            assert read_metrics(store) == expected, place
        except DAMAGED_PARQUET:
            noticed += 1
    assert noticed > 20


def test_the_command_tells_faults_and_ends_with_5(finished: Store) -> None:
    flipped(GENERATOR)(finished)
    code, shown = nst("verify", finished.url)
    assert code == 5
    assert shown == (
        "generator.safetensors: is not the generator that was trained: "
        "its SHA-256 is not the one in done.json\n"
        "1 fault\n"
    )
    code, shown = nst("verify", finished.url, "--json")
    assert code == 5
    assert json.loads(shown)["path"] == GENERATOR


# Changed, kept and begun with weights


def test_a_training_that_was_changed_is_well_and_what_is_wrong_with_that_is_told(photos: Path) -> None:
    source = begun(photos, output=str(photos / "source"))
    train(setup(source))
    log = {"metrics_every": 2, "checkpoint_every": 4, "keep_every": 6}
    job = begun(photos, log=log, init={"weights": f"{source.store.url}/{generator_path(12)}"})
    store = job.store
    assert told(store) == []
    train(setup(job))
    before = store.read(checkpoint_path(12))
    longer = {"schedule": {"n_epochs": 2}, "model": {"lambda_a": 5.0}}
    train(setup(record_change(reopen_training(store, overrides=longer))))
    assert told(store) == []

    store.publish(snapshot_path(6), b"x")
    store.publish(checkpoint_path(16), before)
    text = store.read(change_path(1))
    store.publish(change_path(1), text.replace(b"5.0", b"6.0"))
    assert told(store) == [
        "changes/000001.json: was changed: its fingerprint is not that of the training in it",
        "checkpoints/step-000000016.pt: is not a checkpoint of this training",
        f"{snapshot_path(6)}: cannot be read: not a readable state dict (.safetensors or .pth)",
    ]
    store.publish(change_path(1), b"{")
    assert told(store)[0].startswith(f"changes: cannot be read: {store.url}/changes/000001.json is damaged: ")
