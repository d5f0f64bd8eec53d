"""What the runner costs: throughput against a bare loop, driver CPU per image, time to the first image.

1. Steady throughput of a job with one Ray actor over that of a bare loop with the same stylizer and the same
   threads for loading and saving, in turn. Both write the same files; the loop keeps no journal.
2. CPU of the driver per image, planning included, over 20,000 rows and a method that does nothing.
3. From the command to the first image, by phase, in a fresh process.

    python -m benchmarks.runner_overhead [--photos 60] [--rounds 3] [--rows 20000]
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image
from torch import Tensor

from jobs.driver.job import create_or_open
from jobs.driver.run import run
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import image_seed
from jobs.spec import job_from_table
from nst.images.codec import decode_image, encode_image
from nst.methods import METHODS
from nst.style_transfer.method import StyleTransfer
from nst.stylizer import AssetRef, Assets, Outcome, Stylized

LOAD_THREADS = SAVE_THREADS = 2
SIDE_PX = 96
METHOD: dict[str, Any] = {
    "kind": "style_transfer",
    "style": "style.png",
    "network": "vgg16",
    "weights": "seeded",
    "preset": "tutorial",
    "steps": 12,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    """Gives every image back."""

    def assets(self) -> Sequence[AssetRef]:
        return []

    def notes(self, assets: Assets) -> Sequence[str]:  # noqa: ARG002
        return []

    def build(self, assets: Assets, device: torch.device) -> Callable[..., list[Outcome]]:  # noqa: ARG002
        return nothing


def nothing(images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG001
    return [Stylized(image) for image in images]


REGISTRY = {**METHODS, "nothing": Nothing}


def make_photos(folder: Path, count: int) -> None:
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(count + 1):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        name = folder / ("style.png" if number == count else f"photos/{number:04d}.jpg")
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(name, quality=92)


# 1. Throughput


def job_rate(folder: Path, output: str) -> float:
    """Images per second of a job with one actor, from its first result to its last."""
    table = {
        "photos": "photos",
        "output": output,
        "method": METHOD,
        "image": {"max_side_px": SIDE_PX},
        "resources": {"max_workers": 1, "load_threads": LOAD_THREADS, "save_threads": SAVE_THREADS},
    }
    job = create_or_open(job_from_table(table, folder))
    summary = run(job)
    assert summary.exit_code == 0, summary
    ledger = Ledger(job.store)
    finished = [result.finished_at for shard in ledger.done() for result in ledger.receipt(shard)[0]]
    return (len(finished) - 1) / (max(finished) - min(finished))


def loop_rate(folder: Path, output: str) -> float:
    """The same of a bare loop, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.runner_overhead", "--loop", str(folder), output],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def bare_loop(folder: Path, output: str) -> float:
    torch.set_num_threads(1)
    options = {name: value for name, value in METHOD.items() if name != "kind"}
    method = StyleTransfer(**options)
    stylizer = method.build({"style.png": (folder / "style.png").read_bytes()}, torch.device("cpu"))
    target = folder / output / "images"
    target.mkdir(parents=True)
    photos = sorted((folder / "photos").iterdir())
    finished: list[float] = []

    def load(path: Path) -> Tensor:
        return decode_image(path.read_bytes(), max_side_px=SIDE_PX)

    def save(path: Path, image: Tensor) -> None:
        with (target / path.name).open("wb") as handle:
            handle.write(encode_image(image))
            handle.flush()
            os.fsync(handle.fileno())
        finished.append(time.time())

    with ThreadPoolExecutor(LOAD_THREADS) as loaders, ThreadPoolExecutor(SAVE_THREADS) as savers:
        loading: list[Future[Tensor]] = [loaders.submit(load, path) for path in photos[:3]]
        for number, path in enumerate(photos):
            image = loading.pop(0).result()
            if number + 3 < len(photos):
                loading.append(loaders.submit(load, photos[number + 3]))
            generator = torch.Generator().manual_seed(image_seed(0, path.stem))
            (outcome,) = stylizer([image], [generator])
            assert isinstance(outcome, Stylized)
            savers.submit(save, path, outcome.image)
    return (len(finished) - 1) / (max(finished) - min(finished))


