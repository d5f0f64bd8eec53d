"""cluster/slurm.sbatch, run by bash with commands that stand for Slurm's, Ray's and nst's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.checks import CLUSTER

SCRIPT = CLUSTER / "slurm.sbatch"
PATIENCE_S = 60.0

STUBS = {
    # What is told to each command is written down; `srun` runs the command here, as Slurm would over there.
    "scontrol": """
echo "scontrol $*" >>"$LOG"
if [ "$1" = show ]; then printf 'alpha\\nbeta\\ngamma\\n'; fi
""",
    "srun": """
options=()
while [[ $1 == --* ]]; do options+=("$1"); shift; done
echo "srun ${options[*]} :: $*" >>"$LOG"
exec "$@"
""",
    "hostname": "echo '192.0.2.7 2001:db8::7'",
    "ray": """
if [ "$1" = health-check ]; then
    grep -q "^ray start --head" "$LOG" && exit "${HEALTH:-0}"
    echo "not yet healthy" >>"$LOG"
    exit 1
fi
# Who does not ask for the head's health, and goes on only when it is there, does not see one.
if [[ " $* " == *" --head "* ]]; then until grep -q "^not yet healthy" "$LOG"; do sleep 0.1; done; fi
token=$(stat -c 'file=%a size=%s' "$RAY_AUTH_TOKEN_PATH")
trap 'echo "ray ended" >>"$LOG"; exit 0' TERM
echo "ray $* :: mode=$RAY_AUTH_MODE env=${RAY_AUTH_TOKEN:-} $token" >>"$LOG"
while true; do sleep 0.1; done
""",
    # Ends when all three machines are there, or will not be.
    "nst": """
trap 'echo "nst stops" >>"$LOG"; sleep "${NST_GRACE:-0.3}"; exit 75' TERM
echo "nst $* :: mode=$RAY_AUTH_MODE" >>"$LOG"
for _ in {1..40}; do if (($(grep -c "^ray start" "$LOG") >= 3)); then break; fi; sleep 0.1; done
while [ "${NST_WAITS:-}" ]; do sleep 0.1; done
exit "${NST_EXIT:-0}"
""",
}


@pytest.fixture
def sbatch(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the script as Slurm would on the first of three machines; what was called is in `log`."""
    commands = tmp_path / "venv/bin"
    commands.mkdir(parents=True)
    for name, body in STUBS.items():
        (commands / name).write_text(f"#!/bin/bash\n{body}")
        (commands / name).chmod(0o755)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, script: Path = SCRIPT, **environment: str) -> subprocess.Popen[str]:
        given = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LOG": str(tmp_path / "log"),
            "NST_VENV": str(tmp_path / "venv"),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "alpha,beta,gamma",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_CPUS_ON_NODE": "16",
            "RAY_AUTH_TOKEN": "of another cluster",
        }
        run = subprocess.Popen(
            ["bash", str(script), *arguments],
            env=given | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(run)
        return run

    yield start
    for run in started:  # what a worse script left behind
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=15)


