"""Every method and every training beside the CPU, and what they may wait for and launch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import nst.gan.bands
from nst.features import build_features
from nst.gan.bands import Bands
from nst.style_transfer.method import StyleTransfer
from tests.gpu.budgets import BUDGETS
from tests.gpu.calls import CALLS, STEPS, Call
from tests.gpu.fake_gpu import CUDA, FakeGPU, Found
from tests.gpu.looks import PRODUCTS, SHARED, assert_same, same_steps, seen_of_step

TOGETHER = ("dream plain", "cyclegan resnet", "modulated shared")
"""Calls whose photographs share passes on GPUs."""
WIDE = ("wasserstein", "preset embedded", "preset pretrained", "match", "feed_forward", "tiles", "bands")
"""Parts of names of calls that compute in float64: eigenvalues of small matrices, and sums over parts."""


def of_kind(kind: str) -> Any:
    return pytest.mark.parametrize("name", CALLS[kind])


def within(name: str, seen: Found) -> None:
    """Launches and memory are no more than they were."""
    launches, kilobytes = BUDGETS[name]
    assert seen.launches <= launches, f"{name}: {seen.launches} launches, {launches} before"
    assert seen.peak_bytes <= 1000 * kilobytes, (
        f"{name}: {seen.peak_bytes} bytes at once, {kilobytes} kB before"
    )


@of_kind("style")
def test_style_transfer(name: str) -> None:
    """A photograph is waited for at its end, and twice for each evaluation and step of L-BFGS: losses and
    gradient, and inner products."""
    call = CALLS["style"][name]
    method: StyleTransfer = call.method
    seen, outcomes = assert_same(call, close=PRODUCTS * (method.style_loss == "wasserstein"))
    each = 1 if method.optimizer == "adam" else 2
    evaluations = sum(int(found.stats["evaluations"]) for found in outcomes)
    frames = sum(len(found.frames) for found in outcomes)
    at_once = 1 + (method.init == "feed_forward")
    assert seen.waits <= each * evaluations + frames + at_once * len(outcomes), seen.waiting
    assert any(part in name for part in WIDE) or not seen.float64
    within(name, seen)


@of_kind("dream")
def test_dreams(name: str) -> None:
    """A photograph is waited for once in each step, and twice at its end: the picture, and how far it went."""
    call = CALLS["dream"][name]
    seen, outcomes = assert_same(call, close=SHARED * (f"dream {name}" in TOGETHER))
    steps = sum(int(found.stats["steps"]) for found in outcomes)
    frames = sum(len(found.frames) for found in outcomes)
    assert seen.waits <= steps + frames * call.method.steps + frames + 2 * len(outcomes), seen.waiting
    within(f"dream {name}", seen)
    assert not seen.float64


@of_kind("generators")
def test_generators(name: str) -> None:
    """A photograph is waited for once, when its picture comes back."""
    call = CALLS["generators"][name]
    seen, outcomes = assert_same(call, close=SHARED * (name in TOGETHER))
    assert seen.waits <= len(outcomes), seen.waiting
    within(name, seen)
    assert any(part in name for part in WIDE) or not seen.float64


@pytest.mark.parametrize("name", ["cyclegan resnet", "modulated"])
def test_what_kernels_cannot_count_is_in_bands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU refuses to mirror the border of more than 2^31 elements, 33 megapixels of 64 channels."""
    banded, real = [], Bands.__init__

    def watch(self: Bands, *arguments: Any) -> None:
        banded.append(1)
        real(self, *arguments)

    method = replace(CALLS["generators"][name].method, pass_memory_mb=None)
    monkeypatch.setattr(Bands, "__init__", watch)
    for elements, count in ((2_000_000_000, 0), (4 * 40 * 200 - 1, 1)):
        monkeypatch.setattr(nst.gan.bands, "_COUNTED", elements)
        assert_same(Call(method, ((40, 200),)), close=SHARED)
        assert len(banded) == count, "and none on the CPU"


@of_kind("fast")
def test_painters(name: str) -> None:
    """A photograph is waited for once, when its picture comes back, but for eigenvalues."""
    seen, outcomes = assert_same(CALLS["fast"][name])
    assert seen.waits <= len(outcomes), seen.waiting
    assert seen.solving.total() <= (0 if "published" in name else 18 * len(outcomes) + 16), seen.solving
    within(name, seen)


