"""A Ray cluster of several nodes on this machine, and what may happen to it in a night."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = """
import json, os, signal, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from jobs.inspect.verify import verify
from jobs.driver.job import create_or_open
from jobs.ledger.receipts import Ledger, read_journal
from jobs.spec import job_from_table
from jobs.driver.run import run
from pathlib import Path
from tests.methods import REGISTRY

folder, harm = Path(sys.argv[1]), sys.argv[2]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
table = {
    "photos": "photos",
    "output": f"out-{harm}",
    "method": {"kind": "stub", "delay_s": 0.15},
    "resources": {"pool": "ray", "address": cluster.address, "max_workers": 2, "shard_size": 20},
}
job = create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)
said, done = [], threading.Event()

def watch(snapshot):
    said.extend(event.text for event in snapshot.log_events)
    if snapshot.workers == 2 and 5 < snapshot.done and harm != "none" and not done.is_set():
        done.set()
        if harm == "node":
            cluster.remove_node(nodes[1], allow_graceful=False)
            cluster.add_node(num_cpus=1)
        elif harm == "raylet":
            os.kill(nodes[1].all_processes["raylet"][0].process.pid, signal.SIGKILL)
        elif harm == "actor":
            pids = [name for name in os.listdir("/proc") if name.isdigit()]
            hosts = [pid for pid in pids if command_line(pid).startswith(b"ray::_Host")]
            os.kill(int(hosts[0]), signal.SIGKILL)

def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

summary = run(job, observe=watch)
rows = [result for shard in sorted(Ledger(job.store).done()) for result in Ledger(job.store).receipt(shard)[0]]
deaths = sum(sum(read_journal(job.store, shard, 0).deaths.values()) for shard in range(job.manifest.shards))
ray.shutdown()
cluster.shutdown()
print(json.dumps({
    "exit_code": summary.exit_code,
    "error": str(summary.error),
    "rows": [result.row for result in rows],
    "statuses": sorted({result.status for result in rows}),
    "faults": len(list(verify(job.store))),
    "strikes": deaths,
    "harmed": done.is_set(),
    "said": [message for message in said if "gone" in message],
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("harm", "causes"),
    [
        ("node", {"node lost", "host lost"}),  # which of them is known depends on who hears of it first
        ("raylet", {"node lost", "host lost"}),  # its actors may even outlive it until the job is done
        ("actor", {"host lost"}),
        ("none", set()),
    ],
)
def test_what_a_cluster_loses_is_done_elsewhere(
    tmp_path: Path, photos: Callable[..., Path], harm: str, causes: set[str]
) -> None:
    photos(120)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), harm], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["exit_code"] == 0, found
    assert found["rows"] == list(range(120))
    assert found["statuses"] == ["ok"]
    assert found["faults"] == 0
    assert found["strikes"] == 0, "nobody is blamed"
    assert found["harmed"] == (harm != "none")
    assert {message.split(" is gone: ")[1].split(" (")[0] for message in found["said"]} <= causes, found["said"]
    assert harm == "raylet" or bool(found["said"]) == bool(causes)
