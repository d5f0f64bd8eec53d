"""The fake GPU itself: what it refuses, waits for, launches and keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from jobs.doctor.self_check import short_check
from nst.images.codec import resize_image
from tests.gpu.calls import photo
from tests.gpu.fake_gpu import CUDA, FakeGPU, OnGPU, WrongDevice


def test_it_refuses_tensors_of_both() -> None:
    with FakeGPU():
        x = photo(0).to(CUDA)
        assert isinstance(x, OnGPU)
        assert (x.device, x.is_cuda) == (CUDA, True)
        with pytest.raises(WrongDevice, match=r"aten\.add"):
            x + photo(1)
        with pytest.raises(WrongDevice, match="convolution"):
            F.conv2d(x[None], torch.ones(1, 3, 3, 3))
        with pytest.raises(WrongDevice, match="generator"):
            torch.rand(3, device=CUDA, generator=torch.Generator())
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        assert torch.equal((x + torch.tensor(1.0)).cpu(), photo(0) + 1)  # a single number may be the CPU's


def test_pictures_are_shrunk_to_any_size() -> None:
    """As a style of 20,000 pixels is for a coarse scale of 128. A GPU refuses that at once."""
    wide = F.interpolate(photo(0)[None], (200, 9600), mode="bilinear")[0]
    with FakeGPU():
        x = wide.to(CUDA)
        with pytest.raises(RuntimeError, match="shared memory"):
            F.interpolate(x[None], (2, 80), mode="bilinear", antialias=True)
        found = resize_image(x, (2, 80)).cpu()
        assert torch.equal(resize_image(x, (10, 400)).cpu(), resize_image(wide, (10, 400)))
    assert found.shape == (3, 2, 80)
    torch.testing.assert_close(found, resize_image(wide, (2, 80)), atol=5e-3, rtol=0.0)


def test_it_counts_waits_and_where_they_are() -> None:
    with FakeGPU() as gpu:
        x = photo(0).to(CUDA)
        with gpu.count() as seen:
            float(x.sum()), bool((x > 0).all()), x[0, 0].tolist(), x.new_tensor([1.0]), x.cpu()
            x[:, torch.tensor([0, 1])], x[x > 0.5], photo(1).to(x), torch.tensor([1.0], device=CUDA)
        assert seen.waits == 9, seen.waiting
        assert seen.bytes_over == 4 + 1 + 40 * 4 + 4 + 2 * x.nbytes + 4
        with gpu.count() as seen:
            photo(1).to(x, non_blocking=True), torch.ones(3, device=CUDA), x.new_zeros(3), x[:, 1:], 2 * x
        assert seen.waits == 0, seen.waiting
        with gpu.count() as seen:
            torch.linalg.eigh(torch.eye(3, device=CUDA))
        assert (seen.waits, seen.solving.total()) == (0, 1)


def test_it_counts_launches_and_not_views() -> None:
    with FakeGPU() as gpu:
        x = torch.ones(2, 3, device=CUDA)
        with gpu.count() as seen:
            (2 * x).t()[0].add_(1.0), torch.empty_like(x)
        assert dict(seen.kernels) == {"mul": 1, "add_": 1}
        with gpu.count() as seen:
            x.double().mean()
        assert dict(seen.float64) == {"_to_copy at ?": 1}


def test_what_nobody_has_waited_for_is_not_there() -> None:
    with FakeGPU():
        x = photo(0).to(CUDA)
        found = x.to("cpu", non_blocking=True)
        assert found.isnan().all()
        x.sum().item()
        assert torch.equal(found, photo(0))


def test_memory_is_counted_once_and_ends() -> None:
    with FakeGPU(memory_bytes=3 * 4000) as gpu:
        x = torch.zeros(1000, device=CUDA)
        views = [x[:500], x.view(10, 100)]
        assert (gpu.live, gpu.allocations) == (4000, 1)
        y = x + 1
        with pytest.raises(torch.OutOfMemoryError):
            torch.cat([x, y])
        del x, y
        assert gpu.live == 4000  # which the views keep
        del views
        assert (gpu.live, gpu.peak) == (0, 8000)
        gpu.fails_at = gpu.allocations + 2
        x = torch.zeros(10, device=CUDA)
        with pytest.raises(torch.OutOfMemoryError):
            x * 2
        assert gpu.live == 40


def test_networks_learn_on_it() -> None:
    def losses(device: torch.device) -> list[float]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3)).to(
            device
        )
        optimizer = torch.optim.Adam(network.parameters(), 0.1, fused=True)
        found, x = [], photo(0)[None].to(device)
        for _ in range(3):
            with torch.autocast(device.type, torch.bfloat16):
                loss = network(x).float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            found.append(loss.detach())
        return [float(each) for each in found]

    wanted = losses(torch.device("cpu"))
    with FakeGPU() as gpu, gpu.count() as seen:
        assert losses(CUDA) == pytest.approx(wanted, rel=1e-3)
    assert seen.kernels["_fused_adam_"] == 3
    assert seen.waits == 3 + 1 + 4, seen.waiting  # losses, the photograph and parameters


def test_the_check_before_a_worker_paints_passes() -> None:
    with FakeGPU():
        found = short_check(CUDA)
    assert found.ok, found.text
