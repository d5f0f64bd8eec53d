"""Kill a whole job at every file-system call it makes, go on with it, and look whether anything was lost.

    python -m tests.chaos [--every 1] [--stores local objects] [--what job growing redo]

A run is a child process that drives the real driver and a real worker (in one process, with the stub method),
and then tries again what failed. With `growing` it goes on with a job that is finished, to which photographs
came, and of which some were changed since: it begins and does a part of the new ones, and one of the changed
ones. With `redo` it does photographs of a job that has grown again, those that are marked, with another seed.
It is killed at its n-th call below the output folder, for every n until a run gets through; what is
visible then is read; the run that goes on is killed at a random call too; the next one ends the job. `objects`
is like an object store: an object appears whole, moving is copying and deleting, and listings lag behind.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fsspec.spec import AbstractFileSystem
from PIL import Image

import jobs.pools.warm  # noqa: F401  for all children at once
from jobs.cli.growing import redo_keys
from jobs.driver.job import Job, create_or_open
from jobs.driver.parts import grow
from jobs.driver.redo import redo
from jobs.driver.run import run, worker_setup
from jobs.driver.todo import retry_work
from jobs.inspect.verify import verify
from jobs.ledger.marks import Mark, change_marks
from jobs.ledger.parts import parts_of
from jobs.ledger.results import Status
from jobs.spec import job_from_table
from jobs.stores.store import TEMPORARY, open_store
from jobs.worker.messages import Cause, Died, Event, Failed, Finished, Ready, Task, WorkerId, WorkerSetup
from jobs.worker.worker import Worker
from tests.conftest import encoded, picture
from tests.counted import rows_that_count
from tests.methods import RAISE, REGISTRY

KILLED = 9
_CALLS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir"}
_STALE_S = 0.02
_GOOD = 26
_FEW, _LATER, _CHANGED = 6, 5, 2
"""Photographs of a job that grows, all of whose calls are more than those of one job."""
_AGAIN = ("photo 00", "photo 07", "deeper/photo 01")
"""Keys of photographs that are done again: of the job, and of what came later."""


class InlinePool:
    """One worker at a time, in this very process, so that a kill takes driver and worker alike."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._workers: dict[WorkerId, Worker] = {}
        self._events: list[Event] = []

    def start(self, worker: WorkerId) -> None:
        self._workers[worker] = Worker(self._setup, {})
        self._events.append(Ready(worker, self._workers[worker].info()))

    def submit(self, worker: WorkerId, task: Task) -> None:
        try:
            self._events.append(Finished(worker, task.id, self._workers[worker].run(task)))
        except Exception as error:  # noqa: BLE001  as the other pools do
            self._events.append(Failed(worker, task.id, error))

    def count(self, status: Status) -> None:
        pass

    def stop(self, worker: WorkerId, cause: Cause) -> None:
        del self._workers[worker]
        self._events.append(Died(worker, cause))

    def drain(self, worker: WorkerId | None = None) -> None:
        for id, each in self._workers.items():
            if worker in (None, id):
                each.drain()

    def poll(self, timeout_s: float) -> list[Event]:  # noqa: ARG002
        events, self._events = self._events, []
        return events

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.clear()


