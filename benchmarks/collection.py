"""A collection through the runner, against the work alone: photographs painted in one pass.

The bound: as many processes as there are workers, each with one thread, that decode, paint and encode, with the
network loaded before, and nothing else. It is measured before and after each job, since machines are shared.
`of_bound`: photographs per second of a job, from the command to its end, start included, over the bound's.

    python -m benchmarks.collection --photos FOLDER [--count 1000] [--pools local ray] [--workers 2]
        [--bound 60]
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Barrier

import pyarrow.parquet as pq
import torch

from benchmarks import lacks
from nst.features.weights import published_bytes
from nst.feed_forward.method import SHIPPED, FeedForward
from nst.images.codec import decode_image, encode_image
from nst.styles import PREFIX, style_bytes
from nst.stylizer import Stylized

STYLE = f"{PREFIX}swirls"


def work(photos: Sequence[Path], out: Path, together: Barrier) -> None:
    """Decode, paint and encode, with one thread, once all processes are ready."""
    torch.set_num_threads(1)
    assets = {STYLE: style_bytes(STYLE), SHIPPED: published_bytes(SHIPPED)}
    stylizer = FeedForward(style=STYLE).build(assets, torch.device("cpu"))
    stylizer([decode_image(photos[0].read_bytes())], [torch.Generator()])
    together.wait()
    for photo in photos:
        (outcome,) = stylizer([decode_image(photo.read_bytes())], [torch.Generator()])
        assert isinstance(outcome, Stylized)
        (out / photo.name).write_bytes(encode_image(outcome.image))
    together.wait()


def bound(photos: Sequence[Path], workers: int) -> float:
    """Photographs per second of the work alone."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        together = context.Barrier(workers + 1)
        processes = [
            context.Process(target=work, args=(photos[number::workers], Path(folder), together))
            for number in range(workers)
        ]
        for process in processes:
            process.start()
        together.wait()
        began = time.monotonic()
        together.wait()
        took = time.monotonic() - began
        for process in processes:
            process.join()
    return len(photos) / took


def job(photos: Sequence[Path], pool: str, workers: int) -> float:
    """Photographs per second of a job, from the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, manifest = Path(folder) / "out", Path(folder) / "photos.csv"
        manifest.write_text("url\n" + "".join(f"{photo.absolute()}\n" for photo in photos))
        command = [
            *(sys.executable, "-m", "jobs", "stylize", str(manifest), "--style", STYLE, "--out", str(out)),
            *("--pool", pool, "--workers", str(workers)),
        ]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic() - began
        done = pq.read_table(out / "results", columns=["status"])["status"].to_pylist()
        assert done == ["ok"] * len(photos), "not all are there"
    return len(photos) / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, help="left out: nothing is measured")
    parser.add_argument("--count", type=int, default=1000, help="photographs of each job; the first ones")
    parser.add_argument("--pools", nargs="*", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--bound", type=int, default=60, help="photographs of each measurement of the bound")
    arguments = parser.parse_args()
    if lacks(arguments, "photos"):
        return
    photos = list(itertools.islice(sorted(arguments.photos.iterdir()), arguments.count))
    few = photos[:: max(1, len(photos) // arguments.bound)]
    result: dict[str, float] = {"photos": len(photos), "workers": arguments.workers}
    bounds = [bound(few, arguments.workers)]
    print(f"{'pool':6} {'bound, a second':>16} {'job, a second':>14} {'of bound':>9}")
    for pool in arguments.pools:
        rate = job(photos, pool, arguments.workers)
        bounds.append(bound(few, arguments.workers))
        most = statistics.mean(bounds[-2:])
        print(f"{pool:6} {bounds[-2]:7.2f}, {bounds[-1]:7.2f} {rate:14.2f} {rate / most:9.3f}", flush=True)
        result |= {f"{pool}_per_s": round(rate, 3), f"{pool}_of_bound": round(rate / most, 3)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
