"""How the runner scales: real actors on this machine, and the real driver with simulated ones.

1. Jobs with 1, 2, 4 and 8 actors and a method that takes a fixed time per photograph by sleeping, so that two
   cores are enough. The start is left out: the driver hears of no actor before all are ready, and the steady
   part begins when it does; it ends when the last photograph is done. `efficiency` = ideal / actual seconds of
   the steady part; ideal = photographs times their fixed time / actors. The tail is in it: its waste is the
   sum, over the actors, of the seconds between an actor's last photograph and the job's last one.
2. `create_or_open` and `run` as they are, with a pool whose actors are simulated on a virtual clock. Times per
   photograph are lognormal (mean 1 s, sigma 1), seeded by shard; one actor in 100 is three times slower;
   actors die once in 20 hours of work, by turns of a crash, with their host, and with their node. They need 20
   to 30 s to start, tell their progress once a second, a task costs 50 ms besides its photographs, and news are
   heard up to 50 ms late.
   `driver_us_per_photo`: CPU time of the process, planning and the final count of all receipts included, less
   what the simulated pool takes. Real pools add what their messages cost.
   `driver_peak_mb`: the process's peak RSS, the simulated actors' state included.
   `makespan_over_bound`: from the first action to the last photograph, start, deaths and slow actors included,
   over max(seconds of all photographs / sum of the actors' speeds, the longest photograph).

    python -m benchmarks.pool_scaling [--actors 1 2 4 8] [--each 200] [--pool ray] [--photos 10000000]
        [--simulated-actors 1000]
"""

from __future__ import annotations

import argparse
import heapq
import io
import json
import logging
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs.driver.assets import by_url
from jobs.driver.job import Job, create_or_open
from jobs.driver.run import run, worker_setup
from jobs.ledger.layout import receipt_path
from jobs.ledger.receipts import JournalWriter, Ledger
from jobs.ledger.results import Result, Status, write_receipt
from jobs.pools import Pool, open_pool
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from jobs.worker.messages import (
    Cause,
    Died,
    Event,
    Finished,
    Progress,
    Ready,
    Task,
    TaskProgress,
    TaskReport,
    WorkerId,
    WorkerInfo,
)

if TYPE_CHECKING:  # a driver loads no torch, and its memory is measured here
    import torch
    from torch import Tensor

    from nst.stylizer import AssetRef, Assets, Outcome

SIDE_PX = 16

START_S = (20.0, 30.0)
TASK_S = 0.05
POLL_S = 0.05
TOLD_EVERY_S = 1.0
MEAN_S, SIGMA = 1.0, 1.0
SLOW_EVERY, SLOW = 100, 3.0
LIFE_S = 20 * 3600.0
CAUSES: tuple[Cause, ...] = ("crash", "host lost", "node lost")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sleeps:
    """Gives every image back, after a while."""

    seconds: float

    def assets(self) -> Sequence[AssetRef]:
        return []

    def notes(self, assets: Assets) -> Sequence[str]:  # noqa: ARG002
        return []

    def build(self, assets: Assets, device: torch.device) -> Callable[..., list[Outcome]]:  # noqa: ARG002
        return self.stylize

    def stylize(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG002
        from nst.stylizer import Stylized

        time.sleep(self.seconds * len(images))
        return [Stylized(image) for image in images]


REGISTRY = {"sleeps": Sleeps}


# 1. Real actors


def scaling(folder: Path, actors: int, each: int, pool: str, service_s: float) -> dict[str, float]:
    """One job with `actors` workers and `each` photographs per worker; all times in seconds."""
    out = io.BytesIO()
    Image.new("RGB", (SIDE_PX, SIDE_PX), (90, 120, 60)).save(out, "PNG")
    (folder / "tiny.png").write_bytes(out.getvalue())
    lines = (json.dumps({"url": "tiny.png", "key": f"{row:06d}"}) for row in range(actors * each))
    (folder / f"{actors}.jsonl").write_text("\n".join(lines))
    table = {
        "photos": f"{actors}.jsonl",
        "output": f"{actors}-out",
        "method": {"kind": "sleeps", "seconds": service_s},
        "image": {"format": "png"},
        "resources": {"pool": pool, "min_workers": actors, "max_workers": actors},
    }
    job = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
    began, wall = time.time(), time.monotonic()
    together = Together(open_pool(job.resources, worker_setup(job), by_url(job.assets)), actors)
    summary = run(job, pool=together)
    wall = time.monotonic() - wall
    assert summary.exit_code == 0, summary
    found = steady(results_of(job), actors, service_s, together.ready_at)
    return {**found, "start_s": together.ready_at - began, "whole_s": wall}


class Together:
    """A pool that tells of its workers when all are ready."""

    def __init__(self, pool: Pool, workers: int) -> None:
        self._pool, self._workers = pool, workers
        self._held: list[Event] = []
        self.ready_at = math.inf
        """Seconds since the epoch."""
        self.start, self.submit, self.stop, self.drain = pool.start, pool.submit, pool.stop, pool.drain
        self.count = pool.count

    def poll(self, timeout_s: float) -> list[Event]:
        events = self._pool.poll(timeout_s)
        if self.ready_at < math.inf:
            return events
        for event in events:
            if not isinstance(event, Ready):
                raise SystemExit(f"a worker did not start: {event}")
            self._held.append(event)
        if len(self._held) < self._workers:
            return []
        self.ready_at = time.time()
        return self._held

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)


