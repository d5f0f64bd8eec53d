"""`job.json` of both kinds: read as it was written before, written as it was read, refused where it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import JobError, UsageError
from jobs.inspect.status import job_status
from jobs.ledger.job_record import PHOTOS, TRAINING, JobRecord, job_kind, read_job
from jobs.ledger.manifest import ManifestInfo
from jobs.spec import ImageSpec, fingerprint, job_from_table, job_to_table
from jobs.stores.store import LocalStore
from jobs.training.job_file import train_fingerprint, train_from_table, train_to_table
from jobs.training.status import train_status

RECORDS = Path(__file__).parents[1] / "fixtures/job_records"
"""As version 0.1.0 wrote them, when it knew a record as a table."""
STYLIZING = ("style_transfer", "deepdream")
TRAININGS = ("train_cyclegan", "train_styles")


def text_of(name: str) -> bytes:
    return (RECORDS / f"{name}.json").read_bytes()


def stored(folder: Path, data: bytes) -> LocalStore:
    store = LocalStore(str(folder / "job"))
    store.publish("job.json", data)
    return store


def changed(name: str, change: Callable[[dict[str, Any]], object]) -> bytes:
    table = json.loads(text_of(name))
    change(table)
    return json.dumps(table, indent=2).encode()


def kind_of(name: str) -> str | None:
    return TRAINING if name in TRAININGS else None


@pytest.mark.parametrize("name", [*STYLIZING, *TRAININGS])
def test_a_record_is_written_as_it_was_read(tmp_path: Path, name: str) -> None:
    store = stored(tmp_path, text_of(name))
    assert job_kind(store) == kind_of(name)
    assert read_job(store, kind_of(name)).to_bytes() == text_of(name)


@pytest.mark.parametrize("name", [*STYLIZING, *TRAININGS])
def test_what_is_not_known_here_survives(tmp_path: Path, name: str) -> None:
    def add(table: dict[str, Any]) -> None:
        table["job"]["later"] = {"a": [1, {"b": None}]}
        table["later"] = {"c": 1.5}
        table["unknown"] = "é"

    text = changed(name, add)
    record = read_job(stored(tmp_path, text), kind_of(name))
    assert record.unknown == {"later": {"c": 1.5}, "unknown": "é"}
    assert record.to_bytes() == text


def test_what_a_job_of_photographs_says(tmp_path: Path) -> None:
    store = stored(tmp_path, text_of("style_transfer"))
    record, table = read_job(store), json.loads(text_of("style_transfer"))
    assert record.kind is None
    assert record.job == table["job"]
    assert list(record.digests) == ["style[0]", "style[1]", "weights"]
    assert record.assets["weights"].url == "nst:embedded"
    assert record.manifest == ManifestInfo(5, 5, 1, table["manifest"]["sha256"])
    assert record.manifests == {PHOTOS: record.manifest}
    assert (record.seed, record.method["kind"]) == (7, "style_transfer")
    assert record.image == ImageSpec(max_side_px=None, format="png")
    assert record.storage.deadline_s == 90
    found = job_status(store)
    assert (found.kind, found.created, found.rows, found.shards) == ("style_transfer", record.created, 5, 5)


def test_what_a_training_says(tmp_path: Path) -> None:
    store = stored(tmp_path, text_of("train_styles"))
    record = read_job(store, TRAINING)
    assert {name: info.rows for name, info in record.manifests.items()} == {
        "photo": 5,
        "ukiyo-e": 3,
        "pastel": 2,
    }
    assert record.notes == ()
    found = train_status(store)
    assert (found.kind, found.photos["pastel"], found.training) == ("train cyclegan", 2, "modulated")


@pytest.mark.parametrize("name", STYLIZING)
def test_a_begun_job_is_the_same_job_today(name: str) -> None:
    record = JobRecord.from_json(json.loads(text_of(name)))
    table = job_to_table(job_from_table(record.job, Path("/nowhere")))
    assert table == record.job
    assert fingerprint(table, record.digests, record.manifest.sha256) == record.fingerprint


@pytest.mark.parametrize("name", TRAININGS)
def test_a_begun_training_is_the_same_training_today(name: str) -> None:
    record = JobRecord.from_json(json.loads(text_of(name)))
    table = train_to_table(train_from_table(record.job, Path("/nowhere")))
    digests = {name: info.sha256 for name, info in record.manifests.items()}
    assert train_fingerprint(table, digests) == record.fingerprint
    assert train_fingerprint(record.job, digests) == record.fingerprint


def test_records_from_before_object_stores_had_options(tmp_path: Path) -> None:
    record = read_job(stored(tmp_path, changed("deepdream", lambda table: table["job"].pop("storage"))))
    assert record.storage.deadline_s == 90


def test_of_no_job(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "job"))
    with pytest.raises(UsageError, match=r"job is no job: it has no job\.json"):
        read_job(store)
    (tmp_path / "job").write_text("a file")
    with pytest.raises(UsageError, match="is no job"):
        job_kind(store)


def test_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds a job of another kind: it is a training"):
        read_job(stored(tmp_path / "a", text_of("train_styles")))
    with pytest.raises(UsageError, match="holds a job of another kind: it stylizes photographs"):
        read_job(stored(tmp_path / "b", text_of("deepdream")), TRAINING)
    strange = stored(tmp_path / "c", b'{"format": 1, "kind": "bake bread"}')
    assert job_kind(strange) == "bake bread"
    with pytest.raises(UsageError, match="of another kind: it bake bread"):
        read_job(strange)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is damaged: Expecting value"),
        (b"\xff\xfe\x00", r"is damaged: .*(codec|Expecting)"),
        (text_of("deepdream")[:-100], "is damaged: "),
        (b"[]", "is damaged: it is no table"),
        (b"{}", "has format None; this program reads 1"),
        (b'{"format": 2, "kind": "x"}', "has format 2; this program reads 1"),
        (b'{"format": 1}', r"is damaged: \w+: Field required"),
        (b'{"format": 1, "kind": []}', "is damaged: kind: no text"),
        (changed("deepdream", lambda table: table.pop("created")), "is damaged: created: Field required"),
        (changed("deepdream", lambda table: table.pop("manifest")), "is damaged: manifest: Field required"),
        (
            changed("deepdream", lambda table: table["manifest"].pop("rows")),
            r"is damaged: manifest\.rows: Field required",
        ),
        (
            changed("deepdream", lambda table: table["manifest"].update(rows="many")),
            r"is damaged: manifest\.rows: Input should be a valid integer",
        ),
        (changed("deepdream", lambda table: table.update(assets=[])), "is damaged: assets: Input should be"),
        (changed("deepdream", lambda table: table.update(notes=[1])), r"is damaged: notes\.0: Input should be"),
        (changed("deepdream", lambda table: table.update(job=None)), "is damaged: job: Input should be"),
        (changed("deepdream", lambda table: table["job"].pop("image")), r"is damaged: job\.image: no table"),
        (
            changed("deepdream", lambda table: table["job"].update(seed="7")),
            r"is damaged: job\.seed: no number",
        ),
        (
            changed("deepdream", lambda table: table["job"]["method"].pop("kind")),
            r"is damaged: job\.method\.kind: no text",
        ),
    ],
)
def test_what_is_no_record_is_refused_with_its_reason(tmp_path: Path, data: bytes, said: str) -> None:
    store = stored(tmp_path, data)
    with pytest.raises(UsageError, match=said) as caught:
        read_job(store)
    assert str(caught.value).startswith(f"{store.url}/job.json")
    assert isinstance(caught.value, JobError)
    assert caught.value.exit_code == 2
