"""What holds for any photographs, any damage, any order of events: shards, keys, ledger, decisions, retries."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.driver.actions import Action, Conclude, Seal, Work
from jobs.driver.scheduler import Limits, Scheduler
from jobs.errors import UsageError, WorkersBroken
from jobs.ledger.folders import _is_junk_file as is_junk
from jobs.ledger.layout import PhotoFile, curve_path, frame_path, picture_path, place_of
from jobs.ledger.listing import PHOTO_EXTENSIONS, Photo, list_photos
from jobs.ledger.manifest import Manifest, ManifestInfo, Row, write_manifest
from jobs.ledger.receipts import JournalWriter, Ledger, read_journal, read_journal_part, seal
from jobs.ledger.results import Result
from jobs.spec import ImageSpec
from jobs.stores.backoff import Backoff, count_retries, is_transient
from jobs.stores.store import LocalStore
from jobs.worker.messages import Cause, Died, Event, Failed, Finished, Progress, Task, TaskProgress, TaskReport
from tests.jobs.test_scheduler import Simulation

# The same examples in every run: CI must not fail for what nobody changed.
few = settings(deadline=None, derandomize=True, max_examples=60)
many = settings(deadline=None, derandomize=True, max_examples=200)


# Shards

PHOTOS = st.lists(
    st.builds(
        Photo,
        key=st.text("abßÄ/.~% \u0301é", min_size=1, max_size=6),
        url=st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        size_bytes=st.none() | st.integers(0, 2**63 - 1),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda photo: photo.key.casefold(),
)


def manifest_of(photos: list[Photo], shard_size: int | None) -> tuple[ManifestInfo, Manifest]:
    with tempfile.TemporaryDirectory() as folder:
        info = write_manifest(iter(photos), Path(folder) / "manifest.parquet", shard_size)
        store = Kept(folder)
        return info, Manifest(store)


class Kept(LocalStore):
    """Reads its manifest once, so that it outlives its folder."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._data = self.read("manifest.parquet")

    def open(self, path: str) -> Any:
        assert path == "manifest.parquet"
        return io.BytesIO(self._data)


@many
@given(PHOTOS, st.integers(1, 50) | st.none(), st.integers(1, 50))
def test_every_photograph_is_in_exactly_one_shard(photos: list[Photo], size: int | None, other: int) -> None:
    info, manifest = manifest_of(photos, size)
    shards = [manifest.shard(shard) for shard in range(manifest.shards)]
    rows = list(itertools.chain.from_iterable(shards))
    assert [Photo(row.key, row.url, row.size_bytes) for row in rows] == photos
    assert [row.index for row in rows] == list(range(len(photos)))
    assert [len(shard) for shard in shards] == [manifest.rows_in(shard) for shard in range(manifest.shards)]
    assert all(len(shard) == info.shard_size for shard in shards[:-1])
    assert 1 <= len(shards[-1]) <= info.shard_size
    assert (manifest.rows, manifest.shards) == (info.rows, info.shards) == (len(photos), len(shards))
    assert (manifest.sha256, manifest.shard_size) == (info.sha256, info.shard_size)
    assert manifest_of(photos, other)[0].sha256 == info.sha256, "the digest does not depend on the cut"


@few
@given(PHOTOS, st.data())
def test_another_listing_has_another_digest(photos: list[Photo], data: st.DataObject) -> None:
    before = manifest_of(photos, 7)[0].sha256
    place = data.draw(st.integers(0, len(photos) - 1))
    one = photos[place]
    for changed in (
        [*photos[:place], *photos[place + 1 :]],
        [*photos[:place], Photo(one.key, one.url + "x", one.size_bytes), *photos[place + 1 :]],
        [*photos[:place], Photo(one.key + "\u0180", one.url, one.size_bytes), *photos[place + 1 :]],
        [*photos[1:], photos[0]] if len(photos) > 1 else [],
    ):
        if changed:
            assert manifest_of(changed, 7)[0].sha256 != before


