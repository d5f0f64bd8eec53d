"""One command per claim: `python -m benchmarks.NAME` prints a table and, last, one line of JSON.

Claims are ratios against a baseline measured in the same run, in CPU time, A and B in turn: machines are
shared and noisy. What a benchmark needs and was not given, it says, and measures nothing: `make bench` runs all
without options.
"""

from __future__ import annotations

import argparse
import json

__all__ = ["lacks"]


def lacks(arguments: argparse.Namespace, *names: str) -> bool:
    """Whether options that there is nothing to measure without were left out. If so, that was printed, and the
    last line."""
    missing = [f"--{name}" for name in names if not getattr(arguments, name)]
    if missing:
        print(f"left out: it needs {', '.join(missing)}")
        print(json.dumps({"left_out": missing}))
    return bool(missing)
