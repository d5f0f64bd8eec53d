"""Workers in Ray actors. Decides nothing: the driver is the only one that retries."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
import ray.exceptions

from jobs.errors import WorkersBroken
from jobs.ledger.results import Status
from jobs.pools.children import Children
from jobs.pools.gpus import VISIBLE
from jobs.pools.ray_metrics import Metrics
from jobs.pools.ray_session import RaySession
from jobs.spec import Resources
from jobs.worker.messages import Cause, Died, Event, Leaving, Ready, Task, WorkerId, WorkerSetup

__all__ = ["RayPool"]

_LONG_POLL_S = 1.0
"""Seconds for which a call for events waits in an actor."""
_DRAINS_INTERVAL_S = 2.0
_UNANSWERED_S = 90.0
"""Seconds after which an actor is ended that was told to end its worker, and says neither that this is gone nor
that it does not end."""
_IDLE_S = 10.0
"""Seconds for which an actor whose worker died waits for the next one."""


class _Host:
    """An actor that hosts one worker at a time in a child process: what kills a worker, or has it killed, costs
    neither the actor nor what it has imported."""

    def __init__(self, memory_bytes: int | None, output: str) -> None:
        self._children = Children(memory_bytes)
        self._metrics = Metrics(output)
        self._node = ray.get_runtime_context().get_node_id()

    def start(self, worker: WorkerId, payload: bytes, slots: int) -> str:
        """Start a worker; returns the id of this node."""
        self._children.launch(worker, payload, slots, environment=_own_gpu())
        return str(self._node)

    def submit(self, worker: WorkerId, task: Task) -> None:
        self._children.submit(worker, task)

    def stop(self, worker: WorkerId, cause: Cause) -> None:
        self._children.stop(worker, cause)

    def drain(self) -> None:
        self._children.drain()

    def poll(self) -> list[Event]:
        events = self._children.poll(_LONG_POLL_S)
        self._metrics.take(events)
        return events


def _own_gpu() -> Mapping[str, str]:
    """What the environment of this actor's workers says, so that they see the GPU alone that Ray gave it. Ray
    says so itself, unless it is told not to (RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES)."""
    ids = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return {VISIBLE: ",".join(map(str, ids))} if ids else {}


@dataclass(slots=True)
class _Handle:
    actor: Any
    node: str = ""
    ready: bool = False
    stopped: Cause | None = None
    """Why its worker was told to end, if so."""
    stopped_at: float = 0.0
    """When it was."""
    leaving: bool = False
    """Whether its node is being drained, and that was reported."""


class RayPool:
    """A pool of actors on the cluster at `resources.address`, or on one that is started here and ended."""

    def __init__(self, resources: Resources, setup: WorkerSetup, assets: Mapping[str, bytes]) -> None:
        self._resources, self._setup, self._assets = resources, setup, assets
        self._handles: dict[WorkerId, _Handle] = {}
        self._calls: dict[Any, WorkerId] = {}  # under way: a worker's start, and who asks for its events
        self._idle: list[tuple[Any, float, str]] = []  # actors whose worker died, since when, and their nodes
        self._drains_asked_at = 0.0
        self._session = RaySession(resources.address, ", or do without Ray: --pool local")
        self._payload: Any = None
        self._metrics: Any = None
        self._actor_class: Any = None

    def __enter__(self) -> Self:
        self._session.__enter__()
        # Ray's pickle also takes classes of a script; loading what it made takes the standard one.
        pickled = ray.cloudpickle.dumps((self._setup, dict(self._assets)))  # type: ignore[no-untyped-call]
        self._payload = ray.put(pickled)
        self._metrics = Metrics(self._setup.output)
        self._actor_class = ray.remote(_Host).options(
            num_cpus=self._resources.num_cpus,
            num_gpus=self._resources.num_gpus or 0,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=4,  # one call waits for events while others start, submit and stop
        )
        return self

    def start(self, worker: WorkerId) -> None:
        if self._idle:
            actor, _, _ = self._idle.pop()
        else:
            actor = self._actor_class.remote(self._resources.memory_bytes, self._setup.output)
        self._handles[worker] = _Handle(actor)
        self._calls[actor.start.remote(worker, self._payload, self._setup.slots)] = worker

    def submit(self, worker: WorkerId, task: Task) -> None:
        handle = self._handles.get(worker)
        if handle is not None:  # else it is dead: what poll gave says so, and is not all heard yet
            handle.actor.submit.remote(worker, task)

    def stop(self, worker: WorkerId, cause: Cause) -> None:
        handle = self._handles.get(worker)
        if handle is None:
            return
        unanswered = handle.stopped is not None and time.monotonic() - handle.stopped_at > _UNANSWERED_S
        if cause == "stopped" or unanswered:  # nobody will need the actor, or it stands still
            handle.stopped = cause
            ray.kill(handle.actor)
        elif handle.stopped is None:
            handle.stopped, handle.stopped_at = cause, time.monotonic()
            handle.actor.stop.remote(worker, cause)

    def drain(self, worker: WorkerId | None = None) -> None:
        for each in list(self._handles) if worker is None else [worker]:
            if each in self._handles:
                self._handles[each].actor.drain.remote()

    def count(self, status: Status) -> None:
        self._metrics.count(status)

    def poll(self, timeout_s: float) -> list[Event]:
        try:
            return self._poll(timeout_s)
        except (ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
            raise WorkersBroken(f"the Ray cluster does not answer: {type(error).__name__}: {error}") from error

    def _poll(self, timeout_s: float) -> list[Event]:
        self._release_idle()
        events = self._leaving()
        if not self._calls:
            time.sleep(timeout_s)
            return events
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s, fetch_local=False)
        more, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0, fetch_local=False)
        for reference in dict.fromkeys([*ready, *more]):
            events += self._outcome(self._calls.pop(reference), reference)
        return events

    def _leaving(self) -> list[Event]:
        """Events of workers on nodes that Ray drains: a preemption was announced, or the autoscaler wants them
        back. Ray starts nothing there any more."""
        now = time.monotonic()
        if now - self._drains_asked_at < _DRAINS_INTERVAL_S:
            return []
        self._drains_asked_at = now
        draining = ray._private.state.state.get_draining_nodes()  # no public call tells; Ray Train uses this
        events: list[Event] = []
        for worker, handle in self._handles.items():
            if handle.node in draining and not handle.leaving:
                handle.leaving = True
                events.append(Leaving(worker, "its node is being drained"))
        for actor, _, node in self._idle:
            if node in draining:
                ray.kill(actor)
        self._idle = [each for each in self._idle if each[2] not in draining]
        return events

    def _release_idle(self) -> None:
        """Give back actors that no worker was started in for a while."""
        now = time.monotonic()
        for actor, since, _ in self._idle:
            if now - since > _IDLE_S:
                ray.kill(actor)
        self._idle = [each for each in self._idle if now - each[1] <= _IDLE_S]

    def _outcome(self, worker: WorkerId, reference: Any) -> list[Event]:
        """What a call to an actor gave; asks the actor for what comes next."""
        handle = self._handles[worker]
        try:
            answer: list[Event] | str = ray.get(reference)
        except ray.exceptions.RayError as error:
            ray.kill(handle.actor)  # it may only be out of reach for a moment, but its events are lost
            del self._handles[worker]
            died = Died(worker, _cause_of_loss(error, handle), _brief(str(error)))
            if died.cause != "stopped":
                self._metrics.lost(died.cause)
            return [died]
        events = answer if isinstance(answer, list) else []
        if isinstance(answer, str):
            handle.node = answer
        for event in events:
            if isinstance(event, Ready):
                handle.ready = True
            elif isinstance(event, Died):
                del self._handles[worker]
                if handle.ready:
                    self._idle.append((handle.actor, time.monotonic(), handle.node))
                else:  # nor may the next one be able to start there
                    ray.kill(handle.actor)
        if worker in self._handles:
            self._calls[handle.actor.poll.remote()] = worker
        return events

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        idle = [actor for actor, _, _ in self._idle]
        try:
            for actor in [*(handle.actor for handle in self._handles.values()), *idle]:
                ray.kill(actor)
        finally:
            self._handles.clear()
            self._calls.clear()
            self._idle.clear()
            self._payload = None
            self._session.__exit__(kind, error, trace)


def _cause_of_loss(error: ray.exceptions.RayError, handle: _Handle) -> Cause:
    """Why an actor is gone. Photographs are the business of its child. What ends the actor itself is none of
    theirs, be it Ray's memory monitor, which ends the youngest actors and not those that took the memory."""
    if handle.stopped is not None:
        return handle.stopped
    if getattr(error, "preempted", False):
        return "preempted"
    if not handle.node:
        return "node lost" if "node has died" in str(error) else "crash"  # it could not even start
    living = {
        node["NodeID"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }
    return "host lost" if handle.node in living else "node lost"


def _brief(text: str) -> str:
    """What Ray says about a death, without its advice."""
    found = re.search(r"Worker exit type: (\w+) Worker exit detail: (.*?)(?: Some common causes|$)", text, re.S)
    return " ".join((f"{found[1]}: {found[2]}" if found else text).split())[:300]
