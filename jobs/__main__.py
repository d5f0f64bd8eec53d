"""The command line: the console script's entry, and `python -m jobs`, where that is not installed."""

from __future__ import annotations

import sys

__all__ = ("main",)

_INTERRUPTED = 130
"""The exit code of what Ctrl-C ended, as typer has it for commands."""


def main() -> None:
    """Run the command line. Ctrl-C while it is being loaded, which may take seconds, ends it as quietly."""
    try:
        from jobs.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
