"""Command lines as they are printed in help and documentation: whether they would be taken."""

from __future__ import annotations

import shlex
from typing import Any

import typer

from jobs.cli.app import app

__all__ = ["commands", "parse"]


def commands() -> dict[str, Any]:
    """Every command by its words, `train cyclegan`."""

    def walk(command: Any, words: tuple[str, ...]) -> dict[str, Any]:
        below = getattr(command, "commands", None)
        if below is None:
            return {" ".join(words): command}
        return {name: each for word, sub in below.items() for name, each in walk(sub, (*words, word)).items()}

    return walk(typer.main.get_command(app), ())


def parse(line: str) -> str:
    """The command that a line `nst ...` names, its arguments and options taken, but not run.

    Raises:
        Exception: there is no such command, argument or option, or one is missing.
    """
    program, *words = shlex.split(line, comments=True)
    assert program == "nst", line
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in commands():
            commands()[name].make_context(name, words[length:])
            return name
    raise AssertionError(f"{line!r}: no such command")
