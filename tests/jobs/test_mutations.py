"""Each guarantee's check passes, and fails when the mechanism behind it is switched off.

A mechanism is switched off within this process: by replacing it, or by editing one line of its source. Where a
line is no longer there, the mutation has to follow the code.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import os
import random
import shutil
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import jobs.driver.health
import jobs.driver.job
import jobs.driver.run
import jobs.driver.scheduler
import jobs.inspect.verify
import jobs.ledger.folders
import jobs.ledger.manifest
import jobs.ledger.names
import jobs.ledger.receipts
import jobs.ledger.tables
import jobs.stores.backoff
import jobs.stores.local_files
import jobs.worker.stages
import jobs.worker.worker
from jobs.driver.actions import Abort, Start, Work
from jobs.driver.health import Health
from jobs.driver.job import Job, create_or_open
from jobs.driver.run import run, worker_setup
from jobs.driver.scheduler import Limits, Scheduler
from jobs.driver.workers import Workers
from jobs.errors import JobMismatch, UsageError, WorkersBroken
from jobs.inspect.garbage import _sort, collect_garbage
from jobs.inspect.verify import verify
from jobs.ledger.layout import receipt_path
from jobs.ledger.listing import Photo, list_photos
from jobs.ledger.manifest import Manifest, write_manifest
from jobs.ledger.receipts import JournalWriter, Ledger, ShardJournal, read_journal, seal
from jobs.ledger.results import Result, write_receipt
from jobs.spec import job_from_table
from jobs.stores.backoff import Backoff
from jobs.stores.store import FsspecStore, LocalStore, Store, temporary_path
from jobs.worker.messages import Died, Task
from jobs.worker.worker import Worker
from nst.errors import OptionError
from tests.chaos import InlinePool, child, die_at
from tests.conftest import encoded, picture
from tests.jobs import test_audit, test_ledger, test_listing, test_properties, test_retry, test_scheduler
from tests.jobs.test_ledger import result, rows
from tests.jobs.test_scheduler import Simulation
from tests.methods import NAN, RAISE, REGISTRY

Off = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Mutation:
    guarantee: str
    off: Off
    check: Check


def without(function: Any, *edits: tuple[str, str]) -> Off:
    """Places of a function's source, edited."""

    def off(patch: pytest.MonkeyPatch) -> None:
        source = textwrap.dedent(inspect.getsource(function))
        for said, instead in edits:
            if source.count(said) != 1:
                raise LookupError(f"{function.__qualname__} does not say {said!r} once: adapt the mutation")
            source = source.replace(said, instead)
        names = dict(function.__globals__)
        exec(compile(f"from __future__ import annotations\n{source}", "<mutant>", "exec"), names)
        patch.setattr(function, "__code__", names[function.__name__].__code__)

    return off


def put(target: Any, name: str, value: Any) -> Off:
    return lambda patch: patch.setattr(target, name, value)


def both(*mechanisms: Off) -> Off:
    def off(patch: pytest.MonkeyPatch) -> None:
        for mechanism in mechanisms:
            mechanism(patch)

    return off


def on_disk(test: Callable[[LocalStore], object]) -> Check:
    return lambda place: test(LocalStore(str(place / "store")))


def alone(test: Callable[[], object]) -> Check:
    return lambda _: test()


def raising_nothing(test: Callable[[LocalStore], object]) -> Callable[[LocalStore], object]:
    def check(store: LocalStore) -> None:
        try:
            test(store)
        except ValueError as error:
            raise AssertionError(repr(error)) from error

    return check


# Stores


def ignoring_create_only(store: type[Store]) -> Off:
    publish = store.publish
    return put(store, "publish", lambda self, path, data, create_only=False: publish(self, path, data))  # noqa: ARG005


def in_place(store: LocalStore, path: str, data: bytes, *, create_only: bool = False) -> None:  # noqa: ARG001
    (store.root / path).parent.mkdir(parents=True, exist_ok=True)
    with (store.root / path).open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def check_one_of_two_winners_counts(store: Store) -> None:
    seal(store, 0, rows(1), [result(0, error="first")], generation=0, fingerprint="f")
    with contextlib.suppress(ValueError):
        seal(store, 0, rows(1), [result(0, "failed", error="second")], generation=0, fingerprint="f")
    assert Ledger(store).receipt(0)[0][0].error == "first"


def killed(work: Callable[[], object], call: int, root: Path) -> bool:
    def dying() -> int:
        die_at(call, str(root))
        work()
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child does nothing with others' threads
        return child(dying) != 0