@few
@given(PHOTOS, st.data())
def test_a_repeated_key_is_refused_wherever_it_is(photos: list[Photo], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(photos)).key
    again = data.draw(st.sampled_from([again, again.upper(), again.casefold(), again.swapcase()]))
    repeated = [*photos, Photo(again, "elsewhere")]
    repeated.insert(data.draw(st.integers(0, len(repeated))), repeated.pop())
    if len({photo.key.casefold() for photo in repeated}) == len(repeated):
        return  # e.g. "ß" is "SS" in upper case: not each change is one of case alone
    with pytest.raises(UsageError, match="keys must be unique"):
        manifest_of(repeated, data.draw(st.integers(1, 9)))


# Keys

# Few characters, so that names meet: case, what is escaped, what escapes look like, letters that change length.
ODD = st.text(
    st.sampled_from("aAbß.:\\%3~ \n\x1f\x7f\u200b\u00a0é\u0301İ\udcff\U0001f5bc"), min_size=1, max_size=5
)
WILD = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
LONG = st.builds(
    lambda text, count: text * count, st.sampled_from(["x", "X", "é", "\x7f", ":"]), st.integers(60, 250)
)
ALIKE = st.sampled_from(
    ["a", "A", "a.png", "A.PNG", "a:", "a%3A", "a%3a", "\u00df", "ss", "SS", "x" * 240, "X" * 240]
)
STEMS = ODD | ALIKE | WILD | LONG
EXTENSIONS = st.sampled_from([".jpg", ".JPG", ".jpeg", ".png", ".png.tif", ".webp", ".gif"])
NAMES = st.builds(lambda stem, extension: stem + extension, STEMS, EXTENSIONS).filter(
    lambda name: len(os.fsencode(name)) <= 255 and not is_junk(name)
)
FOLDERS = st.sampled_from(["", "", "", "", "", "a", "b", "a/a", "é", "a:b", "c\\", "x.jpg"])


def test_thumbnails_of_programs_are_no_photographs() -> None:
    """Hypothesis finds these names, since it knows what is in the code."""
    assert is_junk("SYNOFILE_THUMB_.jpg")
    assert not is_junk("SYNOFILE.jpg")


def check_keys(photos: list[Photo]) -> None:
    """Unique also where case is ignored; plain relative paths; and so are the pictures' names."""
    keys = [photo.key for photo in photos]
    assert len({key.casefold() for key in keys}) == len(keys), sorted(keys)
    image = ImageSpec(format="png")
    outputs = [picture_path(key, image) for key in keys]
    assert len({output.casefold() for output in outputs}) == len(outputs)
    for key, output in zip(keys, outputs, strict=True):
        assert key.isprintable()
        key.encode()
        assert not set(key) & set("\\:\0")
        for part in key.split("/"):
            assert part not in ("", ".", "..")
            assert len(part.encode()) <= 200
        assert os.path.normpath(f"/job/{output}") == f"/job/{output}"
        assert output.startswith("images/")
        curve, frame = curve_path(key), frame_path(key, 50, image)
        assert place_of(output, image) == PhotoFile(key, "picture")
        assert place_of(curve, image) == PhotoFile(key, "curve")
        assert place_of(frame, image) == PhotoFile(key, "frame")
        for path in (curve, frame):
            assert os.path.normpath(f"/job/{path}") == f"/job/{path}"


