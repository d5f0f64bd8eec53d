"""Jobs of any size whose results were written, not computed: few pictures, each under many names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.driver.job import Job, create_or_open
from jobs.ledger.layout import picture_path
from jobs.ledger.manifest import Row
from jobs.ledger.receipts import seal
from jobs.ledger.results import Result, image_seed
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from tests.conftest import encoded, picture
from tests.methods import REGISTRY

EVIL = "2019/<script>alert(1)</script>"
PICTURES = 12
STARTED = 1_790_000_000.0


def key(number: int) -> str:
    places = ("rome", "lisbon", "a long walk around the lake", "harbor")
    return EVIL if number == 7 else f"{2019 + number // 5000}/{places[number // 50 % 4]}/img {number:05d}"


def failed(number: int) -> bool:
    return number % 97 == 5


def made_job(folder: Path, count: int, shard_size: int = 64) -> Job:
    """A job of `count` photographs that is begun and has no results."""
    (folder / "photos").mkdir(parents=True)
    for number in range(PICTURES):
        size = ((480, 320), (320, 480), (480, 270))[number % 3]
        (folder / f"photos/{number}.jpg").write_bytes(encoded(picture(number, *size)))
    rows = [{"url": f"photos/{number % PICTURES}.jpg", "key": key(number)} for number in range(count)]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = {
        "photos": "list.jsonl",
        "output": "out",
        "method": {"kind": "stub"},
        "resources": {"pool": "local", "shard_size": shard_size},
    }
    job = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
    for number in range(PICTURES):
        (folder / f"made-{number}.jpg").write_bytes(encoded(_painted(number)))
    return job


def _painted(number: int) -> Image.Image:
    size = ((480, 320), (320, 480), (480, 270))[number % 3]
    return picture(number, *size).point(lambda level: level // 64 * 85)


def result_of(job: Job, row: Row, *, digest: str = "0") -> Result:
    """What becomes of a photograph here; some have failed."""
    number = row.index
    common: dict[str, Any] = {"row": row.index, "key": row.key, "url": row.url, "attempts": 1}
    common |= {"seed": image_seed(0, row.key), "finished_at": STARTED + number, "load_s": 0.01}
    common |= {"worker_host": "here", "worker_pid": 1 + number % 3}
    if failed(number):
        return Result(**common, status="failed", error_type="DecodeError", error="it looks like text")
    width, height = ((480, 320), (320, 480), (480, 270))[number % PICTURES % 3]
    return Result(
        **common,
        status="ok",
        output=picture_path(row.key, job.spec.image),
        width=width,
        height=height,
        source_sha256=f"{number % PICTURES:064x}",
        output_sha256=f"{number:x}".rjust(16, digest).ljust(64, "0"),
        compute_s=1 + number * 7919 % 1000 / 100,
        save_s=0.02,
        stats={"change": number * 6007 % 1000 / 2000, "style_loss": 1e3 + number % 13},
    )


def finish(job: Job, shards: Iterable[int]) -> None:
    """Seal shards, as if they had been computed."""
    root = Path(job.store.url)
    for shard in shards:
        rows = job.manifest.shard(shard)
        results = [result_of(job, row) for row in rows]
        for result in results:
            if result.output is not None:
                place = root / result.output
                place.parent.mkdir(parents=True, exist_ok=True)
                os.link(root.parent / f"made-{result.row % PICTURES}.jpg", place)
        seal(job.store, shard, rows, results, generation=0, fingerprint=job.fingerprint)


class AskedStore(LocalStore):
    """Notes which objects are read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: list[str] = []

    def read(self, path: str) -> bytes:
        self.asked.append(path)
        return super().read(path)