def check_whole_or_not_at_all(place: Path) -> None:
    """Killed at every call of a publish."""
    store = LocalStore(str(place))
    for create_only in (False, True):
        before = None if create_only else b"old" * 1000
        for call in itertools.count(1):
            shutil.rmtree(place, ignore_errors=True)
            if before is not None:
                store.publish("a/x", before)
            died = killed(lambda: store.publish("a/x", b"new!" * 1000, create_only=create_only), call, place)  # noqa: B023
            there = store.read("a/x") if store.exists("a/x") else None
            assert there in (before, b"new!" * 1000), f"killed at call {call}"
            if not died:
                break
        assert call > 3


def check_clean(place: Path) -> None:
    store = LocalStore(str(place))
    assert killed(lambda: store.publish("x", b"half"), 5, place)
    assert len(store.names(".tmp")) == 1, "it was killed with its temporary file there"
    store.clean()
    assert store.names("") == []


def check_clean_leaves_what_is_in_work(place: Path) -> None:
    store = LocalStore(str(place))
    mine = place / temporary_path()
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"in work")
    store.clean()
    assert mine.exists()


def flaky(test: Callable[[FsspecStore], object]) -> Check:
    def check(_: Path) -> None:
        fsspec.register_implementation("flaky", test_retry.Flaky, clobber=True)
        store = FsspecStore("flaky://bucket/job")
        store.backoff = replace(store.backoff, first_s=0.001)
        try:
            test(store)
        finally:
            test_retry.Flaky.store.clear()
            test_retry.Flaky.faults.clear()

    return check


def check_a_lost_answer_is_settled(store: FsspecStore) -> None:
    test_retry.Flaky.faults[:] = ["after"]
    try:
        store.publish("receipt", b"ours", create_only=True)
    except FileExistsError:
        raise AssertionError("our own object passed for another's") from None


def check_anothers_object_is_not_ours(store: FsspecStore) -> None:
    store.publish("receipt", b"another's", create_only=True)
    with pytest.raises(FileExistsError):
        store.publish("receipt", b"ours", create_only=True)


def check_faults_are_waited_out(store: FsspecStore) -> None:
    test_retry.Flaky.faults[:] = ["before", "before"]
    try:
        store.publish("x", b"-")
    except OSError:
        raise AssertionError("a fault that passes was not waited out") from None


class Remembering(MemoryFileSystem):
    """Keeps listings, as the clients of object stores do."""

    protocol = "remembering"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    seen: ClassVar[dict[str, Any]] = {}

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        if (path, detail) not in self.seen:
            self.seen[path, detail] = super().ls(path, detail=detail, **options)  # type: ignore[index]
        return self.seen[path, detail]  # type: ignore[index]

    def invalidate_cache(self, path: str | None = None) -> None:  # noqa: ARG002
        self.seen.clear()


def check_what_others_publish_is_seen(_: Path) -> None:
    fsspec.register_implementation("remembering", Remembering, clobber=True)
    try:
        store = FsspecStore("remembering://bucket/job")
        store.publish("results/a", b"-")
        assert store.names("results") == ["a"]
        store.filesystem.pipe_file(f"{store.root}/results/b", b"-")  # by another
        assert store.names("results") == ["a", "b"]
        assert len(list(store.find("results"))) == 2
    finally:
        Remembering.store.clear()
        Remembering.seen.clear()


# Retries


def check_what_lasts_is_not_tried_again(_: Path) -> None:
    for error in test_retry.LASTING:
        clock = test_retry.Clock()
        with contextlib.suppress(OSError):
            test_retry.backoff(clock)(test_retry.failing(1, error))
        assert clock.pauses == [], f"{error!r} was tried again"


def check_a_deadline(_: Path) -> None:
    clock = test_retry.Clock()
    with contextlib.suppress(TimeoutError):
        test_retry.backoff(clock, deadline_s=30)(test_retry.failing(60, TimeoutError("never")))
    assert clock.now <= 30


def check_a_cap(_: Path) -> None:
    clock = test_retry.Clock()
    test_retry.backoff(clock, deadline_s=1e9)(test_retry.failing(30, TimeoutError("never")))
    assert max(clock.pauses) <= 10


# Ledger


def check_a_damaged_part_is_ignored(place: Path) -> None:
    try:
        test_ledger.test_a_damaged_part_of_a_journal_counts_as_not_there(LocalStore(str(place)))
    except ValueError:
        raise AssertionError("a damaged part is in the way") from None


