"""What may know what, and what may be loaded when."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONAL = ("heic", "jxl", "raw", "onnx", "view")
"""Extras for those who use it."""
OWN = {"nst", "jobs", "cluster", "tests", "benchmarks", "examples"}
PLANNING = (
    "spec",
    "config.tables",
    "ledger.begin_job",
    "ledger.job_record",
    "ledger.layout",
    "ledger.listing",
    "ledger.manifest",
    "ledger.receipts",
    "ledger.results",
    "driver.scheduler",
    "worker.messages",
    "inspect.status",
    "inspect.report",
    "inspect.verify",
    "preview.choice",
    "preview.page",
    "preview.sheet",
    "training.layout",
    "training.recipes.cyclegan",
    "training.recipes.modulated",
    "training.status",
    "training.report",
    "cli.app",
    "cli.preview",
    "cli.sections",
    "view.app",
    "view.server",
)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_there_is_something_to_check() -> None:
    assert len(files("nst")) > 10
    assert len(files("jobs")) > 10
    assert "ray" in set(imports(ROOT / "jobs/pools/ray.py"))


@pytest.mark.parametrize("path", files("nst"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_tensors_and_pictures_only(path: Path) -> None:
    allowed = {
        "torch",
        "torchvision",
        "PIL",
        "pillow_heif",
        "pillow_jxl",
        "rawpy",
        "onnxruntime",
        "numpy",
        "safetensors",
        "nst",
    } | set(sys.stdlib_module_names)
    assert {name.split(".")[0] for name in imports(path)} <= allowed
    names = [node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)]
    assert "print" not in names, "the library does not print"


@pytest.mark.parametrize("path", files("jobs"), ids=lambda path: str(path.relative_to(ROOT)))
def test_ray_is_imported_where_workers_run_and_nowhere_else(path: Path) -> None:
    top = {name.split(".")[0] for name in imports(path)}
    relative = str(path.relative_to(ROOT))
    if not relative.startswith(("jobs/pools/", "jobs/training/")):
        assert "ray" not in top
    if relative != "jobs/cli/submit.py":  # hands command lines to a cluster; nothing else knows there are any
        assert "cluster" not in top


@pytest.mark.parametrize("path", files("cluster"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_cluster_submits_a_command_line(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"nst", "jobs"}


def distributions(*requirements: str) -> set[str]:
    """The names of what is required, as they compare."""
    return {re.split(r"[^\w.-]", each)[0].lower().replace("_", "-") for each in requirements}


@pytest.mark.parametrize(
    ("packages", "extras"),
    [(("nst", "jobs", "cluster"), OPTIONAL), (("tests", "benchmarks", "examples"), (*OPTIONAL, "demo", "dev"))],
)
def test_what_is_imported_is_declared(packages: tuple[str, ...], extras: tuple[str, ...]) -> None:
    """By ourselves: what comes in through another package may go with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    declared = distributions(*project["dependencies"], *(each for extra in extras for each in optional[extra]))
    used = {name.split(".")[0] for package in packages for path in files(package) for name in imports(path)}
    of_module = importlib.metadata.packages_distributions()
    installed = used & of_module.keys() - OWN  # the optional ones may not be
    assert {"torch", "pyarrow", "ray"} <= installed
    undeclared = {name for name in installed if not distributions(*of_module[name]) & declared}
    assert undeclared == set()


@pytest.mark.parametrize(
    "path", [*files("jobs"), *files("cluster")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_plain_readings_are_for_tests_and_benchmarks(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"reference", "benchmarks", "tests"}


def test_ray_is_never_caught_and_stubbed() -> None:
    for path in [*files("jobs"), *files("cluster")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Try):
                tried = {
                    name
                    for part in node.body
                    for child in ast.walk(part)
                    if isinstance(child, ast.Import | ast.ImportFrom)
                    for name in [getattr(child, "module", None), *(alias.name for alias in child.names)]
                }
                assert "ray" not in tried, path


def test_planning_loads_neither_torch_nor_ray() -> None:
    script = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"jobs.{name}")
    loaded = {"torch", "torchvision", "ray"} & set(sys.modules)
    assert not loaded, (name, loaded)
"""
    subprocess.run([sys.executable, "-c", script, *PLANNING], check=True)


def test_a_job_is_read_without_pandas_and_threads(tmp_path: Path) -> None:
    """pyarrow's threads may abort an interpreter that ends before them; pandas it loads to read times and
    tables, in a quarter of a second or more."""
    pytest.importorskip("pandas")
    script = """
import os, pathlib, sys
from jobs.ledger.results import Result, read_receipt, write_receipt
from jobs.training.metrics import read_metrics, write_metrics
from jobs.stores.store import LocalStore
threads = lambda: len(os.listdir("/proc/self/task"))
if sys.argv[1] == "write":
    result = Result(row=0, key="a", url="/a", status="ok", finished_at=1.5, stats={"loss": 1.0})
    pathlib.Path("receipt").write_bytes(write_receipt([result], shard=0, generation=0, fingerprint="f"))
    pathlib.Path("metrics.parquet").write_bytes(write_metrics([{"step": 1, "loss": 2.0}]))
else:
    before = threads()
    (result,), meta = read_receipt(pathlib.Path("receipt").read_bytes())
    assert (result.finished_at, result.stats, meta["fingerprint"]) == (1.5, {"loss": 1.0}, "f")
    assert read_metrics(LocalStore(".")) == [{"step": 1, "loss": 2.0}]
    assert "pandas" not in sys.modules
    assert threads() == before
"""
    for does in ("write", "read"):
        subprocess.run([sys.executable, "-c", script, does], check=True, cwd=tmp_path)


def test_importing_the_library_does_nothing(tmp_path: Path) -> None:
    """No torch until it is needed, no setting of torch's, no logging handler, no file."""
    script = """
import logging, sys
import nst
assert "torch" not in sys.modules
import torch
threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
for name in nst.__all__:
    getattr(nst, name)
import jobs.worker.worker, jobs.driver.run, jobs.pools.local
assert torch.get_num_threads() == threads
assert torch.are_deterministic_algorithms_enabled() == deterministic
assert torch.get_default_dtype() == torch.float32
assert not logging.getLogger().handlers
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_public_names_are_the_ones_promised() -> None:
    import nst

    assert sorted(nst.__all__) == sorted(nst._HOME)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = nst.nothing_like_it  # type: ignore[attr-defined]
    for path in [*files("nst"), *files("jobs")]:
        names = [
            node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert names or path.name == "__init__.py", f"{path} has no __all__"


def test_no_method_imports_what_takes_longer_than_torch() -> None:
    """Torch's compiler, which takes longer than all else of a worker's start, also not to read the header of a
    generator's file; and torchvision, which is not needed for VGGs."""
    script = """
import sys, torch
from tests.nst.test_modulated_method import stylizer
from nst.features import build_features
import nst.style_transfer.method, nst.deepdream.method
stylizer()
for network in ("vgg16", "embedded"):
    build_features(network, ["relu1_1"])
assert not {"torch._dynamo", "torchvision"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
