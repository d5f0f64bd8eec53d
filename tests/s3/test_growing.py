"""Collections that live in a bucket: what is done when photographs came, went and were changed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.driver.collection import Changes
from jobs.driver.job import Job
from jobs.driver.parts import grow
from jobs.driver.redo import redo
from jobs.driver.run import run, worker_setup
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.parts import parts_of
from nst.methods import METHODS
from tests.chaos import InlinePool
from tests.conftest import encoded, picture
from tests.counted import rows_that_count
from tests.methods import REGISTRY
from tests.s3.conftest import new_bucket, upload
from tests.s3.proxy import FaultProxy
from tests.s3.servers import Server
from tests.s3.test_jobs import begin, photographs

COUNT, CAME = 40, 10
GONE, CHANGED = ("0/p +0000", "1/p +0001"), "2/p +0002"
LATER = [f"later/{number}" for number in range(CAME)]


@pytest.fixture
def proxy(moto: Server) -> Iterator[FaultProxy]:
    """Counts what is asked of the store."""
    with FaultProxy(moto.port) as counting:
        yield counting


@pytest.fixture
def bucket(moto: Server) -> str:
    return photographs(moto, COUNT)


def opened(bucket: str, proxy: FaultProxy, **changes: Any) -> Job:
    return begin(bucket, proxy.url, resources={"shard_size": 8, "max_workers": 1}, **changes)


def do(job: Job) -> None:
    assert run(job, pool=InlinePool(worker_setup(job))).exit_code == 0


def first(bucket: str, proxy: FaultProxy) -> Job:
    """A job of all photographs, done."""
    job = opened(bucket, proxy)
    do(job)
    return job


def grown(job: Job, **options: Any) -> Changes:
    """What was told while it grew."""
    told: list[Changes] = []
    for part in grow(job, tell=told.append, registry=REGISTRY, **options):
        do(part)
    return told[0]


def live(server: Server, bucket: str, below: str = "") -> None:
    """Ten photographs come, two go, one is changed."""
    filesystem = s3fs.S3FileSystem(endpoint_url=server.url, use_listings_cache=False)
    filesystem.rm([f"{bucket}/{below}photos/{key}.jpg" for key in GONE])
    came = {f"{below}photos/{key}.jpg": encoded(picture(number)) for number, key in enumerate(LATER)}
    upload(server, bucket, {f"{below}photos/{CHANGED}.jpg": encoded(picture(500, 50, 50)), **came})


def copy(server: Server, place: str, to: str, *, move: bool = False) -> None:
    """All objects below a prefix, below another one; with `move` they are gone where they were."""
    filesystem = s3fs.S3FileSystem(endpoint_url=server.url, use_listings_cache=False)
    for path in filesystem.find(place):
        filesystem.cp_file(path, to + path.removeprefix(place))
        if move:
            filesystem.rm_file(path)


def check(job: Job, *parts: int) -> None:
    """Each photograph counts once; so many are of each part; all is well."""
    counted = rows_that_count(job.store)
    assert len({each.key for each in counted}) == len(counted) == COUNT + CAME
    assert {each.status for each in counted} == {"ok"}
    of = Counter(each.part for each in counted)
    assert [of[number] for number in range(len(parts_of(job.store)))] == list(parts)
    assert list(verify(job.store)) == []


def test_a_collection_that_has_changed(moto: Server, bucket: str, proxy: FaultProxy) -> None:
    before = first(bucket, proxy).store
    former = {path: before.read(path) for path in before.find()}
    live(moto, bucket)
    job = opened(bucket, proxy)
    told = grown(job, new=False)
    assert sorted(photo.key for photo in told.new) == LATER
    assert (sorted(told.gone), [photo.key for photo in told.changed]) == (list(GONE), [CHANGED])
    assert len(parts_of(job.store)) == 1, "it was only told"
    grown(job)
    check(job, COUNT, CAME)
    status = job_status(job.store)
    assert (status.rows, status.done, status.state, len(status.parts)) == (50, 50, "complete", 2)
    assert [photo.key for photo in grown(job, again=True).changed] == [CHANGED]
    check(job, COUNT - 1, CAME, 1)
    told = grown(job, again=True)
    assert (told.new, told.changed, len(parts_of(job.store))) == ((), (), 3)
    for part in redo(job, ["later/1", CHANGED], {"seed": 3}, registry=REGISTRY):
        do(part)
    check(job, COUNT - 1, CAME - 1, 0, 2)
    kept = {path: job.store.read(path) for path in job.store.find()}
    assert {path: kept.get(path) for path in former} == former
    images = [path for path in kept if path.endswith(".png")]
    assert len(images) == COUNT + CAME + 1 + 2, "every version is kept"


def test_how_often_the_store_is_asked(moto: Server, bucket: str, proxy: FaultProxy) -> None:
    """A photograph is read once and its picture is written once; what else is asked is of shards."""

    def asked() -> Counter[str]:
        found: Counter[str] = Counter()
        for (method, path), count in proxy.places.items():
            name = re.match(rf"/{bucket}/(photos|out/(?:parts/\d+/)?images)/.", path)
            found[f"{method} {name[1].rpartition('/')[2]}" if name else "other"] += count
        proxy.places.clear()
        return found

    job = opened(bucket, proxy)
    asked()
    do(job)
    shards = job.manifest.shards
    found = asked()
    assert (found["GET photos"], found["PUT images"]) == (COUNT, COUNT)
    assert found["other"] < 40 + 10 * shards, found
    live(moto, bucket)
    job = opened(bucket, proxy)
    asked()
    grown(job, again=True)
    found = asked()
    # To see what was changed all are read that kept their size; then what is done.
    assert found["GET photos"] == (COUNT - len(GONE) - 1) + CAME + 1
    assert found["PUT images"] == CAME + 1
    assert found["other"] < 400, found
    list(verify(job.store))
    assert asked()["GET images"] == COUNT + CAME + 1


@pytest.mark.s3
def test_a_job_that_was_copied_to_another_bucket_grows(moto: Server, bucket: str, proxy: FaultProxy) -> None:
    first(bucket, proxy)
    other = new_bucket(moto)
    copy(moto, bucket, f"{other}/archive/2026")
    live(moto, other, "archive/2026/")
    place = f"s3://{other}/archive/2026"
    job = opened(bucket, proxy, photos=f"{place}/photos", output=f"{place}/out")
    assert not job.fresh
    told = grown(job, given=(f"{place}/photos",), photos=f"{place}/photos", again=True)
    assert (len(told.new), sorted(told.gone), len(told.changed)) == (CAME, list(GONE), 1)
    check(job, COUNT - 1, CAME, 1)
    assert {each.url.rpartition("/photos/")[0] for each in rows_that_count(job.store)} == {f"s3://{bucket}"}, (
        "places are as the record has them"
    )
    old = opened(bucket, proxy)
    assert grown(old, again=True) == Changes((f"s3://{bucket}/photos",)), "the copy's parts are its own"
    assert len(parts_of(old.store)) == 1


@pytest.mark.s3
def test_a_prefix_that_was_renamed(moto: Server, bucket: str, proxy: FaultProxy) -> None:
    first(bucket, proxy)
    for now, parts in (("one", (COUNT, CAME)), ("another", (COUNT - 1, CAME, 1))):
        place = f"{bucket}/{now}"
        for name in ("photos", "out"):
            copy(moto, f"{bucket}/{'one/' if now == 'another' else ''}{name}", f"{place}/{name}", move=True)
        if now == "one":
            live(moto, bucket, "one/")
        photos = f"s3://{place}/photos"
        job = opened(bucket, proxy, photos=photos, output=f"s3://{place}/out")
        grown(job, given=(photos,), photos=photos, again=now == "another")
        check(job, *parts)


def test_what_each_command_says(
    moto: Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS._places, "stub", "tests.methods:Stub")  # type: ignore[attr-defined]
    monkeypatch.setattr("jobs.driver.run.open_pool", lambda _resources, setup, _assets: InlinePool(setup))
    monkeypatch.chdir(tmp_path)
    place, reach = f"s3://{bucket}", ("--set", f"storage.endpoint_url={moto.url}")
    (tmp_path / "job.toml").write_text(
        f'photos = "{place}/photos"\noutput = "{place}/out"\n[method]\nkind = "stub"\n'
        f'[resources]\npool = "local"\nshard_size = 8\n[storage]\nendpoint_url = "{moto.url}"\n'
    )

    def said(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*words], env={"COLUMNS": "300"})
        assert done.exit_code == code, done.output
        return done.output

    assert "40 of 40" in said("run", "job.toml")
    live(moto, bucket)
    assert f"do with: nst resume {place}/out --new {place}/out-2" in said("run", "job.toml", "--no-new")
    told = said("run", "job.toml")
    assert (
        f"10 photographs of {place}/photos came after the job was begun, and are added to it: later/0" in told
    )
    assert (
        f"2 photographs of this job are not at {place}/photos any more; what was made of them stays: " in told
    )
    assert f"1 photograph of {place}/photos changed since the job was begun, and is left as it is" in told
    assert f"{place}/out/parts/0001" in told
    assert "and is done again: 2/p +0002" in said("run", "job.toml", "--changed")
    out = (f"{place}/out", *reach)
    assert "1 photograph is done again with seed = 9: later/3" in said(
        "redo", *out, "--key", "later/3", "--set", "seed=9"
    )
    assert "1 photograph is left: last made with" in said("redo", *out, "--key", "later/3", "--set", "seed=9")
    assert json.loads(said("status", *out, "--json"))["rows"] == COUNT + CAME
    status = " ".join(said("status", *out).split())
    assert "part 3" in status
    assert "seed = 9" in status
    assert said("verify", *out) == "no faults: every row once, every picture as it was made\n"
    assert "done again" in said("explain", f"{place}/out", "later/3", *reach)
    for command in ("resume", "gc", "report", "retry"):
        said(command, *out)
    assert said("verify", *out).startswith("no faults")
