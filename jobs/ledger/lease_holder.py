"""The record of a lease: which process holds it, and whether that is known to be gone."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jobs.stores.processes import boot_id, pid_namespace

__all__ = ["Holder", "at_work", "ended_here", "parse_holder", "this_process", "utc"]

_LONGEST_TERM_S = 86_400.0
_ENDED: set[str] = set()
"""Holders of this process that have ended, whether or not their records could be removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What a lease's object says. The times are for people, by the holder's own clock."""

    id: str
    host: str = "an unknown host"
    pid: int = 0
    started: str = "an unknown time"
    expires: str = "an unknown time"
    """If it is not renewed."""
    term_s: float = 60.0
    generation: int = 0
    renewals: int = 0
    boot_id: str = ""
    pid_namespace: str = ""
    process_started: str = ""

    @property
    def is_dead(self) -> bool:
        """It is known to have ended: in this process, or with another one that ran here and is gone."""
        if self.id in _ENDED:
            return True
        if not self.boot_id or (self.boot_id, self.pid_namespace) != (boot_id(), pid_namespace()):
            return False
        return _process_started(self.pid) != self.process_started

    def works_at(self, now: float) -> bool:
        """Whether it seems to be at work, by the clock of whoever asks: `now` is in seconds since the epoch."""
        return not self.is_dead and self.expires >= utc(now)

    def describe(self) -> str:
        """For people, from the record alone and the clock of whoever asks."""
        if self.is_dead:
            return f"{self}; it is gone, the next one takes over at once"
        if self.expires < utc(time.time()):
            return f"{self}; it gave no sign of life since before {self.expires}"
        return f"{self}; its lease lasts until {self.expires} and is renewed until it ends"

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"


def at_work(holders: Iterable[Holder | None]) -> Holder | None:
    """Of the holders of a job and its parts, one that seems to be at work, or else the first that was."""
    there, now = [holder for holder in holders if holder is not None], time.time()
    return next((holder for holder in there if holder.works_at(now)), next(iter(there), None))


def ended_here(id: str) -> None:
    """Note that a holder of this process has ended: whoever finds its record need not wait."""
    _ENDED.add(id)


def this_process(*, id: str, started_at: float, term_s: float, generation: int, renewals: int) -> Holder:
    """This process as a holder that is alive now.

    Args:
        started_at: since when it holds the lease, seconds since the epoch.
    """
    return Holder(
        id=id,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=utc(started_at),
        expires=utc(time.time() + term_s),
        term_s=term_s,
        generation=generation,
        renewals=renewals,
        boot_id=boot_id(),
        pid_namespace=pid_namespace(),
        process_started=_process_started(os.getpid()),
    )


def parse_holder(data: bytes, generation: int) -> Holder:
    """What is no record has an unknown holder, and runs out like any other."""
    try:
        record: dict[str, Any] = json.loads(data)
        holder = Holder(**{item.name: record[item.name] for item in fields(Holder)})
        if 0 < holder.term_s <= _LONGEST_TERM_S and isinstance(holder.pid, int):
            return holder
    except (ValueError, TypeError, KeyError):
        pass
    return Holder(id="", generation=generation)


def utc(seconds: float) -> str:
    """A time for people and records, from seconds since the epoch: 2026-11-21T03:12:44Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _process_started(pid: int) -> str:
    """Ticks since the boot; empty if there is no such process. Numbers of processes are used again."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]
