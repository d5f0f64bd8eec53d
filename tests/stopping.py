"""Stop jobs with SIGINT and SIGTERM at random moments, go on with them, and look at what that cost.

    python -m tests.stopping [--moments 200] [--pools local ray] [--seed 0]

A driver is started, signaled once (every fifth time twice), and must be gone within its grace period, with
exit code 75 if the job was begun, leaving no process. What it computed and did not record is work that the next
one redoes: at most what was in flight; and nothing, if it was stopped gently.
"""

from __future__ import annotations

import argparse
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

from jobs.errors import EXIT_STOPPED
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.stores.store import LocalStore
from jobs.worker.messages import WorkerSetup
from tests.processes import living

PHOTOS, WORKERS = 300, 2
GRACE_S = {"local": 10.0, "ray": 30.0}
"""Ray's own start and end cannot be interrupted, and take more than ten seconds on two busy cores."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--pools", nargs="+", choices=["local", "ray"], default=["local", "ray"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", nargs=2, metavar=("FOLDER", "POOL"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.drive:
        drive(Path(options.drive[0]), options.drive[1])
        return
    found: Counter[str] = Counter()
    for pool in options.pools:
        with tempfile.TemporaryDirectory() as folder:
            moments = options.moments // len(options.pools)
            counted, slowest_s = torment(Path(folder), pool, moments, random.Random(options.seed))
        print(f"{pool:6} " + ", ".join(f"{name} {number}" for name, number in counted.items()))
        print(f"       slowest exit {slowest_s:.1f} s of {GRACE_S[pool]:g} s", flush=True)
        found.update(counted)
    print(json.dumps(found))
    sys.exit(any(found[name] for name in ("late", "wrong_code", "left_behind", "too_much_redone", "faults")))


def drive(folder: Path, pool: str) -> None:
    """The real command line's way to run a job, with the stub method."""
    from jobs.cli.work import errors, execute
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


def torment(folder: Path, pool: str, moments: int, rng: random.Random) -> tuple[Counter[str], float]:
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
            code, took_s, left = stop_once(folder, pool, rng.uniform(0, undisturbed_s), rng, twice=twice)
            slowest_s = max(slowest_s, took_s)
            found["late"] += took_s > GRACE_S[pool]
            found["left_behind"] += left
            found["moments"] += 1
            found["stopped"] += code == EXIT_STOPPED
            found["ended"] += code == 0
            found["wrong_code"] += code not in (0, EXIT_STOPPED)
            if code not in (0, EXIT_STOPPED):
                print(f"exit code {code}; {(folder / 'driver.out').read_text()[-2000:]}", flush=True)
            vain = in_vain(tally, store) - vain_before
            found["computed_in_vain"] += vain
            found["too_much_redone"] += vain > (in_flight if twice else 0)
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


def start(folder: Path, pool: str) -> subprocess.Popen[bytes]:
    """A driver that listens to signals. Before it does, while Python imports, a signal does to it what it does
    to any program."""
    listening = folder / "listening"
    listening.unlink(missing_ok=True)
    with (folder / "driver.out").open("wb") as out:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.stopping", "--drive", str(folder), pool],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    while not listening.exists() and driver.poll() is None:
        time.sleep(0.01)
    return driver


def stop_once(
    folder: Path, pool: str, moment_s: float, rng: random.Random, *, twice: bool
) -> tuple[int, float, bool]:
    """Exit code, seconds from the signal to the exit, and whether a process was left behind."""
    driver = start(folder, pool)
    time.sleep(moment_s)
    number = rng.choice((signal.SIGINT, signal.SIGTERM))
    began = time.monotonic()
    driver.send_signal(number)
    if twice:
        time.sleep(rng.uniform(0, 0.3))
        driver.send_signal(number)
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
