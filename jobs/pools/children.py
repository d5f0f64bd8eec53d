"""Workers as child processes: what a machine needs of a pool, used here and, in each actor, on a cluster."""

from __future__ import annotations

import atexit
import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import Any

from jobs.console.stop import STOP_SIGNALS
from jobs.pools.child import serve
from jobs.pools.memory import private_bytes, used_share
from jobs.worker.messages import GPU_LOST, AtWork, Cause, Died, Event, Task, WorkerId
from nst.memory import total_bytes

__all__ = ["Children", "begin_warming", "signals_blocked"]

_MEMORY_CHECK_INTERVAL_S = 0.1
_SCARCE_SHARE = 0.92
"""Share of the memory in use at which a worker is ended that took more than all others: before Ray's own
monitor, at 0.95, ends the youngest ones, and before the kernel does. If none did, none is to blame."""
_ENDING_S = 5.0
"""How long what workers are forked from may take to end, once it is killed."""
_STUCK_S = 60.0
"""After which a killed process is given up: one that waits for a GPU that fell off its bus never ends."""
_PRELOADED = ["jobs.pools.warm"]


def begin_warming() -> None:
    """Start what workers are forked from, so that it imports all that they need while this process does what is
    to be done before them. Does not wait for it."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    with signals_blocked():
        forkserver.ensure_running()


@dataclass(slots=True)
class _Child:
    process: BaseProcess
    pipe: Connection
    at_work: Sequence[int]
    """Memory shared with it, for the rows that it is at: see `AtWork`."""
    stopped: Cause | None = None
    """Why it was told to end, if so."""
    sending: threading.Lock = field(default_factory=threading.Lock)
    memory_excess: str | None = None
    """How much memory it took, if it is ended for that."""
    start_error: Exception | None = None
    """Why it could not start, if so."""
    killed_at: float | None = None
    """When it was killed, if so."""

    def kill(self) -> None:
        self.killed_at = self.killed_at or time.monotonic()
        self.process.kill()


class Children:
    """One process per worker, forked from one that has imported everything and started no threads: a crash ends
    that worker and nothing else, and the next one is there in milliseconds.

    Args:
        memory_bytes: a worker that takes more is ended; None: one that takes more than all else, when the
            machine runs out.
    """

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._lock = threading.Lock()
        self._children: dict[WorkerId, _Child] = {}
        self._failed_starts: list[Died] = []
        self._memory_checked_at = 0.0

    def launch(
        self,
        worker: WorkerId,
        payload: bytes,
        slots: int,
        *,
        with_main: bool = False,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start a worker.

        Args:
            payload: its pickled setup and assets.
            slots: photographs that can be in a stage at once, as its setup says.
            with_main: the payload needs what this process's `__main__` defines.
            environment: what its environment has besides or instead of this process's.
        """
        ours, theirs = self._context.Pipe()
        at_work = self._context.RawArray("q", slots)
        arguments = (theirs, {**os.environ, **environment}, payload, at_work)
        process = self._context.Process(target=serve, args=arguments, name=f"nst-worker-{worker}", daemon=True)
        with self._lock, _with_main_if(with_main), signals_blocked():
            try:
                process.start()
            except (EOFError, OSError) as error:
                if isinstance(error, EOFError | ConnectionError):
                    _await_forkserver_end()
                ours.close()
                theirs.close()
                self._failed_starts.append(
                    Died(worker, "crash", f"cannot start: {type(error).__name__}: {error}")
                )
                return
            theirs.close()
            self._children[worker] = _Child(process, ours, at_work)

    def submit(self, worker: WorkerId, task: Task) -> None:
        self._send(worker, ("run", task))

    def stop(self, worker: WorkerId, cause: Cause) -> None:
        with self._lock:
            child = self._children.get(worker)
            if child is not None:
                child.stopped = cause
                child.kill()

    def drain(self, worker: WorkerId | None = None) -> None:
        for each in list(self._children) if worker is None else [worker]:
            self._send(each, ("drain",))

    def poll(self, timeout_s: float) -> list[Event]:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                by_pipe = {child.pipe: worker for worker, child in self._children.items()}
                failed_starts, self._failed_starts = self._failed_starts, []
            left_s = deadline - time.monotonic()
            wait_s = 0.0 if failed_starts else max(0.0, min(left_s, _MEMORY_CHECK_INTERVAL_S))
            ready = wait(list(by_pipe), timeout=wait_s)
            self._check_memory()
            events: list[Event] = [*failed_starts]
            for pipe in ready:
                events += self._receive(by_pipe[pipe])  # type: ignore[index]
            events += self._give_up_stuck()
            if events or left_s <= 0:
                return events

    def close(self) -> None:
        with self._lock:
            for child in self._children.values():
                child.kill()
            deadline = time.monotonic() + _STUCK_S
            for child in self._children.values():
                child.process.join(max(0.0, deadline - time.monotonic()))
                child.pipe.close()
            self._children.clear()

    def _send(self, worker: WorkerId, message: tuple[Any, ...]) -> None:
        child = self._children.get(worker)
        if child is None:  # it is dead: poll said so
            return
        with contextlib.suppress(OSError), child.sending:
            child.pipe.send(message)

    def _check_memory(self) -> None:
        """End a worker that takes too much memory, before something else ends those that do not."""
        now = time.monotonic()
        if now - self._memory_checked_at < _MEMORY_CHECK_INTERVAL_S:
            return
        self._memory_checked_at = now
        scarce = self._memory_bytes is None and used_share() > _SCARCE_SHARE
        most = _SCARCE_SHARE / 2 * total_bytes() if scarce else math.inf
        for child in list(self._children.values()):
            pid = child.process.pid
            if pid is None or child.memory_excess is not None or child.stopped is not None:
                continue
            took = private_bytes(pid)
            if self._memory_bytes is not None and took > self._memory_bytes:
                limit = self._memory_bytes / 2**30
                child.memory_excess = f"took {took / 2**30:.1f} GiB of memory, more than memory_gb = {limit:g}"
            elif took > most:
                child.memory_excess = (
                    f"took {took / 2**30:.1f} GiB of memory, more than all others, as it ran out"
                )
            if child.memory_excess is not None:
                child.kill()

    def _receive(self, worker: WorkerId) -> list[Event]:
        child = self._children[worker]
        events: list[Event] = []
        try:
            while child.pipe.poll():
                make, *arguments = child.pipe.recv()
                if make is Died:
                    child.start_error = arguments[0]
                else:
                    events.append(make(worker, *arguments))
        except (EOFError, OSError):  # the other end is gone, and every message before that is read
            child.kill()  # it may still be at its own end
            child.process.join(_STUCK_S)
            events.append(self._remove(worker))
        return events

    def _give_up_stuck(self) -> list[Event]:
        """Do without those that were killed long ago and do not end. Nobody waits for the kernel."""
        before = time.monotonic() - _STUCK_S
        stuck = [name for name, each in self._children.items() if each.killed_at and each.killed_at < before]
        return [self._remove(worker) for worker in stuck]

    def _remove(self, worker: WorkerId) -> Died:
        child = self._children[worker]
        with self._lock, child.sending:
            child.pipe.close()
            del self._children[worker]
        rows = AtWork.read(child.at_work)
        return Died(worker, child.stopped or "crash", _detail(child), child.start_error, rows)


