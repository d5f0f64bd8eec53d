"""What tests look at: pictures of the GPU beside those of the CPU, the GPU's work, and its memory."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.worker.worker import Worker
from nst.images.codec import DecodedPhoto, as_float, levels_of
from nst.stylizer import LevelsStylizer, Outcome, Stylized, Stylizer
from tests.gpu.calls import STEPS, Call
from tests.gpu.fake_gpu import CPU, CUDA, FakeGPU, Found

__all__ = ["PRODUCTS", "SHARED", "assert_same", "same_steps", "seen_of_step", "stylized_by", "worker_of"]

SHARED = 1e-3
"""Photographs share passes, where last bits depend on the neighbors."""
PRODUCTS = 1e-5
"""Roots of matrices come from products, and not from eigenvalues."""


def assert_same(call: Call, *, close: float = 0.0) -> tuple[Found, list[Stylized]]:
    """Stylize on both devices, and compare pictures and all that is said of them. Gives the GPU's work for it,
    and what came out.

    Args:
        close: how far pictures may be apart, where GPUs compute in another way: `SHARED` or `PRODUCTS`.
    """
    wanted = call.run(call.build(CPU))
    with FakeGPU() as gpu:
        stylizer = call.build(CUDA)
        with gpu.count() as seen:
            found = call.run(stylizer)
    outcomes = []
    for ours, theirs in zip(found, wanted, strict=True):
        assert isinstance(ours, Stylized), ours
        assert isinstance(theirs, Stylized), theirs
        pictures = [ours.image, *(frame.image for frame in ours.frames)]
        assert {type(each) for each in pictures} == {torch.Tensor}, "a picture was left on the GPU"
        expected = [theirs.image, *(frame.image for frame in theirs.frames)]
        torch.testing.assert_close(pictures, expected, atol=close, rtol=0.0)
        if not close:
            assert dict(ours.stats) == dict(theirs.stats)
            assert {name: list(each) for name, each in ours.curve.items()} == {
                name: list(each) for name, each in theirs.curve.items()
            }
        outcomes.append(ours)
    return seen, outcomes


def same_steps(name: str, count: int = 2) -> Found:
    """Train on both devices, and compare losses, whose last bits differ as layouts do. Gives the GPU's work for
    the last step."""
    count = 1 if name == "adaptation" else count  # which has large pieces
    step = STEPS[name](CPU)
    wanted = [{key: float(value) for key, value in step().items()} for _ in range(count)]
    with FakeGPU() as gpu:
        step = STEPS[name](CUDA)
        found = [step() for _ in range(count - 1)]
        with gpu.count() as seen:
            found.append(step())
        losses = [{key: float(value) for key, value in each.items()} for each in found]
    for ours, theirs in zip(losses, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2, abs=1e-4)
    return seen


def seen_of_step(call: Call, after: int = 1) -> Found:
    """The GPU's work for one evaluation and the step that follows, after some others."""
    with FakeGPU() as gpu:
        stylizer: Any = call.build(CUDA)
        steps = stylizer.iterate(call.images()[0], torch.Generator().manual_seed(0))
        for _ in range(after):
            next(steps)
        with gpu.count() as seen:
            next(steps)
    return seen


def worker_of(stylizer: Stylizer) -> Worker:
    """A worker that has nothing but a stylizer."""
    worker: Any = object.__new__(Worker)
    worker._setup, worker._device, worker._trusted_at = SimpleNamespace(seed=0), CUDA, math.inf
    worker._stylizer, worker._styled, worker._too_much = stylizer, False, math.inf
    worker._takes_levels = isinstance(stylizer, LevelsStylizer)
    return worker  # type: ignore[no-any-return]


def stylized_by(worker: Worker, call: Call) -> list[Outcome | Exception]:
    """A call's outcomes as a worker has them."""
    batch: Any = [
        SimpleNamespace(
            row=SimpleNamespace(key=str(seed), style=None), photo=DecodedPhoto(levels_of(as_float(image)))
        )
        for seed, image in enumerate(call.images())
    ]
    return worker.stylize(batch)
