"""S3 servers on loopback, each started from nothing in a folder of its own and ended by its pid.

ceph     RADOS gateway, Debian's packages: real and durable; the reference
swift    OpenStack Swift with s3api: honors create-only writes, but of a race there may be several winners
rclone   `rclone serve s3`: ignores create-only writes
moto     quick stand-in: accepts any credentials, loses all when it is killed
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

ACCESS_KEY, SECRET_KEY = "labaccesskey0000", "labsecretkey00000000000000000000"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args} does not answer on port {port} after {seconds:g} s")


class Server(ABC):
    """Processes that make up a server. `kill` is `kill -9` of all of them; `start` after that goes on with the
    same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def start(self) -> None: ...

    def kill(self) -> None:
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _spawn(self, name: str, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        self._processes.append(process)
        return process


class Moto(Server):
    def start(self) -> None:
        server = Path(sys.executable).parent / "moto_server"
        wait_for_port(self.port, self._spawn("moto", [server, "-H", "127.0.0.1", "-p", str(self.port)]))


class Rclone(Server):
    """Keeps buckets as folders below `folder/data`."""

    @staticmethod
    def program() -> str | None:
        return shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def start(self) -> None:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        command = [
            *(str(self.program()), "serve", "s3", "--addr", f"127.0.0.1:{self.port}"),
            *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "off", str(data)),
        ]
        wait_for_port(self.port, self._spawn("rclone", command))


_CEPH = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon}
auth cluster required = none
auth service required = none
auth client required = none
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
ms bind port min = {low}
ms bind port max = {high}
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 1000
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
pid file =
log file = {folder}/$name.log
crash dir = {folder}/run
keyring = {folder}/keyring
[mon]
mon data = {folder}/mon
mon cluster log file = {folder}/cluster.log
paxos propose interval = 0.05
paxos min wait = 0.01
mon tick interval = 1
mon data avail crit = 1
mon data avail warn = 2
[osd]
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = 10737418240
osd memory target = 939524096
osd client watch timeout = 12
[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw enable usage log = false
rgw enable ops log = false
rgw run sync thread = false
rgw thread pool size = 64
"""


class Ceph(Server):
    """One monitor, one object store daemon in a sparse file, one gateway. Debian 12's packages."""

    PROGRAMS = ("radosgw", "ceph-mon", "ceph-osd", "radosgw-admin", "ceph-authtool", "monmaptool", "ceph")

    @classmethod
    def installed(cls) -> bool:
        return all(shutil.which(program) for program in cls.PROGRAMS)

    def start(self) -> None:
        fresh = not (self.folder / "ready").exists()
        config = self.folder / "ceph.conf"
        if fresh:
            self._prepare(config)
        monitor = ["ceph-mon", "-f", "-i", "a", "--conf", config]
        store = ["ceph-osd", "-f", "-i", "0", "--conf", config]
        ask = ["ceph", "--conf", str(config), "--connect-timeout", "20"]
        self._spawn("mon", monitor)
        if fresh:
            identity = str(uuid.uuid4())
            self._ask(b"", *ask, "osd", "new", identity)
            self._do("ceph-osd", "--conf", str(config), "-i", "0", "--mkfs", "--osd-uuid", identity)
        daemon = self._spawn("osd", store)
        if fresh:
            # On a busy machine it may talk before it was told the cluster's identity, and is turned away.
            for _ in range(3):
                try:
                    daemon.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    break
                daemon = self._spawn("osd", store)
            self._ask(b"1 up", *ask, "osd", "stat")
            user = [
                "--uid=lab",
                "--display-name=lab",
                f"--access-key={ACCESS_KEY}",
                f"--secret-key={SECRET_KEY}",
            ]
            admin = ["radosgw-admin", "--conf", str(config), "-n", "client.rgw.a", "user", "create"]
            self._do(*admin, *user)
            (self.folder / "ready").touch()
        gateway = self._spawn("rgw", ["radosgw", "-f", "-n", "client.rgw.a", "--conf", config])
        wait_for_port(self.port, gateway)

    def _prepare(self, config: Path) -> None:
        for name in ("mon", "osd", "run", "rgw"):
            (self.folder / name).mkdir()
        fsid, monitor_port, low = str(uuid.uuid4()), free_port(), free_port()
        while low > 65_000 or {monitor_port, self.port} & set(range(low, low + 51)):
            low = free_port()
        config.write_text(
            _CEPH.format(
                fsid=fsid, mon=monitor_port, low=low, high=low + 50, folder=self.folder, port=self.port
            )
        )
        keyring, monmap = str(self.folder / "keyring"), str(self.folder / "monmap")
        Path(keyring).touch()
        self._do("ceph-authtool", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        admin = ("-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *")
        self._do("ceph-authtool", keyring, "--gen-key", *admin)
        self._do(
            "monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{monitor_port}]", monmap
        )
        make = ("--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._do("ceph-mon", "--conf", str(config), *make)

    def _ask(self, wanted: bytes, *command: str) -> None:
        """Until the answer is as wanted: a monitor that has just begun refuses everything."""
        deadline = time.monotonic() + 60
        while True:
            done = subprocess.run(command, capture_output=True, timeout=120)
            if done.returncode == 0 and wanted in done.stdout:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command}: {done.stderr.decode(errors='replace')[-500:]}")
            time.sleep(0.2)

    def _do(self, *command: str) -> bytes:
        done = subprocess.run(command, capture_output=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr.decode(errors='replace')[-500:]}")
        return done.stdout
