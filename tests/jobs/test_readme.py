"""README from top to bottom, as a new user follows it: every command as it is printed, in a fresh clone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import encoded, picture

ROOT = Path(__file__).parents[2]


def script(text: str) -> list[str]:
    """README's commands and its job file, in order, for a shell."""
    parts = ["set -eu"]
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M):
        if language == "toml":
            parts.append(f"cd ~/work\ncat > job.toml <<'END'\n{block}END\n")
        elif language == "sh":
            parts += [line for line in block.splitlines() if line.strip()]
    return parts


def test_commands_are_found() -> None:
    parts = script((ROOT / "README.md").read_text())
    assert [part.split()[0] for part in parts] == [
        *("set", "make", "make", "python3", "pip", "nst", "pip", "pip", "cd"),
        *("nst",) * 10,
    ]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_as_printed(tmp_path: Path) -> None:
    """On a machine without a GPU. `make test` alone is left out: it is what tests are run by."""
    home, clone, work = tmp_path / "home", tmp_path / "clone", tmp_path / "home/work"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (work / "holiday").mkdir(parents=True)
    for number in range(3):
        (work / f"holiday/photo {number}.jpg").write_bytes(encoded(picture(number, 640, 480)))
    (work / "wave.jpg").write_bytes(encoded(picture(99, 300, 200)))
    keys = re.escape("explain holiday-painted KEY")
    parts = [
        re.sub(keys, "explain holiday-painted 'photo 1'", part)
        for part in script((ROOT / "README.md").read_text())
        if not part.startswith("make test")
    ]
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PYTEST", "OMP"))
        },
        "HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",
    }
    lines = "\n".join(f"echo '$' {_quoted(part)}\n{part}" for part in parts)
    run = subprocess.run(
        ["bash"], input=lines, cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert len(list((work / "holiday-painted/images").glob("*.jpg"))) == 3
    assert (work / "holiday-painted/report.html").exists()
    assert "3 of 3 images ok" in run.stdout


def _quoted(part: str) -> str:
    return "'" + part.replace("'", "'\\''") + "'"