def check_a_flipped_digit_is_noticed(place: Path) -> None:
    store = LocalStore(str(place))
    JournalWriter(store, 0, 0).results([result(1)])
    (path,) = store.find("journal")
    store.publish(path, store.read(path).replace(b'"row": 1', b'"row": 3'))
    assert read_journal(store, 0, 0).results == {}


def check_a_retry_never_loses_a_picture(place: Path) -> None:
    """Two retries at once: the second one had less luck."""
    store = LocalStore(str(place))
    seal(store, 0, rows(2), [result(0), result(1, "failed")], generation=0, fingerprint="f")
    seal(store, 0, rows(2), [result(1, "ok")], generation=1, fingerprint="f")
    seal(store, 0, rows(2), [result(1, "failed")], generation=2, fingerprint="f")
    found, meta = Ledger(store).receipt(0)
    assert [each.status for each in found] == ["ok", "ok"]
    assert (found[1].attempts, meta["generation"]) == (3, 2)


def check_every_row_has_a_result(place: Path) -> None:
    store = LocalStore(str(place))
    with contextlib.suppress(ValueError):
        seal(store, 0, rows(2), [result(0)], generation=0, fingerprint="f")
    assert Ledger(store).done() == set()


def check_a_retry_is_no_older_one(place: Path) -> None:
    """What a retry that was cut off left behind does not pass for the next one's."""
    store = LocalStore(str(place))
    seal(store, 0, rows(1), [result(0, "failed")], generation=0, fingerprint="f")
    JournalWriter(store, 0, 1).results([result(0, "failed")])
    generation = Ledger(store).next_generation(0, 0)
    assert read_journal(store, 0, generation).results == {}


def in_both_orders(place: Path) -> None:
    for order in ((0, 1), (1, 0)):
        store = LocalStore(str(place / str(order)))
        test_ledger.test_where_a_row_has_two_results_a_good_one_counts(store, order)


# Shards and keys


def check_keys_of_a_folder(place: Path) -> None:
    folder = place / "photos"
    folder.mkdir(parents=True)
    for name in (
        "a.jpg",
        "A.jpg",
        "a.png",
        "b.jpg",
        "B.jpg",
        "x:y.jpg",
        "x%3Ay.jpg",
        "p.jpg",
        "p.png",
        "p.png.tif",
        "c\rd.jpg",
    ):
        (folder / name).write_bytes(b"-")
    for end in ("jpg", "png"):
        (folder / f"{'x' * 250}.{end}").write_bytes(b"-")
    test_properties.check_keys(list(list_photos(str(folder))))


def check_keys_stay_in_the_output(_: Path) -> None:
    memory = fsspec.filesystem("memory")
    try:
        memory.pipe_file("memory://bucket/in/../../evil.jpg", b"-")
        test_properties.check_keys(list(list_photos("memory://bucket/in")))
    finally:
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


def check_a_table_cannot_lead_out(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "list.csv").write_text("url,key\na.jpg,../../x\n")
    with pytest.raises(UsageError):
        list(list_photos(str(place / "list.csv")))


def check_equal_keys_are_refused(place: Path) -> None:
    place.mkdir(parents=True)
    with pytest.raises(UsageError):
        write_manifest([Photo("x", "1"), Photo("X", "2")], place / "m.parquet", None)


def check_a_folder_that_cannot_be_listed(place: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        place.mkdir(parents=True)
        test_listing.test_a_folder_that_cannot_be_listed_is_an_error(place, patch)


def check_shards(_: Path) -> None:
    photos = [Photo(f"k{number}", f"u{number}") for number in range(20)]
    info, manifest = test_properties.manifest_of(photos, 6)
    assert [len(manifest.shard(shard)) for shard in range(info.shards)] == [6, 6, 6, 2]
    rows = [row for shard in range(info.shards) for row in manifest.shard(shard)]
    assert [row.index for row in rows] == list(range(20))
    assert [row.key for row in rows] == [photo.key for photo in photos]


def check_the_digest_knows_no_shards(_: Path) -> None:
    photos = [Photo(f"k{number}", f"u{number}") for number in range(20)]
    assert len({test_properties.manifest_of(photos, size)[0].sha256 for size in (1, 6, 30)}) == 1


# Jobs


def begun(folder: Path, **changes: Any) -> Job:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for number, width in enumerate((40, 41, RAISE, NAN, 42)):
        photo = folder / "photos" / f"{number}.jpg"
        if not photo.exists():
            photo.write_bytes(encoded(picture(number, width, 20)))
    (folder / "photos/text.jpg").write_text("no picture")
    resources = {"pool": "local", "shard_size": 3, "load_threads": 1, "save_threads": 1}
    table = {"photos": "photos", "output": "out", "method": {"kind": "stub"}, "resources": resources, **changes}
    return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)


