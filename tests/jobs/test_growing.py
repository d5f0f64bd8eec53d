"""Collections that live: a finished job grows by what came later, and former results stay as they are."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.driver import parts
from jobs.driver.collection import Changes, changes_of
from jobs.driver.job import Job, create_or_open, reopen
from jobs.driver.parts import grow, retries, unfinished_parts
from jobs.driver.photos import later_photos
from jobs.driver.redo import Redone, redo
from jobs.driver.run import run, worker_setup
from jobs.errors import JobMismatch, LeaseHeld
from jobs.inspect.explain import explain
from jobs.inspect.garbage import collect_garbage
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.lease import hold
from jobs.ledger.parts import manifest_of, parts_of
from jobs.ledger.receipts import Ledger
from jobs.spec import JobFile, job_from_table
from jobs.stores.store import LocalStore, Store
from tests.chaos import InlinePool
from tests.conftest import encoded, picture
from tests.counted import rows_that_count
from tests.methods import RAISE, REGISTRY


def put(folder: Path, *numbers: int, seed: int = 0) -> None:
    for number in numbers:
        place = folder / "photos" / ("deeper" if number % 3 == 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"photo {number:03d}.jpg").write_bytes(encoded(picture(number + seed, 24, 16)))


def file(folder: Path, **changes: Any) -> JobFile:
    table = {
        "photos": "photos",
        "output": "out",
        "method": {"kind": "stub"},
        "resources": {"pool": "local", "shard_size": 4},
        **changes,
    }
    return job_from_table(table, folder, REGISTRY)


def do(job: Job, work: Any = None) -> int:
    return run(job, work, pool=InlinePool(worker_setup(job))).exit_code


def run_all(file: JobFile, **options: Any) -> tuple[Job, list[Changes]]:
    """As `nst run` does it."""
    job, told = create_or_open(file, REGISTRY), list[Changes]()
    assert do(job) in (0, 3)
    if not job.fresh:
        photos = file.spec.photos if isinstance(file.spec.photos, str) else None
        for part in grow(job, file.spec.places, photos=photos, tell=told.append, registry=REGISTRY, **options):
            assert do(part) in (0, 3)
    return job, told


def contents(store: Store) -> dict[str, bytes]:
    return {path: store.read(path) for path in store.find()}


def check(store: Store, *keys: str) -> None:
    """Exactly these photographs have exactly one row that counts, and all is well."""
    assert Counter(counted.key for counted in rows_that_count(store)) == Counter(keys)
    assert list(verify(store)) == []


def names(*numbers: int) -> list[str]:
    return [f"deeper/photo {n:03d}" if n % 3 == 2 else f"photo {n:03d}" for n in numbers]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Of 40 photographs, all done."""
    put(tmp_path, *range(40))
    return run_all(file(tmp_path))[0]


def live(folder: Path) -> None:
    """Ten photographs come, two go, one is changed."""
    put(folder, *range(40, 50))
    for number in (0, 2):
        (folder / f"photos/{names(number)[0]}.jpg").unlink()
    (folder / "photos/photo 003.jpg").write_bytes(encoded(picture(999, 30, 20)))


def test_a_collection_that_has_changed(job: Job, tmp_path: Path) -> None:
    before = contents(job.store)
    live(tmp_path)
    _, (told,) = run_all(file(tmp_path))
    assert sorted(photo.key for photo in told.new) == sorted(names(*range(40, 50)))
    assert sorted(told.gone) == sorted(names(0, 2))
    assert [photo.key for photo in told.changed] == names(3)
    after = contents(job.store)
    assert {path: after.get(path) for path in before} == before, "former files are as they were"
    assert f"images/{names(41)[0]}.jpg" in after, "its pictures lie with the others"
    check(job.store, *names(*range(50)))
    status = job_status(job.store)
    assert (status.rows, status.done, status.state, len(status.parts)) == (50, 50, "complete", 2)
    assert later_photos(job) is None
    _, (told,) = run_all(file(tmp_path))
    assert (told.new, len(parts_of(job.store))) == ((), 2)