def log_of(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def await_line(tmp_path: Path, start: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (tmp_path / "log").exists() and any(line.startswith(start) for line in log_of(tmp_path)):
            return
        time.sleep(0.05)
    raise AssertionError(f"no line {start!r}: {log_of(tmp_path)}")


def test_bash_reads_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_head_and_workers_start_with_a_token_and_the_dashboard_on_loopback(
    tmp_path: Path, sbatch: Callable[..., subprocess.Popen[str]]
) -> None:
    run = sbatch("job.toml", "--workers", "2")
    _, error = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, error
    log = log_of(tmp_path)
    starts = [line for line in log if line.startswith("ray start")]
    heads = [line for line in starts if "--head" in line]
    assert len(starts) == 3
    assert len(heads) == 1
    assert "--dashboard-host=127.0.0.1" in heads[0]
    assert "--node-ip-address=192.0.2.7" in heads[0]
    for line in starts:
        assert line.endswith(":: mode=token env= file=600 size=64"), "64 hexadecimal digits, no newline"
    assert [line.split(" :: ")[0] for line in starts if line not in heads] == [
        "ray start --block --address=192.0.2.7:6379 --num-cpus=16"
    ] * 2
    steps = [line for line in log if line.startswith("srun") and "ray start" in line]
    assert sorted(word for line in steps for word in line.split() if word.startswith("--nodelist")) == [
        "--nodelist=alpha",
        "--nodelist=beta",
        "--nodelist=gamma",
    ]
    assert all("--overlap" in line and "--no-kill" in line for line in steps)
    asked = "run --pool ray job.toml --address 192.0.2.7:6379 --wait-for-lease --workers 2"
    assert f"nst {asked} :: mode=token" in log
    assert log.index(next(line for line in log if line.startswith("nst run"))) > log.index(heads[0])
    assert log.count("ray ended") == 3, "nothing is left behind"
    assert list(tmp_path.glob(".nst-token*")) == []
    assert not [line for line in log if "requeue" in line]


def test_a_training_is_named(tmp_path: Path, sbatch: Callable[..., subprocess.Popen[str]]) -> None:
    run = sbatch("job.toml", NST_COMMAND="train cyclegan")
    _, error = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, error
    asked = "train cyclegan job.toml --address 192.0.2.7:6379 --wait-for-lease"
    assert f"nst {asked} :: mode=token" in log_of(tmp_path)


@pytest.mark.parametrize("status", [2, 3, 4])
def test_its_exit_code_is_that_of_nst(
    tmp_path: Path, sbatch: Callable[..., subprocess.Popen[str]], status: int
) -> None:
    run = sbatch("job.toml", NST_EXIT=str(status))
    run.communicate(timeout=PATIENCE_S)
    assert run.returncode == status
    assert not [line for line in log_of(tmp_path) if "requeue" in line]


def test_out_of_time_the_job_goes_into_the_queue_again(
    tmp_path: Path, sbatch: Callable[..., subprocess.Popen[str]]
) -> None:
    run = sbatch("job.toml", NST_WAITS="1")
    await_line(tmp_path, "nst run")
    await_line(tmp_path, "ray start --block")
    run.send_signal(signal.SIGTERM)
    _, error = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 75, error
    log = log_of(tmp_path)
    assert log.index("nst stops") < log.index("scontrol requeue 4711")
    assert log.count("ray ended") == 3
    assert list(tmp_path.glob(".nst-token*")) == []


def test_a_second_signal_does_not_leave_the_job_out_of_the_queue(
    tmp_path: Path, sbatch: Callable[..., subprocess.Popen[str]]
) -> None:
    """Slurm sends one more when the time is up, and so does who is in a hurry."""
    run = sbatch("job.toml", NST_WAITS="1", NST_GRACE="3")
    await_line(tmp_path, "nst run")
    run.send_signal(signal.SIGTERM)
    await_line(tmp_path, "nst stops")
    run.send_signal(signal.SIGTERM)
    _, error = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 75, error
    assert "scontrol requeue 4711" in log_of(tmp_path)


def test_a_head_that_does_not_start_ends_the_job(
    tmp_path: Path, sbatch: Callable[..., subprocess.Popen[str]]
) -> None:
    run = sbatch("job.toml", HEALTH="1", NST_START_TIMEOUT_S="1")
    _, error = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 1
    assert "Ray's head did not start on alpha" in error
    assert not [line for line in log_of(tmp_path) if line.startswith("nst")]
    assert list(tmp_path.glob(".nst-token*")) == []


def test_without_a_job_file_it_says_how(sbatch: Callable[..., subprocess.Popen[str]]) -> None:
    run = sbatch()
    _, error = run.communicate(timeout=PATIENCE_S)
    assert run.returncode != 0
    assert "usage: sbatch cluster/slurm.sbatch JOB.TOML" in error


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("export RAY_AUTH_MODE=token ", "export "),
        ("until ray health-check", "until true"),
        ("unset RAY_AUTH_TOKEN", ": RAY_AUTH_TOKEN"),
        ("--dashboard-host=127.0.0.1", "--dashboard-host=$head_ip"),
        ('    rm -f "$token"\n', ""),
        ('for node in "${nodes[@]:1}"', 'for node in "${nodes[@]:2}"'),
        ("--overlap ", ""),
        ("    exec srun", "    srun"),
    ],
)
def test_a_worse_script_is_found(
    tmp_path: Path,
    sbatch: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE_S", 10.0)
    text = SCRIPT.read_text()
    assert old in text
    worse = tmp_path / "worse.sbatch"
    worse.write_text(text.replace(old, new))

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        return sbatch(*arguments, script=worse, **environment)

    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):
        test_head_and_workers_start_with_a_token_and_the_dashboard_on_loopback(tmp_path, start)
