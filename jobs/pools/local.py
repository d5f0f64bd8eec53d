"""Workers as child processes of the driver, for one machine and no cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from jobs.tasks import (
    Cause,
    Died,
    Event,
    Failed,
    Finished,
    Progress,
    Ready,
    Task,
    WorkerId,
    WorkerSetup,
)

__all__ = ["LocalPool"]

_PROGRESS_INTERVAL_S = 1.0


@dataclass(slots=True)
class _Child:
    process: BaseProcess
    pipe: Connection
    stopped: Cause | None = None
    start_error: Exception | None = None
    tasks: set[int] = field(default_factory=set)


class LocalPool:
    """One process per worker, forked from one that has imported everything and started no threads: a crash ends
    that worker and nothing else, and the next one is there in milliseconds."""

    def __init__(self, setup: WorkerSetup, assets: Mapping[str, bytes]) -> None:
        self._setup, self._assets = setup, dict(assets)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["jobs.worker"])
        self._children: dict[WorkerId, _Child] = {}

    def start(self, worker: WorkerId) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, dict(os.environ), self._setup, self._assets),
            name=f"nst-worker-{worker}",
            daemon=True,
        )
        process.start()
        theirs.close()
        self._children[worker] = _Child(process, ours)

    def submit(self, worker: WorkerId, task: Task) -> None:
        self._send(worker, ("run", task))

    def stop(self, worker: WorkerId, cause: Cause) -> None:
        child = self._children.get(worker)
        if child is not None:
            child.stopped = cause
            child.process.kill()

    def drain(self) -> None:
        for worker in list(self._children):
            self._send(worker, ("drain",))

    def poll(self, timeout_s: float) -> list[Event]:
        if not self._children:
            time.sleep(timeout_s)
            return []
        by_pipe = {child.pipe: worker for worker, child in self._children.items()}
        events: list[Event] = []
        for pipe in wait(list(by_pipe), timeout=timeout_s):
            assert isinstance(pipe, Connection)
            events += self._receive(by_pipe[pipe])
        return events

    def _send(self, worker: WorkerId, message: tuple[Any, ...]) -> None:
        with contextlib.suppress(OSError):  # it is dead: poll says so
            self._children[worker].pipe.send(message)

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
            child.process.join()
            child.pipe.close()
            del self._children[worker]
            code = child.process.exitcode
            detail = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
            if child.start_error is not None:
                detail = f"{type(child.start_error).__name__}: {child.start_error}"
            events.append(Died(worker, child.stopped or "crash", detail, child.start_error))
        return events

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.process.kill()
        for child in self._children.values():
            child.process.join()
            child.pipe.close()
        self._children.clear()


def _serve(
    pipe: Connection, environment: Mapping[str, str], setup: WorkerSetup, assets: Mapping[str, bytes]
) -> None:
    """A child's life: build, then run tasks in threads until the driver's end of the pipe closes."""
    os.environ.clear()  # what it has is of the day when the first child was forked
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interrupt means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    began = time.perf_counter()
    from jobs.worker import Worker

    imported = time.perf_counter()
    lock = threading.Lock()

    def send(make: Callable[..., Event], *arguments: Any) -> None:
        with lock:
            pipe.send((make, *arguments))

    try:
        worker = Worker(setup, assets)
    except Exception as error:  # noqa: BLE001  sent to the driver, which ends the job with it
        send(Died, _portable(error))
        pipe.close()
        return
    send(Ready, worker.info(imports=imported - began))

    def run(task: Task) -> None:
        try:
            report = worker.run(task)
        except Exception as error:  # noqa: BLE001  sent to the driver, which retries the task
            send(Failed, task.id, _portable(error))
        else:
            send(Finished, task.id, report)

    def tell() -> None:
        while True:
            time.sleep(_PROGRESS_INTERVAL_S)
            progress = worker.progress()
            if progress:
                send(Progress, progress)

    threading.Thread(target=tell, daemon=True).start()
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)  # the driver is gone: whatever is in work here is redone by the next one
        if message[0] == "run":
            threading.Thread(target=run, args=(message[1],), daemon=True).start()
        else:
            worker.drain()


def _portable(error: Exception) -> Exception:
    """`error`, or if it does not survive pickling, its text."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  any failure means the same: send the text
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
