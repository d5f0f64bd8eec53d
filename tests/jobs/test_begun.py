"""A job that an earlier version began, of before the packages got rooms, is read, resumed and finished.

tests/fixtures/begun_job was written at commit 1be2084, with torch 2.15 on a CPU with AVX-512, through VGG16
with seeded weights, its photographs named by /proc/self/cwd. `out` has one of three receipts; of the second
shard the journal and its pictures; of the third nothing. `expected` is what that version made of the job when
nobody interrupted it. Trainings that it began: tests/jobs/test_recipes.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
BEGUN = ROOT / "tests/fixtures/begun_job"
SAME = ("row", "key", "url", "status", "error_type", "error", "output", "width", "height", "seed")
pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="the fixtures name /proc/self/cwd")


def test_photographs_are_finished(tmp_path: Path) -> None:
    home = Path(shutil.copytree(BEGUN, tmp_path / "job"))
    before = {path: path.read_bytes() for path in (home / "out").rglob("*") if path.is_file()}
    job = json.loads((home / "out/job.json").read_text())
    for command, code in (("status", 0), ("resume", 3), ("verify", 0)):  # 3: a photograph failed
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", command, "out"],
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
    assert json.loads((home / "out/job.json").read_text()) == job
    assert (home / "out/results/shard-00000.parquet").read_bytes() == before[
        home / "out/results/shard-00000.parquet"
    ]
    for number in range(3):
        name = f"results/shard-{number:05}.parquet"
        found = pq.read_table(home / "out" / name).to_pylist()
        expected = pq.read_table(home / "expected" / name).to_pylist()
        assert [{key: row[key] for key in SAME} for row in found] == [
            {key: row[key] for key in SAME} for row in expected
        ]
        for row, other in zip(found, expected, strict=True):
            assert dict(row["stats"]) == pytest.approx(dict(other["stats"]), rel=1e-3)
    for path in (home / "expected/images").rglob("*.png"):
        made = home / "out" / path.relative_to(home / "expected")
        # Other processors round otherwise, and L-BFGS amplifies it: some levels of 255.
        levels = np.asarray(Image.open(made), dtype=int) - np.asarray(Image.open(path), dtype=int)
        assert abs(levels).max() <= 2
