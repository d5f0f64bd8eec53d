"""What poison costs: rows that fail, hang and kill among healthy ones, for `nst` and for Ray Data.

1 % of the rows, at seeded random places, are poison of ten kinds in equal parts. The same rows are run without
poison (every place holds a healthy picture) and with poison, on both pools; then through Ray Data's
`map_batches` with an actor pool of the same size and `max_errored_blocks=-1`: until a cap on time, since with
rows that end a process or hang it does not end, and once more without those. Two workers, and a method that
costs 10 ms per picture.

A hung row waits for its time limit twice, among others and alone on its worker. Two workers can do that at the
same time, so that `limits` is half of the sum: `wall_ratio` = (poisoned wall - limits) / clean wall; with the
whole sum it is `wall_ratio_whole_limits`.

    python -m benchmarks.poison [--rows 10000] [--pools ray local] [--cap 150]
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import logging
import math
import mmap
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jobs.console.progress import Snapshot
from jobs.driver.job import create_or_open
from jobs.driver.run import run
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import Result
from jobs.spec import ImageSpec, job_from_table
from nst.images.codec import decode_image, encode_image
from nst.stylizer import AssetRef, Assets, Outcome, Stylized

WORKERS = 2
TIMEOUT_S = 3.0
PICTURE_S = 0.01
"""What the method costs: it sleeps, as if a GPU were at work. Real ones cost a hundred times as much."""
SIDE_PX = 32
BATCH_SIZE = 64
"""Of Ray Data, and its rows per block: as many as there are in a shard."""

EXPECTED: Mapping[str, tuple[str, str]] = {
    "zero-byte": ("failed", "DecodeError"),
    "truncated": ("failed", "DecodeError"),
    "bomb": ("failed", "ImageTooLarge"),
    "wrong type": ("failed", "DecodeError"),
    "no permission": ("failed", "PermissionError"),
    "raise": ("failed", "RuntimeError"),
    "NaN output": ("failed", "ImageError"),
    "hang": ("failed", "TimeLimit"),
    "hard exit": ("quarantined", "WorkerDied"),
    "memory hog": ("quarantined", "WorkerDied"),
}
"""How a row of each kind must end."""
LETHAL = ("hang", "hard exit", "memory hog")
"""Kinds that a process does not survive."""
WIDTHS = {"raise": 33, "NaN output": 34, "hang": 35, "hard exit": 36, "memory hog": 37}
"""A picture's width tells the method what to do."""

HOG_BYTES = 3 << 30
"""What a memory hog takes at most, for the sake of the machine."""
MEMORY_GB = 1.0
"""What a worker may take."""
MONITOR_BYTES = 2560 << 20
"""In Ray Data's run, Ray's memory monitor is to act when this much more than before is in use."""


# The method


@dataclass(frozen=True, kw_only=True, slots=True)
class Cheap:
    """Inverts a picture; does harm if its width says so, after leaving a mark in the folder `marks`."""

    marks: str

    def assets(self) -> Sequence[AssetRef]:
        return []

    def notes(self, assets: Assets) -> Sequence[str]:  # noqa: ARG002
        return []

    def build(self, assets: Assets, device: torch.device) -> Callable[..., list[Outcome]]:  # noqa: ARG002
        def stylize(images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG001
            return [self.one(image) for image in images]

        return stylize

    def one(self, image: Tensor) -> Outcome:
        kind = next((kind for kind, width in WIDTHS.items() if width == image.shape[2]), None)
        if kind in LETHAL:  # the height tells them apart
            (Path(self.marks) / f"{kind}-{image.shape[1] - SIDE_PX}-{uuid.uuid4().hex}").touch()
        if kind == "raise":
            raise RuntimeError("this one raises")
        if kind == "NaN output":
            return Stylized(torch.full_like(image, float("nan")))
        time.sleep(PICTURE_S if kind != "hang" else 3600)
        if kind == "hard exit":
            os._exit(1)
        if kind == "memory hog":
            hog()
        return Stylized(1 - image)


def hog() -> None:
    """Takes memory until this process is ended for it."""
    held = [mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE) for _ in range(HOG_BYTES >> 24)]
    for part in held:
        part[:] = b"\1" * len(part)
    time.sleep(TIMEOUT_S / 2)
    raise RuntimeError("the memory hog was not ended")


# Rows


