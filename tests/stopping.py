"""Stop jobs with SIGINT, SIGTERM and SIGHUP at random moments, go on with them, and look at what that cost.

    python -m tests.stopping [--moments 200] [--pools local ray] [--ways driver group ...] [--seed 0]

A driver is started, signaled once (every fifth time twice), alone or with all its processes as `WAYS` says, and
must be gone within its grace period, with
exit code 75 if the job was begun, leaving no process. What it computed and did not record is work that the next
one redoes: at most what was in flight; and nothing, if it was stopped gently.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from jobs.console.stop import STOP_SIGNALS
from jobs.errors import EXIT_STOPPED
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.stores.store import LocalStore
from jobs.worker.messages import WorkerSetup
from tests.processes import living, spawn

PHOTOS, WORKERS = 300, 2
_SLOWER = float(os.environ.get("NST_SLOWER", "1"))
"""How much longer everything may take, on a machine that does other things."""
GRACE_S = {"local": 10.0 * _SLOWER, "ray": 30.0 * _SLOWER}
"""Ray's own start and end cannot be interrupted, and take more than ten seconds on two busy cores."""
WAYS = ("driver", "group", "timeout", "service", "init")
"""Ways in which a signal comes: to the driver alone; to its process group, as from a terminal; to the driver
and then to its group, as from `timeout`; to each process, as from `systemctl stop`; to the driver as the first
process of a container, as from `docker stop`."""
IN_CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""What makes a command the first process of its own namespace; it takes root."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--pools", nargs="+", choices=["local", "ray"], default=["local", "ray"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", nargs=2, metavar=("FOLDER", "POOL"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.drive:
        drive(Path(options.drive[0]), options.drive[1])
        return
    ways = options.ways or [way for way in WAYS if way != "init" or has_containers()]
    found: Counter[str] = Counter()
    for pool in options.pools:
        with tempfile.TemporaryDirectory() as folder:
            moments = options.moments // len(options.pools)
            counted, slowest_s = torment(Path(folder), pool, moments, random.Random(options.seed), ways)
        print(f"{pool:6} " + ", ".join(f"{name} {number}" for name, number in counted.items()))
        print(f"       slowest exit {slowest_s:.1f} s of {GRACE_S[pool]:g} s", flush=True)
        found.update(counted)
    print(json.dumps(found))
    sys.exit(any(found[name] for name in ("late", "wrong_code", "left_behind", "too_much_redone", "faults")))


def drive(folder: Path, pool: str) -> None:
    """The real command line's way to run a job, with the stub method."""
    from jobs.cli.running import execute
    from jobs.cli.work import errors
    from jobs.driver.job import create_or_open
    from jobs.spec import job_from_table
    from tests.methods import REGISTRY

    table: dict[str, Any] = {
        "photos": "photos",
        "output": "out",
        "method": {"kind": "stub", "delay_s": 0.02, "tally": str(folder / "tally")},
        "resources": {"pool": pool, "max_workers": WORKERS, "shard_size": 50, "grace_s": GRACE_S[pool]},
    }

    def prepare() -> tuple[Any, None]:
        (folder / "listening").touch()
        return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY), None

    try:
        with errors():
            execute(prepare)
    except typer.Exit as end:
        sys.exit(end.exit_code)


def has_containers() -> bool:
    """Whether a command can be the first process of a namespace here."""
    if shutil.which(IN_CONTAINER[0]) is None:
        return False
    return subprocess.run([*IN_CONTAINER, "true"], capture_output=True, check=False).returncode == 0


