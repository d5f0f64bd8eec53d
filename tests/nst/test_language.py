"""A text under a name says what that is, so that it can be read alone, as in a table of options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from nst.cyclegan.method import CycleGAN
from nst.cyclegan.training import CycleGANOptions
from nst.deepdream.method import DeepDream
from nst.gan.parallel import DDPOptions
from nst.gan.sampling import Preprocessing
from nst.gan.schedule import Schedule
from nst.modulated.method import Modulated
from nst.modulated.training import ManyStylesOptions
from nst.style_transfer.method import StyleTransfer

NST = Path(__file__).parents[2] / "nst"
FILES = sorted(NST.rglob("*.py"))
OPTIONS = (
    StyleTransfer,
    DeepDream,
    CycleGAN,
    Modulated,
    CycleGANOptions,
    ManyStylesOptions,
    Preprocessing,
    Schedule,
    DDPOptions,
)
PREPOSITION = re.compile(
    r"(above|after|as|at|before|behind|below|between|by|during|for|from|if|in|of|on|over|than|through|to|under|"
    r"until|while|with|within|without)\b",
    re.IGNORECASE,
)


def texts(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Names, of fields and constants, and the text under each."""
    for named, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(named, ast.AnnAssign | ast.Assign) and isinstance(text, ast.Expr):
            target = named.target if isinstance(named, ast.AnnAssign) else named.targets[0]
            if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
                yield ast.unparse(target), text.value.value


def classes(path: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(NST)))
def test_no_text_begins_with_a_preposition(path: Path) -> None:
    found = [*texts(ast.parse(path.read_text()))]
    for node in classes(path).values():
        found += texts(node)
    wrong = {name: text for name, text in found if PREPOSITION.match(text.strip())}
    assert wrong == {}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__name__)
def test_every_option_has_a_text(options: type) -> None:
    path = NST.parent / f"{options.__module__.replace('.', '/')}.py"
    said = dict(texts(classes(path)[options.__name__]))
    names = [item.name for item in fields(options)]
    assert names == [name for name in names if said.get(name, "").strip()]
    assert all(said[name].rstrip().endswith(".") for name in names)
