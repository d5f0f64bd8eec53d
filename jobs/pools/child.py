"""What a worker's process does, from its first line to its end."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableSequence
from multiprocessing.connection import Connection
from typing import Any

from jobs.console.stop import STOP_SIGNALS
from jobs.worker.messages import AtWork, Died, Event, Failed, Finished, Progress, Ready, Task

__all__ = ["serve"]

_PROGRESS_INTERVAL_S = 1.0
_PR_SET_PDEATHSIG = 1


def serve(
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
