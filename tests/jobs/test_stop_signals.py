"""What signals do to a driver, and to those that it has started; and output that goes away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from jobs.cli.running import ToRun, execute
from jobs.console.log_events import LogSink
from jobs.console.stop import STOP_SIGNALS, StopSignal
from jobs.driver.job import Job, create_or_open, reopen
from jobs.driver.run import run, worker_setup
from jobs.errors import Stopped
from jobs.inspect.status import job_status
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from tests.chaos import InlinePool
from tests.jobs.test_cli import NST, job_folder
from tests.methods import REGISTRY
from tests.processes import living, spawn

Photos = Callable[..., Path]


pytestmark = pytest.mark.usefixtures("signal_handlers")


@pytest.fixture
def folder(tmp_path: Path, photos: Photos) -> Path:
    return job_folder(tmp_path, photos)


# In the driver


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_every_signal_asks_and_its_echo_does_not(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """`timeout` signals the driver and then its group: within half a second it is one request."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored where tests run in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))
    now = [100.0]
    monkeypatch.setattr("jobs.console.stop.time.monotonic", lambda: now[0])
    with StopSignal().on_signals(last=False) as stop:
        stop.running()
        signal.raise_signal(number)
        assert stop.gently
        now[0] += 0.4
        for other in STOP_SIGNALS:
            signal.raise_signal(other)
        assert not stop.at_once
        now[0] += 0.2
        signal.raise_signal(number)
        assert stop.at_once


def test_what_nohup_has_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal().on_signals(last=False) as stop:
            stop.running()
            signal.raise_signal(signal.SIGHUP)
            assert not stop.gently
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_asked_between_two_runs_it_is_over() -> None:
    def look_for_what_comes_next() -> None:
        with StopSignal().on_signals(last=False) as stop:
            stop.running()
            stop.planning()
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        look_for_what_comes_next()


def test_asked_as_a_run_ended_no_other_is_begun() -> None:
    def end() -> None:
        with StopSignal().on_signals(last=False) as stop:
            stop.running()
            signal.raise_signal(signal.SIGTERM)
            stop.planning()

    with pytest.raises(Stopped):
        end()


def test_a_signal_while_parts_of_a_job_are_looked_for(tmp_path: Path, photos: Photos) -> None:
    """Which may take long: photographs are read, or another driver is waited for."""
    photos(2)
    table = {"photos": "photos", "output": "out", "method": {"kind": "stub"}}
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    run(job, pool=InlinePool(worker_setup(job)))
    closed = []

    def more(job: Job, _log: LogSink) -> Generator[ToRun, None, None]:
        try:
            signal.raise_signal(signal.SIGTERM)
            yield job, None
        finally:
            closed.append(job)

    with pytest.raises(Stopped):
        execute(lambda: (reopen(job.store, registry=REGISTRY), None), more)
    assert len(closed) == 1


# In whole jobs


def run_in_work(folder: Path, *before: str, **pipes: object) -> subprocess.Popen[str]:
    """A driver that has photographs in work."""
    command = [
        *before,
        *NST,
        "run",
        "job.toml",
        "--pool",
        "local",
        "--set",
        "method.steps=150",
        "--workers",
        "1",
    ]
    process = spawn(command, cwd=folder, text=True, **pipes)
    deadline = time.monotonic() + 120
    while not list(folder.glob("out/journal/*/*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.poll() is None
    return process


def check_stopped(folder: Path, process: subprocess.Popen[str]) -> None:
    """Gently: nothing that was begun is lost, and nobody is left."""
    assert process.returncode == 75
    done = job_status(LocalStore(str(folder / "out"))).done
    assert 0 < done < 6
    parts = sum(len(path.read_text().splitlines()) for path in folder.glob("out/journal/*/*"))
    assert done == parts == len(list(folder.glob("out/images/**/*.png")))
    deadline = time.monotonic() + 10
    while living("session", process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert living("session", process.pid) == []


@pytest.mark.ray
def test_timeout_stops_gently(folder: Path) -> None:
    """As it does in its own process group: it signals the driver, and then all."""
    process = run_in_work(
        folder, "timeout", "--signal=TERM", "1000", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    process.send_signal(signal.SIGTERM)  # which it takes for its time being over
    out, _ = process.communicate(timeout=60)
    assert "go on with: nst resume" in out
    assert "is gone" not in out, "a worker, with what it was at"
    check_stopped(folder, process)


@pytest.mark.ray
def test_a_closed_terminal_stops_gently(folder: Path) -> None:
    """Nothing can be written to it any more, which is no error of the job."""
    ours, theirs = pty.openpty()
    process = run_in_work(folder, "setsid", "--ctty", "--wait", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    process.wait(60)
    check_stopped(folder, process)


@pytest.mark.ray
def test_a_reader_that_ended_costs_nothing(folder: Path) -> None:
    """`nst run job.toml | tee log`: Ctrl-C ends `tee`, too."""
    process = run_in_work(folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    process.stdout.close()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    check_stopped(folder, process)


def test_output_that_cannot_be_written_is_forgotten() -> None:
    script = "import time\nfrom jobs.console.outlet import lasting_output\nwith lasting_output():\n"
    script += "    for _ in range(3): print('x' * 100000, flush=True)\n"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_output_that_is_closed_from_the_start_costs_nothing(tmp_path: Path, closed: str) -> None:
    """As some who start programs in the background have it: Python then has no such stream at all."""
    script = """
import sys
from pathlib import Path
from rich.console import Console
from jobs.console.outlet import lasting_output
with lasting_output():
    Console().print("x")
    print("x", flush=True)
    print("x", file=sys.stderr)
    with open(sys.argv[1], "w") as file:
        Path(sys.argv[2]).write_text(str(file.fileno()))
"""
    places = [str(tmp_path / name) for name in ("file", "number")]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script, *places]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert int((tmp_path / "number").read_text()) > 2 or "<" in closed, "no file takes a closed stream's place"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", rb"\xe9 \u6771"), ("latin-1", b"\xe9 \\u6771")])
def test_letters_that_the_output_cannot_have_are_escaped(encoding: str, shown: bytes) -> None:
    """Of a photograph's name, where the locale is not of UTF-8."""
    script = "from jobs.console.outlet import lasting_output\nwith lasting_output(): print('\xe9 \u6771')"
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, shown, b"")


def test_ctrl_c_while_the_command_line_is_loaded() -> None:
    """By the entry of the console script, which imports nothing of weight before it can say so."""
    root = Path(__file__).parents[2]
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["nst"].partition(":")
    script = f"""
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name in ("typer", "rich", "nst.errors"):
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from {module} import {function}
{function}()
"""
    done = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