def _detail(child: _Child) -> str:
    """What is known of why a child ended."""
    if child.start_error is not None:
        return f"{type(child.start_error).__name__}: {child.start_error}"
    if child.memory_excess is not None:
        return child.memory_excess
    code = child.process.exitcode
    if code is None:
        return "it was killed and does not end; its machine may have to be started again"
    if code == GPU_LOST:
        return f"its GPU failed, and gave the process no more answers (exit code {code})"
    if -code in set(signal.Signals):
        return signal.Signals(-code).name
    return f"exit code {code}"


def _await_forkserver_end() -> None:
    """Wait until the process that workers are forked from, which was killed, has ended: the next start begins
    another one, and until then asks this one."""
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    deadline = time.monotonic() + _ENDING_S
    with contextlib.suppress(ChildProcessError):  # somebody knows that it has
        while pid is not None and time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            time.sleep(0.01)


@atexit.register
def _end_forkserver() -> None:
    """End the process that workers are forked from. By itself it ends when it notices that its parent has,
    which takes as long as what it still imports."""
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block STOP_SIGNALS, also for what is started meanwhile. Those for everyone in a terminal, a group or a
    service are for the driver to act on; what workers are forked from is to live, also while it imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        resource_tracker.ensure_running()  # else it is with the first child, and unblocks them
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _with_main_if(needed: bool) -> Iterator[None]:
    """Hide this process's `__main__` from children that do not need it. multiprocessing has every child run it
    for what it defines: half a second of imports, which only a child needs whose method comes from there."""
    if needed:
        yield
        return
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
