"""Receipts and journals: one row each, once."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.cli.running import reach
from jobs.console.display import describe_failures
from jobs.console.progress import end_notes
from jobs.driver.todo import retry_work
from jobs.errors import StoreError, UsageError
from jobs.inspect.garbage import collect_garbage
from jobs.ledger.layout import receipt_path
from jobs.ledger.manifest import Row
from jobs.ledger.receipts import JournalWriter, Ledger, read_journal, read_journal_part, seal
from jobs.ledger.results import (
    SCHEMA,
    Result,
    Status,
    Tally,
    add_up,
    image_seed,
    read_receipt,
    receipt_tally,
    results_digest,
    tally,
    write_receipt,
)
from jobs.stores.filesystems import StorageOptions
from jobs.stores.store import LocalStore
from tests.jobs.made_jobs import key, made_job, result_of


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path))


def rows(count: int, start: int = 0) -> list[Row]:
    return [Row(start + n, f"k{start + n}", f"/in/{start + n}.jpg", None) for n in range(count)]


def result(row: int, status: str = "ok", **columns: object) -> Result:
    plain = {"row": row, "key": f"k{row}", "url": f"/in/{row}.jpg", "status": status, "finished_at": float(row)}
    return Result(**{**plain, **columns})  # type: ignore[arg-type]


def test_a_receipt_survives_parquet() -> None:
    full = result(
        3,
        output="images/k3.jpg",
        width=5,
        height=6,
        source_sha256="aa",
        output_sha256="bb",
        seed=2**63 - 1,
        attempts=2,
        load_s=0.1,
        compute_s=0.2,
        save_s=0.3,
        stats={"loss": 1.5},
        worker_host="h",
        worker_pid=7,
        finished_at=1234567890.25,
    )
    bad = result(1, "failed", error_type="DecodeError", error="no picture: \x00 é")
    data = write_receipt([full, bad], shard=4, generation=1, fingerprint="ff")
    found, meta = read_receipt(data)
    assert found == [bad, full]
    assert meta == {
        "shard": 4,
        "generation": 1,
        "fingerprint": "ff",
        "counts": {"ok": 1, "failed": 1, "quarantined": 0},
        "compared": 0,
        "unchanged": 0,
        "digest": results_digest(found),
    }
    assert receipt_tally(data) == Tally({"ok": 1, "failed": 1, "quarantined": 0})


def test_a_tally_knows_the_pictures_that_are_as_their_photographs() -> None:
    level = 1 / 255
    rows = [result(0, stats={"change": 0.0}), result(1, stats={"change": 0.49 * level, "loss": 1.0})]
    rows += [result(2, stats={"loss": 0.0}), result(3, "failed", stats={"change": 0.0})]
    counts: dict[Status, int] = {"ok": 3, "failed": 1, "quarantined": 0}
    assert tally(rows) == Tally(counts, compared=2, unchanged=2)
    assert receipt_tally(write_receipt(rows, shard=0, generation=0, fingerprint="")) == tally(rows)
    rows += [result(4, stats={"change": 0.5 * level}), result(5, stats={"change": math.nan})]
    assert tally(rows) == Tally({**counts, "ok": 5}, compared=4, unchanged=2)
    assert add_up([tally(rows[:1]), tally(rows[1:5]), tally(rows[5:])]) == tally(rows)
    assert Tally.from_json({"counts": counts}) == Tally(counts), "of a receipt from before"


def test_the_first_failures_are_named_and_the_rest_counted(store: LocalStore) -> None:
    """Only receipts that have failures are read, and no more of these than are wanted."""
    reads: list[str] = []
    for shard in range(4):
        statuses = ["ok"] * 5 if shard == 1 else ["ok", "failed", "ok", "quarantined", "failed"]
        results = [
            result(5 * shard + n, status, error=f"{'long ' * 60}{5 * shard + n}")
            for n, status in enumerate(statuses)
        ]
        seal(store, shard, rows(5, 5 * shard), results, generation=0, fingerprint="f")
    ledger = Ledger(store)
    tallies = dict(enumerate(ledger.tallies(range(4))))
    read = store.read
    store.read = lambda path: reads.append(path) or read(path)  # type: ignore[method-assign,func-returns-value]
    first = ledger.failures(tallies, 4)
    assert [failure.row for failure in first] == [1, 3, 4, 11]
    assert sorted(reads) == [receipt_path(0), receipt_path(2)]
    assert [failure.row for failure in ledger.failures(tallies, 100)] == [1, 3, 4, 11, 13, 14, 16, 18, 19]

    elsewhere = StorageOptions(endpoint_url="https://s3.example.org")
    lines = describe_failures(first, add_up(tallies.values()).counts, ["/my photos/out", *reach(elsewhere)])
    assert lines[1].startswith("quarantined: k3: long long")
    assert all(len(line) < 200 for line in lines)
    told = "nst status '/my photos/out' --set 'storage.endpoint_url=\"https://s3.example.org\"' --failed"
    assert lines[-1] == f"and 5 more; all of them: {told}"
    everything = ledger.failures(tallies, 100)
    assert len(describe_failures(everything, add_up(tallies.values()).counts, ["/out"])) == 9


def test_what_is_said_of_pictures_that_are_as_their_photographs() -> None:
    counts: dict[Status, int] = {"ok": 12, "failed": 1, "quarantined": 0}
    options = {"steps", "weights", "network", "style_weight"}
    (note,) = end_notes(Tally(counts, 12, 12), options)
    assert note == (
        "all 12 pictures are as their photographs: nothing was painted; see style_weight, network, weights"
    )
    assert end_notes(Tally(counts, 1, 1), ()) == ("the picture is as its photograph: nothing was painted",)
    assert end_notes(Tally(counts, 12, 11), options) == end_notes(Tally(counts), options) == ()


def test_a_receipt_refuses_two_results_for_a_row_and_damage() -> None:
    with pytest.raises(ValueError, match="two results"):
        write_receipt([result(1), result(1)], shard=0, generation=0, fingerprint="")
    data = write_receipt([result(1)], shard=0, generation=0, fingerprint="")
    for broken in (b"", b"PAR1", data[: len(data) // 2], data[:-40] + bytes(40)):
        with pytest.raises(ValueError, match="not a receipt"):
            read_receipt(broken)


def test_receipts_read_together_as_one_table(store: LocalStore) -> None:
    for shard in range(3):
        mine = rows(2, start=2 * shard)
        status = "failed" if shard == 1 else "ok"
        results = [result(row.index, status, stats={"loss": 1.0} if shard else {}) for row in mine]
        seal(store, shard, mine, results, generation=0, fingerprint="f")
    table = pq.read_table(store.root / "results")
    assert table.schema.remove_metadata() == SCHEMA
    assert sorted(table["row"].to_pylist()) == list(range(6))


def test_done_is_what_exists(store: LocalStore) -> None:
    ledger = Ledger(store)
    assert ledger.done() == set()
    seal(store, 7, rows(1), [result(0)], generation=0, fingerprint="f")
    store.publish("results/notes.txt", b"-")
    JournalWriter(store, 9, 0).results([result(0)])
    assert ledger.done() == {7}
    assert ledger.begun() == {9}
    assert ledger.counts([7]) == [{"ok": 1, "failed": 0, "quarantined": 0}]


def test_a_receipt_is_sealed_once(store: LocalStore) -> None:
    seal(store, 0, rows(1), [result(0, error="first")], generation=0, fingerprint="f")
    seal(store, 0, rows(1), [result(0, error="second")], generation=0, fingerprint="f")
    assert Ledger(store).receipt(0)[0][0].error == "first"


def test_a_receipt_needs_exactly_one_result_per_row(store: LocalStore) -> None:
    with pytest.raises(ValueError, match="1 rows have no result"):
        seal(store, 0, rows(2), [result(0)], generation=0, fingerprint="f")
    with pytest.raises(ValueError, match="cannot be sealed"):
        seal(store, 0, rows(1), [result(0), result(1)], generation=0, fingerprint="f")
    assert Ledger(store).done() == set()


def test_a_retry_changes_only_what_it_did_again(store: LocalStore) -> None:
    before = [result(0), result(1, "failed", attempts=2), result(2, "quarantined", attempts=3)]
    seal(store, 0, rows(3), before, generation=0, fingerprint="f")
    again = [result(1, output="images/k1.jpg")]
    seal(store, 0, rows(3), again, generation=1, fingerprint="f")
    found, meta = Ledger(store).receipt(0)
    assert meta["generation"] == 1
    assert found == [before[0], replace(again[0], attempts=3), before[2]]
    seal(store, 0, rows(3), [result(1, "failed")], generation=1, fingerprint="f")  # came too late
    assert Ledger(store).receipt(0)[0] == found


def test_a_damaged_receipt_is_an_error_that_names_it(store: LocalStore) -> None:
    store.publish(receipt_path(3), b"torn")
    with pytest.raises(StoreError, match=r"shard-00003\.parquet"):
        Ledger(store).receipt(3)


def test_the_journal_collects_parts_of_all_writers(store: LocalStore) -> None:
    first, second = JournalWriter(store, 5, 0), JournalWriter(store, 5, 0)
    first.results([result(0), result(1)])
    second.results([result(2)])
    first.results([result(3)])
    second.death(4, "crash")
    second.death(4, "crash")
    JournalWriter(store, 5, 1).results([result(9)])
    JournalWriter(store, 6, 0).results([result(8)])
    journal = read_journal(store, 5, 0)
    assert sorted(journal.results) == [0, 1, 2, 3]
    assert journal.deaths == {4: 2}
    assert sorted(read_journal(store, 5, 1).results) == [9]
    assert read_journal(store, 77, 0).results == {}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_where_a_row_has_two_results_a_good_one_counts(store: LocalStore, order: tuple[int, int]) -> None:
    pair = [result(0, "ok", finished_at=1.0), result(0, "failed", finished_at=2.0)]
    for number in order:
        JournalWriter(store, 0, 0).results([pair[number]])
    assert read_journal(store, 0, 0).results[0].status == "ok"


def test_a_journal_part_is_json_lines(store: LocalStore) -> None:
    JournalWriter(store, 0, 0).results([result(0, error="a\nb é")])
    (name,) = store.names("journal/shard-00000")
    (line,) = store.read(f"journal/shard-00000/{name}").splitlines()
    assert json.loads(line)["result"]["error"] == "a\nb é"


def test_a_journal_of_a_later_version_is_read(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its receipts are: who looks at a job need not have what computes it."""
    written = result(1, stats={"loss": 1.5}, worker_host="h")
    later = {**written.to_json(), "energy_j": 3.5}
    monkeypatch.setattr(Result, "to_json", lambda _: later)
    writer = JournalWriter(store, 0, 0)
    writer.results([written])
    writer._append([{"event": "begun", "row": 2}])
    monkeypatch.undo()
    assert read_journal(store, 0, 0).results == {1: written}


