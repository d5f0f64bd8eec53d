"""What Prometheus sees, and that the dashboard asks for that and nothing else."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from jobs.driver.job import create_or_open
from jobs.driver.run import worker_setup
from jobs.ledger.results import Status
from jobs.pools import open_pool
from jobs.pools.ray_metrics import COUNTERS, GAUGES, Metrics, exported
from jobs.spec import job_from_table
from jobs.worker.messages import (
    Died,
    Event,
    Failed,
    Finished,
    Progress,
    Ready,
    Spent,
    Task,
    TaskProgress,
    TaskReport,
)
from tests.methods import REGISTRY

ROOT = Path(__file__).parents[2]
NONE: Mapping[Status, int] = {"ok": 0, "failed": 0, "quarantined": 0}


def progress(task: int, spent: Spent, in_flight: int = 3) -> Progress:
    told = TaskProgress(task=task, counts=NONE, in_flight=in_flight, slowest_s=0.0, spent=spent)
    return Progress(0, (told,), gpu_memory_bytes=5000)


EVENTS: list[Event] = [
    progress(1, Spent(images={"ok": 2}, seconds={"load": 1.0, "compute": 4.0, "save": 0.5}, retries=1)),
    progress(
        1, Spent(images={"ok": 3, "failed": 1}, seconds={"load": 2.0, "compute": 6.0, "save": 0.5}, retries=1)
    ),
    Finished(
        0,
        1,
        TaskReport(
            shard=0,
            counts=NONE,
            complete=True,
            sealed=True,
            spent=Spent(
                images={"ok": 9, "failed": 1}, seconds={"load": 3.0, "compute": 8.0, "save": 1.5}, retries=2
            ),
        ),
    ),
    Failed(0, 2, OSError("store")),
    progress(3, Spent(images={"ok": 1}, seconds={"load": 0.5})),
    Died(0, "crash"),
    progress(4, Spent(images={"ok": 1})),
]


def test_the_dashboard_uses_the_names_that_are_exported() -> None:
    text = (ROOT / "cluster/grafana-dashboard.json").read_text()
    asked = {
        name
        for panel in json.loads(text)["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bray_\w+", target["expr"])
    }
    assert asked == exported()
    assert all(name.startswith("nst_") for name in [*COUNTERS, *GAUGES])


def scrape() -> list[tuple[str, dict[str, str], float]]:
    """What this machine's node exports of ours: names, tags, values."""
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = []
    for line in (line for line in lines if line.startswith("ray_nst_")):
        name, value = line.rsplit(" ", 1)
        found.append((name.partition("{")[0], dict(re.findall(r'(\w+)="([^"]*)"', name)), float(value)))
    return found


def test_prometheus_sees_what_was_counted(ray_session: str) -> None:  # noqa: ARG001
    import ray

    metrics = Metrics("s3://bucket/out")
    metrics.take(EVENTS)
    metrics.count("quarantined")
    metrics.lost("node lost")
    me = ray.get_runtime_context().get_worker_id()
    deadline = time.monotonic() + 90
    seen: dict[tuple[str, ...], float] = {}
    while not exported() <= {name for name, *_ in seen} and time.monotonic() < deadline:
        time.sleep(1)
        seen = {
            (name, *(tags[tag] for tag in ("status", "stage", "cause") if tag in tags)): value
            for name, tags, value in scrape()
            if tags["WorkerId"] == me and tags["output"] == "s3://bucket/out"
        }
    assert seen == {
        ("ray_nst_images_total", "ok"): 11.0,
        ("ray_nst_images_total", "failed"): 1.0,
        ("ray_nst_images_total", "quarantined"): 1.0,
        ("ray_nst_stage_seconds_total", "load"): 3.5,
        ("ray_nst_stage_seconds_total", "compute"): 8.0,
        ("ray_nst_stage_seconds_total", "save"): 1.5,
        ("ray_nst_store_retries_total",): 2.0,
        ("ray_nst_tasks_failed_total",): 1.0,
        ("ray_nst_worker_deaths_total", "crash"): 1.0,
        ("ray_nst_worker_deaths_total", "node lost"): 1.0,
        ("ray_nst_images_in_work",): 3.0,
        ("ray_nst_tasks_running",): 1.0,
        ("ray_nst_gpu_memory_bytes",): 5000.0,
    }


@pytest.mark.ray
def test_an_actor_counts_what_its_worker_does(
    ray_session: str, tmp_path: Path, photos: Callable[..., Path]
) -> None:
    table = {
        "photos": str(photos(3)),
        "output": "out",
        "method": {"kind": "stub"},
        "resources": {"pool": "ray", "address": ray_session, "shard_size": 3},
    }
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    others = {tags["WorkerId"] for _, tags, _ in scrape()}
    deadline = time.monotonic() + 180
    counted: list[float] = []
    with open_pool(job.resources, worker_setup(job), {}) as pool:
        pool.start(0)
        while not counted and time.monotonic() < deadline:
            for event in pool.poll(0.5):
                if isinstance(event, Ready):
                    pool.submit(0, Task(id=0, shard=0))
            counted = [
                value
                for name, tags, value in scrape()
                if name == "ray_nst_images_total" and tags["status"] == "ok" and tags["WorkerId"] not in others
            ]
    assert counted == [3.0]
