"""One driver at a time: leases that are held, lost, left behind, and taken over."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

import jobs.ledger.lease
import jobs.ledger.lease_holder
from jobs.console.progress import Snapshot
from jobs.driver.job import Job, create_or_open
from jobs.driver.run import run, worker_setup
from jobs.driver.todo import retry_work
from jobs.errors import LeaseHeld, LeaseLost, StoreError
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.lease import STANDARD_LEASE, Lease, LeaseOptions, hold, read_holder, refuse_if_held
from jobs.ledger.lease_holder import Holder, parse_holder, this_process
from jobs.spec import job_from_table
from jobs.stores.store import FsspecStore, LocalStore, Store
from jobs.worker.messages import Task, WorkerId
from tests.chaos import InlinePool
from tests.methods import REGISTRY
from tests.processes import living, spawn

Photos = Callable[..., Path]
SHORT = LeaseOptions(term_s=1.2, settle_s=0.2)
WAITING = replace(SHORT, wait=True)
ELSEWHERE = Holder(id="elsewhere", host="another-host", pid=1, started="then", term_s=0.6, boot_id="another")


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """These stores tell times to less than a second."""
    monkeypatch.setattr(jobs.ledger.lease, "_ROUNDING_S", 0.05)


class Timeless(FsspecStore):
    """Does not tell when an object was written."""

    def age_s(self, path: str) -> float | None:  # noqa: ARG002
        return None


class Overwriting(FsspecStore):
    """Ignores create-only writes: who writes last remains."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.create_only = False

    def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:  # noqa: ARG002
        super().publish(path, data)


