"""A few of the moments of `make stopping`, with signals for more than the driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.processes import spawn


@pytest.mark.slow
def test_a_signal_at_any_moment_is_in_time_and_wastes_nothing() -> None:
    command = [sys.executable, "-m", "tests.stopping", "--moments", "2", "--pools", "local"]
    command += ["--ways", "service", "group"]  # others: test_stop_signals.py
    environment = {**os.environ, "NST_SLOWER": "6"}  # other tests run beside it
    run = spawn(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, errors = run.communicate()
    assert run.returncode == 0, out + errors
    found = json.loads(out.splitlines()[-1])
    assert found["moments"] == 2
    assert found["stopped"] + found["ended"] == 2
