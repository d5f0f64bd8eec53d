"""Photographs that are done again with other options: versions are kept, and each row says what made it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Invoked
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.console.progress import SHOWN_FAILURES
from jobs.driver.job import Job, create_or_open, reopen
from jobs.driver.parts import grow, unfinished_parts
from jobs.driver.redo import Redone, redo
from jobs.driver.run import run, worker_setup
from jobs.errors import UsageError
from jobs.inspect.explain import explain
from jobs.inspect.report import build_report
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.adapted import read_adapted
from jobs.ledger.job_record import JobRecord, read_job
from jobs.ledger.layout import adapted_path, listing_path, part_folder, part_path
from jobs.ledger.marks import change_marks
from jobs.ledger.parts import other_options, part_store, parts_of
from jobs.spec import job_from_table
from jobs.stores.filesystems import STANDARD_STORAGE
from jobs.stores.part_store import PartStore, reached
from jobs.stores.store import LocalStore, Part, Store
from nst.errors import OptionError
from nst.methods import METHODS
from tests.chaos import InlinePool
from tests.conftest import encoded, picture
from tests.counted import rows_that_count
from tests.jobs.made_jobs import AskedStore, finish, key, made_job
from tests.jobs.reports import Report
from tests.methods import REGISTRY


def begin(folder: Path, **changes: Any) -> Job:
    table = {
        "photos": "photos",
        "output": "out",
        "method": {"kind": "stub", "change": 0.5},
        "image": {"format": "png"},
        "resources": {"pool": "local", "shard_size": 2},
        **changes,
    }
    return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)


def do(job: Job) -> int:
    return run(job, pool=InlinePool(worker_setup(job))).exit_code


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Of six photographs, all done."""
    (tmp_path / "photos").mkdir()
    for number in range(6):
        (tmp_path / f"photos/{number}.jpg").write_bytes(encoded(picture(number, 24, 16)))
    job = begin(tmp_path)
    assert do(job) == 0
    return job


def again(job: Job, keys: Sequence[str], **options: Any) -> Redone:
    told: list[Redone] = []
    for part in redo(job, keys, options, tell=told.append, registry=REGISTRY):
        assert do(part) == 0
    return told[-1]


def contents(store: Store) -> dict[str, bytes]:
    return {path: store.read(path) for path in store.find()}


def counted(store: Store) -> dict[str, int]:
    return {each.key: each.part for each in rows_that_count(store)}


def options_of(store: Store) -> list[dict[str, object]]:
    first, *parts = parts_of(store)
    return [dict(other_options(read_job(first), read_job(part))) for part in parts]


def test_versions_are_kept_and_say_what_made_them(job: Job) -> None:
    before = contents(job.store)
    told = again(job, ["1", "4"], method={"change": 0.25}, seed=7)
    assert told == Redone(("1", "4"), (), {"method.change": 0.25, "seed": 7})
    assert counted(job.store) == {"0": 0, "2": 0, "3": 0, "5": 0, "1": 1, "4": 1}
    once = contents(job.store)
    assert {path: once[path] for path in before} == before
    assert once["images/1.png"] != once["parts/0001/images/1.png"], "another seed, another picture"
    again(job, ["4"], image={"format": "jpeg"})
    twice = contents(job.store)
    assert {path: twice[path] for path in once} == once
    assert counted(job.store) == {"0": 0, "2": 0, "3": 0, "5": 0, "1": 1, "4": 2}
    assert options_of(job.store) == [{"method.change": 0.25, "seed": 7}, {"image.format": "jpeg"}]
    outputs = {each.key: each.output for each in rows_that_count(job.store)}
    assert (outputs["1"], outputs["4"]) == ("parts/0001/images/1.png", "parts/0002/images/4.jpg")
    assert list(verify(job.store)) == []
    status = job_status(job.store)
    assert (status.rows, status.done, status.state) == (6, 6, "complete")
    lines = list(explain(job.store, "4"))
    assert any("done again, in" in line and "method.change = 0.25" in line for line in lines)
    assert any("picture: parts/0002/images/4.jpg" in line for line in lines)
    job.store.publish("parts/0002/curves/4.parquet", b"of a method that records them")
    assert "curve: parts/0002/curves/4.parquet" in list(explain(job.store, "4"))
    job.store.remove("parts/0002/curves/4.parquet")
    report = Report(build_report(job.store))
    assert report.row("4")["full"]["after"] == "parts/0002/images/4.jpg"
    assert {row["problem"] for row in report.rows} == {""}