def test_photographs_that_share_passes_share_waits() -> None:
    """Losses and gradients of all of a pass are waited for together."""
    call = CALLS["style"]["gram"]
    method = StyleTransfer(
        style="/s", style_loss="gram", coarse_scales=(), steps=3, deterministic=False, precision="float32"
    )
    seen, outcomes = assert_same(Call(method, call.photos), close=SHARED)
    assert len(outcomes) == 3
    assert seen.waits <= 3 * 1 + 3 * 2 + 3, seen.waiting


@pytest.mark.parametrize(
    ("name", "waits", "launches"),
    [
        ("gram", 2, 207),
        ("adam", 1, 170),
        ("short history", 2, 207),
        ("masks", 2, 268),
        ("bfloat16", 3, 220),
        ("fused", 2, 198),
        ("preset embedded", 2, 835),
        ("tiles normalized", 2, 1793),
    ],
)
def test_a_step_of_style_transfer(name: str, waits: int, launches: int) -> None:
    seen = seen_of_step(CALLS["style"][name], after=1)
    assert seen.waits <= waits, seen.waiting
    assert seen.launches <= launches
    assert seen.bytes_over < 2000  # numbers, and no picture
    assert seen.solving.total() <= (4 if name == "preset embedded" else 0)  # the next size's styles


@pytest.mark.parametrize(
    ("name", "launches"), [("plain", 65), ("guide", 62), ("blur", 71), ("redirected", 95), ("tiles", 286)]
)
def test_a_step_of_a_dream(name: str, launches: int) -> None:
    seen = seen_of_step(CALLS["dream"][name], after=0)
    assert seen.waits <= 1, seen.waiting
    assert seen.launches <= launches


TRAININGS = {
    "cyclegan": (0, 1111, 2130),
    "cyclegan bfloat16": (0, 1557, 1649),
    "cyclegan float16": (2, 1679, 1649),
    "cyclegan wgangp": (0, 2517, 2246),
    "cyclegan blur": (0, 1755, 2747),
    "cyclegan batch": (0, 1175, 1433),
    "many styles": (0, 974, 2070),
    "many styles bfloat16": (0, 1720, 2169),
    "style training": (0, 1907, 15241),
    "style training bfloat16": (0, 2044, 9459),
    "painter training": (1, 1360, 2567),
    "painter training bfloat16": (1, 1566, 3510),
    "adaptation": (1, 1776, 193387),
}
"""Waits, launches and most memory at once, in kB, of the second step; of an adaptation, of the first."""


@pytest.mark.parametrize("name", STEPS)
def test_trainings(name: str) -> None:
    """All that a step waits for is: with float16 whether gradients are finite, of each side; a list of places,
    that a picture is mixed at; and losses of an adaptation, which are shown as it goes."""
    seen = same_steps(name)
    waits, launches, kilobytes = TRAININGS[name]
    assert seen.waits <= waits, seen.waiting
    assert seen.launches <= launches
    assert seen.peak_bytes <= 1000 * kilobytes
    assert "style" in name or "painter" in name or name == "adaptation" or not seen.float64


def test_what_is_wanted_of_a_convolution_is_not_fused() -> None:
    """Its values from before the ReLU are there; so is what a pass shares with a smaller photograph."""
    layers = ["conv1_2", "relu1_2", "relu2_1", "relu2_2"]
    plain, fused = (build_features("vgg16", layers, fused_relu=each) for each in (False, True))
    x = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    with FakeGPU() as gpu:
        for sizes in (None, [(24, 20), (16, 12)]):
            with gpu.count() as seen:
                there = fused.to(CUDA)(x.to(CUDA), sizes)
            found = {layer: each.cpu() for layer, each in there.items()}
            assert seen.kernels["cudnn_convolution_relu"] == 3
            torch.testing.assert_close(found, plain(x, sizes), atol=0.0, rtol=0.0)


def test_who_learns_by_it_has_all_gradients() -> None:
    """The kernel gives none by parameters."""
    with FakeGPU() as gpu:
        network = build_features("vgg16", ["relu1_2"], fused_relu=True).to(CUDA).requires_grad_(True)
        with gpu.count() as seen:
            network(torch.rand(1, 3, 16, 16).to(CUDA))["relu1_2"].sum().backward()
        assert not seen.kernels["cudnn_convolution_relu"]
        assert all(each.grad is not None for each in network.parameters())