def test_it_grows_twice_and_what_was_changed_is_done_again(job: Job, tmp_path: Path) -> None:
    live(tmp_path)
    run_all(file(tmp_path))
    before = contents(job.store)
    put(tmp_path, 50, 51)
    _, (told,) = run_all(file(tmp_path), again=True)
    assert [photo.key for photo in told.changed] == names(3)
    assert len(parts_of(job.store)) == 4
    after = contents(job.store)
    assert {path: after[path] for path in before} == before
    check(job.store, *names(*range(52)))
    (now,) = [each for each in rows_that_count(job.store) if each.key == "photo 003"]
    assert (now.part, now.output) == (3, "parts/0003/images/photo 003.jpg")
    assert after["images/photo 003.jpg"] != after["parts/0003/images/photo 003.jpg"]
    assert run_all(file(tmp_path), again=True)[1][0].changed == (), "it is as it was done last"
    (tmp_path / "photos/photo 004.jpg").write_bytes(
        bytes(len(data := (tmp_path / "photos/photo 004.jpg").read_bytes()) * [0])[: len(data)]
    )
    assert changes_of(job).changed == ()
    assert [photo.key for photo in changes_of(job, by_digest=True).changed] == names(4)


def test_a_listing_that_lags_behind_has_nothing_done_twice(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(tmp_path)
    run_all(file(tmp_path), again=True)
    names_of = LocalStore.names
    monkeypatch.setattr(
        LocalStore, "names", lambda self, path: [] if "parts/" in path else names_of(self, path)
    )
    assert changes_of(job, by_digest=True).changed == ()
    monkeypatch.undo()
    (tmp_path / "photos/photo 003.jpg").write_bytes(encoded(picture(998, 30, 20)))
    assert [photo.key for photo in changes_of(job, by_digest=True).changed] == names(3)


def test_it_need_not_grow(job: Job, tmp_path: Path) -> None:
    live(tmp_path)
    before = contents(job.store)
    _, (told,) = run_all(file(tmp_path), new=False)
    assert len(told.new) == 10
    assert contents(job.store) == before
    later = later_photos(job)
    assert later is not None
    assert later.count == 10


def test_a_job_that_was_moved_grows(job: Job, tmp_path: Path) -> None:
    assert job.fresh
    home = tmp_path / "elsewhere"
    home.mkdir()
    for name in ("photos", "out"):
        (tmp_path / name).rename(home / name)
    live(home)
    moved, (told,) = run_all(file(home))
    assert (len(told.new), len(told.gone), len(told.changed)) == (10, 2, 1)
    assert moved.store.url == str(home / "out")
    check(moved.store, *names(*range(50)))
    again = home.rename(tmp_path / "once more")
    put(again, 50)
    run_all(file(again))
    check(LocalStore(str(again / "out")), *names(*range(51)))
    later = reopen(LocalStore(str(again / "out")), registry=REGISTRY)
    assert changes_of(later).new == ()


def test_photographs_alone_were_moved(job: Job, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "all of them")
    _, (told,) = run_all(file(tmp_path, photos="all of them"))
    assert told == Changes((f"{tmp_path}/all of them",))
    (tmp_path / "all of them").rename(tmp_path / "photos")
    live(tmp_path)
    (tmp_path / "photos").rename(tmp_path / "others")
    run_all(file(tmp_path, photos="others"))
    check(job.store, *names(*range(50)))


def test_another_collection_is_refused(job: Job, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "kept")
    put(tmp_path, *range(30, 70))
    (tmp_path / "photos").rename(tmp_path / "strange")
    with pytest.raises(JobMismatch, match="does not hold the photographs of this job"):
        run_all(file(tmp_path, photos="strange"))
    several = sorted(str(path) for path in (tmp_path / "strange").glob("*.jpg"))
    with pytest.raises(JobMismatch, match=r"does not hold .* of 40 are there as they were"):
        run_all(file(tmp_path, photos=several))
    assert len(parts_of(job.store)) == 1


def test_photographs_that_a_shell_names(tmp_path: Path) -> None:
    put(tmp_path, 0, 1, 3, 4)
    given = lambda: sorted(str(path) for path in (tmp_path / "photos").glob("*.jpg"))  # noqa: E731
    first, _ = run_all(file(tmp_path, photos=given()))
    put(tmp_path, 6, 7)
    (tmp_path / "photos/photo 001.jpg").unlink()
    _, (told,) = run_all(file(tmp_path, photos=given()))
    assert ([photo.key for photo in told.new], told.gone) == (names(6, 7), ("photo 001",))
    check(first.store, *names(0, 1, 3, 4, 6, 7))


def test_photographs_of_one_name(tmp_path: Path) -> None:
    """A name that is taken is no reason to leave a photograph out; one that changed its case is the same."""
    photos = tmp_path / "photos"
    put(tmp_path, 0, 1)
    (photos / "photo 000.jpg").rename(photos / "a.jpg")
    first, _ = run_all(file(tmp_path))
    (photos / "a.png").write_bytes(encoded(picture(5), "PNG"))
    (photos / "a").write_bytes(encoded(picture(6), "PNG"))
    (photos / "photo 001.jpg").rename(photos / "Photo 001.JPG")
    _, (told,) = run_all(file(tmp_path))
    assert (len(told.new), told.gone) == (2, ())
    counted = rows_that_count(first.store)
    assert len(counted) == len({result.key for result in counted}) == 4
    assert list(verify(first.store)) == []


def test_an_unfinished_part_is_finished_before_another_is_begun(job: Job, tmp_path: Path) -> None:
    put(tmp_path, *range(40, 50))
    part = next(grow(job, registry=REGISTRY))
    do(part, [])
    assert job_status(job.store).state == "unfinished"
    assert any(
        "10 photographs" in fault.problem or "unfinished" in fault.problem for fault in verify(job.store)
    )
    put(tmp_path, 50)
    run_all(file(tmp_path))
    assert len(rows_that_count(job.store)) == 51
    assert len(parts_of(job.store)) == 3
    check(job.store, *names(*range(51)))


def test_a_part_that_was_begun_and_not_listed(job: Job, tmp_path: Path) -> None:
    put(tmp_path, *range(40, 44))
    next(grow(job, registry=REGISTRY))
    (tmp_path / "out/parts/0001/manifest.parquet").unlink()
    put(tmp_path, 44)
    (tmp_path / "photos/photo 040.jpg").unlink()
    assert later_photos(job) is not None
    assert "its shard is not finished" in list(explain(job.store, "photo 040"))
    assert collect_garbage(job.store, remove=False).pictures == ()
    run_all(file(tmp_path))
    counted = {each.key: each.status for each in rows_that_count(job.store)}
    assert counted.pop("photo 040") == "failed", "it went before it was done"
    assert set(counted) == set(names(*range(40), 41, 42, 43, 44))
    assert list(verify(job.store)) == []


def test_two_that_grow_at_once(job: Job, tmp_path: Path) -> None:
    """One begins the part; the other one goes on with it, or is refused while the first one is at it."""
    put(tmp_path, *range(40, 60))
    ends: list[str] = []
    ready = threading.Barrier(2)

    def one() -> None:
        ready.wait()
        try:
            for part in grow(job, lease=None, registry=REGISTRY):
                do(part)
            ends.append("done")
        except LeaseHeld:
            ends.append("refused")

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "done" in ends
    run_all(file(tmp_path))
    check(job.store, *names(*range(60)))


def test_who_is_quicker_begins_the_part(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between that a part's number was taken and that it is begun, another process begins it, with a photograph
    more. Its record stays, and what is new is looked for anew."""
    put(tmp_path, 40, 41)
    begin, others = parts.begin_part, list[Job]()

    def late(*arguments: Any) -> bool:
        monkeypatch.setattr(parts, "begin_part", begin)
        put(tmp_path, 42)
        others.append(next(grow(job, lease=None, registry=REGISTRY)))
        put(tmp_path, 43)
        return begin(*arguments)

    monkeypatch.setattr(parts, "begin_part", late)
    for part in grow(job, lease=None, registry=REGISTRY):
        assert do(part) == 0
    assert [len(store_rows(store)) for store in parts_of(job.store)] == [40, 3, 1]
    assert do(others[0]) == 0, "it finds all done"
    check(job.store, *names(*range(44)))


def test_who_is_quicker_does_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, wanted = parts.begin_part, names(1, 2)

    def late(*arguments: Any) -> bool:
        monkeypatch.setattr("jobs.driver.redo.begin_part", begin)
        other = next(redo(job, names(2, 3), {"seed": 5}, lease=None, registry=REGISTRY))
        assert len(store_rows(other.store)) == 2
        return begin(*arguments)

    monkeypatch.setattr("jobs.driver.redo.begin_part", late)
    told: list[Redone] = []
    for part in redo(job, wanted, {"seed": 5}, tell=told.append, lease=None, registry=REGISTRY):
        assert do(part) == 0
    assert (list(told[-1].keys), list(told[-1].already)) == (names(1), names(2))
    counted = {each.key: each.part for each in rows_that_count(job.store) if each.part}
    assert counted == dict(zip(names(1, 2, 3), (2, 1, 1), strict=True))
    check(job.store, *names(*range(40)))


def store_rows(store: Store) -> list[str]:
    return list(manifest_of(store).column("key"))


@pytest.mark.parametrize("how", ["grown", "done again"])
def test_parts_that_come_while_it_is_verified_are_no_faults(job: Job, tmp_path: Path, how: str) -> None:
    """Which takes hours of a million photographs."""

    class Growing(LocalStore):
        def find(self, folder: str = "") -> Iterator[str]:
            if len(parts_of(job.store)) == 1:
                put(tmp_path, 40)
                options: dict[str, Any] = {"seed": 9}
                again = redo(job, names(1), options, registry=REGISTRY)
                for part in grow(job, registry=REGISTRY) if how == "grown" else again:
                    assert do(part) == 0
                job.store.publish("parts/0002/images/foreign.jpg", b"of no part")
                job.store.publish("images/foreign.jpg", b"of no photograph")
            return super().find(folder)

    found = {fault.path for fault in verify(Growing(job.store.url))}
    assert found == {"parts/0002/images/foreign.jpg", "images/foreign.jpg"}


def test_nobody_else_may_be_at_the_job(job: Job, tmp_path: Path) -> None:
    put(tmp_path, 40)
    from jobs.ledger.lease import STANDARD_LEASE

    with hold(job.store, STANDARD_LEASE), pytest.raises(LeaseHeld):
        next(grow(job, registry=REGISTRY))
    growing: Iterator[Job] = grow(job, registry=REGISTRY)
    next(growing)
    with pytest.raises(LeaseHeld):
        run(job)
    growing.close()  # type: ignore[attr-defined]
    assert do(job) == 0


def test_what_failed_is_tried_again_wherever_it_is(tmp_path: Path) -> None:
    put(tmp_path, 0, 1)
    (tmp_path / "photos/bad.jpg").write_text("none")
    job, _ = run_all(file(tmp_path))
    (tmp_path / "photos/raises.jpg").write_bytes(encoded(picture(5, RAISE, 40)))
    run_all(file(tmp_path))
    assert job_status(job.store).counts == {"ok": 2, "failed": 2, "quarantined": 0}
    assert [each.key for each in job_status(job.store).failures] == ["bad", "raises"]
    for name in ("bad", "raises"):
        (tmp_path / f"photos/{name}.jpg").write_bytes(encoded(picture(9)))
    with pytest.raises(Exception, match="no failed photograph has the key 'photo 000'"):
        list(retries(job, ["photo 000"], registry=REGISTRY))
    for part, work in retries(job, registry=REGISTRY):
        assert do(part, work) in (0, 3)
    assert job_status(job.store).counts == {"ok": 4, "failed": 0, "quarantined": 0}
    check(job.store, "photo 000", "photo 001", "bad", "raises")


def test_garbage_of_parts(tmp_path: Path) -> None:
    put(tmp_path, 0, 1)
    job, _ = run_all(file(tmp_path))
    (tmp_path / "photos/bad.jpg").write_text("none")
    run_all(file(tmp_path))
    job.store.publish("images/bad.jpg", b"left by a worker that died")
    found = collect_garbage(job.store, remove=False)
    assert found.pictures == ("images/bad.jpg",)
    assert {path.partition("/")[0] for path in found.journals} == {"journal", "parts"}
    collect_garbage(job.store)
    assert [path for path in job.store.find() if "journal" in path or "listing" in path] == []
    check(job.store, "photo 000", "photo 001", "bad")
    os.makedirs(tmp_path / "out/parts/0002")
    (tmp_path / "out/parts/0002/thesis.doc").write_text("years of work")
    assert [fault.path for fault in verify(job.store)] == ["parts/0002/thesis.doc"]


def test_unfinished_parts_are_told(job: Job, tmp_path: Path) -> None:
    put(tmp_path, 40, 41)
    next(grow(job, registry=REGISTRY))
    (part,) = unfinished_parts(job, registry=REGISTRY)
    assert (do(part), Ledger(part.store).done()) == (0, {0})
    assert list(unfinished_parts(job, registry=REGISTRY)) == []