def test_the_same_again_is_nothing_to_do(job: Job) -> None:
    again(job, ["1"], method={"change": 0.25})
    assert again(job, ["1", "2"], method={"change": 0.25}) == Redone(("2",), ("1",), {"method.change": 0.25})
    assert again(job, ["1", "2"], method={"change": 0.25}).keys == ()
    assert again(job, ["0"]).already == ("0",)
    assert len(parts_of(job.store)) == 3
    assert again(job, ["1"]).keys == ("1",), "as at first, after it was otherwise"


def test_one_that_was_cut_off_is_finished_and_not_begun_again(job: Job) -> None:
    next(redo(job, ["1", "2", "3"], {"seed": 3}, registry=REGISTRY))
    assert job_status(job.store).state == "unfinished"
    assert counted(job.store) == dict.fromkeys("012345", 0), "until it is done, the former pictures count"
    assert again(job, ["1", "2", "3"], seed=3).keys == ()
    assert len(parts_of(job.store)) == 2
    assert list(verify(job.store)) == []


@pytest.mark.parametrize("where", ["redo", "collection"])
def test_a_part_that_another_begins_while_they_are_looked_at_is_no_error(
    job: Job, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Job] = []

    def is_overtaken(store: Store) -> list[Store]:
        found = parts_of(store)
        if not begun:
            begun.append(job)
            begun.append(next(redo(job, ["5"], {"seed": 9}, registry=REGISTRY)))
        return found

    monkeypatch.setattr(f"jobs.driver.{where}.parts_of", is_overtaken)
    if where == "redo":
        assert again(job, ["1"], seed=3).keys == ("1",)
    else:
        assert [do(part) for part in grow(job, again=True, registry=REGISTRY)] == [0]
    assert counted(job.store)["5"] == 1
    assert list(verify(job.store)) == []


def test_what_cannot_be_done_again_is_refused(job: Job) -> None:
    before = contents(job.store)
    with pytest.raises(UsageError, match="no photograph with the key 'nobody'"):
        again(job, ["1", "nobody"], seed=1)
    with pytest.raises(OptionError, match="delay_s"):
        again(job, ["1"], method={"delay_s": -1})
    with pytest.raises(OptionError, match="unknown"):
        again(job, ["1"], method={"kind": "stub", "strength": 1})
    assert contents(job.store) == before


def test_a_failure_takes_no_picture_away(job: Job, tmp_path: Path) -> None:
    (tmp_path / "photos/1.jpg").write_text("none any more")
    for part in redo(job, ["1"], {"seed": 1}, registry=REGISTRY):
        assert do(part) == 3
    assert counted(job.store)["1"] == 0
    assert job_status(job.store).counts["ok"] == 6
    assert list(verify(job.store)) == []


def test_status_reads_few_of_many_failures_again(tmp_path: Path) -> None:
    """Of a million photographs, half of which failed, and a few were done again."""
    job = made_job(tmp_path, 20 * 97, shard_size=97)
    finish(job, range(20))
    for part in redo(job, [key(5), key(97 + 5)], {"seed": 9}, registry=REGISTRY):
        finish(part, [0])
    store = AskedStore(job.store.url)
    status = job_status(store)
    assert (status.rows, status.counts) == (20 * 97, {"ok": 20 * 96 + 2, "failed": 18, "quarantined": 0})
    assert [each.row for each in status.failures] == [97 * shard + 5 for shard in range(2, 12)]
    receipts = [path for path in store.asked if path.startswith("results/")]
    assert len(receipts) <= 20 + 2 * (SHOWN_FAILURES + 2), "each for its counts, and those that are named"
    everything = job_status(job.store, all_failures=True)
    assert (everything.counts, len(everything.failures)) == (status.counts, 18)