def results_of(job: Job) -> list[Result]:
    ledger = Ledger(job.store)
    return [result for shard in sorted(ledger.done()) for result in ledger.receipt(shard)[0]]


def steady(results: Sequence[Result], actors: int, service_s: float, ready_at: float) -> dict[str, float]:
    """What the module says about the steady part.

    Raises:
        SystemExit: an actor did nothing.
    """
    last: dict[tuple[str, int], float] = {}
    for result in results:
        actor = result.worker_host, result.worker_pid
        last[actor] = max(last.get(actor, 0.0), result.finished_at)
    if len(last) != actors:
        raise SystemExit(f"{len(last)} of {actors} actors did something: give --each more photographs")
    ends = max(last.values())
    return {
        "efficiency": len(results) * service_s / actors / (ends - ready_at),
        "steady_s": ends - ready_at,
        "tail_waste_s": sum(ends - each for each in last.values()),
    }


# 2. The real driver, simulated actors


class SealedStore(LocalStore):
    """A job's folder, and besides the receipts of shards that simulated actors have sealed."""

    def __init__(self, url: str, receipt: bytes) -> None:
        super().__init__(url)
        self.sealed: set[int] = set()
        self._receipt = receipt

    def read(self, path: str) -> bytes:
        name = path.removeprefix("results/shard-").removesuffix(".parquet")
        return self._receipt if name.isdigit() and int(name) in self.sealed else super().read(path)

    def names(self, folder: str) -> list[str]:
        there = super().names(folder)
        if folder == "results":  # the lease's thread lists others
            there += [receipt_path(shard).removeprefix("results/") for shard in self.sealed]
        return there


@dataclass(slots=True)
class Actor:
    """Does its tasks one after the other."""

    speed: float
    dies_at: float = math.inf
    running: Running | None = None
    waiting: Task | None = None


@dataclass(slots=True)
class Running:
    task: Task
    rows: Sequence[int]
    """Still to be done when it began."""
    done_at: np.ndarray[Any, Any]
    """When each of `rows` is done, on the virtual clock."""
    before: int
    """Rows that were done already."""


