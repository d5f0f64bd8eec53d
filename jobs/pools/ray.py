"""Workers as Ray actors. Decides nothing: the driver is the only one that retries."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import ray
import ray.exceptions

from jobs.spec import Resources
from jobs.tasks import (
    Cause,
    Died,
    Event,
    Failed,
    Finished,
    Progress,
    Ready,
    Task,
    TaskProgress,
    TaskReport,
    WorkerId,
    WorkerInfo,
    WorkerSetup,
)
from nst.errors import OptionError

__all__ = ["RayPool"]

_PROGRESS_INTERVAL_S = 1.0
_KILLED = re.compile(r"Selected to kill: \(Actor\((\w+)\).*?actual memory used=([\d.]+)GB")


class _Actor:
    """A worker in an actor's process."""

    def build(self, setup: WorkerSetup, assets: Mapping[str, bytes]) -> WorkerInfo:
        """Load everything. Not done in `__init__`, whose errors Ray passes on as text only."""
        began = time.perf_counter()
        from jobs.worker import Worker

        imported = time.perf_counter()
        self._worker = Worker(setup, assets)
        node = ray.get_runtime_context().get_node_id()
        return replace(self._worker.info(imports=imported - began), node=node)

    def run(self, task: Task) -> TaskReport:
        return self._worker.run(task)

    def progress(self) -> tuple[TaskProgress, ...]:
        return self._worker.progress()

    def drain(self) -> None:
        self._worker.drain()


@dataclass(slots=True)
class _Handle:
    actor: Any
    node: str = ""
    stopped: Cause | None = None
    calls: dict[Any, int | str] = field(default_factory=dict)
    """Calls under way: a task's id, `build`, or `progress`."""
    asked_at: float = 0.0


