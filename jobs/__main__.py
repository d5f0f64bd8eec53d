"""`python -m jobs`: the command line, where the console script is not installed."""

from __future__ import annotations

from jobs.cli.app import main

__all__ = ("main",)

if __name__ == "__main__":
    main()
