"""What is recorded as CUDA graphs, what cannot be, and what the fake ones see."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import jobs.doctor.self_check
import nst.losses
from jobs.doctor.self_check import _TRIED, _try, self_check
from nst.ops.graphs import Graphs, Recorded
from nst.style_transfer.objective import StyleObjective
from tests.gpu.calls import CALLS, Call, photo
from tests.gpu.fake_gpu import CPU, CUDA, FakeGPU, Found
from tests.gpu.fake_graphs import FakeGraph, NotRecorded
from tests.gpu.looks import assert_same, seen_of_step

GRAPHS = CALLS["style"]["graphs"]


def doubled(x: Tensor) -> tuple[Tensor, ...]:
    return 2 * x, x.sum()


def recorded(compute: Callable[[Tensor], tuple[Tensor, ...]], side: int = 6) -> tuple[list[Any], Found]:
    """What comes out of five calls, with another picture each, as lists; and the work for the last three."""
    with FakeGPU() as gpu:
        function = Recorded(Graphs(wanted=True))
        pictures = [photo(seed, side, side)[None].to(CUDA) for seed in range(5)]
        kept = [function(compute, each) for each in pictures[:2]]
        with gpu.count() as seen:
            kept += [function(compute, each) for each in pictures[2:]]
        found = [[each.cpu() for each in one] for one in kept]
        expected = [[each.cpu() for each in compute(picture)] for picture in pictures]
    torch.testing.assert_close(found, expected, atol=0.0, rtol=0.0)
    return found, seen


def test_what_was_recorded_is_replayed() -> None:
    _, seen = recorded(doubled)
    assert seen.kernels["graph"] == 3
    assert seen.launches == 1 + 3 * 4, "a picture goes in, the graph, and two tensors come out"
    assert not seen.waits


def test_large_pictures_and_those_of_cpus_are_not() -> None:
    _, seen = recorded(doubled, side=1100)
    assert not seen.kernels["graph"]
    function = Recorded(Graphs(wanted=True))
    for _ in range(4):
        assert torch.equal(function(doubled, photo(0)[None])[0], 2 * photo(0)[None])


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (lambda x: (x * x.sum().item(),), "not permitted when stream is capturing"),
        (lambda x: (x * x.new_tensor(2.0),), "not permitted"),
        (
            lambda x: (x * torch.tensor(2.0).to(x.device, non_blocking=True),),
            "Cannot copy between CPU and CUDA",
        ),
        (lambda x: (torch.linalg.eigh(x[0] @ x[0].mT)[0],), "not permitted"),
    ],
    ids=["item", "new_tensor", "copy", "solver"],
)
def test_what_cannot_be_recorded_is_computed_as_before(
    compute: Callable[[Tensor], tuple[Tensor, ...]], reason: str
) -> None:
    with pytest.warns(RuntimeWarning, match=f"CUDA graphs are left out: .*{reason}"):
        _, seen = recorded(compute)
    assert not seen.kernels["graph"]


def test_the_fake_ones_have_no_values_before_they_are_replayed() -> None:
    with FakeGPU():
        x = photo(0)[None].to(CUDA)
        graph = FakeGraph(lambda: None)
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            graph.capture_begin()
            found = 2 * x + torch.arange(40, device=CUDA, dtype=torch.float32)
            graph.capture_end()
        assert found.isnan().all()
        graph.replay()
        assert torch.equal(found.cpu(), 2 * photo(0)[None] + torch.arange(40))
        with pytest.raises(RuntimeError, match="non-default stream"):
            graph.capture_begin()


def test_the_fake_ones_refuse_what_changes_what_was_there() -> None:
    with FakeGPU():
        total = torch.zeros(1, 3, 32, 40, device=CUDA)
        function = Recorded(Graphs(wanted=True))

        def compute(x: Tensor) -> tuple[Tensor, ...]:
            total.add_(x)
            return (total.clone(),)

        for _ in range(2):
            function(compute, photo(0)[None].to(CUDA))
        with pytest.raises(NotRecorded, match="changes what was there before"):
            function(compute, photo(0)[None].to(CUDA))


@pytest.mark.parametrize("name", ["gram", "preset embedded", "bfloat16", "masks"])
def test_a_step_of_style_transfer_is_told_at_once(name: str) -> None:
    """Launches that are left are those of L-BFGS; waits are as before."""
    call = CALLS["style"][name]
    graphed = Call(replace(call.method, cuda_graphs=True, coarse_scales=(), steps=8), call.photos)
    seen = seen_of_step(graphed, after=3)
    assert seen.kernels["graph"] == 1
    assert seen.waits <= 2, seen.waiting
    assert seen.launches <= 61
    assert not seen.solving


@pytest.mark.parametrize("name", ["plain", "guide", "blur", "guided"])
def test_a_step_of_a_dream_is_told_at_once(name: str) -> None:
    call = CALLS["dream"][name]
    graphed = Call(replace(call.method, cuda_graphs=True, steps=5), call.photos[:1])
    seen = seen_of_step(graphed, after=3)
    assert seen.kernels["graph"] == 1
    assert seen.waits <= 1, seen.waiting
    assert seen.launches <= 17


def test_photographs_of_one_size_share_graphs_of_dreams() -> None:
    call = Call(CALLS["dream"]["graphs"].method, ((48, 50), (48, 50)))
    with FakeGPU() as gpu:
        stylizer = call.build(CUDA)
        call.run(stylizer)
        with gpu.count() as seen:
            found = call.run(stylizer)
    assert seen.kernels["graph"] == sum(each.stats["steps"] for each in found)  # type: ignore[union-attr]


def test_a_photograph_that_is_done_leaves_no_graph() -> None:
    with FakeGPU() as gpu:
        stylizer = GRAPHS.build(CUDA)
        GRAPHS.run(stylizer)
        gc.collect()
        before = gpu.live
        GRAPHS.run(stylizer)
        gc.collect()
        assert gpu.live == before


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_without_memory_for_a_graph_there_is_none(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever allocation fails while it is recorded."""
    real, number = FakeGraph.capture_begin, [0]

    def begin(self: FakeGraph, **options: Any) -> None:
        real(self, **options)
        gpu = FakeGPU.current
        assert gpu is not None
        gpu.fails_at = gpu.allocations + number[0]

    with FakeGPU() as gpu:
        expected = GRAPHS.run(GRAPHS.build(CUDA))
        before = gpu.allocations
        seen_of_one = [gpu.allocations - before]
    number[0] = max(2, int(share * 150)) + seen_of_one[0]
    monkeypatch.setattr(FakeGraph, "capture_begin", begin)
    with FakeGPU() as gpu, warnings.catch_warnings():
        warnings.simplefilter("error")
        with gpu.count() as seen:
            found = GRAPHS.run(GRAPHS.build(CUDA))
    assert not seen.kernels["graph"]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.image, theirs.image)  # type: ignore[union-attr]