def test_photographs_that_came_later_are_done_again_too(job: Job, tmp_path: Path) -> None:
    (tmp_path / "photos/6.jpg").write_bytes(encoded(picture(6, 24, 16)))
    for part in grow(job, registry=REGISTRY):
        assert do(part) == 0
    again(job, ["0", "6"], seed=5)
    assert {key: part for key, part in counted(job.store).items() if part} == {"0": 2, "6": 2}
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    there = reopen(LocalStore(str(moved)), registry=REGISTRY)
    again(there, ["6"], seed=6)
    assert counted(there.store)["6"] == 3
    assert list(unfinished_parts(there, registry=REGISTRY)) == []
    assert list(verify(there.store)) == []


@pytest.mark.parametrize("harm", ["picture", "receipt", "record", "foreign"])
def test_faults_of_parts_are_found(job: Job, tmp_path: Path, harm: str) -> None:
    again(job, ["1"], seed=2)
    part = tmp_path / "out/parts/0001"
    path = {
        "picture": "images/1.png",
        "receipt": "results/shard-00000.parquet",
        "record": "job.json",
        "foreign": "images/2.png",
    }[harm]
    if harm == "record":
        (part / path).write_text((part / path).read_text().replace('"seed": 2', '"seed": 3'))
    else:
        (part / path).write_bytes(b"harm")
    assert f"parts/0001/{path}" in [fault.path for fault in verify(job.store)]


def test_a_part_is_no_job_to_name(job: Job, tmp_path: Path) -> None:
    again(job, ["1"], seed=2)
    with pytest.raises(UsageError, match=r"parts/0001 is a part of the job around it"):
        reopen(LocalStore(str(tmp_path / "out/parts/0001")), registry=REGISTRY)


def test_records_of_other_jobs_are_as_they_were(job: Job) -> None:
    table = json.loads(job.store.read("job.json"))
    assert "part" not in table
    assert JobRecord.from_json(table).to_bytes() == job.store.read("job.json")


def test_a_part_is_another_name_for_the_same_objects(tmp_path: Path) -> None:
    whole = LocalStore(str(tmp_path))
    new, old = part_store(whole, 1, "new"), part_store(whole, 2, "again")
    new.publish("images/a.jpg", b"a")
    old.publish("images/a.jpg", b"b")
    new.publish("job.json", b"{}", create_only=True)
    with pytest.raises(FileExistsError):
        new.publish("job.json", b"other", create_only=True)
    assert sorted(whole.find()) == ["images/a.jpg", "parts/0001/job.json", "parts/0002/images/a.jpg"]
    assert (new.names(""), old.names("images"), list(new.find())) == (["job.json"], ["a.jpg"], ["job.json"])
    assert (new.read("images/a.jpg"), old.read("images/a.jpg")) == (b"a", b"b")
    assert (new.exists("images/a.jpg"), new.exists("images/b.jpg")) == (True, False)
    assert new.place("job.json") == f"{tmp_path}/parts/0001/job.json"
    same = reached(new, STANDARD_STORAGE)
    assert isinstance(same, PartStore)
    assert same.part == Part("parts/0001", ("images", "curves", "frames"))
    with new.open("job.json") as opened:
        assert opened.read() == b"{}"
    age = new.age_s("job.json")
    assert age is not None
    assert age < 60
    new.remove("job.json")
    assert not whole.exists("parts/0001/job.json")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("parts/0001/job.json", (1, "job.json")),
        ("parts/12345/images/a/b.jpg", (12345, "images/a/b.jpg")),
        ("parts/00001/job.json", None),
        ("parts/1/job.json", None),
        ("parts/0001", None),
        ("images/parts/0001/a.jpg", None),
    ],
)
def test_paths_of_parts(path: str, found: tuple[int, str] | None) -> None:
    assert part_path(path) == found
    assert found is None or path == f"{part_folder(found[0])}/{found[1]}"
    assert listing_path("ab" * 32, 7) == f"listing-{'ab' * 8}-7.parquet"