def done(folder: Path, **changes: Any) -> Job:
    job = begun(folder, **changes)
    worker = Worker(worker_setup(job), {})
    for shard in range(job.manifest.shards):
        try:
            worker.run(Task(id=shard, shard=shard))
        except Exception as error:
            raise AssertionError(f"a photograph took its shard with it: {error!r}") from error
    return job


def statuses(job: Job) -> dict[str, str]:
    ledger = Ledger(job.store)
    return {each.key: each.status for shard in ledger.done() for each in ledger.receipt(shard)[0]}


def check_failures_are_rows(place: Path) -> None:
    expected = {"0": "ok", "1": "ok", "2": "failed", "3": "failed", "4": "ok", "text": "failed"}
    job = done(place)
    assert statuses(job) == expected
    assert "not finite" in str(Ledger(job.store).receipt(1)[0][0].error)


def pictures(job: Job) -> dict[str, bytes]:
    return {path: job.store.read(path) for path in job.store.find("images")}


def check_bytes_do_not_depend_on_the_work(place: Path) -> None:
    one = done(place, image={"format": "png"})
    resources = {"pool": "local", "shard_size": 6, "batch_size": 4}
    assert pictures(one) == pictures(done(place, image={"format": "png"}, output="other", resources=resources))


def check_what_is_journaled_is_not_done_again(place: Path) -> None:
    job = begun(place)
    row = job.manifest.shard(0)[0]
    earlier = Result(row=0, key=row.key, url=row.url, status="failed", error="as journaled")
    JournalWriter(job.store, 0, 0).results([earlier])
    Worker(worker_setup(job), {}).run(Task(id=0, shard=0))
    assert Ledger(job.store).receipt(0)[0][0].error == "as journaled"


def check_another_job_is_refused(place: Path) -> None:
    begun(place)
    with pytest.raises(JobMismatch):
        begun(place, seed=7)


def check_an_edited_job_is_refused(place: Path) -> None:
    path = Path(begun(place).store.url) / "job.json"
    path.write_text(path.read_text().replace('"delay_s": 0.0', '"delay_s": 0.1'))
    with pytest.raises(JobMismatch):
        begun(place, method={"kind": "stub", "delay_s": 0.1})


def check_another_listing_is_refused(place: Path) -> None:
    """The manifest was lost before it was published, and the photographs have changed since."""
    job = begun(place)
    job.store.remove("manifest.parquet")
    (place / "photos/later.jpg").write_bytes(b"-")
    with pytest.raises(JobMismatch):
        begun(place)


def check_of_two_that_begin_one_is_refused(place: Path) -> None:
    original = jobs.driver.job.refuse_foreign_folder

    def meanwhile(*arguments: Any) -> None:
        original(*arguments)
        patch.undo()
        begun(place, seed=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.driver.job, "refuse_foreign_folder", meanwhile)
        with pytest.raises(JobMismatch):
            begun(place, seed=2)


def check_a_foreign_folder_is_refused(place: Path) -> None:
    (place / "out").mkdir(parents=True)
    (place / "out/thesis.tex").write_text("mine")
    with pytest.raises(OptionError, match="not empty"):
        begun(place)


def check_a_lagging_listing(place: Path) -> None:
    job = begun(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "done", lambda _: set())
        summary = run(job, pool=InlinePool(worker_setup(job)))
    assert summary.unfinished_shards == 0
    assert sum(summary.counts.values()) == 6


def finds(harm: Callable[[LocalStore, random.Random], str]) -> Check:
    """`verify` names what was harmed."""

    def check(place: Path) -> None:
        store = done(place).store
        assert isinstance(store, LocalStore)
        assert list(verify(store)) == []
        path = harm(store, random.Random(1))
        assert path in {fault.path for fault in verify(store)}

    return check


def edit_error(store: LocalStore, _: random.Random) -> str:
    return test_audit.edited(store, receipt_path(0), test_audit.spoiled("error", 2))


def edit_url(store: LocalStore, _: random.Random) -> str:
    return test_audit.edited(store, "manifest.parquet", test_audit.spoiled("url", 1))


def drop_row(store: LocalStore, _: random.Random) -> str:
    results, meta = Ledger(store).receipt(0)
    data = write_receipt(results[1:], shard=0, generation=0, fingerprint=meta["fingerprint"])
    store.publish(receipt_path(0), data)
    return receipt_path(0)


