"""Who works on a job's folder: a lease in its store, so that two drivers do not do the same work twice.

Nothing correct depends on it. Two drivers at once, one paused for an hour and awake again, or one whose store
answers late, leave an exact ledger; what the lease saves is their work.

    lease-000017.json    of the 17th holder since the folder was last left in order

A holder creates the object of the next generation (create-only, so that of several challengers one wins),
publishes it anew every third of its term, and removes it at the end. The highest generation counts: who finds
one above its own, or another's record under its own name, has lost the lease.

When has a lease run out? Never by comparing the times in it with a clock of one's own: clocks of machines
differ by more than a term. A challenger takes the longer of two spans. One is how long it has seen the object
unchanged, on its own monotonic clock. The other is the object's age on the store's clock alone: the time at
which the store says that it was written, against that of an object written just now. The second spares who
comes an hour later the wait; a store that does not tell such times leaves the first. A holder whose process
ran on this host, in this process namespace and since this boot, and is gone, is not waited for, nor is one that
has ended in the process that asks.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.errors import LeaseHeld, LeaseLost
from jobs.ledger.layout import LeaseFile, lease_path, place_of
from jobs.ledger.lease_holder import Holder, ended_here, parse_holder, this_process
from jobs.stores.store import Store

__all__ = ["STANDARD_LEASE", "Lease", "LeaseOptions", "hold", "read_holder", "refuse_if_held"]

_ROUNDING_S = 1.0
"""Stores tell times in whole seconds."""
_POLL_S = 1.0
_WAIT = "--wait-for-lease waits for that"
_JOIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOptions:
    """How a driver takes its lease."""

    term_s: float = 60.0
    """Without a sign of life for so long, another driver may take over."""
    wait: bool = False
    """Wait for another driver's lease instead of being refused."""
    settle_s: float = 2.0
    """On a store that ignores create-only writes: after so long, whose record remains is the holder's."""
    say: Callable[[str], None] = lambda _: None
    """Told what is waited for."""


STANDARD_LEASE = LeaseOptions()


def read_holder(store: Store) -> Holder | None:
    """Who holds, or held, the lease last; None: it was given back. Writes nothing."""
    found = _newest(store)
    return None if found is None else found.holder


def refuse_if_held(store: Store, advice: str = _WAIT) -> None:
    """For who only wants to know whether a driver would be refused now.

    Args:
        advice: what the user can do.

    Raises:
        LeaseHeld: by another driver, as far as can be told.
    """
    found = _newest(store)
    if found is not None and not found.holder.is_dead:
        left_s = _left_s(store, found)
        if left_s > 0:
            raise _held(store, found.holder, left_s, advice)


@contextmanager
def hold(store: Store, options: LeaseOptions | None) -> Iterator[Lease | None]:
    """Hold the store's lease; None: do without.

    Raises:
        LeaseHeld: another driver does.
        OSError: the store fails.
    """
    if options is None:
        yield None
        return
    lease = Lease(store, options)
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()


@dataclass(frozen=True, slots=True)
class _Found:
    generation: int
    data: bytes
    holder: Holder