class SimulatedPool:
    """A pool on a virtual clock. Its own CPU time is kept in `cpu_s`, to be left out."""

    def __init__(self, store: SealedStore, job: Job, seed: int) -> None:
        self._store, self._job, self._random = store, job, random.Random(seed)
        self._now, self._order = 0.0, 0
        self._heap: list[tuple[float, int, str, int]] = []
        self._actors: dict[int, Actor] = {}
        self._done: dict[int, dict[int, Result]] = {}  # results in the journal, of shards without a receipt
        self._cpu_began = 0.0
        self._causes = 0
        self.cpu_s = self.last_s = self.longest_s = self.work_s = 0.0
        self.deaths = self.tasks = 0
        self.speeds: list[float] = []

    # The protocol

    def count(self, status: Status) -> None:
        """Nobody watches."""

    def start(self, worker: int) -> None:
        with self:
            assert self._job.resources.max_workers is not None
            replaces = len(self.speeds) >= self._job.resources.max_workers
            speed = 1 / SLOW if not replaces and worker % SLOW_EVERY == SLOW_EVERY - 1 else 1.0
            if not replaces:
                self.speeds.append(speed)
            self._actors[worker] = Actor(speed)
            self._at(self._now + self._random.uniform(*START_S), "ready", worker)

    def submit(self, worker: int, task: Task) -> None:
        with self:
            self.tasks += 1
            actor = self._actors.get(worker)
            if actor is None:  # it is dead: poll said so
                return
            if actor.running is None:
                self._begin(worker, actor, task)
            else:
                assert actor.waiting is None, "two tasks at most"
                actor.waiting = task

    def stop(self, worker: int, cause: Cause) -> None:
        with self:
            if cause == "stopped":
                self._actors.pop(worker, None)
            elif worker in self._actors:
                raise SystemExit(f"worker {worker} was stopped for its {cause}: nobody hangs here")

    def drain(self, worker: WorkerId | None = None) -> None:  # noqa: ARG002
        raise SystemExit("nobody stops this job")

    def poll(self, timeout_s: float) -> list[Event]:  # noqa: ARG002  of the virtual clock
        with self:
            until = max(self._now, self._heap[0][0]) + POLL_S
            events: list[Event] = []
            while self._heap and self._heap[0][0] <= until:
                self._now, _, kind, worker = heapq.heappop(self._heap)
                if worker in self._actors:
                    events += getattr(self, f"_{kind}")(worker, self._actors[worker])
            self._now = until
            return events

    def __enter__(self) -> Self:
        self._cpu_began = time.thread_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu_s += time.thread_time() - self._cpu_began

    # What happens

    def _at(self, when: float, kind: str, worker: int) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, kind, worker))

    def _ready(self, worker: int, actor: Actor) -> Iterator[Event]:
        actor.dies_at = self._now + self._random.expovariate(1 / LIFE_S)
        self._at(actor.dies_at, "die", worker)
        self._at(self._now + TOLD_EVERY_S, "tell", worker)
        yield Ready(worker, WorkerInfo(host="simulated", pid=worker))

    def _begin(self, worker: int, actor: Actor, task: Task) -> None:
        actor.waiting = None
        whole = self._rows(task.shard)
        rows = whole if task.rows is None else task.rows
        done = self._done.get(task.shard, {})
        todo = [row for row in rows if row not in done]
        took = seconds_of(task.shard, len(whole))[np.array(todo, int) - whole.start] / actor.speed
        done_at = self._now + TASK_S + np.cumsum(took)
        actor.running = Running(task, todo, done_at, len(rows) - len(todo))
        self._at(float(done_at[-1]) if todo else self._now + TASK_S, "finish", worker)

    def _finish(self, worker: int, actor: Actor) -> Iterator[Event]:
        running = actor.running
        if running is None or (len(running.rows) and running.done_at[-1] > self._now):
            return
        task, counts = running.task, self._counts(running)
        self.last_s = self._now
        sealed = task.rows is None
        if sealed:
            assert len(running.rows) + running.before == len(self._rows(task.shard))
            assert task.shard not in self._store.sealed, "one receipt per shard"
            self._store.sealed.add(task.shard)
            self._done.pop(task.shard, None)
        else:
            self._journal(task, running.rows)
        actor.running = None
        if actor.waiting is not None:
            self._begin(worker, actor, actor.waiting)
        report = TaskReport(shard=task.shard, counts=counts, complete=True, sealed=sealed)
        yield Finished(worker, task.id, report)

    def _tell(self, worker: int, actor: Actor) -> Iterator[Event]:
        self._at(self._now + TOLD_EVERY_S, "tell", worker)
        if actor.running is not None:
            counts = self._counts(actor.running)
            progress = TaskProgress(task=actor.running.task.id, counts=counts, in_flight=1, slowest_s=0.5)
            yield Progress(worker, (progress,))

    def _die(self, worker: int, actor: Actor) -> Iterator[Event]:
        del self._actors[worker]
        self.deaths += 1
        at_work: tuple[int, ...] = ()
        if actor.running is not None:
            done = self._counts(actor.running)["ok"] - actor.running.before
            self._journal(actor.running.task, actor.running.rows[:done])
            at_work = tuple(actor.running.rows[done : done + 1])
        cause = CAUSES[self.deaths % len(CAUSES)]
        yield Died(worker, cause, "simulated", rows=at_work if cause == "crash" else None)

    def _counts(self, running: Running) -> dict[Status, int]:
        done = int(np.searchsorted(running.done_at, self._now, side="right"))
        return {"ok": running.before + done, "failed": 0, "quarantined": 0}

    def _rows(self, shard: int) -> range:
        start = shard * self._job.manifest.shard_size
        return range(start, start + self._job.manifest.rows_in(shard))

    def _journal(self, task: Task, rows: Sequence[int]) -> None:
        """The driver reads it when it looks into a death, and where it has to seal."""
        results = [Result(row=row, key=str(row), url="", status="ok") for row in rows]
        if results:
            JournalWriter(self._store, task.shard, task.generation).results(results)
            self._done.setdefault(task.shard, {}).update({result.row: result for result in results})