def encoded(width: int, height: int, seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
    return out.getvalue()


def bomb() -> bytes:
    """A valid PNG of 1 bit per pixel and 400 million pixels, some 50 KB."""
    side = 20_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return len(data).to_bytes(4, "big") + kind + data + crc.to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(side * (1 + side // 8)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def poison(kind: str, number: int) -> bytes:
    if kind in WIDTHS:
        return encoded(WIDTHS[kind], SIDE_PX + number, number)
    if kind == "zero-byte":
        return b""
    if kind == "bomb":
        return bomb()
    if kind == "wrong type":
        return b"This is a text, whatever its name says.\n" * 20
    healthy = encoded(SIDE_PX, SIDE_PX, number)
    return healthy[: len(healthy) // 2] if kind == "truncated" else healthy


def make_rows(folder: Path, rows: int) -> dict[int, tuple[str, int]]:
    """Writes pictures and the manifests; returns the poison's kind and number by row."""
    each = max(1, rows // 1000)
    kinds = [(kind, number) for kind in EXPECTED for number in range(each)]
    places = random.Random(0).sample(range(rows), len(kinds))
    poisoned = dict(zip(places, kinds, strict=True))
    (folder / "photos").mkdir()
    lines: dict[str, list[str]] = {"clean": [], "poisoned": [], "mild": []}
    for row in range(rows):
        key = f"{row:05d}"
        (folder / f"photos/{key}.jpg").write_bytes(encoded(SIDE_PX, SIDE_PX, row))
        healthy = harmful = {"url": f"photos/{key}.jpg", "key": key}
        if row in poisoned:
            kind, number = poisoned[row]
            path = folder / f"photos/{key}-{kind}.jpg"
            path.write_bytes(poison(kind, number))
            if kind == "no permission":
                path.chmod(0)
            harmful = {"url": f"photos/{path.name}", "key": key}
        for name, spared in (("clean", tuple(EXPECTED)), ("poisoned", ()), ("mild", LETHAL)):
            spare = row in poisoned and poisoned[row][0] in spared
            lines[name].append(json.dumps(healthy if spare else harmful))
    for name, text in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(text))
    return poisoned


def give_up_root_rights() -> None:
    """Root may read files of mode 000. Processes started from here on may not: Linux' CAP_DAC_OVERRIDE and
    CAP_DAC_READ_SEARCH are taken out of what they can have. Nothing changes for other users."""
    if os.geteuid() == 0:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        for capability in (1, 2):
            if prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "cannot give up the right to read every file")


def memory_threshold() -> str:
    """For Ray's memory monitor: a share of the machine's memory, little above what is in use now."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {name.rstrip(":"): int(value) for name, value, *_ in lines}
    used = kib["MemTotal"] - kib["MemAvailable"] + (MONITOR_BYTES >> 10)
    return f"{min(0.95, used / kib['MemTotal']):.4f}"


# One measured run, in a process of its own


def run_nst(folder: Path, manifest: str, pool: str) -> dict[str, Any]:
    name = f"{pool}-{manifest}"
    marks = folder / f"{name}-marks"
    marks.mkdir()
    table = {
        "photos": f"{manifest}.jsonl",
        "output": f"{name}-out",
        "method": {"kind": "cheap", "marks": str(marks)},
        "resources": {"pool": pool, "max_workers": WORKERS, "timeout_s": TIMEOUT_S, "memory_gb": MEMORY_GB},
    }
    registry = {"cheap": Cheap}
    messages: list[str] = []

    def observe(snapshot: Snapshot) -> None:
        messages.extend(event.text for event in snapshot.log_events)

    began = time.monotonic()
    job = create_or_open(job_from_table(table, folder, registry), registry)
    summary = run(job, observe=observe)
    wall = time.monotonic() - began
    ledger = Ledger(job.store)
    results = [result for shard in sorted(ledger.done()) for result in ledger.receipt(shard)[0]]
    (folder / f"{name}.json").write_text(json.dumps([result.to_json() for result in results]))
    (folder / f"{name}-messages.txt").write_text("\n".join(messages))
    return {
        "wall_s": wall,
        "start_s": summary.seconds.get("worker", math.nan),
        "deaths": sum(" is gone: " in message for message in messages),
        "error": None if summary.error is None else str(summary.error),
    }


class RayDataStylizer:
    """What a user would write for `map_batches`: an exception is the whole batch's."""

    def __init__(self, folder: str, marks: str) -> None:
        torch.set_num_threads(1)
        self.folder, self.method, self.image = Path(folder), Cheap(marks=marks), ImageSpec()
        (self.folder / "ray-data").mkdir(exist_ok=True)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        for url, key in zip(batch["url"], batch["key"], strict=True):
            data = (self.folder / url).read_bytes()
            image = decode_image(data, max_side_px=self.image.max_side_px, max_pixels=self.image.max_pixels)
            outcome = self.method.one(image)
            if not isinstance(outcome, Stylized) or not bool(torch.isfinite(outcome.image).all()):
                raise ValueError("no picture")
            (self.folder / f"ray-data/{key}.jpg").write_bytes(encode_image(outcome.image))
        return {"key": batch["key"]}


def run_ray_data(folder: Path, manifest: str, cap_s: float) -> dict[str, Any]:
    """Ends by itself or is ended at `cap_s`; says which, and what was delivered."""
    import ray
    import ray.data

    marks = folder / f"data-{manifest}-marks"
    marks.mkdir()
    rows = [json.loads(line) for line in (folder / f"{manifest}.jsonl").read_text().splitlines()]
    began = time.monotonic()
    ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    blocks = math.ceil(len(rows) / BATCH_SIZE)
    dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        RayDataStylizer,
        fn_constructor_args=(str(folder), str(marks)),
        batch_size=BATCH_SIZE,
        compute=ray.data.ActorPoolStrategy(size=WORKERS),
        num_cpus=1,
    )
    delivered: list[str] = []
    ended: list[str] = []

    def consume() -> None:
        try:
            for batch in dataset.iter_batches(batch_size=None):
                delivered.extend(map(str, batch["key"]))
            ended.append("yes")
        except Exception as error:  # noqa: BLE001  whatever it is, it is how Ray Data ended: reported
            ended.append(f"{type(error).__name__}: {' '.join(str(error).split())[:150]}")

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    thread.join(cap_s)
    return {
        "wall_s": time.monotonic() - began,
        "ended": ended[0] if ended else f"no, stopped after {cap_s:g} s",
        "keys": list(delivered),
    }


def part(*arguments: str, limit_s: float, **environment: str) -> dict[str, Any]:
    """Run one of the above in a process that has not got root's rights, and give back what it returned."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.poison", "--part", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_ADDRESS": "", **environment},
        timeout=limit_s,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# What came of it


def by_key(folder: Path, name: str) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for record in json.loads((folder / f"{name}.json").read_text()):
        result = Result.from_json(record)
        found.setdefault(result.key, []).append(result)
    return found


def judge(folder: Path, pool: str, rows: int, poisoned: Mapping[int, tuple[str, int]]) -> dict[str, Any]:
    """Compares the poisoned run with the clean one, row by row."""
    clean, after = by_key(folder, f"{pool}-clean"), by_key(folder, f"{pool}-poisoned")
    lost = blamed = 0
    ended: dict[str, Counter[str]] = {kind: Counter() for kind in EXPECTED}
    for row in range(rows):
        key = f"{row:05d}"
        results = after.get(key, [])
        if row in poisoned:
            text = "+".join(f"{result.status} {result.error_type}" for result in results) or "nothing"
            ended[poisoned[row][0]][text] += 1
            continue
        blamed += any(result.status != "ok" for result in results)
        good = [result for result in results if result.status == "ok"]
        whole = len(good) == 1 and good[0].output_sha256 == clean[key][0].output_sha256
        lost += not (whole and (folder / f"{pool}-poisoned-out/images/{key}.jpg").is_file())
    marks = Counter(tuple(mark.name.split("-")[:2]) for mark in (folder / f"{pool}-poisoned-marks").iterdir())
    unexpected = 0
    for kind, (status, error) in EXPECTED.items():
        unexpected += ended[kind].total() - ended[kind][f"{status} {error}"]
    return {
        "healthy_lost": lost,
        "wrongly_blamed": blamed,
        "poison_unexpected": unexpected,
        "ended": ended,
        "runs": {kind: max(n for (k, _), n in marks.items() if k == kind) for kind in LETHAL},
    }


def compare(folder: Path, pool: str, rows: int, poisoned: Mapping[int, tuple[str, int]]) -> dict[str, Any]:
    """Clean and poisoned run on one pool; prints its table."""
    clean = part("nst", str(folder), "clean", pool, limit_s=3600)
    dirty = part("nst", str(folder), "poisoned", pool, limit_s=3600)
    found = judge(folder, pool, rows, poisoned)
    hung = sum(kind == "hang" for kind, _ in poisoned.values())
    whole = 2 * TIMEOUT_S * hung
    limits = whole / min(WORKERS, 2 * hung)
    print(f"\nnst, pool {pool}: {rows} rows, {len(poisoned)} of them poison")
    for kind, ends in found["ended"].items():
        runs = f", run {found['runs'][kind]} times at most" if kind in LETHAL else ""
        print(f"  {kind:14} {', '.join(f'{count} {text}' for text, count in ends.items())}{runs}")
    deaths = dirty["deaths"]
    print(f"  healthy rows lost {found['healthy_lost']}, wrongly blamed {found['wrongly_blamed']}")
    print(
        f"  clean {clean['wall_s']:.1f} s (first worker after {clean['start_s']:.1f} s), "
        f"poisoned {dirty['wall_s']:.1f} s, {deaths} workers ended;\n  allowed {1.25 * clean['wall_s']:.1f} s "
        f"+ {limits:.1f} s of time limits (their whole sum is {whole:.1f} s)"
    )
    for run_, name in ((clean, "clean"), (dirty, "poisoned")):
        if run_["error"] is not None:
            print(f"  the {name} run ended with: {run_['error']}")
    return {
        "healthy_lost": found["healthy_lost"],
        "wrongly_blamed": found["wrongly_blamed"],
        "poison_unexpected": found["poison_unexpected"],
        "deaths_per_hard_exit": found["runs"]["hard exit"],
        "wall_ratio": round((dirty["wall_s"] - limits) / clean["wall_s"], 3),
        "wall_ratio_whole_limits": round((dirty["wall_s"] - whole) / clean["wall_s"], 3),
        "deaths": deaths,
        "clean_s": round(clean["wall_s"], 1),
        "poisoned_s": round(dirty["wall_s"], 1),
    }


def pandas(folder: Path) -> Path | None:
    """Where pandas is, which Ray Data does not start without. Not among our dependencies, so not kept. None: it
    cannot be fetched."""
    target = folder / "pandas"
    names = ("pandas", "python-dateutil", "six")
    command = ("-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target")
    done = subprocess.run([sys.executable, *command, str(target), *names], check=False)
    return target if done.returncode == 0 else None


def ray_data(
    folder: Path, name: str, rows: int, poisoned: Mapping[int, tuple[str, int]], cap_s: float, packages: Path
) -> dict[str, Any]:
    environment = {"PYTHONPATH": str(packages)}
    if name == "poisoned":
        environment["RAY_memory_usage_threshold"] = memory_threshold()
    found = part("data", str(folder), name, str(cap_s), limit_s=cap_s + 240, **environment)
    keys = Counter(found["keys"])
    healthy = {f"{row:05d}" for row in range(rows) if row not in poisoned}
    lost = sum(keys[key] != 1 for key in healthy)
    print(
        f"  {name:9} {sum(keys.values()):6} rows delivered, {lost:6} healthy rows lost, "
        f"{found['wall_s']:6.1f} s, ended: {found['ended']}"
    )
    return {"healthy_lost": lost, "ended": found["ended"], "wall_s": round(found["wall_s"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--pools", nargs="*", choices=("ray", "local"), default=["ray", "local"])
    parser.add_argument("--cap", type=float, default=150.0, help="seconds for each run of Ray Data; 0: none")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        from benchmarks import poison  # so that the method is not of `__main__`, which workers would run again

        what, place, name, last = arguments.part
        folder = Path(place)
        if what == "nst":
            outcome = poison.run_nst(folder, name, last)
        else:
            outcome = poison.run_ray_data(folder, name, float(last))
        print(json.dumps(outcome), flush=True)
        os._exit(0)  # Ray Data may not let go
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        poisoned = make_rows(folder, arguments.rows)
        give_up_root_rights()
        found = {pool: compare(folder, pool, arguments.rows, poisoned) for pool in arguments.pools}
        data = {}
        packages = pandas(folder) if arguments.cap else None
        if arguments.cap and packages is None:
            print("\nRay Data is left out: pandas, which it needs, cannot be fetched")
        elif packages is not None:
            print(
                "\nRay Data, map_batches, max_errored_blocks=-1 (mild: without hang, hard exit and memory hog):"
            )
            for name in ("poisoned", "mild"):
                data[name] = ray_data(folder, name, arguments.rows, poisoned, arguments.cap, packages)
    first, *others = found
    print(json.dumps({**found[first], **{pool: found[pool] for pool in others}, "ray_data": data}))


if __name__ == "__main__":
    main()
