"""A job as it is looked at: its index, its marks and how far it is, kept up to date by one thread."""

from __future__ import annotations

import calendar
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any

import numpy as np

from jobs.console.progress import end_notes
from jobs.ledger.adapted import read_progress
from jobs.ledger.job_record import JobRecord
from jobs.ledger.lease import read_holder
from jobs.ledger.lease_holder import Holder, at_work
from jobs.ledger.marks import MARK_NAMES, Mark, change_marks, read_marks
from jobs.ledger.results import HALF_A_LEVEL, STATUSES, Tally
from jobs.stores.store import Store
from jobs.view.index import STATS, Index, Rows
from jobs.view.query import figures_of
from nst.errors import NstError

__all__ = ["Watch", "job_json", "progress"]

_POLL_S = 2.0
_UNWATCHED_S = 60.0
"""After so long without a question the store is left alone."""
_WINDOW_S = 600.0
"""Results that are younger tell the speed."""


@dataclass(slots=True)
class Watch:
    """What is known of the job in `store` by now.

    Raises:
        UsageError: there is no job, or one that is no job of photographs.
    """

    store: Store
    record: JobRecord = field(init=False)
    index: Index = field(init=False)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    marks_version: int = 0
    trouble: str = ""
    """Why nothing new can be read; empty: it can."""
    _driver: Holder | None = None
    _adapting: str = ""
    _rounds: int = 0
    """How often receipts are still to be read again: once from the beginning after a driver has ended."""
    _asked_at: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.index = Index(self.store)
        self.record = self.index.parts[0].record

    def __enter__(self) -> Watch:
        self._asked_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="view", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def refresh(self) -> None:
        """Read what came since the last time, or say why it cannot be."""
        try:
            self.read()
        except (OSError, NstError) as error:
            self.trouble = f"{type(error).__name__}: {error}"
        else:
            self.trouble = ""

    def read(self) -> None:
        """Read what came since the last time.

        Raises:
            OSError, NstError: it cannot be read.
        """
        # `nst resume` and `nst retry` may hold the lease of a part alone.
        self._driver = at_work([read_holder(part.store) for part in self.index.parts])
        learning = [part for part in self.index.parts if part.record.method.get("adapt_steps")]
        steps = (read_progress(part.store, part.record.fingerprint) for part in learning)
        self._adapting = str(next(filter(None, steps), ""))
        self.index.refresh(self._goes_on)
        self._take(read_marks(self.store))  # after what is there without them
        # While there are shards without a receipt, nobody retries those that have one.
        if self._driver is not None:
            self._rounds = 2
        if self._rounds and self.index.listed == self.index.shards:
            marked = [key for key, mark in self.marks.items() if mark == "again"]
            self._rounds -= self.index.again(marked, self._goes_on)

    def mark(self, keys: list[str], mark: Mark | None) -> None:
        """Give photographs a mark, or take it away.

        Raises:
            OSError, StoreError: it cannot be written.
        """
        self._take(change_marks(self.store, dict.fromkeys(keys, mark)))

    def tell(self) -> dict[str, Any]:
        """How far the job is, as JSON; it was asked for."""
        self._asked_at = time.monotonic()
        told = progress(self.index, self._driver, time.time())
        read = {"read": self.index.read, "listed": self.index.listed}
        notes = [*told.pop("notes"), *starmap(_damage, self.index.damaged.items())]
        return {**told, **read, "adapting": self._adapting, "trouble": self.trouble, "notes": notes}

    def _take(self, marks: Mapping[str, Mark]) -> None:
        if marks != self.marks:
            self.marks = marks
            self.marks_version += 1

    def _goes_on(self) -> bool:
        return not self._done.is_set()

    def _keep(self) -> None:
        while self._goes_on():
            began = time.monotonic()
            if began - self._asked_at < _UNWATCHED_S:
                self.refresh()
            # A store that takes long to list is asked less often.
            self._done.wait(max(_POLL_S, 5 * (time.monotonic() - began)))


def job_json(watch: Watch, rows: Rows) -> dict[str, Any]:
    """What the page says of a job, and what its rows can be asked for by."""
    return {
        **watch.tell(),
        "name": watch.store.url,
        "kind": watch.record.method["kind"],
        "figures": [{"name": name, "label": name.removeprefix(STATS)} for name in figures_of(rows)],
        "marks": {mark: sum(each == mark for each in watch.marks.values()) for mark in MARK_NAMES},
        "statuses": STATUSES,
    }


def _damage(place: tuple[int, int], why: str) -> str:
    part, shard = place
    return f"{f'part {part}, ' if part else ''}shard {shard}: {why}"


def progress(index: Index, driver: Holder | None, now: float) -> dict[str, Any]:
    """How far a job is, and who works on it.

    Args:
        driver: who holds the lease of the job, or of a part of it.
        now: seconds since the epoch.
    """
    rows, record = index.rows(), index.parts[0].record
    number = np.bincount(rows.status, minlength=len(STATUSES)).tolist()
    counts = dict(zip(STATUSES, number, strict=True))
    total, done, left = index.photographs, len(rows), index.left
    works = driver is not None and driver.works_at(now)
    if works:
        state = "running"
    elif done < total or index.listed < index.shards:  # some may be yet to be done again
        state = "unfinished"
    else:
        state = "complete" if counts["ok"] == total else "complete, with failures"
    rate, workers = _speed(rows, driver, now) if works else (0.0, 0)
    left_s = left / rate if rate and left > 0 else None  # nobody knows what is left of a retry
    changes = rows.figures.get(f"{STATS}change", np.empty(0))
    unchanged = Tally({}, int((changes >= 0).sum()), int((changes < HALF_A_LEVEL).sum()))
    return {
        "state": state,
        "total": total,
        "done": done,
        "counts": counts,
        "rate": rate,
        "left_s": left_s,
        "workers": workers,
        "driver": "" if driver is None else driver.describe(),
        "notes": [*record.notes, *end_notes(unchanged, record.method)],
    }


def _speed(rows: Rows, driver: Holder | None, now: float) -> tuple[float, int]:
    """Photographs per second lately, and how many workers made them."""
    finished = rows.figures["finished_at"]
    lately = finished > max(now - _WINDOW_S, _seconds(driver))
    times = finished[lately]
    if not len(times):
        return 0.0, 0
    workers = len(np.unique(rows.worker[lately]))
    span = max(now, float(times.max())) - float(times.min())
    return ((len(times) - 1) / span if span > 0 else 0.0), workers


def _seconds(driver: Holder | None) -> float:
    """When a driver began, in seconds since the epoch; 0: it does not say."""
    try:
        return float(calendar.timegm(time.strptime(driver.started if driver else "", "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0
