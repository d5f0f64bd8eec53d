"""What is done to a photograph, with a store, a setup, and any function that stylizes; without a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from jobs.ledger.manifest import Row
from jobs.ledger.results import Result
from jobs.spec import ImageSpec
from jobs.stores.filesystems import STANDARD_STORAGE
from jobs.stores.store import LocalStore
from jobs.worker.messages import Task, WorkerSetup
from jobs.worker.pipeline import Loaded
from jobs.worker.stages import TaskStages
from nst.images.codec import decode_image
from nst.stylizer import Outcome, Stylized
from tests.conftest import encoded, picture
from tests.methods import Stub


def inverted(batch: Sequence[Loaded]) -> list[Outcome | Exception]:
    return [Stylized(1 - loaded.photo.image) for loaded in batch]


def test_a_photograph_goes_through_the_stages(tmp_path: Path) -> None:
    data = encoded(picture(0, 40, 20))
    (tmp_path / "a.png").write_bytes(data)
    store = LocalStore(str(tmp_path / "out"))
    setup = WorkerSetup(
        output=store.url,
        storage=STANDARD_STORAGE,
        create_only=True,
        method=Stub(),
        image=ImageSpec(format="png"),
        seed=1,
        fingerprint="f",
        batch_size=1,
        load_threads=1,
        save_threads=1,
        threads=1,
        num_gpus=0,
    )
    stages = TaskStages(Task(id=0, shard=0, attempts=3), store, setup, inverted)
    row = Row(index=7, key="a", url=str(tmp_path / "a.png"), size_bytes=len(data))
    loaded = stages.load(row)
    assert isinstance(loaded, Loaded)
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    (outcome,) = stages.compute([loaded])
    assert isinstance(outcome, Stylized)
    result = stages.save(loaded, outcome, compute_s=2.5)
    assert (result.row, result.status, result.attempts, result.compute_s) == (7, "ok", 3, 2.5)
    assert result.output is not None
    published = store.read(result.output)
    assert hashlib.sha256(published).hexdigest() == result.output_sha256
    assert torch.allclose(decode_image(published), 1 - loaded.photo.image, atol=1 / 255)

    strange = stages.failed(row, RuntimeError("no such brush: '\udcff'"))  # which no receipt can hold
    assert strange.error == "no such brush: '\\udcff'"

    gone = stages.load(Row(index=8, key="b", url=str(tmp_path / "b.png"), size_bytes=9))
    assert isinstance(gone, Result)
    assert (gone.row, gone.status, gone.attempts, gone.error_type) == (8, "failed", 3, "FileNotFoundError")

    jpeg = encoded(picture(0, 40, 20), "JPEG")
    (tmp_path / "c.jpg").write_bytes(jpeg[:-2])  # without its end marker
    odd = stages.load(Row(index=9, key="c", url=str(tmp_path / "c.jpg"), size_bytes=len(jpeg) - 2))
    assert isinstance(odd, Loaded)
    marked = stages.save(odd, Stylized(odd.photo.image, {"loss": 2.0}), compute_s=0.1)
    assert (marked.status, marked.stats) == ("ok", {"loss": 2.0, "no_end_marker": 1.0})

    large = encoded(picture(0, 300, 200), "JPEG")
    cut = len(large) // 2
    (tmp_path / "d.jpg").write_bytes(large[:cut])  # without its lower half
    row = Row(index=10, key="d", url=str(tmp_path / "d.jpg"), size_bytes=cut)
    refused = stages.load(row)
    assert isinstance(refused, Result)
    assert refused.error_type == "DecodeError"
    keeping = replace(setup, image=ImageSpec(format="png", truncated="keep"))
    half = TaskStages(Task(id=1, shard=0), store, keeping, inverted).load(row)
    assert isinstance(half, Loaded)
    assert half.photo.marks == ("truncated",)

    (tmp_path / "e.png").write_bytes(encoded(picture(0, 16_384, 1)))
    long = replace(setup, image=ImageSpec(format="webp", max_side_px=None))
    row = Row(index=11, key="e", url=str(tmp_path / "e.png"), size_bytes=None)
    unfit = TaskStages(Task(id=2, shard=0), store, long, inverted).load(row)
    assert isinstance(unfit, Result), "not painted first"
    assert unfit.error is not None
    assert "format = 'webp': cannot have 16384 x 1 pixels" in unfit.error
