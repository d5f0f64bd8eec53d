"""A few of the kill points of `make chaos`."""

from __future__ import annotations

import json
import subprocess
import sys


def test_nothing_is_lost_whatever_call_a_job_dies_at() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--every", "300"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found.pop("kill_points") > 2
    assert not any(found.values())
