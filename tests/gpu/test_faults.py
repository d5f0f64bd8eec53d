"""Mistakes, made on purpose: each is seen by what the other tests look at."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import jobs.worker.worker
import nst.gan.translate
import nst.losses
import nst.style_transfer.losses
from nst.deepdream.stylizer import DeepDreamStylizer
from nst.features import FeatureNetwork
from nst.optim.descent import Descent
from nst.optim.lbfgs import LBFGS
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.stylizer import StyleTransferStylizer
from tests.gpu.test_calls import test_a_step_of_style_transfer as a_step_of_style_transfer
from tests.gpu.test_calls import test_dreams as dreams
from tests.gpu.test_calls import test_generators as generators
from tests.gpu.test_calls import test_style_transfer as style_transfer
from tests.gpu.test_calls import test_trainings as trainings
from tests.gpu.test_memory import test_whichever_allocation_fails_nothing_is_left as nothing_is_left

Plant = Callable[[pytest.MonkeyPatch], None]


def an_item(patch: pytest.MonkeyPatch) -> None:
    """A number that is looked at in every step."""
    real = Descent.advance

    def advance(self: Descent, result: Any) -> None:
        result.grad.abs().max().item()
        real(self, result)

    patch.setattr(Descent, "advance", advance)


def products_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Inner products that come back in more than one read."""
    real = LBFGS.step

    def step(self: LBFGS, x: Tensor, grad: Tensor) -> Tensor:
        if self._last is not None:
            torch.stack([grad.flatten().dot(self._last[1].flatten())]).tolist()
        return real(self, x, grad)

    patch.setattr(LBFGS, "step", step)


def constants_on_the_cpu(patch: pytest.MonkeyPatch) -> None:
    """The network's mean color stays where it was made."""
    real = FeatureNetwork.forward

    def forward(self: FeatureNetwork, *args: Any) -> Any:
        mean, self.mean = self.mean, torch.full((1, 3, 1, 1), 0.45)
        try:
            return real(self, *args)
        finally:
            self.mean = mean

    patch.setattr(FeatureNetwork, "forward", forward)


def a_constant_in_the_gram_matrix(patch: pytest.MonkeyPatch) -> None:
    """Half a matrix of the CPU."""
    real = nst.losses._product
    patch.setattr(nst.losses, "_product", lambda a, b: real(a, b) * torch.full((1, 1, 1), 0.5))


def float64_in_a_loss(patch: pytest.MonkeyPatch) -> None:
    """Sums that are more exact, and a hundredth as fast."""
    real = nst.losses.squared_distance
    exact = lambda found, wanted: real(found.double(), wanted.double()).to(found)  # noqa: E731
    patch.setattr(nst.style_transfer.losses, "squared_distance", exact)


def a_picture_left_there(patch: pytest.MonkeyPatch) -> None:
    """A picture that nobody has fetched."""
    finish = lambda self, painted, image: painted.to(self.objective.network.mean.device)  # noqa: ARG005, E731
    patch.setattr(StyleTransferStylizer, "finish", finish)


def a_kernel_made_anew(patch: pytest.MonkeyPatch) -> None:
    """A blur whose numbers come over in every call."""
    module: Any = sys.modules["nst.ops.blur"]  # whose name is that of its function, too
    patch.setattr(module, "_blurred", lambda x, kernel: module._Blur.apply(x, kernel.to(x)))


def a_kernel_of_the_cpu(patch: pytest.MonkeyPatch) -> None:
    """A dream's gradient is smoothed with what was made elsewhere."""
    kernel = torch.ones(3, 1, 1)
    patch.setattr(DeepDreamStylizer, "_smoothed", lambda self, grad: grad * kernel)  # noqa: ARG005


