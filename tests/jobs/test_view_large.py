"""The page of a job of a million photographs: how soon it answers, and what memory that takes."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from jobs.ledger.receipts import seal
from tests.jobs.made_jobs import failed, key, made_job, result_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COUNT, SHARD = 1_000_000, 512
ANSWER_S, MEMORY_MIB = 2.0, 1200


def memory_mib(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


class Asking:
    """The page's interface, as a browser asks it."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        self._connection.request("GET", f"/?{urlsplit(url).query}")
        answer = self._connection.getresponse()
        answer.read()
        self._cookie = (answer.getheader("set-cookie") or "").partition(";")[0]

    def close(self) -> None:
        self._connection.close()

    def __call__(self, path: str, **query: Any) -> tuple[Any, float]:
        """The answer, and the seconds that it took."""
        began = time.monotonic()
        self._connection.request("GET", f"/api/{path}?{urlencode(query)}", headers={"cookie": self._cookie})
        told = json.loads(self._connection.getresponse().read())
        return told, time.monotonic() - began


def test_a_million_photographs(tmp_path: Path) -> None:
    began = time.monotonic()
    job = made_job(tmp_path, COUNT, SHARD)
    for shard in range(job.manifest.shards):
        rows = job.manifest.shard(shard)
        seal(
            *(job.store, shard, rows, [result_of(job, row) for row in rows]),
            generation=0,
            fingerprint=job.fingerprint,
        )
    print(f"\nmade in {time.monotonic() - began:.0f} s: {job.manifest.shards} receipts")
    command = [sys.executable, "-m", "jobs", "view", job.store.url, "--no-open"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            (url,) = re.findall(r"http://\S+", server.stdout.readline())
            ask, took = Asking(url), {"page": time.monotonic() - began}
            while ask("rows", count=100)[0]["total"] == 0:
                time.sleep(0.1)
            took["first rows"] = time.monotonic() - began
            slowest = 0.0
            while (told := ask("job")[0])["done"] < COUNT:
                slowest = max(slowest, ask("rows", count=100)[1])
                time.sleep(0.5)
            took |= {"all rows": time.monotonic() - began, "slowest while they are read": slowest}
            assert told["state"] == "complete, with failures"
            answers: dict[str, dict[str, Any]] = {
                "in order": {"first": COUNT - 100},
                "by a figure": {"sort": "compute_s", "descending": 1},
                "by another": {"sort": "stats.change"},
                "by key": {"sort": "key"},
                "search": {"search": "LISBON/img 9"},
                "failed": {"status": "failed", "sort": "finished_at"},
                "folder": {"folder": "2100/rome"},
                "not marked": {"mark": "none"},
                "where it is": {"locate": key(COUNT - 1), "count": 0},
            }
            totals = {}
            for name, query in answers.items():
                told, took[name] = ask("rows", **{"count": 100, **query})
                totals[name] = told["total"]
            assert told["located"] == COUNT - 1
            assert totals["by a figure"] == totals["by key"] == totals["not marked"] == COUNT
            assert totals["failed"] == sum(map(failed, range(COUNT)))
            assert totals["search"] > 0
            memory = {name: memory_mib(server.pid, name) for name in ("VmRSS", "VmHWM")}
            ask.close()
        finally:
            server.send_signal(signal.SIGINT)
    print("".join(f"{name}: {seconds:.2f} s\n" for name, seconds in took.items()), memory)
    assert {name: took[name] for name in answers if took[name] > ANSWER_S} == {}
    assert took["slowest while they are read"] < ANSWER_S
    assert memory["VmHWM"] < MEMORY_MIB
