"""Benchmarks as `make bench` runs them: one after the other, without options, until one fails."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import deepdream, poison
from nst.features import build_features

ROOT = Path(__file__).parents[2]
NEEDS = {
    "collection": {"--photos"},
    "feature_quality": {"--teacher", "--photos", "--pictures"},
    "quality_dial": {"--photos", "--held", "--pictures", "--teacher", "--keep"},
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_is_needed_and_not_there_is_said(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name])
    importlib.import_module(f"benchmarks.{name}").main()
    *_, said, last = capsys.readouterr().out.splitlines()
    assert {*json.loads(last)["left_out"]} == NEEDS[name]
    assert all(option in said for option in NEEDS[name])


def test_no_benchmark_must_be_given_anything() -> None:
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert "required=True" not in path.read_text(), path


def test_the_classifier_that_dreams_are_compared_on_is_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its batch norms, which ours has folded."""
    monkeypatch.setattr(deepdream, "seed_parameters", lambda *_: None)  # which takes a while
    state = deepdream.classifier().state_dict()
    build_features("resnet50", ["layer1"], state=state)


def test_poison_goes_without_ray_data_where_pandas_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was measured before is not lost."""

    def fails(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", fails)
    for name, found in (("make_rows", {}), ("give_up_root_rights", None), ("compare", {"healthy_lost": 0})):
        monkeypatch.setattr(poison, name, lambda *_, found=found: found)
    monkeypatch.setattr(sys, "argv", ["poison", "--pools", "local"])
    poison.main()
    *_, said, last = capsys.readouterr().out.splitlines()
    assert "pandas" in said
    assert json.loads(last) == {"healthy_lost": 0, "ray_data": {}}