class Lease:
    """One driver's hold on a store. Ask `lost` before anything is published."""

    def __init__(self, store: Store, options: LeaseOptions | None = None) -> None:
        self._store, self._options = store, options or LeaseOptions()
        self._id = uuid.uuid4().hex
        self._generation = self._renewals = 0
        self._started_at = self._seen_at = 0.0  # since when it is ours, and when it was last known to be
        self._lost: LeaseLost | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @property
    def lost(self) -> LeaseLost | None:
        """Why this driver must stop and publish nothing more; None: it may go on.

        After a pause of more than a term the store is asked first.
        """
        if self._lost is None and time.monotonic() - self._seen_at > self._options.term_s:
            with contextlib.suppress(OSError):  # what cannot be asked cannot be written to either
                self._renew(wait=True)
        return self._lost

    def acquire(self) -> None:
        """Take the lease, once it is free, and begin to renew it.

        Raises:
            LeaseHeld: another driver holds it, and `wait` is not asked for.
            OSError: the store fails.
        """
        floor = 1  # a listing may lag behind what a create-only write has shown
        try:
            while True:
                there = set(_generations(self._store))
                found = _newest(self._store, floor)
                if found is None and floor > 1:
                    floor = 1  # given back since, and the next holder may have begun anew, below
                    continue
                if found is not None:
                    found = self._run_out(found)
                    if found is None:
                        floor = 1  # the same for all who find nothing there
                        continue
                    there.add(found.generation)  # it may have come while another was waited for
                    floor = found.generation + 1
                self._started_at, self._seen_at = time.time(), time.monotonic()
                if self._create(floor, found, there):
                    break
        except BaseException:  # a signal's, too
            ended_here(self._id)
            with contextlib.suppress(OSError):
                self._withdraw()
            raise
        self._thread.start()

    def release(self) -> None:
        """Give the lease back: nothing of it remains. One that cannot be removed runs out,
        but for who asks in this process, or on this machine when this process is gone."""
        self._done.set()
        ended_here(self._id)
        self._thread.join(_JOIN_S)
        if self._lost is None and not self._thread.is_alive():
            with contextlib.suppress(OSError):
                self._withdraw()

    def _withdraw(self) -> None:
        if self._generation and self._is_ours():
            self._store.remove(lease_path(self._generation))

    def _run_out(self, found: _Found) -> _Found | None:
        """Wait until the lease that was found, or one after it, has run out, and give that; None: it was given
        back."""
        told = False
        while not found.holder.is_dead:
            left_s = _left_s(self._store, found)
            if left_s <= 0:
                return found
            if not self._options.wait:
                raise _held(self._store, found.holder, left_s)
            if not told:
                self._options.say(f"waiting for {found.holder}")
                told = True
            until = time.monotonic() + left_s
            while time.monotonic() < until:
                time.sleep(min(_POLL_S, self._options.term_s / 10))
                now = _newest(self._store, found.generation)
                if now is None:
                    return None
                if now.data != found.data or found.holder.is_dead:
                    found = now
                    break
            else:
                return found
        return found

    def _create(self, generation: int, run_out: _Found | None, there: Set[int]) -> bool:
        """Whether the lease is ours now.

        Args:
            run_out: the one that is taken over.
            there: generations that were there with it, and do not count beside it.
        """
        self._generation, self._renewals = generation, 0
        try:
            self._store.publish(lease_path(generation), self._record(), create_only=True)
        except FileExistsError:
            return False
        if not self._store.create_only:  # two may have written; who wrote last remains
            time.sleep(self._options.settle_s)
        if not self._is_ours():
            return False
        # Another challenger may have found less, or more: each writes, and then looks for what others wrote.
        others = {each for each in _generations(self._store) if each != generation} - there
        if others or _newest(self._store, generation + 1) is not None or not self._is_there(run_out):
            self._withdraw()
            return False
        for older in _generations(self._store):
            if older < generation:
                self._store.remove(lease_path(older))
        return True

    def _is_there(self, run_out: _Found | None) -> bool:
        """Whether nothing has become of it. Its holder may have renewed it late, before it could see ours; or
        it was given back, and somebody who began anew sees nothing wrong."""
        if run_out is None:
            return True
        try:
            return self._store.read(lease_path(run_out.generation)) == run_out.data
        except FileNotFoundError:
            return False

    def _keep(self) -> None:
        while not self._done.wait(self._options.term_s / 3):
            with contextlib.suppress(OSError):  # a store that fails for long ends the job by itself
                self._renew()
            if self._lost is not None:
                return

    def _renew(self, *, wait: bool = False) -> None:
        """`wait`: also until what is being asked is answered."""
        if not self._lock.acquire(blocking=wait):
            return
        try:
            asked_at = time.monotonic()
            if self._lost is not None or self._done.is_set():
                return
            if wait and asked_at - self._seen_at <= self._options.term_s:  # answered meanwhile
                return
            if not self._is_ours():
                self._lose()
                return
            self._renewals += 1
            self._store.publish(lease_path(self._generation), self._record())
            # Asked after writing: who took over in between removed an object that has just come back.
            if _newest(self._store, self._generation + 1) is not None:
                self._withdraw()
                self._lose()
                return
            self._seen_at = asked_at
        finally:
            self._lock.release()

    def _lose(self) -> None:
        holder = read_holder(self._store)
        by = "somebody removed it" if holder is None else f"it is that of {holder}"
        self._lost = LeaseLost(
            f"{self._store.url}: this driver's lease is lost: {by}; it publishes nothing more"
        )

    def _is_ours(self) -> bool:
        try:
            return parse_holder(self._store.read(lease_path(self._generation)), 0).id == self._id
        except FileNotFoundError:
            return False

    def _record(self) -> bytes:
        holder = this_process(
            id=self._id,
            started_at=self._started_at,
            term_s=self._options.term_s,
            generation=self._generation,
            renewals=self._renewals,
        )
        return holder.to_bytes()


def _generations(store: Store) -> list[int]:
    return sorted(it.generation for name in store.names("") if isinstance(it := place_of(name), LeaseFile))


def _newest(store: Store, least: int = 1) -> _Found | None:
    """The lease of the highest generation, `least` or above, that is there."""
    for generation in sorted({*_generations(store), least}, reverse=True):
        if generation < least:
            break
        with contextlib.suppress(FileNotFoundError):  # given back since
            data = store.read(lease_path(generation))
            return _Found(generation, data, parse_holder(data, generation))
    return None


def _left_s(store: Store, found: _Found) -> float:
    """Until a lease runs out that is not renewed, as far as the store tells."""
    try:
        age_s = store.age_s(lease_path(found.generation))
    except FileNotFoundError:
        return 0.0
    return max(0.0, found.holder.term_s + _ROUNDING_S - (age_s or 0.0))


def _held(store: Store, holder: Holder, left_s: float, advice: str = _WAIT) -> LeaseHeld:
    return LeaseHeld(
        f"{store.url} is being worked on by {holder}; its lease runs out in {left_s:.0f} s "
        f"(by its own clock at {holder.expires}) unless it is renewed; {advice}"
    )