def test_what_the_network_has_learned_is_kept(tmp_path: Path) -> None:
    """A part paints with what the job's network learned, unless it is to learn with other options."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.jpg").write_bytes(encoded(picture(0, 24, 16)))
    job = begin(tmp_path, method={"kind": "learner", "adapt_steps": 3})
    job.store.publish(adapted_path(job.fingerprint), b'{"steps": 3}')
    (tmp_path / "photos/1.jpg").write_bytes(encoded(picture(1, 24, 16)))
    part = next(grow(job, registry=REGISTRY))
    assert part.store.read(adapted_path(part.fingerprint)) == b'{"steps": 3}'
    finer = part_of(job, "0", image={"quality": 80})
    assert finer.store.exists(adapted_path(finer.fingerprint))
    longer = part_of(job, "0", method={"adapt_steps": 4})
    assert not longer.store.exists(adapted_path(longer.fingerprint))


def test_two_that_open_a_part_at_once_both_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before either holds the lease: one has just given it what the job's network learned."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.jpg").write_bytes(encoded(picture(0, 24, 16)))
    job = begin(tmp_path, method={"kind": "learner", "adapt_steps": 3})
    job.store.publish(adapted_path(job.fingerprint), b'{"steps": 3}')
    (tmp_path / "photos/1.jpg").write_bytes(encoded(picture(1, 24, 16)))

    def is_overtaken(store: Store, fingerprint: str) -> bytes | None:
        data = read_adapted(store, fingerprint)
        if store.part is not None and data is None:
            store.publish(adapted_path(fingerprint), b'{"steps": 3}')
        return data

    monkeypatch.setattr("jobs.driver.parts.read_adapted", is_overtaken)
    part = next(grow(job, registry=REGISTRY))
    assert part.store.read(adapted_path(part.fingerprint)) == b'{"steps": 3}'


def part_of(job: Job, key: str, **options: Any) -> Job:
    *_, last = redo(job, [key], options, registry=REGISTRY)
    return last


# The command line


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Invoked]:
    """Runs `nst`, in one process, in a folder with six photographs and a job file."""
    monkeypatch.setitem(METHODS._places, "stub", "tests.methods:Stub")  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.driver.run.open_pool", lambda _resources, setup, _assets: InlinePool(setup))
    (tmp_path / "photos").mkdir()
    for number in range(6):
        (tmp_path / f"photos/{number}.jpg").write_bytes(encoded(picture(number, 24, 16)))
    (tmp_path / "job.toml").write_text(
        'photos = "photos"\noutput = "out"\n[method]\nkind = "stub"\n[resources]\npool = "local"\n'
    )
    return lambda *words: CliRunner().invoke(app, [*map(str, words)])


def test_photographs_that_cannot_be_listed_are_no_success(
    ask: Callable[..., Invoked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever runs it every night hears nothing. What is left of the job is done first."""

    def fail(error: Exception) -> None:
        def listed(*_: object) -> None:
            raise error

        monkeypatch.setattr("jobs.driver.collection.listed", listed)

    assert ask("run", "job.toml").exit_code == 0
    (tmp_path / "photos/6.jpg").write_bytes(encoded(picture(6, 24, 16)))
    assert ask("run", "job.toml").exit_code == 0
    (receipt,) = tmp_path.glob("out/parts/0001/results/*")
    receipt.unlink()
    fail(OSError("NoCredentialsError: Unable to locate credentials"))
    told = ask("run", "job.toml")
    said = f"{tmp_path}/photos cannot be listed, and no photograph is added: NoCredentialsError: Unable"
    assert (told.exit_code, said in told.stderr, receipt.exists()) == (4, True, True), told.output
    assert ask("run", "job.toml", "--no-new").exit_code == 0, "nothing was to be done"
    fail(OptionError("photos", "photos", reason="there is no such folder"))
    gone = ask("run", "job.toml")
    assert (gone.exit_code, "there is no such folder" in gone.stdout) == (0, True), "what is done stays done"