def a_picture_nobody_waited_for(patch: pytest.MonkeyPatch) -> None:
    """A picture that is looked at before it is there."""
    real = nst.gan.translate.checked_outcomes

    def unchecked(pictures: Tensor, *stats: Any) -> Any:
        return real(pictures.to("cpu", non_blocking=True), *stats)

    patch.setattr("nst.cyclegan.method.checked_outcomes", unchecked)


def a_gradient_that_is_fetched(patch: pytest.MonkeyPatch) -> None:
    """More than numbers comes back from an evaluation."""
    real = StyleObjective.evaluate

    def evaluate(self: StyleObjective, *args: Any) -> Any:
        found = real(self, *args)
        found[0].grad.to("cpu", non_blocking=True)
        return found

    patch.setattr(StyleObjective, "evaluate", evaluate)


def more_launches(patch: pytest.MonkeyPatch) -> None:
    """A copy in every function that is called often."""
    real = nst.losses.raw_gram
    patch.setattr(nst.style_transfer.losses, "raw_gram", lambda features: real(features.clone()))


def activations_that_are_kept(patch: pytest.MonkeyPatch) -> None:
    """What a Gram matrix is of is held after it."""
    real, kept = nst.losses.raw_gram, list[Tensor]()

    def raw_gram(features: Tensor) -> Tensor:
        kept.append(features)
        return real(features)

    patch.setattr(nst.style_transfer.losses, "raw_gram", raw_gram)


def errors_with_their_frames(patch: pytest.MonkeyPatch) -> None:
    """What an exception holds is not let go."""
    patch.setattr(jobs.worker.worker, "_without_frames", lambda error: error)


FAULTS: dict[Plant, tuple[Callable[[], object], str]] = {
    an_item: (lambda: a_step_of_style_transfer("gram", 2, 10_000), "_local_scalar_dense"),
    products_one_by_one: (lambda: a_step_of_style_transfer("gram", 2, 10_000), "tolist"),
    constants_on_the_cpu: (lambda: style_transfer("averaged"), r"aten\.sub"),
    a_constant_in_the_gram_matrix: (lambda: style_transfer("averaged"), r"aten\.mul"),
    float64_in_a_loss: (lambda: style_transfer("averaged"), r"losses\.py"),
    a_picture_left_there: (lambda: style_transfer("averaged"), "left on the GPU"),
    a_kernel_made_anew: (lambda: trainings("cyclegan blur"), "copy to the GPU"),
    a_kernel_of_the_cpu: (lambda: dreams("blur"), r"aten\.mul"),
    a_picture_nobody_waited_for: (lambda: generators("cyclegan gray"), "not finite"),
    a_gradient_that_is_fetched: (lambda: a_step_of_style_transfer("gram", 2, 10_000), "bytes_over"),
    more_launches: (lambda: style_transfer("averaged"), "launches"),
    activations_that_are_kept: (lambda: style_transfer("averaged"), "bytes at once"),
    errors_with_their_frames: (lambda: nothing_is_left("cyclegan"), r"\[\d"),
}
"""What is planted, the test that finds it, and a part of what that says."""


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_it_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    test, said = FAULTS[plant]
    plant(monkeypatch)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(AssertionError, match=said):
            test()
    finally:
        gc.enable()


WARM = """
import torch
asked = []
torch.cuda._lazy_init = lambda: asked.append("init")
for name in ("_cuda_getDeviceCount", "_cuda_init"):
    setattr(torch._C, name, lambda *_, name=name: asked.append(name) or 0)
torch.cuda.device_count = lambda: asked.append("count") or 0
import jobs.pools.warm
before = list(asked)
encode = jobs.pools.warm.encode_image
jobs.pools.warm.encode_image = lambda image: torch.cuda.device_count() or encode(image)
jobs.pools.warm.warm_up()
print(before, len(asked) > 0)
"""


def test_what_workers_are_forked_from_does_not_ask_for_gpus() -> None:
    """CUDA cannot be used by a process whose parent has used it. One who asks is found."""
    done = subprocess.run([sys.executable, "-c", WARM], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] True", done.stdout
