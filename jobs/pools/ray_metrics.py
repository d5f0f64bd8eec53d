"""What Prometheus sees of the workers on a Ray cluster: each actor counts what its own worker tells, the driver
what no worker can tell any more.

Ray exports a metric as `ray_` and its name, a counter also with `_total`: see `exported`, and the panels in
`cluster/grafana-dashboard.json`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from ray.util.metrics import Counter, Gauge

from jobs.ledger.results import Status
from jobs.worker.messages import (
    NOTHING_SPENT,
    Cause,
    Died,
    Event,
    Failed,
    Finished,
    Leaving,
    Progress,
    Ready,
    Spent,
)

__all__ = ["COUNTERS", "GAUGES", "Metrics", "exported"]

COUNTERS = {
    "nst_images": ("Photographs that got a result, by status.", ("status",)),
    "nst_stage_seconds": ("Seconds that photographs spent in load, compute and save.", ("stage",)),
    "nst_store_retries": ("Calls of stores that had to be made again.", ()),
    "nst_tasks_failed": ("Tasks that ended with an error that is no photograph's.", ()),
    "nst_worker_deaths": ("Workers that are gone, by cause.", ("cause",)),
}
GAUGES = {
    "nst_images_in_work": "Photographs taken and not yet in the journal.",
    "nst_tasks_running": "Tasks in work.",
    "nst_gpu_memory_bytes": "GPU memory that the worker's process holds.",
}


def exported() -> set[str]:
    """The names that Prometheus sees."""
    return {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}


class Metrics:
    """The metrics of one actor, or of what only the driver knows. Needs a connection to Ray.

    Args:
        output: the job's output; every metric has it as its tag `output`.
    """

    def __init__(self, output: str) -> None:
        self._count = {
            name: Counter(name, description=text, tag_keys=(*tags, "output"))
            for name, (text, tags) in COUNTERS.items()
        }
        self._gauge = {
            name: Gauge(name, description=text, tag_keys=("output",)) for name, text in GAUGES.items()
        }
        for metric in (*self._count.values(), *self._gauge.values()):
            metric.set_default_tags({"output": output})
        self._spent: dict[int, Spent] = {}  # by running task, as last told

    def take(self, events: Iterable[Event]) -> None:
        """Count what is new in the events of this actor's worker."""
        for event in events:
            match event:
                case Progress():
                    for task in event.tasks:
                        self._add(task.task, task.spent)
                    self._gauge["nst_images_in_work"].set(sum(task.in_flight for task in event.tasks))
                    self._gauge["nst_tasks_running"].set(len(event.tasks))
                    self._gauge["nst_gpu_memory_bytes"].set(event.gpu_memory_bytes)
                case Finished():
                    self._add(event.task, event.report.spent)
                    self._end(event.task)
                case Failed():
                    self._count["nst_tasks_failed"].inc()
                    self._end(event.task)
                case Died():
                    self.lost(event.cause)
                    for task_id in list(self._spent):
                        self._end(task_id)
                    self._gauge["nst_gpu_memory_bytes"].set(0)
                case Ready() | Leaving():
                    pass
                case _:
                    assert_never(event)

    def lost(self, cause: Cause) -> None:
        """Count a worker that is gone."""
        self._count["nst_worker_deaths"].inc(tags={"cause": cause})

    def count(self, status: Status) -> None:
        """Count a result that a photograph got without a worker."""
        self._inc("nst_images", 1, {"status": status})

    def _add(self, task: int, spent: Spent) -> None:
        before = self._spent.get(task, NOTHING_SPENT)
        self._spent[task] = spent
        for status, number in spent.images.items():
            self._inc("nst_images", number - before.images.get(status, 0), {"status": status})
        for stage, seconds in spent.seconds.items():
            self._inc("nst_stage_seconds", seconds - before.seconds.get(stage, 0.0), {"stage": stage})
        self._inc("nst_store_retries", spent.retries - before.retries, {})

    def _inc(self, name: str, more: float, tags: dict[str, str]) -> None:
        if more > 0:
            self._count[name].inc(more, tags=tags)

    def _end(self, task: int) -> None:
        self._spent.pop(task, None)
        if not self._spent:
            self._gauge["nst_images_in_work"].set(0)
            self._gauge["nst_tasks_running"].set(0)
