"""Trainings whose generators are compiled."""

from __future__ import annotations

import shutil
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import nn

from nst.cyclegan.options import CycleGANOptions
from nst.cyclegan.training import CycleGANTraining
from nst.modulated.options import ManyStylesOptions
from nst.modulated.training import ManyStylesTraining
from tests.gpu.calls import photo

# What torch's compiler itself warns of.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:Dynamo detected a call")
SMALL: dict[str, Any] = {"generator_channels": 4, "discriminator_channels": 4}


def made(kind: str, *, compiled: bool) -> CycleGANTraining | ManyStylesTraining:
    if kind == "cyclegan":
        return CycleGANTraining(CycleGANOptions(generator="resnet_6blocks", **SMALL, compile=compiled), seed=1)
    options = ManyStylesOptions(styles=("photo", "ink"), blocks=1, latent=8, **SMALL, compile=compiled)
    return ManyStylesTraining(options, seed=1)


def losses(training: CycleGANTraining | ManyStylesTraining) -> list[dict[str, float]]:
    images = [torch.stack([2 * photo(2 * place + each, 32, 32) - 1 for each in (0, 1)]) for place in (0, 1)]
    return [{name: float(loss) for name, loss in training.step(images).items()} for _ in range(2)]


@pytest.mark.parametrize("kind", ["cyclegan", "many styles"])
def test_generators_are_compiled_and_nothing_else_changes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that fuses nothing; files and checkpoints have the same names."""
    expected = made(kind, compiled=False)
    before = losses(expected)
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    training = made(kind, compiled=True)
    assert losses(training) == before
    for name, network in {**training.generators, **training.discriminators}.items():
        assert (network._compiled_call_impl is not None) == (name in training.generators)
        assert not any(each._compiled_call_impl is not None for each in network.children())
    assert training.file_bytes() == expected.file_bytes()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@pytest.mark.parametrize("kind", ["cyclegan", "many styles"])
def test_what_the_compiler_makes_of_generators_is_the_same_but_for_rounding(kind: str) -> None:
    for found, wanted in zip(
        losses(made(kind, compiled=True)), losses(made(kind, compiled=False)), strict=True
    ):
        assert found == pytest.approx(wanted, abs=1e-5)