def edit_job(store: LocalStore, _: random.Random) -> str:
    record = json.loads(store.read("job.json"))
    record["job"]["image"]["quality"] = 3
    store.publish("job.json", json.dumps(record).encode())
    return "job.json"


def add_picture(store: LocalStore, _: random.Random) -> str:
    store.publish("images/foreign.jpg", b"x")
    return "images/foreign.jpg"


def check_garbage_is_not_what_is_needed(place: Path) -> None:
    store = done(place).store
    JournalWriter(store, 0, 1).death(2, "crash")  # of a retry that is not finished
    collect_garbage(store)
    assert read_journal(store, 0, 1).deaths == {2: 1}


# Decisions


def bounded(check: Callable[[], object]) -> Check:
    """What raises, or goes on for ever, has failed."""

    def bound(_: Path) -> None:
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Simulation.run, "__defaults__", (2000,))
                check()
        except (KeyError, IndexError, ValueError) as error:
            raise AssertionError(repr(error)) from error

    return bound


def check_one_death_alone_blames_nobody() -> None:
    """What killed it has gone by the second time."""
    world = test_properties.World(2, 4, poison=frozenset({2}))
    world.perform(world.scheduler.begin(0.0))
    while not world.deaths_alone:
        world.tick()
    world.cured = True
    while not world.scheduler.finished:
        world.tick()
    assert set(world.journal.values()) == {"ok"}


def check_lost_nodes_blame_nobody() -> None:
    for seed in range(5):
        world = Simulation(shards=4, size=5, node_losses=0.3, seed=seed).run()
        assert not world.strikes
        assert set(world.journal.values()) == {"ok"}


def check_neighbors_are_not_blamed() -> None:
    world = Simulation(shards=20, size=10, poison=frozenset({17}), seed=3).run()
    assert world.aborted is None
    assert {row for row, status in world.journal.items() if status != "ok"} == {17}


def check_a_hanging_row_fails() -> None:
    world = Simulation(shards=3, size=8, hanging=frozenset({9})).run()
    assert {row: status for row, status in world.journal.items() if status != "ok"} == {9: "failed"}


def check_a_collection_is_not_quarantined() -> None:
    world = Simulation(shards=4, size=10, poison=frozenset(range(40)), window=14).run()
    assert isinstance(world.aborted, WorkersBroken)
    assert len(world.journal) <= 4


def check_deaths_with_progress_are_no_reason_to_give_up() -> None:
    world = Simulation(shards=12, size=10, poison=frozenset(range(5, 120, 10)), max_workers=1).run()
    assert world.aborted is None
    assert sum(status == "quarantined" for status in world.journal.values()) == 12


def check_news_of_the_dead() -> None:
    for seed in range(20):
        world = test_properties.World(3, 6, trouble=0.3, seed=seed)
        world.run()
        test_properties.check_blame(world)


def check_starts_are_given_up() -> None:
    scheduler = Scheduler([Work(0)], lambda _: range(3), Limits(1, 1, 4, 5.0, 50.0))
    actions = scheduler.begin(0.0)
    for _ in range(20):
        if isinstance(actions[0], Abort):
            return
        assert isinstance(actions[0], Start)
        actions = scheduler.on(Died(actions[0].worker, "crash", "segfault"), 1.0)
    raise AssertionError("started for ever")


ON, INSPECTED, JUDGE, TICK = Scheduler.on, Scheduler.inspected, Scheduler._judge, Scheduler.tick
FALSE = "if False:"
CALLS = itertools.count()
REOPEN = without(
    jobs.driver.job.reopen,
    ("if found:", FALSE),
    ("if print_now != record.fingerprint:", FALSE),
)

