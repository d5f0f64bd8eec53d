"""Muon for filters, Adam for everything else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nst.ops.muon import Muon

SHAPES = ((8, 6, 3, 3), (16, 8, 1, 1), (4, 32, 3, 3), (8,), (1, 12, 5))
BETAS = 0.9, 0.99


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def descend(own: list[nn.Parameter], optimizers: list[torch.optim.Optimizer], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for each in own:
        grad = torch.randn(each.shape, generator=generator, dtype=each.dtype)
        each.grad = grad.contiguous(memory_format=torch.channels_last) if each.ndim == 4 else grad
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (step + 1)
        optimizer.step()


def test_it_is_that_of_torch_for_matrices_and_adam_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "bfloat16", torch.float32)  # which torch's multiplies in, and ours on GPUs alone
    own, theirs = parameters(), parameters()
    matrices = [nn.Parameter(each.detach().flatten(1).clone()) for each in theirs[:3]]
    adam = torch.optim.Adam(theirs[3:], 1e-3, betas=BETAS, fused=True)
    muon = torch.optim.Muon(matrices, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    optimizer = Muon(own, 1e-3, BETAS)
    for step in range(20):
        descend(own, [optimizer], step)
        for matrix, each in zip(matrices, own[:3], strict=True):
            matrix.grad = each.grad.flatten(1)  # type: ignore[union-attr]
        for theirs_too, each in zip(theirs[3:], own[3:], strict=True):
            theirs_too.grad = each.grad
        for other in (adam, muon):
            for group in other.param_groups:
                group["lr"] = 1e-3 * (step + 1)
            other.step()
    wanted: list[Tensor] = [*matrices, *theirs[3:]]
    for each, other in zip(own, wanted, strict=True):
        assert torch.equal(each.flatten(1) if each.ndim == 4 else each, other)


def test_it_goes_on_from_its_state_to_the_bit() -> None:
    own = parameters()
    optimizer = Muon(own, 1e-3, BETAS)
    for step in range(3):
        descend(own, [optimizer], step)
    again = [nn.Parameter(each.detach().clone()) for each in own]
    restored = Muon(again, 5.0, BETAS)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [group["lr"] for group in restored.param_groups] == [3e-3, 3e-3]
    descend(own, [optimizer], 3)
    descend(again, [restored], 3)
    assert all(torch.equal(one, two) for one, two in zip(own, again, strict=True))


def test_cpus_compute_a_step_in_float32() -> None:
    """Many of them have no bfloat16, and took ten times as long: a third of all that learning a style takes."""
    steps = []
    for dtype in (torch.float32, torch.float64):
        own = parameters()
        before = [each.detach().clone() for each in own]
        own = [nn.Parameter(each.detach().to(dtype)) for each in own]
        for each in own:
            each.grad = torch.randn(each.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        Muon(own, 1e-2, BETAS).step()
        steps.append([each.detach() - was for each, was in zip(own, before, strict=True)][:3])
    for one, other in zip(*steps, strict=True):
        assert float((one - other).abs().max()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_values_of_a_step_are_alike(dtype: torch.dtype) -> None:
    """In float64 they are those of float64, so that several processes may do what one does."""
    ways = []
    for nudge in (0.0, 1e-13):
        own = parameters(dtype)[:1] + parameters(dtype)[3:4]
        before = own[0].detach().clone()
        own[1].grad = torch.ones_like(own[1])
        own[0].grad = torch.randn(own[0].shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
        own[0].grad += nudge
        Muon(own, 1e-2, BETAS).step()
        ways.append((before - own[0].detach()).flatten(1) / (1e-2 * 0.2 * 54**0.5))
    values = torch.linalg.svdvals(ways[0])
    assert 0.6 < float(values.min()) < float(values.max()) < 1.3
    if dtype == torch.float64:
        assert 0 < float((ways[0] - ways[1]).abs().max()) < 1e-11