@pytest.fixture(params=["local", "memory", "timeless", "overwriting"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield LocalStore(str(tmp_path / "out"))
        return
    kind = {"memory": FsspecStore, "timeless": Timeless, "overwriting": Overwriting}[request.param]
    yield kind("memory://bucket/out")
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs.clear()


def leave(store: Store, holder: Holder = ELSEWHERE, generation: int = 1) -> None:
    """As somebody leaves it who was killed."""
    store.publish(f"lease-{generation:06d}.json", replace(holder, generation=generation).to_bytes())


def test_held_renewed_and_given_back_without_a_trace(store: Store) -> None:
    with hold(store, SHORT) as lease:
        assert lease is not None
        first = read_holder(store)
        assert first is not None
        assert (first.pid, first.generation, first.renewals) == (os.getpid(), 1, 0)
        assert not first.is_dead
        with pytest.raises(
            LeaseHeld, match=rf"process {os.getpid()} on .*, since 2.*Z; its lease runs out in \d"
        ):
            Lease(store, SHORT).acquire()
        with pytest.raises(LeaseHeld):
            refuse_if_held(store)
        time.sleep(3 * SHORT.term_s)
        with pytest.raises(LeaseHeld):
            Lease(store, SHORT).acquire()
        renewed = read_holder(store)
        assert renewed is not None
        assert renewed.renewals >= 5
        assert lease.lost is None
    assert [path for path in store.find() if not path.startswith(".tmp")] == []
    assert read_holder(store) is None
    refuse_if_held(store)
    with hold(store, SHORT):
        pass


def test_without_a_lease_nothing_is_written(store: Store) -> None:
    with hold(store, SHORT), hold(store, None) as lease:
        assert lease is None
        assert list(store.find()) == ["lease-000001.json"]


def test_a_lease_that_is_left_is_refused_until_it_has_run_out(store: Store) -> None:
    leave(store)
    with pytest.raises(LeaseHeld, match=r"process 1 on another-host, since then; its lease runs out in [01] s"):
        Lease(store, SHORT).acquire()
    time.sleep(ELSEWHERE.term_s + 0.2)
    if isinstance(store, Timeless):  # nobody has seen it that long
        with pytest.raises(LeaseHeld):
            Lease(store, SHORT).acquire()
        return
    refuse_if_held(store)
    with hold(store, SHORT):
        holder = read_holder(store)
        assert holder is not None
        assert (holder.generation, holder.pid) == (2, os.getpid())
        assert [name for name in store.names("") if name != ".tmp"] == ["lease-000002.json"]
    assert [path for path in store.find() if not path.startswith(".tmp")] == []


def test_waits_when_told_to_and_says_so(store: Store) -> None:
    """Times in the record are of a clock that may be days off: they do not count."""
    for expires in ("1999-01-01T00:00:00Z", "2999-01-01T00:00:00Z"):
        leave(store, replace(ELSEWHERE, expires=expires))
        said: list[str] = []
        began = time.monotonic()
        with hold(store, replace(WAITING, say=said.append)):
            assert 0.5 * ELSEWHERE.term_s < time.monotonic() - began < 10
        assert said == ["waiting for process 1 on another-host, since then"]


def test_waits_for_as_long_as_it_is_renewed(store: Store) -> None:
    first = Lease(store, SHORT)
    first.acquire()
    threading.Timer(4 * SHORT.term_s, first.release).start()
    began = time.monotonic()
    with hold(store, WAITING):
        assert time.monotonic() - began > 3.5 * SHORT.term_s
        assert first.lost is None


@pytest.mark.parametrize("waits", [False, True])
def test_of_several_challengers_one_wins(store: Store, waits: bool) -> None:
    for round_ in range(3):
        leave(store, generation=7)
        time.sleep(ELSEWHERE.term_s + 0.1)
        if isinstance(store, Timeless) and not waits:
            return
        won: list[Lease] = []
        start = threading.Barrier(4)

        def challenge(start: threading.Barrier = start, won: list[Lease] = won) -> None:
            lease = Lease(store, LeaseOptions(term_s=5.0, settle_s=0.3, wait=waits))
            start.wait()
            try:
                lease.acquire()
            except LeaseHeld:
                return
            won.append(lease)

        threads = [threading.Thread(target=challenge, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while not won and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
        assert len(won) == 1, f"round {round_}"
        assert won[0].lost is None
        if waits:  # one after the other, as each gives it back
            for count in range(1, 5):
                while len(won) < count and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert len(won) == count
                won[-1].release()
            return
        won[0].release()
        for thread in threads:
            thread.join()
        assert [path for path in store.find() if not path.startswith(".tmp")] == []


@pytest.mark.parametrize(
    ("found", "now"),
    [
        (9, replace(ELSEWHERE, id="anew")),
        (1, replace(ELSEWHERE, id="anew")),
        (1, replace(ELSEWHERE, renewals=1)),
    ],
    ids=["given back", "given back, the same number", "renewed late"],
)
def test_who_comes_late_to_a_lease_that_had_run_out_finds_who_has_it_now(
    tmp_path: Path, found: int, now: Holder
) -> None:
    """Since it was found it was given back, and another driver is the first again; or its holder renewed it,
    and sees no challenger yet."""

    class Meanwhile(LocalStore):
        is_late = False

        def publish(self, path: str, data: bytes, *, create_only: bool = False) -> None:
            if path == f"lease-{found + 1:06d}.json" and not self.is_late:
                self.is_late = True
                self.remove(f"lease-{found:06d}.json")
                leave(self, replace(now, term_s=60.0))
            super().publish(path, data, create_only=create_only)

    store = Meanwhile(str(tmp_path / "out"))
    leave(store, generation=found)
    time.sleep(ELSEWHERE.term_s + 0.1)
    with pytest.raises(LeaseHeld):
        Lease(store, SHORT).acquire()
    assert store.is_late
    assert [name for name in store.names("") if name != ".tmp"] == ["lease-000001.json"]


def test_who_was_taken_over_knows_it_and_leaves_the_other_alone(store: Store) -> None:
    lease = Lease(store, SHORT)
    lease.acquire()
    leave(store, generation=2)
    deadline = time.monotonic() + 5
    while lease.lost is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert isinstance(lease.lost, LeaseLost)
    assert "another-host" in str(lease.lost)
    lease.release()
    assert [name for name in store.names("") if name != ".tmp"] == ["lease-000002.json"]


@pytest.mark.parametrize("harm", ["removed", "replaced"])
def test_a_lease_that_is_gone_or_anothers_is_lost(store: Store, harm: str) -> None:
    lease = Lease(store, SHORT)
    lease.acquire()
    if harm == "removed":
        store.remove("lease-000001.json")
    else:
        leave(store)
    time.sleep(2 * SHORT.term_s)
    assert lease.lost is not None
    lease.release()
    assert store.exists("lease-000001.json") == (harm == "replaced")


def test_after_a_pause_the_store_is_asked_before_anything_is_published(tmp_path: Path) -> None:
    """No renewal in between: the whole process stood still."""
    store = LocalStore(str(tmp_path))
    lease = Lease(store, replace(SHORT, term_s=30.0))
    lease.acquire()
    leave(store, generation=2)
    assert lease.lost is None, "it has not looked yet"
    lease._seen_at -= 31
    assert lease.lost is not None
    lease.release()


def test_after_a_pause_nothing_is_published_while_the_store_is_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the thread that renews the lease, which wakes up at the same moment."""
    lease = Lease(store := LocalStore(str(tmp_path)), replace(SHORT, term_s=30.0))
    lease.acquire()
    leave(store, generation=2)
    lease._seen_at -= 31
    asking, read = threading.Event(), LocalStore.read

    def slow(self: LocalStore, path: str) -> bytes:
        asking.set()
        time.sleep(0.5)
        return read(self, path)

    monkeypatch.setattr(LocalStore, "read", slow)
    keeper = threading.Thread(target=lease._renew)
    keeper.start()
    asking.wait()
    assert lease.lost is not None
    keeper.join()
    lease.release()


def test_a_store_that_fails_for_a_moment_costs_nobody_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(str(tmp_path))
    with hold(store, SHORT) as lease:
        assert lease is not None

        def fails(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "no answer")

        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "publish", fails)
            time.sleep(2 * SHORT.term_s)
            assert lease.lost is None
        before = read_holder(store)
        time.sleep(SHORT.term_s)
        after = read_holder(store)
        assert before is not None
        assert after is not None
        assert after.renewals > before.renewals


@pytest.mark.parametrize("stage", ["release", "acquire"])
def test_a_driver_that_ended_while_its_store_was_away_is_known_to_have_ended(
    store: Store, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own process, which may go on at once: its record stays, since it could not be removed."""

    def away(*_: object) -> None:
        raise OSError(errno.EIO, "no answer")

    lease = Lease(store, STANDARD_LEASE)
    with monkeypatch.context() as patch:
        if stage == "acquire":  # it was written, and then nothing could be read
            patch.setattr(Lease, "_is_ours", away)
            with pytest.raises(OSError, match="no answer"):
                lease.acquire()
        else:
            lease.acquire()
            patch.setattr(type(store), "remove", away)
            lease.release()
    holder = read_holder(store)
    assert holder is not None
    assert "it is gone, the next one takes over at once" in holder.describe()
    refuse_if_held(store)
    with hold(store, STANDARD_LEASE) as again:
        assert again is not None
        assert [name for name in store.names("") if name != ".tmp"] == ["lease-000002.json"]
        with pytest.raises(LeaseHeld):
            Lease(store, STANDARD_LEASE).acquire()


def test_a_listing_that_lags_behind_hides_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))
    with hold(store, SHORT), monkeypatch.context() as patch:
        patch.setattr(LocalStore, "names", lambda *_: [])
        with pytest.raises(LeaseHeld):
            Lease(store, SHORT).acquire()


def test_what_is_no_record_runs_out_too(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    for data in (b"", b"{", b"[]", b'{"id": 1}', json.dumps({**vars_of(ELSEWHERE), "term_s": 1e9}).encode()):
        assert parse_holder(data, 3) == Holder(id="", generation=3)
    store.publish("lease-000001.json", b"half a rec")
    with pytest.raises(
        LeaseHeld, match="on an unknown host, since an unknown time; its lease runs out in 60 s"
    ):
        Lease(store, SHORT).acquire()
    os.utime(tmp_path / "lease-000001.json", (0, 0))
    with hold(store, SHORT):
        assert [name for name in store.names("") if name != ".tmp"] == ["lease-000002.json"]


def vars_of(holder: Holder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(holder.to_bytes())
    return found


def test_a_dead_process_of_this_host_is_told_from_one_elsewhere() -> None:
    mine = this_process(id="x", started_at=0.0, term_s=60, generation=1, renewals=0)
    assert not mine.is_dead
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    theirs = replace(mine, pid=child.pid, process_started=jobs.ledger.lease_holder._process_started(child.pid))
    assert not theirs.is_dead
    assert replace(theirs, process_started="1").is_dead, "its number was used again"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert theirs.is_dead, "killed, and nobody has asked for its exit code yet"
    child.wait()
    assert theirs.is_dead
    assert not replace(theirs, boot_id="another machine's").is_dead
    assert not replace(theirs, pid_namespace="pid:[1]").is_dead, "in another container"
    assert not replace(theirs, boot_id="").is_dead


# Drivers


def begin(folder: Path, photos: Photos, count: int = 6, **method: Any) -> Job:
    if not (folder / "photos").exists():
        photos(count)
    table = {
        "photos": "photos",
        "output": "out",
        "method": {"kind": "stub", **method},
        "resources": {"pool": "local", "max_workers": 1, "shard_size": 2},
    }
    return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)


def inline(job: Job, **options: Any) -> Any:
    return run(job, pool=InlinePool(worker_setup(job)), **options)


def test_a_second_driver_is_refused_and_status_says_who_is_at_it(tmp_path: Path, photos: Photos) -> None:
    job = begin(tmp_path, photos)
    with hold(job.store, SHORT):
        driver = job_status(job.store).driver
        assert driver is not None
        assert driver.pid == os.getpid()
        assert "its lease lasts until 2" in driver.describe()
        with pytest.raises(LeaseHeld) as caught:
            inline(job)
        assert caught.value.exit_code == 2
        assert {fault.path.split("/")[0] for fault in verify(job.store)} == {"results"}, "unfinished, no more"
        assert job_status(job.store).done == 0
        assert inline(job, lease=None).exit_code == 0, "asked for on purpose"
    assert job_status(job.store).driver is None
    assert job_status(job.store).to_json()["driver"] is None
    assert inline(job).exit_code == 0


def test_what_is_left_is_asked_once_the_other_driver_has_ended(tmp_path: Path, photos: Photos) -> None:
    """Who waited does nothing again that the other one did."""
    tally = tmp_path / "tally"
    job = begin(tmp_path, photos, tally=str(tally))
    other = Lease(job.store, SHORT)
    other.acquire()
    done = threading.Thread(target=lambda: (inline(job, lease=None), other.release()))
    done.start()
    assert inline(job, lease=replace(WAITING, term_s=5.0)).exit_code == 0
    done.join()
    assert tally.stat().st_size == 6
    assert inline(job, work=lambda: retry_work(job)).exit_code == 0


def test_a_driver_that_was_taken_over_publishes_nothing_more(
    tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed off in the middle, after its first shard; the next one finds all that was done."""
    job = begin(tmp_path, photos)
    published: list[str] = []

    class Taken(InlinePool):
        def submit(self, worker: WorkerId, task: Task) -> None:
            super().submit(worker, task)
            if task.shard == 1:
                leave(job.store, generation=2)
                time.sleep(2 * SHORT.term_s)
                published.clear()

    publish = LocalStore.publish

    def noted(self: LocalStore, path: str, data: bytes, *, create_only: bool = False) -> None:
        published.append(path)
        publish(self, path, data, create_only=create_only)

    monkeypatch.setattr(LocalStore, "publish", noted)
    summary = run(job, pool=Taken(worker_setup(job)), lease=SHORT)
    assert isinstance(summary.error, LeaseLost)
    assert summary.exit_code == 4
    assert published == []
    assert sum(summary.counts.values()) == 4, "and nothing is lost"
    assert Path(job.store.url, "lease-000002.json").exists(), "the other's"
    assert inline(job, lease=replace(WAITING, term_s=5)).exit_code == 0
    assert list(verify(job.store)) == []


def test_a_store_that_takes_no_lease_fails_the_job(
    tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begin(tmp_path, photos)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "publish", full)
        summary = inline(job)
    assert isinstance(summary.error, StoreError)
    assert summary.exit_code == 4
    assert inline(job).exit_code == 0


DRIVER = """
import sys
from pathlib import Path
from jobs.driver.job import create_or_open
from jobs.ledger.lease import LeaseOptions
from jobs.spec import job_from_table
from jobs.driver.run import run
from tests.methods import REGISTRY

table = {
    "photos": "photos",
    "output": "out",
    "method": {"kind": "stub", "delay_s": 0.3},
    "resources": {"pool": "local", "max_workers": 1, "shard_size": 2},
}
job = create_or_open(job_from_table(table, Path(sys.argv[1]), REGISTRY), REGISTRY)
sys.exit(run(job, lease=LeaseOptions(term_s=float(sys.argv[2]))).exit_code)
"""


def drive(folder: Path, term_s: float) -> subprocess.Popen[bytes]:
    return spawn([sys.executable, "-c", DRIVER, str(folder), str(term_s)])


@pytest.mark.ray
def test_a_killed_driver_is_followed_at_once_and_a_stopped_one_gives_up(tmp_path: Path, photos: Photos) -> None:
    """SIGKILL: its process is known to be gone. SIGSTOP for longer than its term: it is taken over, and when it
    goes on it stops by itself."""
    job = begin(tmp_path, photos, 12, delay_s=0.3)
    first = drive(tmp_path, 60.0)
    _until(lambda: job_status(job.store).done > 1, first)
    with pytest.raises(LeaseHeld, match=f"process {first.pid} on"):
        run(job)
    first.kill()
    first.wait()
    driver = job_status(job.store).driver
    assert driver is not None
    assert "it is gone" in driver.describe()

    second = drive(tmp_path, 1.5)
    done = job_status(job.store).done
    _until(lambda: job_status(job.store).done > done, second)
    for pid in living("session", second.pid):
        os.kill(pid, signal.SIGSTOP)
    with hold(job.store, replace(WAITING, term_s=20.0)):
        for pid in living("session", second.pid):
            os.kill(pid, signal.SIGCONT)
        assert second.wait(60) == 4
    seen: list[Snapshot] = []
    assert run(job, observe=seen.append).exit_code == 0
    assert list(verify(job.store)) == []
    assert not [name for name in job.store.names("") if name.startswith("lease")]


def _until(condition: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert driver.poll() is None, "it ended"
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.2)
