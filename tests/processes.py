"""Processes of tests: those that do not outlive them, and which others live, from /proc. Linux."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

__all__ = ["end_with_parent", "living", "spawn"]

_FIELD = {"group": 2, "session": 3}
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def end_with_parent() -> None:
    """Have this process killed when the one that has started it is gone, and hear signals that one in the
    background does not; for `preexec_fn`."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """Start a process in a session of its own that ends with the test's process, which may be killed, too."""
    return subprocess.Popen(command, start_new_session=True, preexec_fn=end_with_parent, **options)


def living(kind: Literal["group", "session"], leader: int) -> list[int]:
    """Processes of a process group or of a session that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[_FIELD[kind]]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
