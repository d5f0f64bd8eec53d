"""What README and docs say is so: commands are taken, job files are valid, links and files are there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.cli.options import options_of
from jobs.cli.sections import anchor
from jobs.spec import ImageSpec, job_from_table
from jobs.training.job_file import train_from_table
from jobs.training.recipes import is_training
from nst.methods import METHODS
from tests.commands import commands, parse
from tests.conftest import encoded, picture

Photos = Callable[..., Path]
ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
ALL = [*PAGES, ROOT / "cluster/README.md", ROOT / "nst/features/embedded/README.md"]
EXPECTED = (
    *("images", "results", "s3", "clusters", "style-transfer", "deepdream", "training", "networks", "design"),
    *("troubleshooting", "glossary", "options", "notebook", "performance", "pretrained", "feed-forward", "gpu"),
    "workflow",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M)
    return [block for language, block in found if language in languages]


def prose(path: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)


def inline(path: Path) -> list[str]:
    """What stands in backquotes in the text, on one line each."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(path))]


def lines(path: Path) -> list[str]:
    """Commands: those of the shell's blocks, and those within the text."""
    shell = "\n".join(blocks(path.read_text(), "sh", "bash")).replace("\\\n", " ")
    return [line.strip() for line in shell.splitlines() if line.strip()] + inline(path)


def anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
    return {anchor(title) for title in re.findall(r"^#+ (.*)$", text, re.M)}


def test_readme_is_short_and_leads_everywhere() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 160
    for page in EXPECTED:
        assert f"(docs/{page}.md)" in text, page
    assert {path.stem for path in PAGES[1:]} == set(EXPECTED)


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if link.startswith(("http://", "https://")):
            continue
        place, _, part = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        if part:
            assert part in anchors(target), link


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_files_that_are_named_are_there(path: Path) -> None:
    """`jobs/driver/scheduler.py`, `nst/synthetic`; `tests.chaos` after `python -m`."""
    for code in lines(path):
        for place in re.findall(
            r"(?<![\w./-])(?:nst|jobs|tests|benchmarks|examples|docs|cluster)/[\w./-]*", code
        ):
            assert (ROOT / place.rstrip("./")).exists(), place
        for module in re.findall(r"python3? -m ([a-z_.]+)", code.replace(".NAME", "")):
            assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_commands_are_taken(path: Path) -> None:
    """Whole command lines with their arguments and options; names of commands alone."""
    names = {" ".join(name.split()[:length]) for name in commands() for length in (1, 2)}
    for line in lines(path):
        for part in re.split(r" (?:&&|\|) ", line):
            if not part.startswith("nst ") or part in ("nst --help",):
                continue
            said = part.removeprefix("nst ")
            if said not in names:
                parse(part.replace("...", "x=1") if "=..." not in part else part)


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_targets_of_make_are_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test", "docs"} <= targets
    for line in lines(path):
        for target in re.findall(r"^make ([a-z0-9-]+)", line):
            assert target in targets, line


def resolved(table: dict[str, Any]) -> object:
    """A job file's table, or a part of one, with what it lacks of what every job file has."""
    if is_training(table):
        return train_from_table(table, Path("/work"))
    missing = {"photos": "photos", "output": "out", "method": {"kind": "style_transfer", "style": "a.jpg"}}
    return job_from_table({**missing, **table}, Path("/work"))


TOML = [(path, block) for path in ALL for block in blocks(path.read_text(), "toml")]


@pytest.mark.parametrize(("path", "block"), TOML, ids=[name_of(path) for path, _ in TOML])
def test_job_files_are_valid(path: Path, block: str) -> None:
    assert path.exists()
    resolved(tomllib.loads(block))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=name_of)
