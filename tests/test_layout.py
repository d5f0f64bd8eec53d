"""The house stays in order: rooms and files that one can look through, and no two that need each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nst", "jobs")
MOST_FILES = {"nst": 9, "jobs": 5}
"""Files directly in the package, all of them counted."""
MOST_LINES = 350
MOST_CODE_LINES = 60
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


FILES = [path for package in PACKAGES for path in files(package)]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    return named(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(tree: ast.AST, known: set[str], *, hints: bool) -> Iterator[str]:
    """Those of `known` that are imported when a module is, and, with `hints`, those that only its types need.
    What a function imports when it is called is no part of a circle."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function) or (is_type_checking(node) and not hints):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in ([inner] if inner in known else [node.module]) if name in known)
        yield from imports(node, known, hints=hints)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way from a module back to itself, if there is one."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := walk(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    tree = ast.parse("from typing import TYPE_CHECKING\nimport a\nif TYPE_CHECKING:\n    from b import c, d\n")
    assert list(imports(tree, {"a", "b", "b.c"}, hints=True)) == ["a", "b.c", "b"]
    assert list(imports(tree, {"a", "b", "b.c"}, hints=False)) == ["a"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_imports(package: str) -> None:
    """In the library, what only types need counts too."""
    paths = {module(path): path for path in files(package)}
    graph = {
        name: set(imports(ast.parse(path.read_text()), set(paths), hints=package == "nst"))
        for name, path in paths.items()
    }
    assert circle(graph) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_few_files_of_its_own(package: str) -> None:
    found = sorted(path.name for path in (ROOT / package).glob("*.py"))
    assert len(found) <= MOST_FILES[package], found


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@cache
def code_lines(path: Path) -> dict[str, int]:
    """Lines of code of every function: neither blank, nor comments, nor docstrings."""
    text = path.read_text()
    lines, tree = text.splitlines(), ast.parse(text)
    counted = {number for number, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            assert node.end_lineno is not None
            counted -= set(range(node.lineno, node.end_lineno + 1))
    return {
        f"{node.name}:{node.lineno}": len(counted & set(range(node.lineno, (node.end_lineno or 0) + 1)))
        for node in ast.walk(tree)
        if isinstance(node, Function)
    }


def test_lines_of_code_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        'def f():\n    """Two\n    lines."""\n\n    # why\n    x = 1\n    return x\n'
    )
    assert code_lines(tmp_path / "a.py") == {"f:1": 3}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_function_is_long(path: Path) -> None:
    long = {name: count for name, count in code_lines(path).items() if count > MOST_CODE_LINES}
    assert long == {}
