"""Looking after a job: every injected fault is found, nothing in a clean job, and only garbage goes."""

from __future__ import annotations

import gc
import io
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.driver.job import Job, create_or_open
from jobs.driver.run import worker_setup
from jobs.errors import LeaseHeld, UsageError
from jobs.inspect.explain import explain
from jobs.inspect.garbage import collect_garbage
from jobs.inspect.verify import Fault, verify
from jobs.ledger.layout import receipt_path
from jobs.ledger.lease import STANDARD_LEASE, hold
from jobs.ledger.manifest import Row
from jobs.ledger.receipts import JournalWriter, Ledger
from jobs.ledger.results import Result, write_receipt
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from jobs.worker.messages import Task
from jobs.worker.worker import Worker
from tests.conftest import encoded, picture
from tests.methods import RAISE, REGISTRY


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished job of 42 photographs in 6 shards, two of them without a picture, some with curves."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "photos/deeper").mkdir(parents=True)
    for number in range(40):
        place = folder / "photos" / ("deeper" if number % 3 else "")
        (place / f"photo {number:02d}.jpg").write_bytes(encoded(picture(number)))
    (folder / "photos/raises.jpg").write_bytes(encoded(picture(5, RAISE, 40)))
    (folder / "photos/text.jpg").write_text("no picture")
    table = {
        "photos": "photos",
        "output": "out",
        "method": {"kind": "stub", "curve": True},
        "resources": {"pool": "local", "shard_size": 7},
    }
    job = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
    worker = Worker(worker_setup(job), {})
    for shard in range(job.manifest.shards):
        assert worker.run(Task(id=shard, shard=shard)).sealed
    for path in list(job.store.find()):  # a few curves and intermediate pictures are enough
        if path.startswith(("curves/", "frames/")) and "0" not in path.rpartition("photo ")[2][:2]:
            job.store.remove(path)
    return job


@pytest.fixture
def store(job: Job) -> Iterator[LocalStore]:
    """The job's store; what a test does to it is undone."""
    assert isinstance(job.store, LocalStore)
    before = contents(job.store)
    yield job.store
    for path in set(contents(job.store)) - set(before):
        job.store.remove(path)
    for path, data in before.items():
        (job.store.root / path).write_bytes(data)


def contents(store: LocalStore) -> dict[str, bytes]:
    return {path: store.read(path) for path in store.find()}


def test_a_clean_job_has_no_faults(store: LocalStore) -> None:
    assert len(contents(store)) > 40 + 6 + 2
    assert list(verify(store)) == []


# Each takes the store and a seeded random source, does harm, and says which path must be named.

Harm = Callable[[LocalStore, random.Random], str]


def pictures(store: LocalStore) -> list[str]:
    return sorted(path for path in store.find("images"))


def some_receipt(chance: random.Random) -> str:
    return receipt_path(chance.randrange(6))


def deleted(store: LocalStore, chance: random.Random) -> str:
    path = chance.choice(pictures(store))
    store.remove(path)
    return path


def swapped(store: LocalStore, chance: random.Random) -> str:
    one, other = chance.sample(pictures(store), 2)
    data = store.read(one)
    store.publish(one, store.read(other))
    store.publish(other, data)
    return one


def flipped(store: LocalStore, chance: random.Random) -> str:
    path = chance.choice(pictures(store))
    data = bytearray(store.read(path))
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    store.publish(path, bytes(data))
    return path


def curve_cut(store: LocalStore, chance: random.Random) -> str:
    path = chance.choice(sorted(store.find("curves")))
    data = store.read(path)
    store.publish(path, data[: chance.randrange(len(data))])
    return path


def foreign_curve(store: LocalStore, chance: random.Random) -> str:
    """Of no photograph, of one that failed, or under a name that none has."""
    key = chance.choice(["raises", "nobody", "deeper/photo 00", "photo 01"])
    path = chance.choice([f"curves/{key}.parquet", f"frames/{key}/00002.jpg", "frames/photo 00/2.jpg"])
    store.publish(path, store.read("curves/photo 00.parquet"))
    return path


def receipt_deleted(store: LocalStore, chance: random.Random) -> str:
    path = some_receipt(chance)
    store.remove(path)
    return path


def receipt_cut(store: LocalStore, chance: random.Random) -> str:
    path = some_receipt(chance)
    data = store.read(path)
    store.publish(path, data[: chance.randrange(len(data))])
    return path