class RayPool:
    """A pool of actors on the cluster at `resources.address`, or on one that is started here and ended."""

    def __init__(self, resources: Resources, setup: WorkerSetup, assets: Mapping[str, bytes]) -> None:
        self._resources, self._setup, self._assets = resources, setup, assets
        self._handles: dict[WorkerId, _Handle] = {}
        self._owner: dict[Any, WorkerId] = {}  # of a call's reference
        self._ours = False
        self._assets_ref: Any = None
        self._actor_class: Any = None

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            self._connect()
            self._ours = True
        self._assets_ref = ray.put(dict(self._assets))
        self._actor_class = ray.remote(_Actor).options(
            num_cpus=self._resources.num_cpus,
            num_gpus=self._resources.num_gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=8,  # two tasks, and the calls that only look
        )
        return self

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            self._init()
        finally:  # Ray puts a handler of its own in the place of the driver's
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, terminate)

    def _init(self) -> None:
        address = self._resources.address or os.environ.get("RAY_ADDRESS")
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address:
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise OptionError("resources.address", address, reason=str(error)) from error
            return
        ray.init(address="local", include_dashboard=False, **quiet)
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        for name, option in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
            wanted, there = getattr(self._resources, option), resources.get(name, 0)
            if wanted > there:
                ray.shutdown()
                raise OptionError(f"resources.{option}", wanted, reason=f"this machine has {there:g} {name}s")

    def start(self, worker: WorkerId) -> None:
        actor = self._actor_class.remote()
        self._handles[worker] = _Handle(actor)
        self._call(worker, actor.build.remote(self._setup, self._assets_ref), "build")

    def submit(self, worker: WorkerId, task: Task) -> None:
        handle = self._handles[worker]
        handle.asked_at = time.monotonic()
        self._call(worker, handle.actor.run.remote(task), task.id)

    def stop(self, worker: WorkerId, cause: Cause) -> None:
        handle = self._handles.get(worker)
        if handle is not None:
            handle.stopped, handle.asked_at = cause, -math.inf
            ray.kill(handle.actor)

    def drain(self) -> None:
        for handle in self._handles.values():
            handle.actor.drain.remote()

    def poll(self, timeout_s: float) -> list[Event]:
        now = time.monotonic()
        for worker, handle in self._handles.items():
            busy = any(isinstance(what, int) for what in handle.calls.values())
            asking = "progress" in handle.calls.values()
            # A stopped one is asked until that fails: its death is noticed even if nothing was under way.
            watched = busy or handle.stopped is not None
            if watched and not asking and now - handle.asked_at > _PROGRESS_INTERVAL_S:
                handle.asked_at = now
                self._call(worker, handle.actor.progress.remote(), "progress")
        if not self._owner:
            time.sleep(timeout_s)
            return []
        ready, _ = ray.wait(list(self._owner), num_returns=1, timeout=timeout_s, fetch_local=False)
        more, _ = ray.wait(list(self._owner), num_returns=len(self._owner), timeout=0, fetch_local=False)
        events: list[Event] = []
        for reference in dict.fromkeys([*ready, *more]):
            if reference not in self._owner:  # its worker was found dead a moment ago
                continue
            worker = self._owner.pop(reference)
            what = self._handles[worker].calls.pop(reference)
            events += self._outcome(worker, what, reference)
        return events

    def _call(self, worker: WorkerId, reference: Any, what: int | str) -> None:
        self._handles[worker].calls[reference] = what
        self._owner[reference] = worker

    def _outcome(self, worker: WorkerId, what: int | str, reference: Any) -> list[Event]:
        handle = self._handles[worker]
        try:
            value = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            return [self._bury(worker, _cause_of_death(error, handle), _brief(str(error)))]
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error))
            if isinstance(what, int):
                return [Failed(worker, what, cause)]
            ray.kill(handle.actor)
            return [self._bury(worker, "crash", f"{type(cause).__name__}: {cause}", cause)]
        except ray.exceptions.OutOfMemoryError as error:
            ray.kill(handle.actor)
            cause_of_death = handle.stopped or _cause_of_lack(str(error), handle.actor._actor_id.hex())
            return [self._bury(worker, cause_of_death, _brief(str(error)))]
        except ray.exceptions.RayError as error:
            ray.kill(handle.actor)
            return [self._bury(worker, "crash", _brief(str(error)))]
        if what == "build":
            handle.node = value.node
            return [Ready(worker, value)]
        if what == "progress":
            return [Progress(worker, value)]
        assert isinstance(what, int)
        return [Finished(worker, what, value)]

    def _bury(self, worker: WorkerId, cause: Cause, detail: str, error: Exception | None = None) -> Died:
        handle = self._handles.pop(worker)
        for reference in handle.calls:
            self._owner.pop(reference, None)
        return Died(worker, cause, detail, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles.values():
            ray.kill(handle.actor)
        self._handles.clear()
        self._owner.clear()
        self._assets_ref = None
        if self._ours:
            ray.shutdown()


def _cause_of_death(error: ray.exceptions.RayActorError, handle: _Handle) -> Cause:
    if handle.stopped is not None:
        return handle.stopped
    if error.preempted:
        return "preempted"
    living = {
        node["NodeID"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }
    return "crash" if not handle.node or handle.node in living else "node lost"


def _cause_of_lack(text: str, actor: str) -> Cause:
    """Ray's memory monitor kills the youngest workers of a node, as many as it takes, the one that took the
    memory among them: that is the largest. The others are bystanders."""
    killed = {found[1]: float(found[2]) for found in _KILLED.finditer(text)}
    return "preempted" if killed.get(actor, math.inf) < max(killed.values(), default=0.0) else "crash"


def _brief(text: str) -> str:
    """What Ray says about a death, without its advice."""
    found = re.search(r"Worker exit type: (\w+) Worker exit detail: (.*?)(?: Some common causes|$)", text, re.S)
    return " ".join((f"{found[1]}: {found[2]}" if found else text).split())[:300]