def test_examples_are_valid_and_say_how_they_are_run(path: Path) -> None:
    """By commands that are taken, from where they find the files that they name."""
    table = tomllib.loads(path.read_text())
    resolved(table)
    on_gpus = table.get("resources", {}).get("num_gpus")
    assert on_gpus or table.get("model", {}).get("precision") != "bfloat16", "CPUs without it take much longer"
    said = [shlex.split(line, comments=True) for line in re.findall(r"^#   (nst .*)$", path.read_text(), re.M)]
    assert any(words[1] in ("run", "train") for words in said)
    for words in said:
        parse(shlex.join(words))
        for place in (word for word in words if word.endswith(".toml")):
            assert place == path.name or (ROOT / place).exists(), place
            if place == path.name:
                assert not any(word.startswith("examples/") for word in words), "all from one folder"
    if any("--set" in words for words in said):
        assert any(path.name in words for words in said), "what --set names lies beside the file"


def test_there_are_job_files_and_they_can_be_wrong() -> None:
    assert len(TOML) >= 9
    with pytest.raises(Exception, match="unknown option"):
        resolved({"image": {"max_side": 3}})


@pytest.mark.parametrize(
    ("page", "cls"),
    [
        ("images", ImageSpec),
        ("style-transfer", METHODS["style_transfer"]),
        ("deepdream", METHODS["deepdream"]),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_options_that_are_told_exist(page: str, cls: type[Any]) -> None:
    known = {option.name for option in options_of(cls)}
    told: set[str] = set()
    for cell in re.findall(r"^\| (`[^|]*`) \|", (ROOT / f"docs/{page}.md").read_text(), re.M):
        told |= {code.partition(" = ")[0] for code in re.findall(r"`([^`]+)`", cell)}
    assert len(told) > 8
    assert told <= known, told - known


def test_blocks_of_python_are_run_elsewhere() -> None:
    """By tests/nst/test_notebook.py and tests/jobs/test_cli.py."""
    pages = [name_of(path) for path in ALL for _ in blocks(path.read_text(), "python")]
    assert pages == ["docs/notebook.md", "docs/results.md"]


def test_what_is_installed_is_called_so() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = README.read_text()
    assert f"dist/nst-{project['version']}-py3-none-any.whl" in text
    for extra in re.findall(r"(?:nst|\.|\.whl)\[(\w+)\]'", text):
        assert extra in project["optional-dependencies"]
    assert (ROOT / "constraints.txt").exists()


def test_benchmarks_are_all_run_by_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "BENCHMARKS = $(basename $(notdir $(shell grep -l __main__ benchmarks/*.py)))" in makefile
    assert "for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name; done" in makefile


def test_the_first_job_runs_as_it_is_told(
    tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """README's job file and its commands, in order, on small photographs with few steps."""
    photos(2).rename(tmp_path / "holiday")
    (tmp_path / "wave.jpg").write_bytes(encoded(picture(99, 60, 60)))
    (job,) = blocks(README.read_text(), "toml")
    (tmp_path / "job.toml").write_text(job)
    monkeypatch.chdir(tmp_path)
    quick = ["--pool", "local", "--workers", "1"]
    few = ["--set", "method.steps=2", "--set", "method.coarse_steps=2", "--set", "image.max_side_px=48"]
    keys: list[str] = []
    ran = []
    for line in "\n".join(blocks(README.read_text(), "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["nst"] or words[1] == "--help":
            continue
        more = {
            **dict.fromkeys(("resume", "retry", "stylize"), quick),
            "run": quick + few,
            "dream": [*quick, "--set", "method.steps=1"],
        }.get(words[1], [])
        words = [keys[0] if word == "KEY" else word for word in words[1:]]
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, (line, done.output, done.exception)
        keys = keys or [path.stem for path in (tmp_path / "holiday-painted/images").iterdir()]
        ran.append(words[0])
    expected = ["run", "status", "report", "verify", "stylize", "dream", "resume", "retry", "explain", "gc"]
    assert ran == expected
    assert len(list((tmp_path / "holiday-painted/images").rglob("*.jpg"))) == 2
    assert (tmp_path / "holiday-painted/report.html").exists()
