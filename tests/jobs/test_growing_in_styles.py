"""Jobs in several styles grow, and photographs of them are done again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.driver.collection import Changes
from jobs.driver.job import Job, create_or_open
from jobs.driver.parts import grow
from jobs.driver.photos import later_photos
from jobs.driver.redo import redo
from jobs.inspect.verify import verify
from jobs.ledger.parts import manifests_of
from nst.errors import OptionError
from tests.counted import rows_that_count
from tests.jobs.test_growing import do
from tests.jobs.test_styles_jobs import file, put
from tests.methods import REGISTRY


def run_all(folder: Path, **changes: Any) -> tuple[Job, list[Changes]]:
    job_file = file(folder, **changes)
    job, told = create_or_open(job_file, REGISTRY), list[Changes]()
    assert do(job) == 0
    if not job.fresh:
        for part in grow(job, job_file.spec.places, tell=told.append, again=True, registry=REGISTRY):
            assert do(part) == 0
    return job, told


def check(job: Job, *keys: str) -> None:
    assert Counter(counted.key for counted in rows_that_count(job.store)) == Counter(keys)
    assert list(verify(job.store)) == []


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path) -> None:
    put(tmp_path, "photos/a.jpg", "photos/sub/b.jpg", "styles/rain.png", "styles/wave.png")


def test_what_came_later_is_done_in_every_style(tmp_path: Path) -> None:
    first = [f"{style}/{key}" for style in ("rain", "wave") for key in ("a", "sub/b")]
    check(run_all(tmp_path)[0], *first)
    put(tmp_path, "photos/c.jpg")
    put(tmp_path, "photos/a.jpg", width=32)
    job, (told,) = run_all(tmp_path)
    assert [photo.key for photo in told.new] == ["c"]
    assert sorted(photo.key for photo in told.changed) == ["rain/a", "wave/a"]
    check(job, *first, "rain/c", "wave/c")
    for style in ("rain", "wave"):
        assert (tmp_path / f"out/images/{style}/c.png").exists()
    assert later_photos(job) is None
    _, (told,) = run_all(tmp_path)
    assert told == Changes(told.places)


def test_one_style_is_drawn_for_each_that_came_later(tmp_path: Path) -> None:
    run_all(tmp_path, styles_per_photo="one")
    put(tmp_path, "photos/c.jpg")
    job, (told,) = run_all(tmp_path, styles_per_photo="one")
    assert [photo.key for photo in told.new] == ["c"]
    check(job, "a", "sub/b", "c")
    (row,) = manifests_of(job.store)[1].shard(0)
    assert row.style in ("rain", "wave")


def test_a_picture_is_done_again_in_its_style(tmp_path: Path) -> None:
    job, _ = run_all(tmp_path)
    for part in redo(job, ["wave/a"], {"seed": 7}, registry=REGISTRY):
        assert do(part) == 0
    (row,) = manifests_of(job.store)[1].shard(0)
    assert (row.key, row.style) == ("wave/a", "wave")
    assert list(verify(job.store)) == []
    with pytest.raises(OptionError, match=r"method.kind = 'stub' takes no pictures of styles"):
        list(redo(job, ["wave/a"], {"method": {"kind": "stub"}}, registry=REGISTRY))
