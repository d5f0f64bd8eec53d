"""Two processes that share batches train as one that has them whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nst.cyclegan.training import CycleGANOptions, CycleGANTraining, train_step
from nst.errors import OptionError
from nst.gan.parallel import DDPOptions, Share, distributed
from nst.gan.scaling import LossScale, descend
from tests.two import check_as_one, in_two_processes, tensors

CASES: dict[str, dict[str, Any]] = {
    "pool and identity": {"pool_size": 5, "ema_decay": 0.9},
    "batch norm": {"norm": "batch", "pool_size": 5},
    "batch norm in pixels": {"norm": "batch", "discriminator": "pixel", "gan_mode": "vanilla"},
    "r1": {"penalty": "r1", "pool_size": 3},
    "wgangp": {"gan_mode": "wgangp", "lambda_identity": 0.0},
    "zero centered": {"penalty": "zero_centered", "gan_mode": "hinge", "norm": "none"},
    "critic": {"critic_steps": 3, "spectral_norm": True, "gan_mode": "hinge", "norm": "none", "pool_size": 3},
}
SIDE = 16
RUNS = (("float64", 4, 2), ("float64", 3, 2), ("float32", 4, 1))
"""Precision, batch size, steps. Of three images, one process has two and one has one."""
SOME = ("pool and identity", "batch norm")
"""Cases of all runs; the others are of the first."""


def trained(case: str, precision: str, share: Share, steps: int) -> dict[str, Any]:
    small = {"generator": "resnet_6blocks", "generator_channels": 2, "discriminator_channels": 2}
    options = {
        **small,
        "discriminator": "n_layers",
        "discriminator_layers": 1,
        "precision": precision,
        **CASES[case],
    }
    training = CycleGANTraining(CycleGANOptions(**options), seed=1)
    training.distribute(share)
    generator = torch.Generator().manual_seed(2)
    grads: dict[str, Tensor] = {}
    losses = []
    for step in range(steps):
        a, b = torch.rand(2, share.batch_size, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) * 2 - 1
        found = train_step(training, *(share.take(x).to(training.dtype) for x in (a, b)))
        losses.append(share.mean(torch.stack(list(found.values()))))
        if step == 0:
            networks = {**training.generators, **training.discriminators}
            grads = {
                f"{name}.{key}": parameter.grad.clone()
                for name, network in networks.items()
                for key, parameter in network.named_parameters()
                if parameter.grad is not None
            }
    return {"grads": grads, "losses": torch.stack(losses), "state": training.state_dict()}


def overflown(rank: int) -> dict[str, Any]:
    """Two steps of a layer alone: in the first, the gradient of the second process is not finite."""
    layer, scale = nn.Linear(1, 2, bias=False), LossScale()
    nn.init.zeros_(layer.weight)
    network = distributed(layer, Share(2, rank, 2), DDPOptions())
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    done = []
    for gradient in (float("inf") if rank else 1.0, 2.0):
        optimizer.zero_grad()
        (gradient * scale.factor * network(torch.ones(1, 1)).sum()).backward()
        done.append(descend(optimizer, scale=scale))
    return {"done": done, "factor": scale.factor, "parameter": layer.weight.detach().flatten()}


def of_several_sizes(rank: int) -> dict[str, Any]:
    """Steps on an image of each side for each process: those of the second are larger, and at last differ."""
    small = {"generator": "resnet_6blocks", "generator_channels": 2, "discriminator_channels": 2}
    small |= {"discriminator": "n_layers", "discriminator_layers": 1, "pool_size": 2}
    training = CycleGANTraining(CycleGANOptions(**small, spectral_norm=True), seed=1)
    training.distribute(Share(2, rank, 2, alike=False))
    generator = torch.Generator().manual_seed(rank)
    for height, width, more in ((SIDE, SIDE + 4 * rank, 0), (SIDE + 8 * rank, SIDE, 4 * rank)):
        a, b = (torch.rand(1, 3, height, w, generator=generator) * 2 - 1 for w in (width, width + more))
        train_step(training, a, b)
    return training.state_dict()


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for precision, batch_size, steps in RUNS:
        for case in CASES if (precision, batch_size, steps) == RUNS[0] else SOME:
            found = trained(case, precision, Share(batch_size, rank, 2), steps)
            torch.save(found, f"{folder}/{case}-{precision}-{batch_size}-{rank}.pt")
    torch.save(trained("pool and identity", "float16", Share(4, rank, 2), 6), f"{folder}/float16-{rank}.pt")
    torch.save(overflown(rank), f"{folder}/overflown-{rank}.pt")
    torch.save(of_several_sizes(rank), f"{folder}/sizes-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes found."""
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(one_of_two, folder)
    return folder


