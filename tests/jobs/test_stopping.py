"""A few of the moments of `make stopping`."""

from __future__ import annotations

import json
import subprocess
import sys


def test_a_signal_at_any_moment_is_in_time_and_wastes_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.stopping", "--moments", "3", "--pools", "local"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["moments"] == 3
    assert found["stopped"] > 0
