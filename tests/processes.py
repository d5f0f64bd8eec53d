"""Which processes live, from /proc. Linux."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["living"]

_FIELD = {"group": 2, "session": 3}


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