def test_seeds_depend_on_job_and_key_alone() -> None:
    assert image_seed(0, "a") == image_seed(0, "a")
    assert len({image_seed(0, "a"), image_seed(1, "a"), image_seed(0, "b")}) == 3
    assert all(0 <= image_seed(0, str(n)) < 2**63 for n in range(100))
    assert image_seed(0, "a") == 3426483283761622585, "seeds must never change: stored jobs depend on them"


def test_counting_receipts_reads_them_in_parallel(store: LocalStore) -> None:
    for shard in range(40):
        seal(store, shard, rows(1), [result(0)], generation=0, fingerprint="f")
    began = time.process_time()
    assert len(Ledger(store).counts(range(40))) == 40
    assert time.process_time() - began < 5


@pytest.mark.parametrize("what", ["failures", "retry", "gc"])
def test_receipts_with_failures_are_read_in_parallel(tmp_path: Path, what: str) -> None:
    """In a bucket, one after the other, those of a million photographs would take a quarter of an hour."""
    job = made_job(tmp_path, 20, shard_size=10)
    for shard in (0, 1):
        rows = job.manifest.shard(shard)
        failures = [replace(result_of(job, row), status="failed", output=None) for row in rows]
        seal(job.store, shard, rows, failures, generation=0, fingerprint=job.fingerprint)
    ledger = Ledger(job.store)
    tallies = dict(enumerate(ledger.tallies([0, 1])))
    both, read = threading.Barrier(2, timeout=60), Ledger.receipt

    def receipt(self: Ledger, shard: int) -> Any:
        both.wait()
        return read(self, shard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "receipt", receipt)
        if what == "failures":
            assert [each.row for each in ledger.failures(tallies, 15)] == [*range(15)]
        elif what == "retry":
            assert [work.rows for work in retry_work(job)] == [(*range(10),), (*range(10, 20),)]
        else:
            job.store.publish(f"images/{key(3)}.jpg", b"of a worker that died")
            assert collect_garbage(job.store).pictures == (f"images/{key(3)}.jpg",)
    with pytest.raises(UsageError, match="no failed photograph has the key 'a nobody'"):
        retry_work(job, [key(3), "no one", "a nobody"])
    assert [work.rows for work in retry_work(job, [key(3)])] == [(3,)]


def test_a_damaged_part_of_a_journal_counts_as_not_there(store: LocalStore) -> None:
    JournalWriter(store, 0, 0).results([result(1)])
    JournalWriter(store, 0, 0).results([result(2)])
    first, _ = sorted(store.find("journal"))
    (kept,) = set(read_journal(store, 0, 0).results) - set(read_one(store, first))
    store.publish(first, store.read(first)[:-20])
    assert set(read_journal(store, 0, 0).results) == {kept}


def read_one(store: LocalStore, path: str) -> list[int]:
    return [record["result"]["row"] for record in read_journal_part(store.read(path))]
