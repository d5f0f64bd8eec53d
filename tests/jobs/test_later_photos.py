"""Photographs that come after a job was begun: they are told, and the advice leads on until all are done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jobs.driver.job import Job, create_or_open, plan, reopen
from jobs.driver.photos import job_of_later_photos, later_photos
from jobs.driver.run import run, worker_setup
from jobs.inspect.status import job_status
from jobs.ledger.receipts import Ledger
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from nst.errors import OptionError
from tests.chaos import InlinePool
from tests.conftest import encoded, picture
from tests.methods import REGISTRY


def put(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(picture(number)))


def file(folder: Path, **changes: Any) -> Any:
    table = {"photos": "photos", "output": "photos/out", "method": {"kind": "stub"}, **changes}
    return job_from_table(table, folder, REGISTRY)


def begun(folder: Path, **changes: Any) -> Job:
    return create_or_open(file(folder, **changes), REGISTRY)


def done(job: Job) -> list[str]:
    assert run(job, pool=InlinePool(worker_setup(job))).exit_code == 0
    ledger = Ledger(job.store)
    return [result.key for shard in sorted(ledger.done()) for result in ledger.receipt(shard)[0]]


def next_of(job: Job, output: str) -> Job:
    return create_or_open(job_of_later_photos(job.store, output, {}, REGISTRY), REGISTRY)


def test_the_advice_leads_on_until_every_photograph_is_done_once(tmp_path: Path) -> None:
    put(tmp_path / "photos", "a.jpg", "sub/b.jpg")
    first = begun(tmp_path)
    assert done(first) == ["a", "sub/b"]
    assert later_photos(first) is None
    put(tmp_path / "photos", "c.jpg", "sub/d.jpg", "a.png")
    found = later_photos(reopen(first.store, registry=REGISTRY))
    assert found is not None
    assert (found.count, found.keys) == (3, ("a.png", "c", "sub/d"))
    assert found.output == f"{tmp_path}/photos/out-2"
    second = next_of(first, found.output)
    assert done(second) == ["a.png", "c", "sub/d"]
    assert second.spec.method == first.spec.method
    again = later_photos(first)
    assert again is not None
    assert again.output == found.output, "these are done: the same advice again does nothing twice"
    assert done(next_of(first, again.output)) == ["a.png", "c", "sub/d"]
    assert later_photos(second) is None
    put(tmp_path / "photos", "e.jpg")
    third = later_photos(second)
    assert third is not None
    assert (third.keys, third.output) == (("e",), f"{tmp_path}/photos/out-3")
    assert done(next_of(second, third.output)) == ["e"]


def test_there_may_be_nothing_new(tmp_path: Path) -> None:
    put(tmp_path / "photos", "a.jpg")
    first = begun(tmp_path)
    with pytest.raises(
        OptionError, match=r"no photographs found; .*left out: 1 \(1 photographs\): in the jobs"
    ):
        next_of(first, f"{tmp_path}/photos/out-2")
    with pytest.raises(OptionError, match=r"not_in = '.*nowhere': .* is no job: it has no job.json"):
        plan(file(tmp_path, output="other", not_in=["nowhere"]))


def test_a_folder_with_other_things_is_not_advised(tmp_path: Path) -> None:
    put(tmp_path / "photos", "a.jpg")
    first = begun(tmp_path, output="out")
    put(tmp_path / "photos", "b.jpg")
    (tmp_path / "out-2").mkdir()
    (tmp_path / "out-2/thesis.doc").write_text("years of work")
    begun(tmp_path, output="out-3", seed=4)
    found = later_photos(first)
    assert found is not None
    assert found.output == f"{tmp_path}/out-4"


def test_photographs_that_were_moved_are_not_new(tmp_path: Path) -> None:
    put(tmp_path / "photos", "a.jpg", "sub/b.jpg")
    first = begun(tmp_path, output="out")
    os.rename(tmp_path / "photos", tmp_path / "gone")
    assert later_photos(first) is None, "what is done stays done"
    (tmp_path / "photos").symlink_to(tmp_path / "gone")
    assert later_photos(first) is None


def test_what_is_left_out_is_said_and_kept(tmp_path: Path) -> None:
    put(tmp_path / "photos", "a.jpg", "._a.jpg")
    (tmp_path / "photos/notes.txt").write_text("-")
    begun(tmp_path, output="photos/other", photos=["photos/a.jpg"])
    planned = plan(file(tmp_path))
    said = {
        "left out: 1 (1 .txt): no photographs, by their names and first bytes",
        "left out: 1 (1 ._*): hidden, or thumbnails and other helpers of programs; hidden = true takes them",
        "left out: 1 (1 other/): folders of other jobs and of previews; hidden = true takes them",
    }
    assert {note for note in planned.notes if "CPUs busy" not in note} == said
    assert (planned.manifest.rows, planned.left_out.count) == (1, 3)
    job = begun(tmp_path)
    assert {note for note in job.notes if "CPUs busy" not in note} == said
    assert said <= set(job_status(LocalStore(job.store.url)).notes)


def test_other_listing_options_are_another_job(tmp_path: Path) -> None:
    put(tmp_path / "photos", "a.jpg", "b.png")
    assert begun(tmp_path, exclude=["*.png"]).manifest.rows == 1
    with pytest.raises(Exception, match=r"exclude: \['\*\.png'\] in the folder, None asked for"):
        begun(tmp_path)
