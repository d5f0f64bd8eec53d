"""How long `nst verify` takes: a finished job of many small pictures, made here, read again in full.

The baseline is what cannot be saved: reading every picture and hashing it, nothing else, in the same run.

    python -m benchmarks.verify_speed [--results 100000]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from jobs.driver.job import Job, create_or_open
from jobs.inspect.verify import verify
from jobs.ledger.layout import receipt_path
from jobs.ledger.manifest import Row
from jobs.ledger.results import Result, image_seed, write_receipt
from jobs.spec import job_from_table


@contextmanager
def finished_job(results: int) -> Iterator[Job]:
    """A job as a run would leave it, but for its journals; pictures of 2 KB."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lines = (f"k{number % 100:02d}/{number:07d},/photos/{number}.jpg" for number in range(results))
        (folder / "photos.csv").write_text("key,url\n" + "\n".join(lines))
        table = {
            "photos": "photos.csv",
            "output": "out",
            "method": {"kind": "deepdream", "network": "embedded"},
        }
        job = create_or_open(job_from_table(table, folder))
        for number in range(min(results, 100)):
            (folder / f"out/images/k{number:02d}").mkdir(parents=True)
        (folder / "out/results").mkdir()
        for shard in range(job.manifest.shards):
            rows = [_made(job, folder / "out", row) for row in job.manifest.shard(shard)]
            receipt = write_receipt(rows, shard=shard, generation=0, fingerprint=job.fingerprint)
            (folder / "out" / receipt_path(shard)).write_bytes(receipt)
        yield job


def _made(job: Job, out: Path, row: Row) -> Result:
    data = hashlib.sha256(row.key.encode()).digest() * 64
    output = f"images/{row.key}.jpg"
    (out / output).write_bytes(data)
    return Result(
        row=row.index,
        key=row.key,
        url=row.url,
        status="ok",
        output=output,
        output_sha256=hashlib.sha256(data).hexdigest(),
        seed=image_seed(job.spec.seed, row.key),
        stats={"loss": 1.0},
        finished_at=1.8e9 + row.index,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=int, default=100_000)
    count = parser.parse_args().results
    with finished_job(count) as job:
        began = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            paths = list(job.store.find("images"))
            digests = list(pool.map(lambda path: hashlib.sha256(job.store.read(path)).digest(), paths))
        baseline_s = time.perf_counter() - began
        began = time.perf_counter()
        faults = list(verify(job.store))
        verify_s = time.perf_counter() - began
    print(f"{len(digests)} pictures read and hashed: {baseline_s:.1f} s")
    print(f"verified: {verify_s:.1f} s, {len(faults)} faults")
    found = {"results": count, "verify_s": round(verify_s, 2), "ratio_to_reading": verify_s / baseline_s}
    print(json.dumps({**found, "faults": len(faults)}))


if __name__ == "__main__":
    main()