def receipt_of_another(store: LocalStore, chance: random.Random) -> str:
    one, other = chance.sample(range(6), 2)
    store.publish(receipt_path(one), store.read(receipt_path(other)))
    return receipt_path(one)


def edited(store: LocalStore, path: str, change: Callable[[pa.Table], pa.Table]) -> str:
    """Rewrite a Parquet file, its metadata as it was."""
    footer = pq.read_metadata(io.BytesIO(store.read(path))).metadata
    table = pq.read_table(io.BytesIO(store.read(path)))
    out = io.BytesIO()
    pq.write_table(change(table).replace_schema_metadata({"nst": footer[b"nst"]}), out, row_group_size=7)
    store.publish(path, out.getvalue())
    return path


def without(place: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: pa.concat_tables([table.slice(0, place), table.slice(place + 1)])


def spoiled(column: str, place: int) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[place] = f"{values[place]}x"
        return table.set_column(table.schema.get_field_index(column), table.schema.field(column), [values])

    return change


def row_doubled(store: LocalStore, chance: random.Random) -> str:
    place = chance.randrange(7)
    return edited(
        store,
        some_receipt(chance),
        lambda table: pa.concat_tables([table, table.slice(place, 1)]),
    )


def row_missing(store: LocalStore, chance: random.Random) -> str:
    place = chance.randrange(7)
    return edited(
        store,
        some_receipt(chance),
        without(place),
    )


def value_edited(store: LocalStore, chance: random.Random) -> str:
    column = chance.choice(["key", "url", "error", "output", "output_sha256", "source_sha256", "worker_host"])
    place = chance.randrange(7)
    return edited(store, some_receipt(chance), spoiled(column, place))


def row_lost_honestly(store: LocalStore, chance: random.Random) -> str:
    """By a program that writes whole receipts, digest and counts and all, with a row too few or too many."""
    shard = chance.randrange(6)
    results, meta = Ledger(store).receipt(shard)
    if chance.random() < 0.5:
        results.pop(chance.randrange(7))
    else:
        results.append(Result(row=chance.choice([999, -1]), key="k", url="u", status="failed"))
    data = write_receipt(results, shard=shard, generation=0, fingerprint=meta["fingerprint"])
    store.publish(receipt_path(shard), data)
    return receipt_path(shard)


def tally_edited(store: LocalStore, chance: random.Random) -> str:
    """A footer that counts otherwise than its rows."""
    path = some_receipt(chance)
    table = pq.read_table(io.BytesIO(store.read(path)))
    meta = json.loads(pq.read_metadata(io.BytesIO(store.read(path))).metadata[b"nst"])
    name = chance.choice(["counts", "compared", "unchanged"])
    meta[name] = {**meta[name], "ok": 8} if name == "counts" else meta[name] + 1
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"nst": json.dumps(meta)}), out)
    store.publish(path, out.getvalue())
    return path


def manifest_edited(store: LocalStore, chance: random.Random) -> str:
    place, column = chance.randrange(42), chance.choice(["key", "url"])
    return edited(store, "manifest.parquet", spoiled(column, place))


def manifest_shortened(store: LocalStore, chance: random.Random) -> str:
    place = chance.randrange(42)
    return edited(
        store,
        "manifest.parquet",
        without(place),
    )


def manifest_cut(store: LocalStore, chance: random.Random) -> str:
    data = store.read("manifest.parquet")
    store.publish("manifest.parquet", data[: chance.randrange(len(data))])
    return "manifest.parquet"


def job_edited(store: LocalStore, chance: random.Random) -> str:
    record = json.loads(store.read("job.json"))
    if chance.random() < 0.5:
        record["job"]["seed"] += 1
    else:
        record["job"]["image"]["quality"] = chance.randrange(1, 90)
    store.publish("job.json", json.dumps(record).encode())
    return "job.json"


def foreign(store: LocalStore, chance: random.Random) -> str:
    folder = chance.choice(
        ["", "images/", "images/deeper/", "results/", "journal/", "journal/shard-00000/", "x/"]
    )
    path = f"{folder}{chance.choice(['foreign', 'shard-00099.parquet', 'photo.jpg', '.hidden'])}"
    store.publish(path, b"x")
    return path