def same_pictures(folder: Path, first: str, second: str) -> bool:
    names = sorted(path.name for path in (folder / first / "images").iterdir())
    return all(
        (folder / first / "images" / name).read_bytes() == (folder / second / "images" / name).read_bytes()
        for name in names
    )


# 2. Driver CPU


def driver_ms_per_image(folder: Path, rows: int) -> tuple[float, float]:
    """CPU milliseconds of the driver per image, and images per second."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 120, 60)).save(out, "PNG")
    (folder / "tiny.png").write_bytes(out.getvalue())
    lines = (json.dumps({"url": "tiny.png", "key": f"{n % 100:02d}/{n:05d}"}) for n in range(rows))
    (folder / "many.jsonl").write_text("\n".join(lines))
    table = {
        "photos": "many.jsonl",
        "output": "many",
        "method": {"kind": "nothing"},
        "image": {"format": "png"},
        "resources": {"max_workers": 1},
    }
    cpu, wall = time.process_time(), time.monotonic()
    job = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
    summary = run(job)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    assert summary.exit_code == 0, summary
    assert summary.counts["ok"] == rows
    return 1000 * cpu / rows, rows / wall


# 3. The first image

FIRST = """
import sys, time
began = float(sys.argv[1])
from pathlib import Path
from jobs.spec import read_job_file
from jobs.driver.job import create_or_open
from jobs.driver.run import run
imported = time.time()
job = create_or_open(read_job_file(Path(sys.argv[2])))
planned = time.time()
seconds = run(job).seconds
print(imported - began, planned - imported, seconds["pool"], seconds["worker"] - seconds["pool"],
      seconds["first_result"] - seconds["worker"])
"""


def first_image(folder: Path) -> dict[str, float]:
    method = "\n".join(f"{name} = {json.dumps(value)}" for name, value in METHOD.items())
    (folder / "first.toml").write_text(
        f'photos = "photos"\noutput = "first"\n[method]\n{method}\n'
        f"[image]\nmax_side_px = {SIDE_PX}\n[resources]\nmax_workers = 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", FIRST, str(time.time()), str(folder / "first.toml")],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_ADDRESS": ""},
    )
    names = ("start and import", "plan", "start Ray", "start a worker", "first image")
    return dict(zip(names, map(float, done.stdout.split()[-5:]), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--loop", nargs=2, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        print(bare_loop(Path(arguments.loop[0]), arguments.loop[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder, arguments.photos)
        phases = first_image(folder)
        ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        print(f"{'round':>5} {'loop images/s':>14} {'job images/s':>13} {'ratio':>6}")
        ratios = []
        for number in range(arguments.rounds):
            outputs = f"loop{number}", f"job{number}"
            rates = loop_rate(folder, outputs[0]), job_rate(folder, outputs[1])
            assert same_pictures(folder, *outputs), "the loop and the job must do the same work"
            ratios.append(rates[1] / rates[0])
            print(f"{number:5} {rates[0]:14.3f} {rates[1]:13.3f} {ratios[-1]:6.3f}")
        driver_ms, rate = driver_ms_per_image(folder, arguments.rows)
        ray.shutdown()
    print(
        f"\n{arguments.rows} rows, method that does nothing: {driver_ms:.3f} ms of driver CPU per image, ",
        end="",
    )
    print(f"{rate:.0f} images/s with one worker")
    print("\nfrom the command to the first image:")
    for phase, seconds in phases.items():
        print(f"  {phase:18} {seconds:6.2f} s")
    print(f"  {'all':18} {sum(phases.values()):6.2f} s")
    print(
        json.dumps(
            {
                "throughput_ratio": round(statistics.median(ratios), 4),
                "driver_ms_per_image": round(driver_ms, 4),
                "first_image_s": round(sum(phases.values()), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
