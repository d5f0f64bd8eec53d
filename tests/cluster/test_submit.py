"""Jobs on Ray clusters of several nodes, over the jobs API with tokens, and what such clusters do meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.lease import read_holder
from jobs.stores.store import LocalStore
from tests.cluster.nodes import TOKEN, Nodes, deaths, end_all, ended, nst, results, until
from tests.conftest import encoded, picture
from tests.processes import living

Photos = Callable[..., Path]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.xdist_group("cluster")]

JOB = """
photos = "photos"
output = "out"
[method]
kind = "style_transfer"
style = "style.png"
network = "vgg16"
weights = "seeded"
preset = "tutorial"
content_layers = {relu1_2 = 1.0}
style_layers = {relu1_1 = 1.0}
steps = 3
[image]
max_side_px = 48
format = "png"
[resources]
max_workers = 2
shard_size = 2
"""


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's sockets want a short path."""
    with tempfile.TemporaryDirectory(prefix="nst-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """A head and one node."""
    with (
        tempfile.TemporaryDirectory(prefix="nst-", ignore_cleanup_errors=True) as folder,
        Nodes(Path(folder)) as nodes,
    ):
        nodes.add()
        yield nodes


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture
def folder(tmp_path: Path, photos: Photos) -> Path:
    """A job file with its style picture and 24 photographs."""
    photos(24)
    (tmp_path / "style.png").write_bytes(encoded(picture(99, 60, 60), "PNG"))
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def submit(nodes: Nodes, folder: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    shared = ["--address", nodes.url, "--shared-paths"]
    return nst("submit", "job.toml", *shared, *arguments, cwd=folder, **options)


def steps(number: int) -> tuple[str, str]:
    return "--set", f"method.steps={number}"


def done(folder: Path) -> int:
    store = LocalStore(str(folder / "out"))
    return job_status(store).done if store.exists("job.json") else 0


def check_all_well(folder: Path, count: int = 24) -> None:
    """Every photograph once, nobody blamed, nothing left behind."""
    found = results(folder / "out")
    assert [result.row for result in found] == list(range(count))
    assert {result.status for result in found} == {"ok"}
    assert deaths(folder / "out") == 0
    store = LocalStore(str(folder / "out"))
    assert list(verify(store)) == []
    assert {path.split("/")[0] for path in store.find()} == {
        *("job.json", "manifest.parquet", "images", "journal", "results")
    }


def test_a_job_runs_with_the_right_token_and_brings_its_code_along(
    cluster: Nodes, folder: Path, ray_folder: Path
) -> None:
    (folder / "token").write_text(TOKEN)
    for token, said in ((None, "asks for a token"), (TOKEN.swapcase(), "refuses this token")):
        code, stdout, stderr = ended(submit(cluster, folder, token=token))
        assert (code, stdout) == (2, "")
        assert re.fullmatch(
            rf"error: {cluster.url} {said}: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH .*\n", stderr
        )
    environment = {"RAY_AUTH_TOKEN_PATH": str(ray_folder / "none")}
    code, _, stderr = ended(submit(cluster, folder, token=None, **environment))
    assert code == 2
    assert re.fullmatch(r"error: RAY_AUTH_TOKEN_PATH = '.*none': there is no such file\n", stderr)
    assert not (folder / "out").exists()

    environment = {"RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    code, stdout, stderr = ended(submit(cluster, folder, token=None, **environment))
    assert (code, stderr) == (0, ""), stdout + stderr
    assert "24 of 24 images ok" in stdout
    assert TOKEN not in stdout
    check_all_well(folder)
    packages = (".py", ".safetensors", ".jpg", ".html", ".css", ".js", ".svg")
    sent = [path for path in _sent(cluster) if path.suffix not in packages]
    assert {path.name for path in sent} == {"METADATA", "job.toml", "pyproject.toml"}
    code, stdout, _ = ended(submit(cluster, folder))
    assert code == 0
    assert "-2\n" in stdout.splitlines(keepends=True)[0], "the second submission for this output"


def _sent(nodes: Nodes) -> list[Path]:
    """What the head unpacked."""
    places = nodes._folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*")
    found = [path for place in places if place.is_dir() for path in place.rglob("*") if path.is_file()]
    assert len(found) > 50
    return [path for path in found if "__pycache__" not in path.parts]


def test_a_job_that_fails_has_its_own_exit_code(cluster: Nodes, folder: Path) -> None:
    (folder / "photos/text.jpg").write_text("no picture")
    code, stdout, _ = ended(submit(cluster, folder))
    assert code == 3
    assert "24 of 25 images ok, 1 failed" in stdout


def test_of_two_submissions_at_once_one_runs(cluster: Nodes, folder: Path) -> None:
    both = [submit(cluster, folder, *steps(30)) for _ in range(2)]
    codes = sorted((ended(each) for each in both), key=lambda found: found[0])
    assert [code for code, _, _ in codes] == [0, 2], codes
    assert re.match(
        r"error: it (is running on|was submitted to) .*, as nst-[0-9a-f]{12}-1|error: .* worked on by",
        codes[1][2],
    )
    check_all_well(folder)


def test_a_running_job_is_refused_left_alone_followed_again_and_stopped(cluster: Nodes, folder: Path) -> None:
    first = submit(cluster, folder, *steps(1500))
    until(lambda: done(folder) > 0, first)
    holder = read_holder(LocalStore(str(folder / "out")))
    assert holder is not None

    code, _, stderr = ended(nst("resume", "out", "--pool", "local", cwd=folder))
    assert code == 2
    assert f"is being worked on by process {holder.pid} on" in stderr
    code, _, stderr = ended(submit(cluster, folder))
    assert code == 2, "refused before it is submitted"
    assert f"is being worked on by process {holder.pid} on" in stderr
    code, stdout, _ = ended(nst("status", "out", cwd=folder))
    assert code == 0
    assert f"driver  process {holder.pid} on" in stdout

    first.send_signal(signal.SIGINT)
    code, stdout, _ = ended(first)
    assert code == 130
    assert "which goes on" in stdout
    again = f"nst submit job.toml --set method.steps=1500 --shared-paths --address {cluster.url}"
    assert f"stop it: {again} --stop\n" in stdout
    attached = submit(cluster, folder, "--attach")
    before = done(folder)
    until(lambda: done(folder) > before, attached)
    code, stdout, _ = ended(submit(cluster, folder, *steps(1500), "--stop"))
    assert code == 0, stdout
    assert f"has ended with exit code 75; go on with: {again}\n" in stdout
    code, stdout, _ = ended(attached)
    assert code == 75
    assert "go on with: nst resume" in stdout, "it was asked to, and not killed"
    assert 0 < done(folder) < 24
    assert read_holder(LocalStore(str(folder / "out"))) is None


def test_a_killed_driver_is_followed_once_its_lease_has_run_out(cluster: Nodes, folder: Path) -> None:
    first = submit(cluster, folder, *steps(200))
    until(lambda: done(folder) > 0, first)
    store = LocalStore(str(folder / "out"))
    holder = read_holder(store)
    assert holder is not None
    os.kill(holder.pid, signal.SIGKILL)
    code, _, stderr = ended(first)
    assert code == 4
    assert re.match(r"nst-[0-9a-f]{12}-1: .*exit code -9", stderr)
    # As if it had run on another machine, of which nobody here knows whether it lives.
    elsewhere = {**json.loads(holder.to_bytes()), "boot_id": "-", "term_s": 60}
    store.publish("lease-000001.json", json.dumps(elsewhere).encode())
    code, _, stderr = ended(submit(cluster, folder, *steps(200)))
    assert code == 2
    assert re.search(r"is being worked on by .*; its lease runs out in \d+ s", stderr)
    code, stdout, stderr = ended(submit(cluster, folder, *steps(200), "--wait-for-lease"))
    assert code == 0, stdout + stderr
    assert f"waiting for process {holder.pid} on" in stdout
    check_all_well(folder)


def test_a_node_is_lost_and_one_comes(ray_folder: Path, folder: Path) -> None:
    with Nodes(ray_folder) as nodes:
        nodes.add()
        lost = nodes.add()
        job = submit(nodes, folder, *steps(200))
        until(lambda: done(folder) > 2, job)
        nodes.kill(lost)
        added = nodes.add()
        there: set[int] = set()

        def seen() -> bool:
            there.update(living("session", added))
            return job.poll() is not None

        until_over(seen)
        code, stdout, stderr = ended(job)
        assert code == 0, stdout + stderr
        assert there & {result.worker_pid for result in results(folder / "out")}, "the added node was used"
    check_all_well(folder)


def test_a_node_that_is_to_be_taken_away_finishes_what_is_in_work(ray_folder: Path, folder: Path) -> None:
    """Ray is told of a preemption, with a deadline. No photograph is done twice, and another node goes on."""
    with Nodes(ray_folder) as nodes:
        leaves = nodes.add()
        job = submit(nodes, folder, *steps(200), "--set", "resources.max_workers=1")
        until(lambda: done(folder) > 1, job)
        first = {*living("session", leaves)}
        added = nodes.add()
        nodes.drain(leaves)
        there: set[int] = set()

        def seen() -> bool:
            there.update(living("session", added))
            return job.poll() is not None

        until_over(seen)
        code, stdout, stderr = ended(job)
        assert code == 0, stdout + stderr
    assert "worker 0 finishes what is in work: its node is being drained" in stdout
    assert "is gone" not in stdout
    workers = [result.worker_pid for result in results(folder / "out")]
    assert {*workers} & first
    assert {*workers} & there
    assert all(result.attempts == 1 for result in results(folder / "out"))
    check_all_well(folder)


def until_over(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 280
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


_LISTS = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
)


def _autoscaling(gcs: str) -> Mapping[str, Any]:
    """Ray's provider for tests: its nodes are processes of this machine. From none to two."""
    flags = dict.fromkeys(("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check"), True)
    worker = {"resources": {"CPU": 1, "object_store_memory": 100_000_000}, "node_config": {}}
    return {
        "cluster_name": "nst",
        "max_workers": 2,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": 0.1,
        "provider": {"type": "fake_multinode", "gcs_address": gcs, **flags},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {**worker, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",
        "file_mounts_sync_continuously": False,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in _LISTS},
    }


def test_a_queued_job_grows_the_cluster_and_shrinks_it_at_the_tail(ray_folder: Path, folder: Path) -> None:
    """The first photograph takes as long as all others together, many times: one node is enough for it."""
    (folder / "photos/a first one.jpg").write_bytes(encoded(picture(1, 900, 600)))
    environment = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with Nodes(ray_folder, autoscaling=_autoscaling, **environment) as nodes:
        assert nodes.alive() == 1, "the head alone"
        job = submit(
            nodes, folder, *steps(40), "--set", "image.max_side_px=0", "--set", "resources.shard_size=1"
        )
        counts: list[tuple[int, int]] = []

        def grown_and_shrunk() -> bool:
            counts.append((nodes.alive() - 1, done(folder)))
            most = max(nodes for nodes, _ in counts)
            return most == 2 and counts[-1][0] == 1 and counts[-1][1] < 25

        try:
            until(grown_and_shrunk, job)
        finally:
            print(f"\nnodes, photographs done: {list(dict.fromkeys(counts))}")
        code, stdout, stderr = ended(job)
        assert code == 0, stdout + stderr
        until_over(lambda: nodes.alive() == 1)
    check_all_well(folder, 25)


@pytest.fixture
def link() -> Iterator[tuple[str, str, str]]:
    """A network of its own behind a link: its name, that of the link, and what its addresses begin with."""
    name, subnet = f"nst{os.getpid() % 10000}", f"10.{os.getpid() % 200 + 20}.77"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("networks can only be made by root, with iproute2")
    commands = [
        f"ip netns add {name}",
        f"ip link add {name}h type veth peer name {name}n netns {name}",
        f"ip addr add {subnet}.1/24 dev {name}h",
        f"ip link set {name}h up",
        f"ip -n {name} addr add {subnet}.2/24 dev {name}n",
        f"ip -n {name} link set {name}n up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for command in commands:
            made = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"networks cannot be made here: {made.stderr}")
        yield name, f"{name}h", subnet
    finally:
        subprocess.run(["ip", "link", "del", f"{name}h"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_the_link_to_a_node_is_cut_and_comes_back(
    ray_folder: Path, folder: Path, link: tuple[str, str, str]
) -> None:
    """For long enough that the cluster takes the node for dead. It is not, and goes on for a while."""
    name, device, subnet = link
    with Nodes(ray_folder, ip=f"{subnet}.1") as nodes:
        nodes.add()
        nodes.add(ip=f"{subnet}.2", inside=["ip", "netns", "exec", name])
        job = submit(nodes, folder, *steps(800))
        until(lambda: done(folder) > 2, job)
        subprocess.run(["ip", "link", "set", device, "down"], check=True)
        until(lambda: nodes.alive() == 2, job)
        before = done(folder)
        until(lambda: done(folder) > before, job)
        subprocess.run(["ip", "link", "set", device, "up"], check=True)
        code, stdout, stderr = ended(job, 400)
        assert code == 0, stdout + stderr
    assert "is gone: " in stdout
    check_all_well(folder)
