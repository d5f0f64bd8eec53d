"""What the command line says of itself: help with examples that work, and every option of job files."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.cli.options import options_of
from jobs.cli.sections import Section, sections, to_markdown
from jobs.config.listing import ListingOptions
from jobs.spec import ImageSpec, Resources, StylizeSpec
from jobs.stores.filesystems import StorageOptions
from jobs.training.job_file import TABLES
from jobs.training.recipes import TRAININGS
from jobs.training.spec import TrainSpec
from nst import methods
from nst.methods import METHODS
from tests.commands import commands, parse

ROOT = Path(__file__).parents[2]
PREPOSITION = re.compile(
    r"\W*(of|by|in|to|for|from|with|after|before|at|on|under|as|below|behind|between)\b", re.IGNORECASE
)
TOY = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass(frozen=True, kw_only=True, slots=True)
class Invert:
    \"\"\"Turns a photograph into its negative.\"\"\"

    strength_px: int = 3
    \"\"\"Strength of the negative, 0 to 9 | 10.\"\"\"
    kinds: tuple[str, ...] = ("a", "b")
    \"\"\"Kinds of negative.\"\"\"
"""


def ask(*arguments: str) -> str:
    shown = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})
    assert shown.exit_code == 0, shown.output
    return shown.stdout


# Help


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("run", "method.steps=200"),
        ("train", "schedule.n_epochs=20"),
        ("resume", "resources.timeout_s=3600"),
        ("retry", "resources.timeout_s=3600"),
        ("redo", "method.strength=0.5"),
    ],
)
def test_set_has_an_example_that_the_command_takes(name: str, example: str) -> None:
    assert f"Option to set, e.g. {example}; may be repeated." in ask(name, "--help")


@pytest.mark.parametrize("name", commands())
def test_help_ends_with_examples_that_are_taken(name: str) -> None:
    head, told, lines = ask(*name.split(), "--help").partition("Examples:")
    assert told, f"{name}: no examples"
    shown = [line.strip() for line in lines.splitlines() if line.strip()]
    assert 2 <= len(shown) <= 3, shown
    assert f"nst {name}" in " ".join(shown)
    assert name in [parse(line) for line in shown]
    assert "Usage" in head


def test_examples_that_would_not_be_taken_are_found() -> None:
    for line in (
        "nst run",
        "nst run job.toml --sett x=1",
        "nst stylize photos --style swirls",
        "nst runn job.toml",
    ):
        with pytest.raises(Exception, match=r"Missing|No such|no such"):
            parse(line)


@pytest.mark.parametrize("name", commands())
def test_help_texts_are_told_and_begin_with_their_subject(name: str) -> None:
    command = commands()[name]
    for text in [command.help, *(each.help for each in command.params if each.name != "help")]:
        assert text, f"{name}: a text is missing"
        assert not PREPOSITION.match(text), text


# Options of job files


def expected() -> dict[str, type[Any]]:
    """Every dataclass that a job file is made of, by what `nst options NAME` finds it under."""
    return {
        "job": StylizeSpec,
        "listing of job": ListingOptions,
        "image": ImageSpec,
        "resources": Resources,
        "storage": StorageOptions,
        **METHODS,
        "training": TrainSpec,
        **{f"training.{name}": cls for name, cls in TABLES.items()},
        "training.storage": StorageOptions,
        **{f"kind {kind}": recipe for kind, recipe in TRAININGS.items()},
        **{f"model of {kind}": recipe.model_options() for kind, recipe in TRAININGS.items()},
    }


@pytest.mark.parametrize("name", expected())
def test_every_field_is_listed(name: str) -> None:
    tables = {
        "kind",
        "method",
        "recipe",
        "image",
        "model",
        "data",
        "schedule",
        "listing",
    }  # sections of their own, or titles
    names = {item.name for item in dataclasses.fields(expected()[name])} - tables
    kind = name.split()[-1]
    if kind in TRAININGS and kind != name:
        names -= set(TRAININGS[kind].also_read)
    assert names <= {option.name for section in sections(kind) for option in section.options}


def test_all_is_shown() -> None:
    shown = ask("options")
    for section in sections():
        assert section.title in shown
        for option in section.options:
            assert option.name in shown
            assert option.help[:40] in shown
    assert len(sections()) >= len(expected()) - 1  # a job has its options from two places


@pytest.mark.parametrize("name", expected())
def test_defaults_are_those_of_the_dataclass(name: str) -> None:
    cls = expected()[name]
    known = {item.name for item in dataclasses.fields(cls)} - {"recipe"}
    options = {option.name: option for option in options_of(cls, known)}
    for item in dataclasses.fields(cls):
        option = options.get(item.name)
        if option is None:
            continue
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            assert option.default == ""
        elif item.default is None:
            assert option.default == "None"
        else:
            found = tomllib.loads(f"value = {option.default}")["value"]
            default = tuple(found) if isinstance(found, list) else found
            assert default == (
                pytest.approx(item.default, rel=1e-3) if isinstance(found, float) else item.default
            )


def test_choices_and_units_are_told() -> None:
    image = {option.name: option for option in options_of(ImageSpec)}
    assert image["format"].shown_values == '`"jpeg"`, `"png"`, `"webp"`, `"avif"`, `"tiff"`'
    assert image["bit_depth"].shown_values == "`8`, `16`"
    assert image["max_side_px"].shown_values == "whole number, pixels"
    assert image["background"].shown_values == "list of 3 numbers"
    style = {option.name: option for option in sections("style_transfer")[0].options}
    assert style["style"].shown_values == "text or list of texts"
    assert style["style_layers"].shown_values == "table of numbers"
    assert style["deterministic"].shown_values == "`true`, `false`"
    assert style["pass_memory_mb"].unit == "MB"
    assert {option.unit for option in options_of(Resources)} == {"", "GiB", "seconds"}


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.title)
def test_every_option_has_a_text(section: Section) -> None:
    assert section.about
    assert [option.name for option in section.options if not option.help] == []


@pytest.mark.parametrize("name", ["job", "image", "resources", "storage"])
def test_texts_begin_with_their_subject(name: str) -> None:
    for option in sections(name)[0].options:
        assert not PREPOSITION.match(option.help), option


def test_the_page_of_options_is_what_the_command_prints() -> None:
    assert (ROOT / "docs/options.md").read_text() == to_markdown(sections()), "make docs"
    assert ask("options", "--markdown") == to_markdown(sections())


def test_tables_of_photographs_jobs_need_no_torch() -> None:
    script = """
import sys
from jobs.cli.app import app
for kind in ("job", "image", "resources", "storage"):
    try:
        app(["options", kind])
    except SystemExit as end:
        assert end.code == 0
    assert not {"torch", "ray", "torchvision"} & set(sys.modules), kind
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_new_method_is_shown_without_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_method.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(methods.METHODS._places, "invert", "toy_method:Invert")  # type: ignore[attr-defined]
    shown = ask("options", "invert", "--markdown")
    assert '### [method] kind = "invert"\n\nTurns a photograph into its negative.\n' in shown
    assert "| `strength_px` | `3` | whole number, pixels | Strength of the negative, 0 to 9 \\| 10. |" in shown
    assert '| `kinds` | `["a", "b"]` | list of texts | Kinds of negative. |' in shown
    assert "invert" in ask("methods")


def test_an_unknown_kind_names_the_choices() -> None:
    shown = CliRunner().invoke(app, ["options", "style-transfer"])
    assert shown.exit_code == 2
    assert re.match(r"error: KIND = 'style-transfer': .*'style_transfer'.*Choices: job, image", shown.stderr)