@many
@given(st.sets(st.tuples(FOLDERS, NAMES), min_size=1, max_size=16))
def test_keys_of_a_folder_are_unique_and_safe(files: set[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for inner, name in files:
            (folder / inner).mkdir(parents=True, exist_ok=True)
            (folder / inner / name).write_bytes(b"-")
        photos = list(list_photos(place))
        expected = [name for _, name in files if Path(name).suffix.lower() in PHOTO_EXTENSIONS]
        assert len(photos) == len(expected)
        check_keys(photos)
        assert list(list_photos(place)) == photos, "keys are stable"
        write_manifest(photos, folder / "manifest.parquet", None)
        kept, _ = min(files)  # the keys of a folder do not depend on what is in the others
        for inner, name in files:
            if inner != kept:
                (folder / inner / name).unlink()
        left = list(list_photos(place))
        assert len(left) == sum(inner == kept for inner, _ in files)
        assert set(left) <= set(photos)


@few
@given(
    st.sets(
        st.tuples(
            st.sampled_from(["", "../", "../../", "./", "a/../", "a/./", "..a/", "a/"]),
            st.sampled_from(["x", "X", "x:", "x%3A", "..x", "\0", "a\rb"]),
            st.sampled_from([".jpg", ".png"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_keys_of_a_bucket_never_leave_the_output(names: set[tuple[str, str, str]]) -> None:
    """An object's name may hold what no file system would let through."""
    memory = fsspec.filesystem("memory")
    try:
        for parts in names:
            memory.pipe_file(f"memory://bucket/in/{''.join(parts)}", b"-")
        photos = list(list_photos("memory://bucket/in"))
        taken = [folder for folder, stem, _ in names if not stem.startswith(".") and folder != "..a/"]
        assert len(photos) == len(taken)
        check_keys(photos)
    finally:
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


@many
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "url": STEMS
                | st.text()
                | st.sampled_from(["http://[", "file:///%FF.jpg", "~x.jpg", "s3://b/..", "/a/../b"])
            },
            optional={
                "key": st.text() | st.sampled_from(["../x", "/x", "a//b", "a/./b", "x\0", "c:x"]),
                "size_bytes": st.none() | st.integers() | st.floats() | st.text(max_size=3),
            },
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_table_gives_safe_keys_or_is_refused(records: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "list.jsonl"
        table.write_text("\n".join(map(json.dumps, records)))
        try:
            photos = list(list_photos(str(table)))
            info = write_manifest(photos, Path(folder) / "manifest.parquet", None)
        except UsageError:
            return
        assert info.rows == len(records)
        check_keys(photos)


# Ledger

ROWS = [Row(row, f"k{row}", f"/in/{row}.jpg", None) for row in range(2)]
ROW = st.integers(0, 1)
GENERATION = st.integers(0, 2)
STATUS = st.sampled_from(["ok", "failed", "quarantined"])
STEP = st.one_of(
    st.tuples(
        st.just("part"), GENERATION, st.lists(st.tuples(ROW, STATUS, st.integers(0, 3)), min_size=1, max_size=3)
    ),
    st.tuples(st.just("death"), GENERATION, ROW),
    st.tuples(st.just("seal"), GENERATION, st.none()),
    st.tuples(st.just("damage"), st.integers(0, 99), st.tuples(st.integers(0, 999), st.integers(0, 255))),
)
FINISHED = st.tuples(STATUS, STATUS).map(
    lambda found: [("part", 0, [(row, status, 0) for row, status in enumerate(found)]), ("seal", 0, None)]
)
STEPS = st.builds(
    lambda first, then: [*first, *then], FINISHED | st.just([]), st.lists(STEP, min_size=6, max_size=30)
)


class Model:
    """A ledger in memory: what the real one must say after the same steps."""

    def __init__(self) -> None:
        self.parts: dict[str, tuple[int, list[dict[str, Any]]]] = {}  # generation and records, by path
        self.written: dict[str, list[dict[str, Any]]] = {}
        self.receipt: list[Result] | None = None
        self.generation = -1

    def journal(self, generation: int) -> tuple[dict[int, Result], Counter[int]]:
        records = [r for _, (of, part) in sorted(self.parts.items()) if of == generation for r in part]
        deaths = Counter(record["row"] for record in records if record["event"] == "death")
        best: dict[int, Result] = {}
        for result in (Result.from_json(r["result"]) for r in records if r["event"] == "result"):
            rank = [(each.status == "ok", each.finished_at) for each in (best.get(result.row, result), result)]
            if rank[1] >= rank[0]:
                best[result.row] = result
        return best, deaths

    def seal(self, generation: int) -> None:
        found, _ = self.journal(generation)
        if generation == 0:
            if self.receipt is None and len(found) == len(ROWS):
                self.receipt, self.generation = [found[row.index] for row in ROWS], 0
        elif self.receipt is not None and self.generation < generation:
            self.receipt = [self._merged(before, found.get(before.row)) for before in self.receipt]
            self.generation = generation

    @staticmethod
    def _merged(before: Result, again: Result | None) -> Result:
        if again is None:
            return before
        kept = before if before.status == "ok" and again.status != "ok" else again
        return Result.from_json({**kept.to_json(), "attempts": before.attempts + again.attempts})


@settings(many, max_examples=60)
@given(STEPS)
@example(  # two retries at once, of which the later one has less luck
    [
        *[("part", 0, [(0, "failed", 0), (1, "ok", 0)]), ("seal", 0, None)],
        *[("part", 1, [(0, "ok", 0)]), ("seal", 1, None)],
        *[("part", 2, [(0, "failed", 0)]), ("seal", 2, None)],
    ]
)
def test_any_interleaving_leaves_one_result_per_row(steps: list[tuple[str, int, Any]]) -> None:
    """Parts of several writers and generations, deaths, damage, seals that come twice, early, out of order."""
    model, clock = Model(), itertools.count(1)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        ledger = Ledger(store)
        pictures: set[int] = set()
        for what, number, detail in [*steps, ("seal", 0, None)]:
            if what == "damage":
                damage(store, model, number, *detail)
            elif what == "seal":
                try_to_seal(store, number)
                model.seal(number)
            else:
                before = set(store.find("journal"))
                writer = JournalWriter(store, 0, number)
                if what == "death":
                    writer.death(detail, "crash")
                else:
                    writer.results([made(row, status, next(clock), at) for row, status, at in detail])
                (path,) = set(store.find("journal")) - before
                model.written[path] = read_journal_part(store.read(path))
                model.parts[path] = (number, model.written[path])
                continue
            for generation in range(3):
                journal = read_journal(store, 0, generation)
                assert (journal.results, journal.deaths) == model.journal(generation)
            assert ledger.done() == (set() if model.receipt is None else {0})
            if model.receipt is None:
                continue
            results, meta = ledger.receipt(0)
            assert [result.row for result in results] == [row.index for row in ROWS]
            assert results == model.receipt
            assert meta["generation"] == model.generation
            counts = Counter(result.status for result in results)
            assert ledger.counts([0]) == [{name: counts[name] for name in ("ok", "failed", "quarantined")}]
            assert pictures <= {result.row for result in results if result.status == "ok"}, "a picture was lost"
            pictures = {result.row for result in results if result.status == "ok"}
            begun = max([model.generation, *(generation for generation, _ in model.parts.values())])
            assert ledger.next_generation(0, meta["generation"]) == begun + 1


def made(row: int, status: Any, number: int, at: int) -> Result:
    """`number` tells every result from the others; several are of one time."""
    return Result(
        row=row, key=f"k{row}", url=f"/in/{row}.jpg", status=status, seed=number, attempts=1 + number % 3,
        finished_at=float(at),
    )  # fmt: skip


def try_to_seal(store: LocalStore, generation: int) -> None:
    found = read_journal(store, 0, generation).results
    try:
        seal(store, 0, ROWS, found.values(), generation=generation, fingerprint="f")
    except ValueError:
        assert generation == 0
        assert len(found) < len(ROWS)
    except FileNotFoundError:
        assert generation > 0


def damage(store: LocalStore, model: Model, number: int, place: int, flip: int) -> None:
    """Flip bits of a part, or cut it. What can still be read of it must be what was written."""
    if not model.parts:
        return
    path = sorted(model.parts)[number % len(model.parts)]
    generation, _ = model.parts[path]
    data = bytearray(store.read(path))
    if not data:
        return
    if flip:
        data[place % len(data)] ^= flip
    else:
        del data[place % len(data) :]
    store.publish(path, bytes(data))
    try:
        left = read_journal_part(bytes(data))
    except ValueError:
        left = []
    assert left == model.written[path][: len(left)]
    model.parts[path] = (generation, left)


# Decisions


class World(Simulation):
    """More misfortune: nodes lost with all their workers, preemption, answers that come late or from the dead,
    workers taken for dead that go on working, and kills from outside, at most one per row that is alone."""

    def __init__(self, *args: Any, trouble: float = 0.0, cured: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.trouble, self.cured = trouble, cured
        self.late: list[tuple[float, Event]] = []
        self.undead: list[Task] = []
        self.receipts: dict[int, dict[int, str]] = {}
        self.crashes = 0
        self.computed: Counter[int] = Counter()
        self.seals = 0

    def go_on(self, work: list[Work], limits: Limits) -> World:
        """The next run: a new scheduler over what the store holds."""
        self.scheduler = Scheduler(work, self.shard_rows, limits)
        self.aborted = None
        self.given_up.clear()
        for each in (self.workers, self.starting, self.dead_of, self.late):
            each.clear()
        self.now = 0.0
        self.run()
        return self

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Conclude):
                (row,) = self.rows(action.task)
                if self.journal.get(row) != "ok":
                    self.journal[row] = action.status
            elif isinstance(action, Seal):
                self.seal(action.shard, action.generation)
            else:
                super().perform([action])

    def seal(self, shard: int, generation: int) -> None:
        found = {row: self.journal[row] for row in self.shard_rows(shard) if row in self.journal}
        if generation > 0:
            found = {**self.receipts[shard], **found}
        assert set(found) == set(self.shard_rows(shard)), "sealed too early"
        self.seals += 1
        if generation > 0:
            self.receipts[shard] = found
        else:
            self.receipts.setdefault(shard, found)

    def tick(self) -> None:
        due, self.late = [e for at, e in self.late if at <= self.now], [x for x in self.late if x[0] > self.now]
        for event in due:
            if isinstance(event, Finished) and event.worker in self.workers:
                self.workers[event.worker] = [t for t in self.workers[event.worker] if t.id != event.task]
            self.perform(self.scheduler.on(event, self.now))
        for task in list(self.undead):
            row = next((row for row in self.rows(task) if row not in self.journal), None)
            if row is None or row in self.bad or self.random.random() < 0.3:
                self.undead.remove(task)
            else:
                self.journal[row] = "ok"
                if task.rows is None and all(row in self.journal for row in self.rows(task)):
                    self.seal(task.shard, task.generation)
        super().tick()

    @property
    def bad(self) -> frozenset[int]:
        return frozenset() if self.cured else self.poison | self.hanging

    def die(self, worker: int, cause: Cause) -> None:
        self.crashes += cause == "crash"
        tasks = self.workers[worker]
        if cause != "crash" and self.random.random() < 0.5:
            self.undead += tasks  # cut off, and not dead
        super().die(worker, cause)
        if self.trouble and self.random.random() < 0.3:  # its last words
            for task in tasks:
                self.late.append((self.now + self.random.randint(0, 3), self.finished(worker, task)))
                self.late.append((self.now + 1, self.progress(worker, task, 99.0)))
            self.late.append((self.now + 2, Died(worker, "crash", "again")))

    def work(self, worker: int) -> None:
        tasks = self.workers[worker]
        chance = self.random.random()
        if chance < self.trouble:
            return self.misfortune(worker, tasks)
        task = tasks[0]
        if self.answered(worker, task):
            return None  # its answer is on its way
        ahead = [row for row in self.rows(task) if row not in self.journal][: self.window]
        self.random.shuffle(ahead)
        for row in ahead[: self.random.randint(1, 3)]:
            if row in self.bad & self.poison:
                return self.die(worker, "crash")
            if row in self.bad:
                return self.perform(self.scheduler.on(self.progress(worker, task, self.now), self.now))
            self.journal[row] = "ok"
            self.computed[row] += 1
        if any(row not in self.journal for row in self.rows(task)):
            return self.perform(self.scheduler.on(self.progress(worker, task, 0.5), self.now))
        event = self.finished(worker, task)
        if event.report.sealed:
            self.seal(task.shard, task.generation)
        self.late.append(
            (self.now + (self.random.randint(1, 3) if self.random.random() < self.trouble else 0), event)
        )
        return None

    def misfortune(self, worker: int, tasks: list[Task]) -> None:
        kind = self.random.choice(["node lost", "preempted", "crash", "failed"])
        alone = [self.rows(task)[0] for task in tasks if task.probe]
        if kind == "failed":
            if self.answered(worker, tasks[0]):
                return
            task = tasks.pop(0)
            self.perform(self.scheduler.on(Failed(worker, task.id, OSError("store")), self.now))
        elif kind == "node lost":
            for other in [other for other in self.workers if other // 2 == worker // 2]:
                if other in self.workers:
                    self.die(other, "node lost")
        elif kind == "preempted":
            self.die(worker, "preempted")
        elif not any(self.deaths_alone[row] for row in alone):
            self.die(worker, "crash")

    def answered(self, worker: int, task: Task) -> bool:
        return any(isinstance(e, Finished) and (e.worker, e.task) == (worker, task.id) for _, e in self.late)

    def finished(self, worker: int, task: Task) -> Finished:
        sealed = task.rows is None
        return Finished(
            worker,
            task.id,
            TaskReport(shard=task.shard, counts=self.counts(task), complete=True, sealed=sealed),
        )

    def progress(self, worker: int, task: Task, slowest_s: float) -> Progress:
        told = TaskProgress(task=task.id, counts=self.counts(task), in_flight=1, slowest_s=slowest_s)
        return Progress(worker, (told,))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    shards, size = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    rows = st.sampled_from(range(shards * size))
    poison = draw(st.frozensets(rows, max_size=draw(st.sampled_from([0, 1, 3, 45]))))
    hanging = draw(st.frozensets(rows, max_size=3)) - poison
    return World(
        shards,
        size,
        poison=poison,
        hanging=hanging,
        max_workers=draw(st.integers(1, 4)),
        window=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 10**6)),
        trouble=draw(st.sampled_from([0.0, 0.02, 0.1, 0.3])),
    )


@many
@given(worlds())
def test_whatever_happens_a_job_ends_and_blames_only_the_guilty(world: World) -> None:
    everything = set(range(world.shards * world.size))
    world.run()
    check_blame(world)
    if world.aborted is None:
        left = set(range(world.shards)) - set(world.receipts)
        assert left <= world.given_up
        for shard in world.receipts:
            for row in world.shard_rows(shard):
                expected = "quarantined" if row in world.poison else "failed" if row in world.hanging else "ok"
                assert world.receipts[shard][row] == expected
    else:
        assert isinstance(world.aborted, WorkersBroken)
        assert world.crashes >= 10

    # The cause is gone: what is left is done, and then what failed is done again.
    limits = Limits(1, 2, world.window, timeout_s=5.0, start_timeout_s=50.0)
    world.cured, world.trouble = True, 0.0
    world.go_on([Work(shard) for shard in range(world.shards) if shard not in world.receipts], limits)
    assert world.aborted is None
    assert set().union(*world.receipts.values()) == everything
    check_blame(world)
    pictures = {row for receipt in world.receipts.values() for row, status in receipt.items() if status == "ok"}
    again = [
        Work(shard, 1, tuple(row for row, status in receipt.items() if status != "ok"))
        for shard, receipt in sorted(world.receipts.items())
        if set(receipt.values()) != {"ok"}
    ]
    world.undead.clear()
    for item in again:  # another generation is another journal
        for row in item.rows or ():
            del world.journal[row]
            del world.strikes[row]
    computed = Counter(world.computed)
    world.go_on(again, limits)
    assert {row for receipt in world.receipts.values() for row in receipt} == everything
    assert all(status == "ok" for receipt in world.receipts.values() for status in receipt.values())
    assert set(world.computed - computed) == everything - pictures, "only what failed is done again"


def check_blame(world: World) -> None:
    for row, status in world.journal.items():
        if status == "quarantined":
            assert row in world.poison
            assert world.deaths_alone[row] == 2
        elif status == "failed":
            assert row in world.hanging
    assert all(world.deaths_alone[row] >= count for row, count in world.strikes.items())


@few
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 4), st.integers(1, 6), st.integers(0, 10**6))
def test_lost_nodes_and_preemption_blame_nobody(
    shards: int, size: int, workers: int, window: int, seed: int
) -> None:
    class Lost(World):
        def misfortune(self, worker: int, tasks: list[Task]) -> None:  # noqa: ARG002
            self.die(worker, self.random.choice(["node lost", "preempted"]))

    world = Lost(shards, size, max_workers=workers, window=window, seed=seed, trouble=0.4)
    world.run()
    assert world.aborted is None
    assert not world.given_up
    assert not world.strikes
    assert set(world.journal.values()) == {"ok"}
    assert set().union(*world.receipts.values()) == set(range(shards * size))


@few
@given(st.integers(1, 8), st.integers(1, 12), st.integers(1, 4), st.integers(1, 14), st.integers(0, 10**6))
def test_workers_are_broken_before_a_collection_is_quarantined(
    shards: int, size: int, workers: int, window: int, seed: int
) -> None:
    rows = shards * size
    world = World(shards, size, poison=frozenset(range(rows)), max_workers=workers, window=window, seed=seed)
    world.run()
    assert len(world.journal) < 10
    assert isinstance(world.aborted, WorkersBroken) == (rows >= 10)
    if window >= 10:  # as real ones are: every suspect is tried once before any is tried again
        assert len(world.journal) == (rows if rows < 10 else 0)


# Retries


@many
@given(
    st.lists(st.tuples(st.sampled_from(["transient", "lasting"]), st.floats(0, 20)), max_size=60),
    st.floats(0, 200),
    st.floats(0.001, 2),
    st.floats(0.1, 30),
    st.integers(0, 10**6),
)
def test_a_retry_keeps_to_its_limits(
    faults: list[tuple[str, float]], deadline_s: float, first_s: float, longest_s: float, seed: int
) -> None:
    errors: dict[str, Callable[[], Exception]] = {
        "transient": lambda: OSError(errno.EBUSY, "SlowDown"),
        "lasting": lambda: PermissionError(errno.EACCES, "denied"),
    }
    now, begun, pauses = 0.0, list[float](), list[float]()

    def call() -> str:
        nonlocal now
        begun.append(now)
        if len(begun) > len(faults):
            return "done"
        kind, took = faults[len(begun) - 1]
        now += took
        raise errors[kind]()

    def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    tries = Backoff(deadline_s, first_s, longest_s, sleep=sleep, clock=lambda: now)
    random.seed(seed)
    error: Exception | None = None
    with count_retries() as retries:
        try:
            assert tries(call) == "done"
        except OSError as caught:
            error = caught
    made = faults[: len(begun)]
    assert retries.count == len(pauses) == len(begun) - 1, "attempts are counted, and a pause is between two"
    assert all(0 <= pause <= min(longest_s, first_s * 2**number) for number, pause in enumerate(pauses))
    assert all(at - begun[0] <= deadline_s for at in begun[1:]), "none begins after the deadline"
    assert all(kind == "transient" for kind, _ in made[:-1]), "what lasts is not tried again"
    if error is None:
        assert len(begun) == len(faults) + 1
    else:
        spent = now - begun[0]
        next_pause = min(longest_s, first_s * 2 ** len(pauses))
        assert not is_transient(error) or spent + next_pause > deadline_s, "given up too early"