def seconds_of(shard: int, rows: int) -> np.ndarray[Any, Any]:
    """What each photograph of a shard takes, whoever does it."""
    return np.random.default_rng(shard).lognormal(math.log(MEAN_S) - SIGMA**2 / 2, SIGMA, rows)


def simulate(folder: Path, actors: int) -> dict[str, float]:
    """Plan and run the job of `photos.parquet`; in a process of its own."""
    before_mb = peak_mb()
    table = {
        "photos": "photos.parquet",
        "output": "out",
        "method": {"kind": "sleeps", "seconds": MEAN_S},
        "resources": {"pool": "local", "min_workers": 1, "max_workers": actors},
    }
    cpu = time.process_time()
    planned = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
    plan_cpu, plan_mb = time.process_time() - cpu, peak_mb()
    size = planned.manifest.shard_size
    rows = [Result(row=row, key=f"{row:06d}", url=f"s3://photos/{row}", status="ok") for row in range(size)]
    receipt = write_receipt(rows, shard=0, generation=0, fingerprint=planned.fingerprint)
    store = SealedStore(planned.store.url, receipt)
    job = replace(planned, store=store)
    pool = SimulatedPool(store, job, seed=0)
    cpu = time.process_time()
    summary = run(job, pool=pool)
    run_cpu = time.process_time() - cpu - pool.cpu_s
    photos = job.manifest.rows
    assert summary.error is None, summary
    assert summary.unfinished_shards == 0, summary
    work = longest = 0.0
    for shard in range(job.manifest.shards):
        seconds = seconds_of(shard, job.manifest.rows_in(shard))
        work, longest = work + float(seconds.sum()), max(longest, float(seconds.max()))
    bound = max(work / sum(pool.speeds), longest)
    return {
        "photos": photos,
        "shards": job.manifest.shards,
        "actors": len(pool.speeds),
        "deaths": pool.deaths,
        "tasks": pool.tasks,
        "plan_us_per_photo": 1e6 * plan_cpu / photos,
        "run_us_per_photo": 1e6 * run_cpu / photos,
        "driver_us_per_photo": 1e6 * (plan_cpu + run_cpu) / photos,
        "driver_busy": run_cpu / pool.last_s,
        "imports_mb": before_mb,
        "plan_peak_mb": plan_mb,
        "driver_peak_mb": peak_mb(),
        "makespan_s": pool.last_s,
        "bound_s": bound,
        "makespan_over_bound": pool.last_s / bound,
    }