def found_by(folder: Path, rank: int, case: str, precision: str, batch_size: int) -> dict[str, Any]:
    return cast(dict[str, Any], torch.load(folder / f"{case}-{precision}-{batch_size}-{rank}.pt"))


@pytest.mark.parametrize(
    ("case", "precision", "batch_size", "steps"),
    [(case, *RUNS[0]) for case in CASES] + [(case, *RUNS[1]) for case in SOME],
)
def test_two_train_as_one(in_two: Path, case: str, precision: str, batch_size: int, steps: int) -> None:
    """In float64: gradients to 1e-12, parameters and pools to 1e-8; both processes alike to the bit."""
    first, second = (found_by(in_two, rank, case, precision, batch_size) for rank in (0, 1))
    alone = trained(case, precision, Share(batch_size), steps)
    check_as_one(alone, first, second)


@pytest.mark.parametrize("case", SOME)
def test_in_float32_gradients_agree_to_two_millionths(in_two: Path, case: str) -> None:
    precision, batch_size, steps = RUNS[2]
    theirs = trained(case, precision, Share(batch_size), steps)["grads"]
    mine = found_by(in_two, 0, case, precision, batch_size)["grads"]
    a, b = (torch.cat([grads[name].flatten() for name in sorted(theirs)]) for grads in (mine, theirs))
    assert float((a - b).norm() / b.norm()) <= 2e-6


def test_all_leave_out_a_step_that_one_cannot_do(in_two: Path) -> None:
    for rank in (0, 1):
        found = torch.load(in_two / f"overflown-{rank}.pt")
        assert found["done"] == [False, True]
        assert found["factor"] == 2.0**15
        assert found["parameter"].tolist() == [-2.0, -2.0]


def test_in_float16_both_are_alike_to_the_bit(in_two: Path) -> None:
    first, second = (torch.load(in_two / f"float16-{rank}.pt") for rank in (0, 1))
    assert first["state"]["scales"] == second["state"]["scales"]
    assert first["state"]["scales"]["g"]["factor"] < 2.0**16, "some steps were left out"
    one, two = tensors(first["state"]), tensors(second["state"])
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert torch.equal(first["losses"], second["losses"])


def test_images_of_the_processes_may_differ_in_size(in_two: Path) -> None:
    """Both have the same pools, of both sizes, and the same spectral norms, though one of them needs a pass for
    each image."""
    first, second = (torch.load(in_two / f"sizes-{rank}.pt") for rank in (0, 1))
    one, two = tensors(first), tensors(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    for pool in first["pools"].values():
        shapes = [tuple(image.shape[1:]) for image in pool["images"]]
        assert shapes[0] in ((SIDE, SIDE), (SIDE + 8, SIDE), (SIDE + 8, SIDE + 4))
        assert all(image.std() > 0 and bool((image != 0).all()) for image in pool["images"]), (
            "no padding is left"
        )
        assert len(shapes) == 2


def test_parts_are_equal_but_for_one() -> None:
    for batch_size in range(1, 12):
        for world in range(1, batch_size + 1):
            shares = [Share(batch_size, rank, world) for rank in range(world)]
            images = [image for share in shares for image in range(batch_size)[share.part]]
            assert images == list(range(batch_size))
            sizes = [len(range(batch_size)[share.part]) for share in shares]
            assert max(sizes) - min(sizes) <= 1
            assert abs(sum(share.weight for share in shares) - world) < 1e-12


def test_more_workers_than_images_are_refused() -> None:
    with pytest.raises(OptionError, match="batch_size = 2: fewer images than the 3 workers"):
        Share(2, 0, 3)


def test_alone_nothing_is_wrapped() -> None:
    training = CycleGANTraining(CycleGANOptions(generator_channels=1, discriminator_channels=1))
    training.distribute(Share(4))
    assert training.trained == (training.G_A, training.G_B, training.D_A, training.D_B)
    assert not any(isinstance(each, nn.parallel.DistributedDataParallel) for each in training.trained)
