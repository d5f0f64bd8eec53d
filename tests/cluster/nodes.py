"""Ray nodes on this machine, each a process group of its own, and command lines sent to them.

`ray stop`, and what of Ray calls it, ends every Ray of a machine: nothing here does.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.ledger.receipts import Ledger, read_journal
from jobs.ledger.results import Result
from jobs.stores.store import LocalStore
from tests.processes import living

TOKEN = secrets.token_hex(16)
BIN = Path(sys.executable).parent
_START_S = 120
_begun: list[subprocess.Popen[str]] = []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nodes:
    """A cluster with a head without CPUs; inside a `with`.

    Args:
        folder: for what Ray leaves behind; its path must be short.
        ip: of the head.
        autoscaling: a configuration of Ray's autoscaler, by the head's address.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ip: str = "127.0.0.1",
        autoscaling: Callable[[str], Mapping[str, Any]] | None = None,
        **environment: str,
    ) -> None:
        self._folder, self._ip, self._autoscaling = folder, ip, autoscaling
        self._port, self._dashboard = free_port(), free_port()
        self._started: dict[int, subprocess.Popen[bytes]] = {}  # by process group
        self._ids: dict[int, str] = {}  # of the nodes, too
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            **environment,
        }
        self._environment.pop("PYTHONPATH", None)  # a job brings its code along

    @property
    def gcs(self) -> str:
        return f"{self._ip}:{self._port}"

    @property
    def url(self) -> str:
        return f"http://{self._ip}:{self._dashboard}"

    def __enter__(self) -> Nodes:
        arguments = ["--head", "--port", str(self._port), "--num-cpus", "0"]
        arguments += ["--dashboard-host", self._ip, "--dashboard-port", str(self._dashboard)]
        arguments += ["--temp-dir", str(self._folder), "--include-dashboard", "true"]
        if self._autoscaling is not None:
            config = self._folder / "autoscaling.json"
            config.write_text(json.dumps(self._autoscaling(self.gcs)))
            arguments += [f"--autoscaling-config={config}"]
        try:
            self._ray(arguments, self._ip)
            self._wait(lambda: _status(f"{self.url}/api/version") == 401, "the head does not start")
            self._wait(lambda: self.alive() == 1, "the head does not start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for group in list(self._started):
            self.kill(group)

    def add(self, *, ip: str | None = None, inside: Sequence[str] = ()) -> int:
        """A node of one CPU more; gives its process group. `inside`: a command that runs its command."""
        before = self._living()
        ip = ip or self._ip
        group = self._ray(["--address", self.gcs, "--num-cpus", "1"], ip, inside)
        self._wait(lambda: bool(self._living() - before), "a node does not start")
        (self._ids[group],) = self._living() - before
        return group

    def kill(self, group: int) -> None:
        """A node is gone at once, with all that runs there."""
        deadline = time.monotonic() + 30
        while (pids := {*living("group", group), *living("session", group)}) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self._started.pop(group).wait()

    def drain(self, group: int) -> None:
        """Announce that a node will be taken away in five minutes."""
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "for a test"]
        command = [
            str(BIN / "ray"),
            "drain-node",
            "--address",
            self.gcs,
            "--node-id",
            self._ids[group],
            *reason,
        ]
        subprocess.run(
            [*command, "--deadline-remaining-seconds", "300"],
            env=self._environment,
            check=True,
            capture_output=True,
        )

    def alive(self) -> int:
        """How many nodes the head believes to be alive, with itself."""
        return len(self._living())

    def _living(self) -> set[str]:
        nodes = self.ask("/api/v0/nodes")["data"]["result"]["result"]
        return {node["node_id"] for node in nodes if node["state"] == "ALIVE"}

    def ask(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def _ray(self, arguments: Sequence[str], ip: str, inside: Sequence[str] = ()) -> int:
        command = [*inside, str(BIN / "ray"), "start", "--block", "--disable-usage-stats", *arguments]
        command += ["--dashboard-agent-listen-port", "0", "--metrics-export-port", str(free_port())]
        command += ["--node-ip-address", ip, "--object-store-memory", "100000000"]
        self._out = self._folder / f"node-{uuid.uuid4().hex}.out"
        with self._out.open("wb") as out:
            node = subprocess.Popen(
                command, env=self._environment, stdout=out, stderr=out, start_new_session=True
            )
        self._started[node.pid] = node
        return node.pid

    def _wait(self, condition: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(urllib.error.URLError, TimeoutError, ConnectionError):
                if condition():
                    return
            assert time.monotonic() < deadline, f"{problem}: {self._out.read_text()[-2000:]}"
            time.sleep(0.5)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def nst(*arguments: object, cwd: Path, token: str | None = TOKEN, **environment: str) -> subprocess.Popen[str]:
    """A command line of this program, begun."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    if token is not None:
        known["RAY_AUTH_TOKEN"] = token
    _begun.append(begun := _nst(arguments, cwd, {**known, **environment}))
    return begun


def _nst(arguments: Sequence[object], cwd: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # Of tests that run in the background, children would ignore Ctrl-C.
        ["env", "--default-signal=INT", sys.executable, "-m", "jobs", *map(str, arguments)],
        cwd=cwd,
        env={"COLUMNS": "200", **environment, "HOME": str(cwd)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_all() -> None:
    """Whatever a test that failed has left."""
    while _begun:
        with _begun.pop() as process:
            process.kill()


def ended(process: subprocess.Popen[str], timeout_s: float = 280) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, which hold no traceback."""
    stdout, stderr = process.communicate(timeout=timeout_s)
    assert "Traceback" not in stdout + stderr, stdout + stderr
    return process.returncode, stdout, stderr


def until(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 400) -> None:
    """Wait for something that happens while a command runs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.1)


def results(out: Path) -> list[Result]:
    ledger = Ledger(LocalStore(str(out)))
    return [result for shard in sorted(ledger.done()) for result in ledger.receipt(shard)[0]]


def deaths(out: Path) -> int:
    """Put on record against photographs."""
    store = LocalStore(str(out))
    return sum(sum(read_journal(store, shard, 0).deaths.values()) for shard in Ledger(store).begun())