class Objects(AbstractFileSystem):  # type: ignore[misc]
    """`objects:///folder`: an object store in a folder. PUTs are whole; listings lag behind."""

    protocol = "objects"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("objects://").rstrip("/")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        target = Path(self._strip_protocol(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        arriving = target.with_name(f"{target.name}.arriving-{os.getpid()}-{random.random()}")
        arriving.write_bytes(value)
        try:
            if mode == "create":
                os.link(arriving, target)
                arriving.unlink()
            else:
                os.replace(arriving, target)
        finally:
            arriving.unlink(missing_ok=True)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return Path(self._strip_protocol(path)).read_bytes()[start:end]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        assert mode == "rb"
        return io.BytesIO(self.cat_file(path))

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        self.pipe_file(path2, self.cat_file(path1))
        self.rm_file(path1)

    def rm_file(self, path: str) -> None:
        Path(self._strip_protocol(path)).unlink()

    def isfile(self, path: str) -> bool:
        return Path(self._strip_protocol(path)).is_file()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        place = Path(self._strip_protocol(path))
        found = place.stat()
        return {
            "name": str(place),
            "size": found.st_size,
            "type": "directory" if place.is_dir() else "file",
        }

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        folder = Path(self._strip_protocol(path))
        shown = [entry for entry in sorted(folder.iterdir()) if self._listed(entry)]
        return [self.info(str(entry)) for entry in shown] if detail else [str(entry) for entry in shown]

    @staticmethod
    def _listed(entry: Path) -> bool:
        try:
            return ".arriving-" not in entry.name and (
                entry.is_dir() or time.time() - entry.stat().st_mtime > _STALE_S
            )
        except FileNotFoundError:
            return False


def photographs(folder: Path, good: int) -> None:
    """Good ones, one that raises, and one that is none."""
    (folder / "photos/deeper").mkdir(parents=True)
    for number in range(good):
        place = folder / "photos" / ("deeper" if number % 3 else "")
        (place / f"photo {number:02d}.jpg").write_bytes(encoded(picture(number)))
    (folder / "photos/raises.jpg").write_bytes(encoded(picture(5, RAISE, 40)))
    (folder / "photos/text.jpg").write_text("no picture")


def opened(folder: Path, output: str) -> Job:
    table = {
        "photos": "photos",
        "output": output,
        "method": {"kind": "stub"},
        "resources": {"pool": "local", "max_workers": 1, "shard_size": 4},
    }
    return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)


def run_job(folder: Path, output: str) -> int:
    job = opened(folder, output)
    run(job, pool=InlinePool(worker_setup(job)))
    time.sleep(2 * _STALE_S)  # a listing that lags behind has caught up when the next command is given
    return run(job, retry_work(job), pool=InlinePool(worker_setup(job))).exit_code


def grow_job(folder: Path, output: str) -> int:
    job = opened(folder, output)
    codes = [run(job, pool=InlinePool(worker_setup(job))).exit_code]
    if not job.fresh:
        codes += _run_all(grow(job, again=True, registry=REGISTRY))
    return max(codes)


def redo_job(folder: Path, output: str) -> int:
    job = opened(folder, output)
    return max([3, *_run_all(redo(job, redo_keys(job, "again", None), {"seed": 7}, registry=REGISTRY))])


def _run_all(parts: Iterable[Job]) -> list[int]:
    return [run(part, pool=InlinePool(worker_setup(part))).exit_code for part in parts]


def change(folder: Path) -> None:
    """Photographs come, and others are changed."""
    for number in range(_FEW, _FEW + _LATER):
        (folder / "photos" / f"photo {number:02d}.jpg").write_bytes(encoded(picture(number)))
    for number in range(0, 3 * _CHANGED, 3):
        (folder / "photos" / f"photo {number:02d}.jpg").write_bytes(encoded(picture(number + 500, 40, 41)))


@dataclass(frozen=True)
class Scenario:
    """What a run does that is killed."""

    work: Callable[[Path, str], int]
    rows: int
    pictures: int
    """Those of all versions, when all is done."""
    parts: int = 1
    before: Path | None = None
    """A copy of the output folder as it is before, all of which remains; None: there is none."""


def die_at(call: int, root: str) -> None:
    """End this process at its n-th call below `root`; half of a file that is being written is there then."""
    calls = itertools.count(1)
    fsync = os.fsync

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        below = event in _CALLS and any(str(argument).startswith(root) for argument in arguments[:2])
        if below and next(calls) == call:
            os._exit(KILLED)

    def torn(descriptor: int) -> None:
        if next(calls) == call:
            if os.path.isfile(f"/proc/self/fd/{descriptor}"):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os._exit(KILLED)
        fsync(descriptor)

    os.fsync = torn
    sys.addaudithook(hook)


def child(work: Callable[[], int]) -> int:
    """The exit code of `work` in a forked process."""
    process = os.fork()
    if process == 0:
        code = 70
        try:
            code = work()
        except BaseException:  # noqa: BLE001  a forked child says what it died of, and never goes on as its parent
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def looked(look: Callable[[], Counter[str]], report: Path) -> Counter[str]:
    """What `look` finds in a forked process: who forks must have no threads, and Arrow's readers start some."""

    def work() -> int:
        report.write_text(json.dumps(look()))
        return 0

    assert child(work) == 0
    return Counter(json.loads(report.read_text()))


def visible(root: Path) -> dict[str, bytes]:
    """What others can see: neither temporary files nor objects that are still arriving."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".arriving-" not in path.name]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in paths
        if path.relative_to(root).parts[0] != TEMPORARY
    }


def is_torn(path: str, data: bytes) -> bool:
    try:
        if path.endswith(".parquet"):
            pq.read_table(io.BytesIO(data), use_threads=False)
        elif path.endswith(".jpg"):
            Image.open(io.BytesIO(data)).load()
        elif path.endswith(".jsonl"):
            [json.loads(line) for line in data.splitlines()]
        else:
            json.loads(data)
    except Exception:  # noqa: BLE001  whatever a reader makes of half a file
        return True
    return False


def look(output: str, root: Path, reference: dict[str, bytes], scenario: Scenario) -> Counter[str]:
    """What is wrong with a job that was ended."""
    store = open_store(output)
    rows = Counter(
        counted.key
        for counted in rows_that_count(store)
        if counted.status == "ok" or counted.key in ("raises", "text")
    )
    parts = len(parts_of(store))
    there = visible(root)
    images = pictures(there)
    former = {} if scenario.before is None else visible(scenario.before)
    return Counter(
        lost=max(0, scenario.rows - len(rows)) + max(0, scenario.parts - parts),
        duplicated=sum(max(0, count - 1) for count in rows.values())
        + max(0, len(rows) - scenario.rows)
        + max(0, parts - scenario.parts),
        different=sum(images.get(path) != data for path, data in reference.items())
        + len(images.keys() - reference.keys())
        + sum(there.get(path) != data for path, data in former.items()),
        faults=sum(1 for _ in verify(store)),
    )


def pictures(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if path.endswith(".jpg")}


WHAT = ("job", "growing", "redo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every n-th call")
    parser.add_argument("--stores", nargs="+", default=["local", "objects"], choices=["local", "objects"])
    parser.add_argument("--what", nargs="+", default=WHAT, choices=WHAT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pa.table({"warm": [1]})  # imports pandas where that is installed, once and not in every child
    fsspec.register_implementation("objects", Objects, clobber=True)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for kind, what in itertools.product(arguments.stores, arguments.what):
            at = folder / f"{what}-{kind}"
            counted = torment(kind, at, arguments.every, begun(kind, what, at))
            told = ", ".join(f"{name} {number}" for name, number in counted.items())
            print(f"{kind:8} {what:8} {told}", flush=True)
            found.update(counted)
    names = ("kill_points", "lost", "duplicated", "torn", "different", "faults")
    print(json.dumps({name: found[name] for name in names}))
    sys.exit(any(found[name] for name in names[1:]))


def output_of(kind: str, root: Path) -> str:
    return str(root) if kind == "local" else f"objects://{root}"


def begun(kind: str, what: str, at: Path) -> Scenario:
    """A job in a folder that is to be made; or one that is finished there, of photographs some of which came
    since or were changed; or one that has grown by these, and has marks."""
    if what == "job":
        photographs(at, _GOOD)
        return Scenario(run_job, _GOOD + 2, _GOOD)
    photographs(at, _FEW)
    root, before = at / f"out-{kind}", at / "before"
    output = output_of(kind, root)

    def mark() -> int:
        marks: dict[str, Mark | None] = dict.fromkeys(_AGAIN, "again")
        change_marks(open_store(output), marks)
        return 0

    assert child(lambda: grow_job(at, output)) == 3
    scenario = Scenario(grow_job, _FEW + 2 + _LATER, _FEW + _LATER + _CHANGED, 3, before)
    change(at)
    if what == "redo":
        assert child(lambda: grow_job(at, output)) == 3
        assert child(mark) == 0
        scenario = replace(scenario, work=redo_job, pictures=scenario.pictures + len(_AGAIN), parts=4)
    shutil.move(root, before)
    return scenario


def torment(kind: str, folder: Path, every: int, scenario: Scenario) -> Counter[str]:
    root = folder / f"out-{kind}"
    output = output_of(kind, root)

    def begin() -> None:
        if root.exists():
            shutil.rmtree(root)
        if scenario.before is not None:
            shutil.copytree(scenario.before, root)

    begin()
    assert child(lambda: scenario.work(folder, output)) == 3
    reference = pictures(visible(root))
    assert len(reference) == scenario.pictures
    found = Counter(kill_points=0, lost=0, duplicated=0, torn=0, different=0, faults=0)
    report = folder / "report.json"

    def killed(call: int) -> bool:
        def work() -> int:
            die_at(call, str(root))
            return scenario.work(folder, output)

        code = child(work)
        assert code in (KILLED, 3), f"{kind}, call {call}: exit code {code}"
        found["kill_points"] += code == KILLED
        found.update(looked(torn, report))
        return code == KILLED

    def torn() -> Counter[str]:
        return Counter(torn=sum(is_torn(path, data) for path, data in visible(root).items()))

    def wrong() -> Counter[str]:
        time.sleep(2 * _STALE_S)
        wrong = look(output, root, reference, scenario)
        if any(wrong.values()):
            faults = [asdict(fault) for fault in verify(open_store(output))]
            print(f"{kind}, call {call}: {dict(wrong)} {faults}", flush=True)
        return wrong

    for call in itertools.count(1, every):
        begin()
        if not killed(call):
            return found
        killed(random.Random(call).randint(1, call + 20))
        code = child(lambda: scenario.work(folder, output))
        assert code == 3, f"{kind}, call {call}: exit code {code} at the end"
        found.update(looked(wrong, report))
    raise AssertionError("unreachable")


if __name__ == "__main__":
    main()