def torment(
    folder: Path, pool: str, moments: int, rng: random.Random, ways: Sequence[str]
) -> tuple[Counter[str], float]:
    from tests.conftest import picture

    (folder / "photos").mkdir()
    for number in range(PHOTOS):
        picture(number, 40, 30).save(folder / f"photos/{number:03d}.jpg")
    found = Counter(moments=0, stopped=0, ended=0, late=0, wrong_code=0)
    found.update(left_behind=0, computed_in_vain=0, too_much_redone=0, faults=0)
    in_flight = WORKERS * _window()
    slowest_s = 0.0
    tally, store = folder / "tally", LocalStore(str(folder / "out"))
    driver = start(folder, pool)
    began = time.monotonic()
    driver.wait()
    undisturbed_s = time.monotonic() - began
    while found["moments"] < moments:
        shutil.rmtree(folder / "out", ignore_errors=True)
        tally.write_bytes(b"")
        for _ in itertools.count():
            twice = rng.random() < 0.2
            vain_before = in_vain(tally, store)
            way = ways[found["moments"] % len(ways)]
            moment_s = rng.uniform(0, undisturbed_s)
            code, took_s, left = stop_once(folder, pool, way, moment_s, rng, twice=twice)
            slowest_s = max(slowest_s, took_s)
            found["late"] += took_s > GRACE_S[pool]
            found["left_behind"] += left
            found["moments"] += 1
            found["stopped"] += code == EXIT_STOPPED
            found["ended"] += code == 0
            found["wrong_code"] += code not in (0, EXIT_STOPPED)
            if code not in (0, EXIT_STOPPED):
                print(f"{way}: exit code {code}; {(folder / 'driver.out').read_text()[-2000:]}", flush=True)
            vain = in_vain(tally, store) - vain_before
            found["computed_in_vain"] += vain
            found["too_much_redone"] += vain > (in_flight if twice else 0)
            if vain > (in_flight if twice else 0):
                print(f"{way}: {vain} photographs in vain", flush=True)
            if found["moments"] % 10 == 0:
                print(f"{pool:6} {found['moments']} of {moments} moments", flush=True)
            if code == 0 or found["moments"] == moments:
                break
        if code == 0:
            found["faults"] += len(list(verify(store)))
    return found, slowest_s


def _window() -> int:
    names = WorkerSetup.__dataclass_fields__
    setup = {**dict.fromkeys(names), "batch_size": 1, "load_threads": 2, "save_threads": 2}
    return WorkerSetup(**setup).window  # type: ignore[arg-type]


def in_vain(tally: Path, store: LocalStore) -> int:
    """Photographs computed beyond those that have a result."""
    done = job_status(store).done if store.exists("job.json") else 0
    return tally.stat().st_size - done


def start(folder: Path, pool: str, way: str = "driver") -> subprocess.Popen[bytes]:
    """A driver that listens to signals. Before it does, while Python imports, a signal does to it what it does
    to any program."""
    listening = folder / "listening"
    listening.unlink(missing_ok=True)
    before = IN_CONTAINER if way == "init" else ()
    with (folder / "driver.out").open("wb") as out:
        command = [*before, sys.executable, "-m", "tests.stopping", "--drive", str(folder), pool]
        driver = spawn(command, stdout=out, stderr=out)
    while not listening.exists() and driver.poll() is None:
        time.sleep(0.01)
    return driver


def send(driver: subprocess.Popen[bytes], number: signal.Signals, way: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        if way == "init":
            children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
            os.kill(int(children[0]) if children else driver.pid, number)
            return
        if way in ("driver", "timeout"):
            driver.send_signal(number)
        if way in ("group", "timeout"):
            os.killpg(driver.pid, number)
    for pid in living("session", driver.pid) if way == "service" else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stop_once(
    folder: Path, pool: str, way: str, moment_s: float, rng: random.Random, *, twice: bool
) -> tuple[int, float, bool]:
    """Exit code, seconds from the signal to the exit, and whether a process was left behind."""
    driver = start(folder, pool, way)
    time.sleep(moment_s)
    number = rng.choice(STOP_SIGNALS)
    began = time.monotonic()
    send(driver, number, way)
    if twice:
        time.sleep(rng.uniform(0.6, 1.0))  # sooner it is the same request
        send(driver, number, way)
    code = driver.wait(timeout=120)
    took_s = time.monotonic() - began
    deadline = time.monotonic() + 10  # helpers of Python and Ray notice a moment later
    while (left := living("session", driver.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        print(f"left behind: {Path(f'/proc/{pid}/cmdline').read_bytes()[:200]!r}", flush=True)
        os.kill(pid, signal.SIGKILL)
    return code, took_s, bool(left)


if __name__ == "__main__":
    main()