def peak_mb() -> float:
    """Not `ru_maxrss`, which begins with that of the process that started this one."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def write_listing(path: Path, photos: int) -> None:
    with pq.ParquetWriter(path, pa.schema([("url", pa.string()), ("key", pa.string())])) as writer:
        for start in range(0, photos, 100_000):
            keys = [f"{row // 1000:05d}/{row % 1000:03d}" for row in range(start, min(photos, start + 100_000))]
            writer.write_table(pa.table({"url": [f"s3://photos/{key}.jpg" for key in keys], "key": keys}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--actors", type=int, nargs="*", default=[1, 2, 4, 8], help="real ones; none: leave out"
    )
    parser.add_argument("--each", type=int, default=200, help="photographs per real actor")
    parser.add_argument("--service-ms", type=float, default=100.0, help="what the method takes for each")
    parser.add_argument("--pool", choices=("ray", "local"), default="ray")
    parser.add_argument("--photos", type=int, default=10_000_000, help="of the simulation; 0: leave it out")
    parser.add_argument("--simulated-actors", type=int, default=1000)
    parser.add_argument("--simulate", nargs=2, metavar=("FOLDER", "ACTORS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate:
        print(json.dumps(simulate(Path(arguments.simulate[0]), int(arguments.simulate[1]))))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        if arguments.actors:
            found |= real_part(Path(place), arguments)
        if arguments.photos:
            found |= simulated_part(Path(place), arguments.photos, arguments.simulated_actors)
    print(json.dumps(found))


def real_part(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import (
        pool_scaling,
    )  # so that the method is not of `__main__`, which workers would run again

    if arguments.pool == "ray":
        import ray

        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        ray.init(address="local", num_cpus=max(arguments.actors), include_dashboard=False, **quiet)
    service_s = arguments.service_ms / 1000
    print(f"{arguments.pool} pool, {arguments.each} photographs per actor, {service_s:g} s each")
    head = ("actors", "start s", "steady s", "ideal s", "efficiency", "tail waste", "of steady", "whole s")
    print(" ".join(f"{name:>10}" for name in head))
    efficiency: dict[str, float] = {}
    waste: dict[str, float] = {}
    for actors in arguments.actors:
        one = pool_scaling.scaling(folder, actors, arguments.each, arguments.pool, service_s)
        ideal_s, share = one["efficiency"] * one["steady_s"], one["tail_waste_s"] / one["steady_s"] / actors
        print(
            f"{actors:10} {one['start_s']:10.1f} {one['steady_s']:10.2f} {ideal_s:10.2f} "
            f"{one['efficiency']:10.4f} {one['tail_waste_s']:8.2f} s {share:10.2%} {one['whole_s']:10.1f}",
            flush=True,
        )
        efficiency[str(actors)] = round(one["efficiency"], 4)
        waste[str(actors)] = round(one["tail_waste_s"], 2)
    if arguments.pool == "ray":
        ray.shutdown()
    return {"efficiency": efficiency, "tail_waste_s": waste}


def simulated_part(folder: Path, photos: int, actors: int) -> dict[str, Any]:
    (folder / "simulated").mkdir()
    write_listing(folder / "simulated/photos.parquet", photos)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pool_scaling", "--simulate", str(folder / "simulated"), str(actors)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    one: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\nsimulated: {photos} photographs in {one['shards']} shards, {one['actors']} actors, "
        f"{one['deaths']} deaths, {one['tasks']} tasks\n"
        f"  driver CPU   {one['driver_us_per_photo']:8.2f} us per photograph: {one['plan_us_per_photo']:.2f} "
        f"to plan, {one['run_us_per_photo']:.2f} to run ({one['driver_busy']:.1%} of a core while it ran)\n"
        f"  driver peak  {one['driver_peak_mb']:8.0f} MB ({one['imports_mb']:.0f} after imports, "
        f"{one['plan_peak_mb']:.0f} after planning)\n"
        f"  makespan     {one['makespan_s']:8.1f} s, bound {one['bound_s']:.1f} s, ratio "
        f"{one['makespan_over_bound']:.4f}"
    )
    return {
        "driver_us_per_photo": round(one["driver_us_per_photo"], 3),
        "driver_peak_mb": round(one["driver_peak_mb"]),
        "makespan_over_bound": round(one["makespan_over_bound"], 4),
        "photos": photos,
        "actors": int(one["actors"]),
    }


if __name__ == "__main__":
    main()