def test_a_plant_that_waits_in_the_loss_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = StyleObjective._whole

    def looked_at(self: StyleObjective, *arguments: Any) -> Any:
        view = real(self, *arguments)
        assert all(bool(each.isfinite().all()) for each in view.features.values())
        return view

    monkeypatch.setattr(StyleObjective, "_whole", looked_at)
    with pytest.warns(RuntimeWarning, match="CUDA graphs are left out"):
        assert_same(Call(replace(GRAPHS.method, tv_weight=0.0)))


def test_a_plant_that_makes_numbers_on_the_cpu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = nst.losses.squared_distance
    monkeypatch.setattr(
        "nst.style_transfer.losses.squared_distance",
        lambda x, y: real(x, y) * torch.tensor([1.0]).to(x.device, non_blocking=True),
    )
    with pytest.warns(RuntimeWarning, match="Cannot copy between CPU and CUDA"):
        assert_same(GRAPHS)


def test_the_doctor_tries_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.doctor.self_check, "_TRIED", replace(_TRIED, steps=4, style_loss="gram"))
    monkeypatch.setattr(jobs.doctor.self_check, "_SIZE", (32, 40))
    with FakeGPU():
        assert "ms a step" in _try("cuda_graphs", CUDA)[1]
        assert "ms a step" in _try("fused_relu", CUDA)[1]
        monkeypatch.setattr(FakeGraph, "replay", lambda _: None)
        sound, said = _try("cuda_graphs", CUDA)
    assert sound
    assert said.startswith("leave method.cuda_graphs = false: ")
    monkeypatch.setattr(jobs.doctor.self_check, "attempt", lambda name, _: name)
    names: list[Any] = [list(self_check(device)) for device in (CUDA, CPU)]
    assert [("CUDA graphs" in each) for each in names] == [True, False]
    assert [("convolutions with their ReLUs" in each) for each in names] == [True, False]
