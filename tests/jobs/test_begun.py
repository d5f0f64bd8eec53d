"""Jobs that an earlier version began, of before the packages got rooms: they are read, resumed and finished.

tests/fixtures/begun was written at commit 1be2084, with torch 2.15 on a CPU with AVX-512, its photographs named
by /proc/self/cwd. `stylize/out` has one of three receipts; of the second shard the journal and its pictures; of
the third nothing. The trainings were killed after their first checkpoint, at step 4.
`expected` is what that version made of the same jobs when nobody interrupted it.
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
import safetensors.torch
import torch
from PIL import Image

from jobs.stores.store import LocalStore
from jobs.training.job import reopen_training
from jobs.training.layout import checkpoint_steps
from jobs.training.loop import LoopSetup, train
from jobs.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]
BEGUN = ROOT / "tests/fixtures/begun"
SAME = ("row", "key", "url", "status", "error_type", "error", "output", "width", "height", "seed")
pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="the fixtures name /proc/self/cwd")


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(BEGUN / name, folder / name))


def test_photographs_are_finished(tmp_path: Path) -> None:
    home = copied("stylize", tmp_path)
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


@pytest.mark.parametrize("kind", ["cyclegan", "modulated"])
def test_trainings_are_finished(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = copied(kind, tmp_path)
    monkeypatch.chdir(home)
    store = LocalStore(str(home / "out"))
    assert checkpoint_steps(store) == [4]
    expected = json.loads((home / "expected.json").read_text())
    steps = expected["curve"][-1]["step"]
    assert train(LoopSetup.of(reopen_training(store))) == steps
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in read_metrics(store)]
    assert len(rows) == len(expected["curve"])
    for row, other in zip(rows, expected["curve"], strict=True):
        assert row == pytest.approx(other, rel=1e-3)
    (generators,) = expected["generators"]
    found = safetensors.torch.load(store.read(generators))
    (file,) = home.glob("expected-*.safetensors")
    wanted = safetensors.torch.load(file.read_bytes())
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