def test_the_commands(ask: Callable[..., Invoked], tmp_path: Path) -> None:
    assert ask("run", "job.toml").exit_code == 0
    plain = ask("status", "out").stdout
    assert "part" not in plain
    (tmp_path / "photos/6.jpg").write_bytes(encoded(picture(6, 24, 16)))
    (tmp_path / "photos/0.jpg").unlink()
    (tmp_path / "photos/1.jpg").write_bytes(encoded(picture(77, 30, 30)))
    told = ask("run", "job.toml", "--no-new")
    assert told.exit_code == 0, told.output
    assert f"do with: nst resume {tmp_path}/out --new {tmp_path}/out-2" in told.stdout
    assert not (tmp_path / "out/parts").exists()
    grown = ask("run", "job.toml")
    assert grown.exit_code == 0, grown.output
    lines = grown.stdout.splitlines()
    assert f"1 photograph of {tmp_path}/photos came after the job was begun, and is added to it: 6" in lines
    assert (
        f"1 photograph of this job is not at {tmp_path}/photos any more; what was made of it stays: 0" in lines
    )
    assert any("and is left as it is; --changed does it again: 1" in line for line in lines), lines
    assert any(line.endswith(f"{tmp_path}/out/parts/0001") for line in lines)
    changed = ask("run", "job.toml", "--changed", "--log-format", "json")
    events = {line["event"]: line for line in map(json.loads, changed.stdout.splitlines())}
    assert events["photos_changed"]["keys"] == ["1"]
    assert (changed.exit_code, (tmp_path / "out/parts/0002/images/1.jpg").exists()) == (0, True)
    change_marks(LocalStore(str(tmp_path / "out")), {"2": "again", "3": "keep", "gone": "again"})
    done = ask("redo", "out", "--marked", "again", "--set", "seed=9")
    assert done.exit_code == 0, done.output
    assert "1 photograph is done again with seed = 9: 2" in done.stdout
    twice = ask("redo", "out", "--marked", "again", "--set", "seed=9")
    assert "1 photograph is left: last made with seed = 9, too: 2" in twice.stdout
    assert ask("verify", "out").stdout == "no faults: every row once, every picture as it was made\n"
    status = ask("status", "out").stdout
    assert "part 1" in status
    assert "seed = 9" in " ".join(status.split())
    assert json.loads(ask("status", "out", "--json").stdout)["rows"] == 7
    for command in (("resume", "out"), ("gc", "out"), ("report", "out"), ("retry", "out")):
        assert ask(*command).exit_code == 0, command
    assert "done again" in ask("explain", "out", "2").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("redo", "out", "--set", "seed=1"), "--marked"),
        (
            ("redo", "out", "--marked", "again", "--key", "1"),
            "says which photographs are done again. ",
        ),
        (("redo", "out", "--marked", "maybe"), "keep, reject, again"),
        (("redo", "out", "--marked", "again"), "no photograph of this job has this mark"),
        (("redo", "out", "--key", "1", "--set", "photos=other"), "method.*"),
        (("redo", "out", "--key", "1", "--set", "seed.x=2"), "method.*"),
        (("redo", "out", "--key", "x", "--set", "seed=2"), "no photograph with the key 'x'"),
    ],
)
def test_redo_asked_for_wrongly(ask: Callable[..., Invoked], words: tuple[str, ...], said: str) -> None:
    assert ask("run", "job.toml").exit_code == 0
    done = ask(*words)
    assert done.exit_code == 2, done.output
    assert said in done.output
