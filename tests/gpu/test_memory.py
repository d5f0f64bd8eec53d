"""What is left on the GPU when its memory was too small: nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from nst.style_transfer.method import StyleTransfer
from nst.stylizer import Stylized
from tests.gpu.calls import CALLS, Call
from tests.gpu.fake_gpu import CUDA, FakeGPU
from tests.gpu.looks import stylized_by, worker_of

SHORT = {
    "style": Call(StyleTransfer(style="/s", coarse_scales=(), steps=2, precision="float32")),
    "tiles": CALLS["style"]["tiles"],
    "dream": CALLS["dream"]["blur"],
    "cyclegan": Call(CALLS["generators"]["cyclegan resnet"].method),
    "modulated": Call(CALLS["generators"]["modulated"].method),
    "fast": CALLS["fast"]["fast half"],
    "fast published": CALLS["fast"]["fast published"],
}


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """What would go only with the garbage collector keeps memory that the next photograph needs."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("name", SHORT)
def test_whichever_allocation_fails_nothing_is_left(name: str) -> None:
    """Allocations of a photograph fail, one after the other, or every so many: it has its error, and the GPU no
    tensor more than before. Then it works again."""
    call = SHORT[name]
    with FakeGPU() as gpu:
        worker = worker_of(call.build(CUDA))
        stylized_by(worker, call)  # which fills what is kept of styles
        before, begun = gpu.live, gpu.allocations
        (wanted,) = stylized_by(worker, call)
        assert isinstance(wanted, Stylized)
        count = gpu.allocations - begun
        left = []
        for number in range(1, count + 1, max(1, count // 4)):
            gpu.fails_at = gpu.allocations + number
            (outcome,) = stylized_by(worker, call)
            assert isinstance(outcome, torch.OutOfMemoryError), f"{number} of {count}: {outcome}"
            left.append(gpu.live - before)
        assert not any(left), left
        gpu.fails_at = None
        (again,) = stylized_by(worker, call)
        assert isinstance(again, Stylized)
        assert torch.equal(again.image, wanted.image)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    """The halves have the memory that the whole had. Two, who were too many, are not tried again."""
    method = StyleTransfer(
        style="/s", style_loss="gram", coarse_scales=(), steps=3, deterministic=False, precision="float32"
    )
    with FakeGPU() as gpu:
        worker = worker_of(Call(method).build(CUDA))
        stylized_by(worker, Call(method))
        before, gpu.peak = gpu.live, gpu.live
        stylized_by(worker, Call(method))
        gpu.memory_bytes = gpu.peak + (gpu.peak - before) // 2  # more than for one, less than for two
        recovered: list[int] = []
        worker._recover = lambda: recovered.append(gpu.live - before)  # type: ignore[method-assign]
        outcomes = stylized_by(worker, Call(method, ((32, 40),) * 4))
    assert [type(each) for each in outcomes] == [Stylized] * 4
    assert recovered == [0, 0]


@pytest.mark.parametrize("name", ["gram", "bfloat16"])
def test_a_call_leaves_nothing(name: str) -> None:
    """But for what is kept of styles."""
    call = CALLS["style"][name]
    with FakeGPU() as gpu:
        stylizer = call.build(CUDA)
        call.run(stylizer)
        before = gpu.live
        call.run(stylizer)
        assert gpu.live == before
