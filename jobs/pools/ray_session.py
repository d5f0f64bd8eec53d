"""A connection to a Ray cluster, or a Ray of one's own on this machine, of which nothing is left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
import ray.exceptions

from jobs.console.stop import STOP_SIGNALS
from jobs.errors import WorkersBroken
from jobs.pools.capacity import cluster_address, cpu_count
from jobs.pools.gpus import gpu_ids
from nst.errors import OptionError

__all__ = ["RaySession", "cluster_resources"]

_KNOCK_S = 20.0


class RaySession:
    """A connection to the Ray cluster at `address`, or to one that is started here and ended; inside a `with`.
    Where the program has one already, it is used and left.

    Args:
        address: None: RAY_ADDRESS, if that is set.
        otherwise: what else to do than to try again, if Ray cannot be started here.

    Raises:
        OptionError: there is no cluster at the address, or the program has a connection to another one.
        WorkersBroken: Ray cannot be started here.
    """

    def __init__(self, address: str | None, otherwise: str = "") -> None:
        self._address, self._otherwise = address, otherwise
        self._ours = False
        self._thread = ThreadPoolExecutor(1, "ray")

    def __enter__(self) -> Self:
        if ray.is_initialized():
            if self._address:
                _refuse_another(self._address)
            return self
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            self._in_ray_thread(self._init)
        except BaseException:
            self._thread.shutdown()  # and what it has started
            raise
        self._ours = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            self._in_ray_thread(_end)
        self._thread.shutdown()

    def _in_ray_thread(self, work: Callable[[], None]) -> None:
        """Have Ray begin or end in a thread of its own, and keep the driver's handler for SIGTERM meanwhile.

        In the main thread Ray would put a handler of its own in its place. Its C++ core does so anyway, some
        time on the way: one that passes the signal on, but aborts the process three seconds later. When it
        ends, it leaves none at all. Ray's processes die with the thread that started them: that one is kept.
        """
        alarmed = signal.getitimer(signal.ITIMER_REAL)[0] > 0  # by somebody else
        done = self._thread.submit(work)
        while True:
            ended = not wait([done], timeout=0.01).not_done
            _keep_handler(signal.SIGTERM)
            if not alarmed:
                signal.alarm(0)
            if ended:
                break
        done.result()

    def _init(self) -> None:
        # What Ray starts inherits this, and so do its workers: a signal for all of a group, or a service, is
        # for the driver to act on. They end by SIGKILL, at the latest when the driver is gone.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        address = cluster_address(self._address)
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address:
            _knock(address)
            try:
                ray.init(address=address, **quiet)
            except (OSError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
                raise OptionError("resources.address", address, reason=str(error)) from error
            return
        try:
            gpus = len(gpu_ids())  # Ray itself knows no parts of GPUs
            ray.init(address="local", include_dashboard=False, num_cpus=cpu_count(), num_gpus=gpus, **quiet)
        except Exception as error:  # Ray raises this very class when its processes take too long
            said = " ".join(str(error).split())[:300]
            advice = f"try again when it is less busy{self._otherwise}"
            raise WorkersBroken(f"Ray cannot be started on this machine: {said}; {advice}") from error


def _knock(address: str) -> None:
    """Raises OptionError: nobody is at an address of a host and a port; Ray would ask for minutes."""
    host, _, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
    except OSError as error:
        raise OptionError("resources.address", address, reason=str(error)) from error


def _refuse_another(address: str) -> None:
    """Raises OptionError: nobody is at the address, or the connection that there is goes to another port."""
    _knock(address)
    mine = ray.get_runtime_context().gcs_address
    port = address.rpartition(":")[2]
    if "://" not in address and port.isdecimal() and port != mine.rpartition(":")[2]:
        raise OptionError(
            "resources.address", address, reason=f"this program is connected to the cluster at {mine}"
        )


def _end() -> None:
    """End the connection to a cluster, or what was started here: by SIGKILL, since it ignores SIGTERM, with
    all that it has started, which else takes a minute to notice."""
    node = ray._private.worker._global_node
    ray._private.worker._global_node = None
    ray.shutdown()
    if node is not None:
        if node.is_head():
            node.destroy_external_storage()
        below = _descendants(each.process.pid for infos in node.all_processes.values() for each in infos)
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pids: Iterable[int]) -> list[int]:
    """All processes below these, as far as /proc tells."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, waiting = [], list(pids)
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def cluster_resources(address: str) -> Mapping[str, float]:
    """What the cluster at `address` has now, by Ray's names: CPU, GPU, memory in bytes.

    Raises:
        OptionError: there is no cluster at the address.
    """
    with RaySession(address):
        there: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return there


def _keep_handler(number: int) -> None:
    """Have the process do again what Python was told to do about a signal."""
    handler = signal.getsignal(number)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)