MUTATIONS = [
    # Stores
    Mutation(
        "of two winners one counts, on a disk",
        ignoring_create_only(LocalStore),
        on_disk(check_one_of_two_winners_counts),
    ),
    Mutation(
        "of two winners one counts, in an object store",
        ignoring_create_only(FsspecStore),
        flaky(check_one_of_two_winners_counts),
    ),
    Mutation(
        "a first receipt is create-only",
        without(seal, ("create_only=generation == 0", "create_only=False")),
        on_disk(check_one_of_two_winners_counts),
    ),
    Mutation("published whole or not at all", put(LocalStore, "publish", in_place), check_whole_or_not_at_all),
    Mutation("what killed processes leave is removed", put(LocalStore, "clean", Store.clean), check_clean),
    Mutation(
        "what others are writing is left alone",
        put(jobs.stores.local_files, "_is_alive", lambda _: False),
        check_clean_leaves_what_is_in_work,
    ),
    Mutation(
        "a lost answer to a create-only write is settled by reading back",
        put(
            FsspecStore,
            "_create",
            lambda self, full, data: self.filesystem.pipe_file(full, data, mode="create"),
        ),
        flaky(check_a_lost_answer_is_settled),
    ),
    Mutation(
        "another's object does not pass for ours",
        without(FsspecStore._create, ("if there != data:", FALSE)),
        flaky(check_anothers_object_is_not_ours),
    ),
    Mutation(
        "what others publish is seen",
        put(FsspecStore, "_ask_anew", lambda self, _, call: self.backoff(call)),
        check_what_others_publish_is_seen,
    ),
    # Retries
    Mutation(
        "faults that pass are waited out",
        put(jobs.stores.backoff, "is_transient", lambda _: False),
        flaky(check_faults_are_waited_out),
    ),
    Mutation(
        "faults that last are not",
        put(jobs.stores.backoff, "is_transient", lambda _: True),
        check_what_lasts_is_not_tried_again,
    ),
    Mutation(
        "retries end at the deadline",
        without(Backoff.__call__, (" or spent + pause > self.deadline_s", "")),
        check_a_deadline,
    ),
    Mutation(
        "pauses are capped",
        without(
            Backoff.__call__,
            ("min(self.longest_s, self.first_s * 2 ** min(attempt, 60))", "self.first_s * 2**attempt"),
        ),
        check_a_cap,
    ),
    # Ledger
    Mutation(
        "sealed only when every row has a result",
        without(seal, ("if missing or len(by_row) != len(rows):", FALSE)),
        check_every_row_has_a_result,
    ),
    Mutation(
        "never two results for a row",
        without(write_receipt, ("if len({result.row for result in ordered}) != len(ordered):", FALSE)),
        alone(test_ledger.test_a_receipt_refuses_two_results_for_a_row_and_damage),
    ),
    Mutation(
        "a good result counts before a failed one",
        without(
            read_journal,
            ('(result.status == "ok", result.finished_at)', "(0, result.finished_at)"),
            ('known.status == "ok"', "0"),
        ),
        in_both_orders,
    ),
    Mutation(
        "a damaged part of a journal counts as not there",
        without(
            read_journal,
            ("except ValueError:\n                continue", "except ValueError:\n                raise"),
        ),
        check_a_damaged_part_is_ignored,
    ),
    Mutation(
        "a flipped bit is no other row's result",
        without(
            jobs.ledger.receipts.read_journal_part, ('record.pop("digest", None) != _digest(record)', "False")
        ),
        check_a_flipped_digit_is_noticed,
    ),
    Mutation(
        "a retry keeps what it did not do",
        without(seal, ("if again is None:\n                by_row[before.row] = before", "if again is None:")),
        on_disk(raising_nothing(test_ledger.test_a_retry_changes_only_what_it_did_again)),
    ),
    Mutation(
        "a retry never loses a picture",
        without(seal, ('before.status == "ok" and again.status != "ok"', "False")),
        check_a_retry_never_loses_a_picture,
    ),
    Mutation(
        "attempts add up",
        without(seal, ("before.attempts + again.attempts", "again.attempts")),
        check_a_retry_never_loses_a_picture,
    ),
    Mutation(
        "a retry that comes too late changes nothing",
        without(seal, ('if meta["generation"] >= generation:', FALSE)),
        on_disk(test_ledger.test_a_retry_changes_only_what_it_did_again),
    ),
    Mutation(
        "failures of a retry that was cut off are no new ones",
        without(Ledger.next_generation, ("max(sealed, *journaled, 0)", "sealed")),
        check_a_retry_is_no_older_one,
    ),
    # Shards and keys
    Mutation(
        "every row is in one shard",
        without(
            Manifest.shard,
            ("if table.num_rows != self.rows_in(shard):", FALSE),
            ("place * self.shard_size, self", "place * 4, self"),
        ),
        check_shards,
    ),
    Mutation(
        "a manifest's digest knows no shards",
        without(
            write_manifest,
            ("for photo in chunk:\n", "digest.update(bytes(shard_size))\n            for photo in chunk:\n"),
        ),
        check_the_digest_knows_no_shards,
    ),
    Mutation(
        "keys within a folder are unique",
        without(jobs.ledger.names._apart, ("if repeated[folded(key)] == 1", "if True")),
        check_keys_of_a_folder,
    ),
    Mutation(
        "keys are unique where case is ignored",
        without(
            jobs.ledger.names._apart,
            ("Counter(folded(key) for", "Counter(key for"),
            ("repeated[folded(key)]", "repeated[key]"),
        ),
        check_keys_of_a_folder,
    ),
    Mutation(
        "keys are printable, and short enough for a name",
        put(jobs.ledger.names, "_safe", lambda key: key),
        check_keys_of_a_folder,
    ),
    Mutation(
        "keys of a bucket stay in the output",
        without(
            jobs.ledger.names._safe,
            ('if part in (".", "..")', "if False"),
            ('if plain.endswith((".", " "))', "if False"),
        ),
        check_keys_stay_in_the_output,
    ),
    Mutation(
        "keys of a table stay in the output",
        put(jobs.ledger.tables, "check_key", lambda *_: None),
        check_a_table_cannot_lead_out,
    ),
    Mutation(
        "equal keys are refused",
        put(jobs.ledger.manifest, "_refuse_repeated_keys", lambda *_: None),
        check_equal_keys_are_refused,
    ),
    Mutation(
        "a folder that cannot be listed is not empty",
        put(jobs.ledger.folders, "_fail", lambda _: None),
        check_a_folder_that_cannot_be_listed,
    ),
    # Jobs
    Mutation("a folder belongs to one job", REOPEN, check_another_job_is_refused),
    Mutation(
        "job.json is what the job was begun with",
        without(jobs.driver.job.reopen, ("if print_now != record.fingerprint:", FALSE)),
        check_an_edited_job_is_refused,
    ),
    Mutation(
        "a manifest that is listed again is the same one",
        both(without(jobs.ledger.manifest.listed_manifest, ("!= recorded", "is None")), REOPEN),
        check_another_listing_is_refused,
    ),
    Mutation(
        "of two that begin at once one is refused",
        ignoring_create_only(LocalStore),
        check_of_two_that_begin_one_is_refused,
    ),
    Mutation(
        "a folder that is not ours is not written to",
        put(jobs.driver.job, "refuse_foreign_folder", lambda _: None),
        check_a_foreign_folder_is_refused,
    ),
    # Workers
    Mutation(
        "a photograph that cannot be read is its own row",
        without(
            jobs.worker.stages.TaskStages._load,
            ("except Exception as error:", "except ZeroDivisionError as error:"),
        ),
        check_failures_are_rows,
    ),
    Mutation(
        "a photograph that the method refuses is its own row",
        without(
            Worker.stylize, ("except (Exception, SystemExit) as error:", "except ZeroDivisionError as error:")
        ),
        check_failures_are_rows,
    ),
    Mutation(
        "a picture is finite",
        put(jobs.worker.worker, "_checked", lambda outcome: outcome),
        check_failures_are_rows,
    ),
    Mutation(
        "bytes depend on the photograph alone",
        put(jobs.worker.worker, "image_seed", lambda _seed, _key: next(CALLS)),
        check_bytes_do_not_depend_on_the_work,
    ),
    Mutation(
        "what is journaled is not done again",
        put(jobs.worker.worker, "read_journal", lambda *_: ShardJournal()),
        check_what_is_journaled_is_not_done_again,
    ),
    Mutation(
        "a listing that lags behind hides nothing that was sealed",
        without(jobs.driver.run._Run._outcome, (" | (self._shards - self._unsealed)", "")),
        check_a_lagging_listing,
    ),
    # Looking after it
    Mutation(
        "verify finds a receipt that was edited",
        without(
            jobs.inspect.verify._verify_receipt, ('if meta.get("digest") != results_digest(results):', FALSE)
        ),
        finds(edit_error),
    ),
    Mutation(
        "verify finds a footer that counts otherwise than its rows",
        without(jobs.inspect.verify._verify_receipt, ("if claimed != counted:", FALSE)),
        finds(test_audit.tally_edited),
    ),
    Mutation(
        "verify finds a row that is missing",
        without(jobs.inspect.verify._verify_receipt, ("if len(found) != 1:", FALSE)),
        finds(drop_row),
    ),
    Mutation(
        "verify finds a picture that was damaged",
        without(
            jobs.inspect.verify._picture_fault,
            ("if hashlib.sha256(data).hexdigest() != result.output_sha256:", FALSE),
        ),
        finds(test_audit.flipped),
    ),
    Mutation(
        "verify finds a picture that is gone",
        without(
            jobs.inspect.verify._picture_fault,
            ('return Fault(result.output, "the picture is not there", result.key)', "return None"),
        ),
        finds(test_audit.deleted),
    ),
    Mutation(
        "verify finds a manifest that was edited",
        without(jobs.inspect.verify._verify_part, ("digest != record.manifest.sha256", "False")),
        finds(edit_url),
    ),
    Mutation(
        "verify finds a job.json that was edited",
        put(jobs.inspect.verify, "_verify_job", lambda _: iter(())),
        finds(edit_job),
    ),
    Mutation(
        "verify finds what is foreign",
        without(
            jobs.inspect.verify._verify_places,
            ("if owner not in may_be:", "if False:"),
        ),
        finds(add_picture),
    ),
    Mutation(
        "gc keeps the journal of a retry",
        without(_sort, ("if generation <= part.generations.get(shard, -1):", "if True:")),
        check_garbage_is_not_what_is_needed,
    ),
    # Decisions
    Mutation(
        "suspects are run alone",
        without(JUDGE, ("suspects or unfinished[: self._limits.window]", "[]")),
        bounded(check_neighbors_are_not_blamed),
    ),
    Mutation(
        "a suspect shares its worker with nothing",
        without(Workers._index, ("state.probing or ", "")),
        bounded(check_neighbors_are_not_blamed),
    ),
    Mutation(
        "only what may have been in work is suspected",
        without(
            JUDGE,
            ("suspects or unfinished[: self._limits.window]", "suspects or unfinished"),
        ),
        bounded(test_scheduler.test_only_the_window_is_suspected),
    ),
    Mutation(
        "of those, only what it is known to have been at",
        without(JUDGE, ("if row in (asked.rows or ())", "if False")),
        bounded(test_scheduler.test_only_what_a_worker_was_at_is_suspected_if_that_is_known),
    ),
    Mutation(
        "what has a result is not suspected",
        without(
            INSPECTED, ("sorted(set(self._backlog.rows(task)) - set(done))", "sorted(self._backlog.rows(task))")
        ),
        bounded(test_scheduler.test_only_the_window_is_suspected),
    ),
    Mutation(
        "one death alone is no proof",
        put(jobs.driver.scheduler, "_STRIKES", 1),
        bounded(check_one_death_alone_blames_nobody),
    ),
    Mutation(
        "two deaths alone are",
        put(jobs.driver.scheduler, "_STRIKES", 3),
        bounded(test_scheduler.test_a_poison_row_is_quarantined_after_two_deaths_alone),
    ),
    Mutation(
        "deaths of earlier runs count",
        without(INSPECTED, ("max(self._strikes[row], count)", "self._strikes[row]")),
        bounded(test_scheduler.test_strikes_on_record_count),
    ),
    Mutation(
        "lost nodes and preemption blame nobody",
        without(JUDGE, ("elif cause in NOBODYS_FAULT:", "elif False:")),
        bounded(check_lost_nodes_blame_nobody),
    ),
    Mutation(
        "a photograph has a time limit",
        without(TICK, ("waited > self._limits.timeout_s", "False")),
        bounded(check_a_hanging_row_fails),
    ),
    Mutation(
        "workers that die one after the other end the job",
        put(jobs.driver.health, "_DEATHS_IN_A_ROW", 10**9),
        bounded(check_a_collection_is_not_quarantined),
    ),
    Mutation(
        "but not while photographs get done",
        without(Health.progressed, ("self._died_on.clear()", "pass")),
        bounded(check_deaths_with_progress_are_no_reason_to_give_up),
    ),
    Mutation(
        "workers that cannot start end the job",
        put(jobs.driver.health, "_START_TRIES", 10**9),
        bounded(check_starts_are_given_up),
    ),
    Mutation(
        "workers that never come end the job",
        without(TICK, ("elif now - self._no_worker_since > self._limits.start_timeout_s:", "elif False:")),
        bounded(test_scheduler.test_workers_that_never_come_end_the_job),
    ),
    Mutation(
        "a task that fails is given up in the end",
        put(jobs.driver.scheduler, "_TASK_TRIES", 10**9),
        bounded(test_scheduler.test_a_task_that_fails_three_times_is_left_unfinished),
    ),
    Mutation(
        "what the dead say is ignored",
        without(ON, ("if event.worker not in self._workers:", FALSE)),
        bounded(check_news_of_the_dead),
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guarantee)
def test_a_guarantee_falls_with_its_mechanism(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation.check(tmp_path / "on")
    with monkeypatch.context() as patch:
        mutation.off(patch)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            mutation.check(tmp_path / "off")
