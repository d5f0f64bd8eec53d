"""Workers as child processes: what a machine needs of a pool, used here and, in each actor, on a cluster."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import Any

from jobs.console.stop import STOP_SIGNALS
from jobs.pools.memory import private_bytes, total_bytes, used_share
from jobs.worker.messages import AtWork, Cause, Died, Event, Failed, Finished, Progress, Ready, Task, WorkerId

__all__ = ["Children", "begin_warming", "signals_blocked"]

_PROGRESS_INTERVAL_S = 1.0
_MEMORY_CHECK_INTERVAL_S = 0.1
_SCARCE_SHARE = 0.92
"""Share of the memory in use at which a worker is ended that took more than all others: before Ray's own
monitor, at 0.95, ends the youngest ones, and before the kernel does. If none did, none is to blame."""
_ENDING_S = 5.0
"""How long a killed process may take to end."""
_PR_SET_PDEATHSIG = 1
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
        process = self._context.Process(target=_serve, args=arguments, name=f"nst-worker-{worker}", daemon=True)
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
                child.process.kill()

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
            if events or left_s <= 0:
                return events

    def close(self) -> None:
        with self._lock:
            for child in self._children.values():
                child.process.kill()
            for child in self._children.values():
                child.process.join()
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
                child.process.kill()

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
            child.process.kill()  # it may still be at its own end
            child.process.join()
            with self._lock, child.sending:
                child.pipe.close()
                del self._children[worker]
            rows = AtWork.read(child.at_work)
            events.append(Died(worker, child.stopped or "crash", _detail(child), child.start_error, rows))
        return events


def _detail(child: _Child) -> str:
    """What is known of why a child ended."""
    if child.start_error is not None:
        return f"{type(child.start_error).__name__}: {child.start_error}"
    if child.memory_excess is not None:
        return child.memory_excess
    code = child.process.exitcode
    if code is not None and -code in set(signal.Signals):
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


def _serve(
    pipe: Connection, environment: Mapping[str, str], payload: bytes, at_work: MutableSequence[int]
) -> None:
    """Live a child's life: build, then run tasks in threads until the other end of the pipe closes."""
    os.environ.clear()  # what it has is of the day when the first child was forked
    os.environ.update(environment)
    for number in STOP_SIGNALS:  # what they mean is for the driver to decide
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # with the process that it is forked from
    began = time.perf_counter()
    from jobs.worker.adapting import Adapter
    from jobs.worker.worker import Worker

    imported = time.perf_counter()
    lock = threading.Lock()

    def send(make: Callable[..., Event], *arguments: Any) -> None:
        with lock:
            pipe.send((make, *arguments))

    try:
        setup, assets = pickle.loads(payload)
        worker = Adapter(setup, assets) if setup.adapt_rows else Worker(setup, assets, AtWork(at_work))
    except Exception as error:  # noqa: BLE001  sent to the driver, which ends the job with it
        send(Died, _picklable(error))
        pipe.close()
        return
    del payload, assets
    send(Ready, worker.info(imports=imported - began))

    def run(task: Task) -> None:
        try:
            report = worker.run(task)
        except BaseException as error:  # noqa: BLE001  sent to the driver, which retries the task
            send(Failed, task.id, _picklable(error))
        else:
            send(Finished, task.id, report)

    def report_progress() -> None:
        while True:
            time.sleep(_PROGRESS_INTERVAL_S)
            progress = worker.progress()
            if progress:
                send(Progress, progress, worker.gpu_memory_bytes(), worker.evaluations())

    threading.Thread(target=report_progress, daemon=True).start()
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)  # the driver is gone: whatever is in work here is redone by the next one
        if message[0] == "run":
            threading.Thread(target=run, args=(message[1],), daemon=True).start()
        else:
            worker.drain()


def _picklable(error: BaseException) -> Exception:
    """`error`, or if it is none to be raised elsewhere or does not survive pickling, its text."""
    if not isinstance(error, Exception):
        return RuntimeError(f"{type(error).__name__}: {error}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  any failure means the same: send the text
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