HARMS: list[Harm] = [
    deleted,
    swapped,
    flipped,
    curve_cut,
    foreign_curve,
    receipt_deleted,
    receipt_cut,
    receipt_of_another,
    row_doubled,
    row_missing,
    tally_edited,
    value_edited,
    row_lost_honestly,
    manifest_edited,
    manifest_shortened,
    manifest_cut,
    job_edited,
    foreign,
]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_every_fault_is_found(store: LocalStore, harm: Harm) -> None:
    """8 of each kind: 136 in all."""
    before = contents(store)
    for seed in range(8):
        path = harm(store, random.Random(f"{harm.__name__} {seed}"))
        changed = {p for p, d in contents(store).items() if before.get(p) != d} | (
            set(before) - set(contents(store))
        )
        assert changed, f"{harm.__name__} {seed} did no harm"
        found = list(verify(store))
        assert path in {fault.path for fault in found}, f"{harm.__name__} {seed}: {path} not in {found}"
        for each in changed:
            if each in before:
                store.publish(each, before[each])
            else:
                store.remove(each)


def test_rows_are_let_go_shard_by_shard(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of millions of photographs."""

    def count() -> int:
        return sum(type(each) is Row for each in gc.get_objects())

    class Watched(Ledger):
        def receipt(self, shard: int) -> Any:
            alive.append(count() - before)
            return super().receipt(shard)

    monkeypatch.setattr("jobs.inspect.verify.Ledger", Watched)
    alive, before = list[int](), count()
    assert list(verify(store)) == []
    assert len(alive) == 6
    assert max(alive) < 2 * 7


def test_an_unfinished_shard_is_named_and_its_pictures_are_not(store: LocalStore) -> None:
    store.remove(receipt_path(2))
    (fault,) = verify(store)
    assert fault == Fault(receipt_path(2), "there is none: 7 photographs unfinished")


@pytest.mark.parametrize("how", ["at work", "cut off"])
def test_pictures_of_a_retry_are_no_faults(store: LocalStore, how: str) -> None:
    """It publishes them before its journal, and that before the receipt."""
    for path in ("images/raises.jpg", "frames/raises/00002.jpg"):
        store.publish(path, b"of a retry")
    assert {fault.path for fault in verify(store)} == {"images/raises.jpg", "frames/raises/00002.jpg"}
    shard = orphan_shard(store)
    assert shard is not None
    with hold(store, STANDARD_LEASE if how == "at work" else None):
        if how == "cut off":
            JournalWriter(store, shard, 1).death(row_of(store, "raises"), "crash")
        assert list(verify(store)) == []
        store.publish("images/nobody.jpg", b"of no photograph")
        assert [fault.path for fault in verify(store)] == ["images/nobody.jpg"]


def test_garbage_is_collected_and_nothing_else(store: LocalStore) -> None:
    clean = contents(store)
    journals = {path for path in clean if path.startswith("journal/")}
    assert journals
    orphans = {"images/raises.jpg", "curves/raises.parquet", "frames/raises/00002.jpg"}
    for orphan in orphans:
        store.publish(orphan, b"of a worker that died before it wrote its journal")
    for path in ("images/foreign.jpg", "curves/foreign.parquet", "frames/raises/foreign.jpg"):
        store.publish(path, b"not ours")
    JournalWriter(store, 5, 1).death(41, "crash")  # of a retry that is not finished
    kept = {path for path in contents(store) if path.startswith("journal/shard-00005/g1-")}
    store.remove(receipt_path(3))
    of_unfinished = {path for path in journals if path.startswith("journal/shard-00003/")}
    (store.root / ".tmp").mkdir(exist_ok=True)
    (store.root / ".tmp" / "elsewhere-1-aa").write_bytes(b"")
    foreign_orphans = set() if orphan_shard(store) == 5 else orphans

    before = contents(store)
    listed = collect_garbage(store, remove=False)
    assert contents(store) == before
    assert collect_garbage(store) == listed
    assert set(listed.journals) == journals - of_unfinished
    assert set(listed.pictures) == foreign_orphans
    assert set(before) - set(contents(store)) == set(listed.journals) | set(listed.pictures)
    assert kept <= set(contents(store))


def test_nothing_of_a_retry_in_work_is_garbage(store: LocalStore) -> None:
    for path in ("images/raises.jpg", "curves/raises.parquet", "frames/raises/00002.jpg"):
        store.publish(path, b"of a retry")
    assert len(collect_garbage(store, remove=False).pictures) == 3
    shard = orphan_shard(store)
    assert shard is not None
    JournalWriter(store, shard, 1).death(row_of(store, "raises"), "crash")
    assert collect_garbage(store, remove=False).pictures == ()


def test_garbage_of_a_running_job_is_not_removed(store: LocalStore) -> None:
    """A retry has a picture for a moment before its journal says so."""
    store.publish("images/raises.jpg", b"of a retry")
    before = contents(store)
    with hold(store, STANDARD_LEASE):
        assert collect_garbage(store, remove=False).pictures == ("images/raises.jpg",)
        with pytest.raises(LeaseHeld, match=r"is being worked on by process .*; nothing was removed") as held:
            collect_garbage(store)
        assert "--wait" not in str(held.value), "which this command has not"
        assert contents(store).keys() >= before.keys()
    assert collect_garbage(store).pictures == ("images/raises.jpg",)


def orphan_shard(store: LocalStore) -> int | None:
    for shard in Ledger(store).done():
        if any(result.key == "raises" for result in Ledger(store).receipt(shard)[0]):
            return shard
    return None


def test_explains_a_photograph(store: LocalStore) -> None:
    text = "\n".join(explain(store, "photo 00"))
    for part in ("photo 00: row ", "ok (journal, generation 0), attempt 1", "ok (receipt, generation 0)"):
        assert part in text
    for part in (
        *("images/photo 00.jpg", "worker: process", "load 0.", "mean 0."),
        "curve: curves/photo 00.parquet",
    ):
        assert part in text
    text = "\n".join(explain(store, "raises"))
    assert "RuntimeError: this one raises" in text
    assert "curve" not in text
    JournalWriter(store, orphan_shard(store) or 0, 0).death(row_of(store, "raises"), "crash")
    assert "a worker that ran it alone was gone: crash" in "\n".join(explain(store, "raises"))
    with pytest.raises(UsageError, match=r"has no photograph 'nobody'; keys are paths without extension"):
        list(explain(store, "nobody"))


def test_explains_by_path_url_file_name_or_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/x.jpg", "b/x.jpg", "b/y.jpg", "c/b.jpg/z.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(encoded(picture(0)))
    table = {"photos": "photos", "output": "out", "method": {"kind": "stub"}}
    store = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY).store
    monkeypatch.chdir(tmp_path)

    def explained(photo: str) -> str:
        return next(iter(explain(store, photo))).partition(":")[0]

    assert explained("b/y") == "b/y"
    assert explained("photos/b/y.jpg") == "b/y"
    assert explained(f"file://{tmp_path}/photos/a/x.jpg") == "a/x"
    assert explained("y.jpg") == "b/y"
    assert explained("out/images/a/x.jpg") == "a/x"
    with pytest.raises(UsageError, match=r"has 2 photographs 'x\.jpg'; tell them apart by key: 'a/x', 'b/x'"):
        explained("x.jpg")
    with pytest.raises(UsageError, match=r"has no photograph 'q'; keys are paths without extension$"):
        explained("q")
    with pytest.raises(UsageError, match=r"keys are paths without extension, such as 'a/x', 'b/x'$"):
        explained("x")


def row_of(store: LocalStore, key: str) -> int:
    shards = Ledger(store).done()
    found = itertools.chain.from_iterable(Ledger(store).receipt(shard)[0] for shard in shards)
    return next(result.row for result in found if result.key == key)


def test_commands(store: LocalStore) -> None:
    run = CliRunner().invoke
    clean = run(app, ["verify", store.url])
    assert (clean.exit_code, clean.output) == (0, "no faults: every row once, every picture as it was made\n")
    store.remove("images/photo 00.jpg")
    store.publish("images/evil\x1b[31m", b"")
    found = run(app, ["verify", store.url])
    assert found.exit_code == 5
    assert "images/photo 00.jpg (photo 00): the picture is not there" in found.output
    assert "\x1b" not in found.output
    assert "2 faults" in found.output
    lines = run(app, ["verify", "--json", store.url]).output.splitlines()
    assert {json.loads(line)["key"] for line in lines} == {"photo 00", None}
    assert run(app, ["gc", "--dry-run", store.url]).output.endswith(
        "0 orphaned pictures and curves would be removed\n"
    )
    assert run(app, ["explain", store.url, "photo 00"]).exit_code == 0
    missing = run(app, ["explain", store.url, "nobody"])
    assert missing.exit_code == 2


def test_of_no_job(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["verify", str(tmp_path)]).exit_code == 2
