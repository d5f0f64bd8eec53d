"""Workers on GPUs, without any: which one each gets, how much of it, and what happens when memory runs out."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import jobs.doctor.self_check
import jobs.pools.local
import jobs.worker.adapting
import jobs.worker.worker
import nst.memory
import nst.style_transfer.stylizer
from jobs.doctor.facts import Check
from jobs.driver.job import create_or_open
from jobs.driver.run import worker_setup
from jobs.ledger.manifest import Row
from jobs.pools.gpus import GpuShares, gpu_ids
from jobs.pools.local import LocalPool
from jobs.spec import ImageSpec, Resources, job_from_table
from jobs.worker.adapting import Adapter
from jobs.worker.messages import GPU_LOST, Died, WorkerSetup
from jobs.worker.pipeline import Loaded
from jobs.worker.process import begin_cuda, device_of, memory_fraction
from jobs.worker.worker import Worker
from nst.errors import OptionError
from nst.features.passes import by_shape
from nst.images.codec import BitDepth, DecodedPhoto, as_float
from nst.stylizer import Assets, Outcome, Stylized
from tests.methods import REGISTRY, Stub

Photos = Callable[..., Path]
GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class TellsGpu(Stub):
    """Cannot be built, and says which GPU it sees."""

    def build(self, assets: Assets, device: torch.device) -> Callable[..., list[Outcome]]:  # noqa: ARG002
        raise OptionError("gpu", f"{device} of {os.environ.get('CUDA_VISIBLE_DEVICES')}")


@pytest.fixture
def setup(tmp_path: Path, photos: Photos) -> WorkerSetup:
    table = {"photos": str(photos(2)), "output": "out", "method": {"kind": "stub"}}
    return worker_setup(create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY))


@pytest.mark.parametrize("ok", [True, False])
def test_a_gpu_that_computes_wrongly_paints_nothing(
    ok: bool, setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = list[torch.device]()

    def look(device: torch.device) -> Check:
        looked_at.append(device)
        return Check(name="losses", ok=ok, text="off by 1")

    monkeypatch.setattr(jobs.doctor.self_check, "short_check", look)
    Worker(setup, {})
    assert not looked_at, "a CPU is not looked at"
    monkeypatch.setattr(jobs.worker.worker, "device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H")
    with nullcontext() if ok else pytest.raises(RuntimeError, match=r"^H of .* computes wrongly \(losses: off"):
        Worker(setup, {})
    assert looked_at == [torch.device("cuda")]


@pytest.mark.parametrize("ok", [True, False])
def test_a_gpu_that_computes_wrongly_learns_nothing(
    ok: bool, setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All photographs would be painted with what it has learned."""
    found = Check(name="losses", ok=ok, text="off by 1")
    monkeypatch.setattr(jobs.doctor.self_check, "short_check", lambda _: found)
    monkeypatch.setattr(jobs.worker.adapting, "device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H")
    learner = SimpleNamespace(adaptation=lambda *_: None)
    monkeypatch.setattr(jobs.worker.adapting, "AdaptableMethod", SimpleNamespace)
    with nullcontext() if ok else pytest.raises(RuntimeError, match=r"^H of .* computes wrongly \(losses: off"):
        Adapter(replace(setup, method=learner), {})  # type: ignore[arg-type]


class Ended(BaseException):
    """In the place of the end of a process."""


@pytest.mark.parametrize(
    ("fault", "found", "recently", "ends"),
    [
        ("nan", "off by 1", False, True),
        ("nan", "", False, False),
        ("nan", "OutOfMemoryError: CUDA out of memory", False, False),
        ("nan", "off by 1", True, False),
        ("error", "off by 1", False, True),
        ("memory", "off by 1", False, False),
        ("none", "off by 1", False, False),
    ],
)
def test_a_gpu_that_computes_wrongly_by_now_ends_its_worker(
    fault: str, found: str, recently: bool, ends: bool, setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The photograph is another's then, and not failed, nor are all that follow."""
    codes = list[int]()

    def ended(code: int) -> None:
        codes.append(code)
        raise Ended

    def stylizer(images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        if fault == "error":
            raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
        if fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if fault == "nan":
            return [Stylized(images[0] * torch.nan)]
        return Stub().stylize(images, generators)

    worker = Worker(setup, {})
    worker._device, worker._stylizer = torch.device("cuda"), stylizer
    worker._trusted_at = time.monotonic() if recently else -math.inf
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H")
    check = Check(name="losses", ok=not found, text=found)
    monkeypatch.setattr(jobs.doctor.self_check, "short_check", lambda _: check)
    monkeypatch.setattr(os, "_exit", ended)
    with pytest.raises(Ended) if ends else nullcontext():
        (outcome,) = worker.stylize(_batch(1))
        assert isinstance(outcome, Stylized) is (fault == "none")
    assert codes == [GPU_LOST] * ends


# Which one


def test_every_worker_has_the_gpu_with_the_fewest() -> None:
    shares = GpuShares(["3", "GPU-a"])
    took = [shares.take(worker)["CUDA_VISIBLE_DEVICES"] for worker in range(4)]
    assert took == ["3", "GPU-a", "3", "GPU-a"]
    for gone in (1, 3, 99):
        shares.give_back(gone)
    assert [shares.take(worker)["CUDA_VISIBLE_DEVICES"] for worker in (4, 5)] == ["GPU-a", "GPU-a"]
    assert GpuShares([]).take(0) == {}


@pytest.mark.parametrize(
    ("visible", "there", "named"),
    [
        (None, 3, ("0", "1", "2")),
        ("2,5", 2, ("2", "5")),
        ("GPU-a, GPU-b", 2, ("GPU-a", "GPU-b")),
        ("1,-1,2", 1, ("1",)),
        ("MIG-a,MIG-b, MIG-c", 1, ("MIG-a", "MIG-b", "MIG-c")),
        ("MIG-a,0", 1, ("MIG-a",)),
        ("MIG-a", 0, ()),
        ("", 0, ()),
    ],
)
def test_gpus_are_named_as_the_environment_names_them(
    visible: str | None, there: int, named: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_ids() == named


@pytest.mark.parametrize(("hip", "name"), [("6.4", "HIP_VISIBLE_DEVICES"), (None, "CUDA_VISIBLE_DEVICES")])
def test_rocm_heeds_a_variable_of_its_own(hip: str | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is set, a worker would see all that it names, and take the first."""
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    ids = ("2", "3") if hip else ("4", "5")
    assert gpu_ids() == ids
    assert GpuShares(gpu_ids()).take(0) == {name: ids[0]}


@pytest.mark.parametrize(("gpus", "share"), [(2, 1.0), (4, 1.0), (2, 0.5)])
def test_local_workers_each_see_a_gpu_of_their_own(
    gpus: int, share: float, setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first that they see, so that the device's index is 0 in each. Who takes the place of one that
    died has its GPU."""
    monkeypatch.setattr(jobs.pools.local, "gpu_ids", lambda: tuple(map(str, range(gpus))))
    workers = round(gpus / share)
    # A share would ask the driver for the GPU's memory: the environment is all the same for whole ones.
    pool = LocalPool(Resources(num_gpus=share), replace(setup, num_gpus=1.0, method=TellsGpu()), {})
    with pool:
        for worker in range(workers):
            pool.start(worker)
        seen = _deaths(pool, workers)
        for gpu in range(gpus):
            assert sum(f"cuda of {gpu}" in detail for detail in seen.values()) == round(1 / share), seen
        for worker in (workers, workers + 1):
            pool.start(worker)
            assert "cuda of 0" in _deaths(pool, 1)[worker], "all were given back"


def _deaths(pool: LocalPool, count: int) -> dict[int, str]:
    found: dict[int, str] = {}
    while len(found) < count:
        found |= {event.worker: event.detail for event in pool.poll(10) if isinstance(event, Died)}
    return found


def test_workers_without_a_gpu_see_what_the_driver_sees(
    setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> tuple[str, ...]:
        raise AssertionError("nobody asks for GPUs")

    monkeypatch.setattr(jobs.pools.local, "gpu_ids", none)
    with LocalPool(Resources(), replace(setup, method=TellsGpu()), {}) as pool:
        pool.start(0)
        assert "cpu of" in _deaths(pool, 1)[0]


# How much of it


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A GPU of 24 GiB; gives the shares of it that were set."""
    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=24 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: (shares or [1.0])[-1])
    for name in ("PYTORCH_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield shares
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def test_shares_of_a_gpu_leave_room_for_all_their_neighbors(setup: WorkerSetup, cuda: list[float]) -> None:
    assert device_of(replace(setup, num_gpus=0.5)) == torch.device("cuda")
    (share,) = cuda
    assert 0.4 < share < 0.5
    for count in (2, 3, 4):
        took = count * (memory_fraction(1 / count, 24 * GIB) * 24 * GIB + 700 * 2**20)  # and each its context
        assert 0.9 * 24 * GIB < took < 24 * GIB


def test_a_whole_gpu_has_no_limit_and_cpus_ask_nothing(setup: WorkerSetup, cuda: list[float]) -> None:
    assert device_of(replace(setup, num_gpus=1.0)) == torch.device("cuda")
    assert device_of(setup) == torch.device("cpu")
    assert cuda == []


@dataclass(frozen=True, kw_only=True, slots=True)
class Quick(Stub):
    deterministic: bool = False


def test_algorithms_on_gpus_give_equal_bytes_unless_the_method_does_without(
    setup: WorkerSetup, cuda: list[float]
) -> None:
    torch.backends.cudnn.deterministic = False
    torch.set_float32_matmul_precision("high")  # as containers ask for with their environment
    device_of(replace(setup, num_gpus=1.0, method=Quick()))
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.deterministic
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    device_of(replace(setup, num_gpus=1.0))
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert cuda == []


@pytest.mark.parametrize(
    ("error", "settings"),
    [
        (None, []),
        (RuntimeError("CUDA driver error: operation not supported"), ["expandable_segments:False"]),
        (RuntimeError("CUDA error: out of memory"), None),
    ],
    ids=str,
)
def test_a_gpu_that_cannot_map_memory_does_without_segments_that_expand(
    error: Exception | None, settings: list[str] | None, cuda: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a virtual one: every job on it would fail."""
    asked, made = list[object](), list[str]()

    def empty(*_: int, device: object) -> None:
        asked.append(device)
        if error is not None:
            raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", made.append)
    with nullcontext() if settings is not None else pytest.raises(RuntimeError, match="out of memory"):
        begin_cuda(deterministic=False)
    assert (asked, made) == (["cuda"], settings or [])
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert cuda == []


def test_the_history_of_large_photographs_is_as_long_as_memory_allows(
    cuda: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = nst.style_transfer.stylizer._pairs_in_memory
    large = SimpleNamespace(device=torch.device("cuda:0"), nbytes=12 * 12_000_000)
    assert pairs(large) == int(0.3 * 24 * GIB / (2 * large.nbytes)) == 26  # type: ignore[arg-type]
    cuda.append(0.5)
    assert pairs(large) == 13  # type: ignore[arg-type]
    monkeypatch.setattr(large, "nbytes", 2**60)
    assert pairs(large) == 1  # type: ignore[arg-type]
    monkeypatch.setattr(nst.memory, "total_bytes", lambda: 24 * GIB)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert pairs(torch.empty(3, 3000, 4000)) == int(0.3 * 12 * GIB / (2 * 12 * 12_000_000)) == 13
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert pairs(torch.empty(3, 3000, 4000)) == 4, "of 4 GiB"


def test_where_nobody_says_how_much_memory_there_is_it_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(nst.memory, "CGROUP", Path("/nowhere"))
    assert nst.memory.pass_bytes(torch.device("cpu"), None) > 10**15
    assert nst.memory.pass_bytes(torch.device("cpu"), 250) == 250_000_000


# When its memory runs out


class _RunsOut(TorchDispatchMode):
    """Memory runs out at the n-th operation, if there are more than `fits` photographs."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        self.left -= 1
        if self.left == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(*args, **(kwargs or {}))


class Limited:
    """A stylizer on a GPU whose memory runs out at the n-th operation with more than `fits` photographs."""

    def __init__(self, stylizer: Any, n: int, fits: int) -> None:
        self._stylizer, self._n, self._fits = stylizer, n, fits
        self.calls: list[int] = []

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        self.calls.append(len(images))
        if len(images) <= self._fits:
            return list(self._stylizer(images, generators))
        with _RunsOut(self._n) as mode:
            found = list(self._stylizer(images, generators))
        assert mode.left > 0
        return found


def _batch(count: int, first: int = 0) -> list[Loaded]:
    random = torch.Generator().manual_seed(1)
    return [
        Loaded(
            Row(index=index, key=f"{index}.png", url=f"{index}.png", size_bytes=1),
            DecodedPhoto(torch.randint(256, (3, 40, 40), generator=random, dtype=torch.uint8)),
            "digest",
            0.0,
        )
        for index in range(first, first + count)
    ]


def test_wherever_memory_runs_out_no_photograph_is_lost_that_fits_alone(tmp_path: Path, photos: Photos) -> None:
    options = {
        "kind": "deepdream",
        "network": "embedded",
        "weights": "seeded",
        "layers": {"relu2_1": 1.0},
        "octaves": 1,
        "steps": 1,
    }
    table = {"photos": str(photos(2)), "output": "out", "method": options}
    worker = Worker(worker_setup(create_or_open(job_from_table(table, tmp_path))), {})
    real, batch = worker._stylizer, _batch(4)
    wanted = [outcome.image for outcome in worker.stylize(batch) if isinstance(outcome, Stylized)]
    assert len(wanted) == len(batch)
    for n in range(1, 10_000):
        worker._stylizer = limited = Limited(real, n, fits=1)
        worker._too_much = float("inf")
        found = worker.stylize(batch)
        for outcome, picture in zip(found, wanted, strict=True):
            assert isinstance(outcome, Stylized), (n, outcome)
            assert torch.equal(outcome.image, picture), n
        if limited.calls == [4]:
            break
    assert n > 30, "many operations were tried"


def test_photographs_leave_memory_before_halves_are_tried(setup: WorkerSetup) -> None:
    worker, given, left = Worker(setup, {}), list[weakref.ref[Tensor]](), list[bool]()

    def stylizer(images: Sequence[Tensor], _: Sequence[torch.Generator]) -> list[Outcome]:
        left.extend(each() is not None for each in given)
        given[:] = [weakref.ref(image) for image in images]
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [Stylized(image + 0) for image in images]

    worker._stylizer = stylizer
    assert all(isinstance(outcome, Stylized) for outcome in worker.stylize(_batch(2)))
    assert left == [False] * 3


@pytest.mark.parametrize(
    ("error", "remembered"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":1'), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_memory_that_did_not_suffice_is_known_by_whatever_says_it(
    error: Exception, remembered: bool, setup: WorkerSetup
) -> None:
    """Also by libraries that are not torch's: else every batch would be tried in vain first."""
    worker = Worker(setup, {})

    def full(images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        if len(images) > 1:
            raise error
        return Stub().stylize(images, generators)

    worker._stylizer = full
    assert all(isinstance(outcome, Stylized) for outcome in worker.stylize(_batch(2)))
    assert (worker._too_much == 2 * 40 * 40) is remembered


@pytest.mark.parametrize("fits", [1, 2, 3, 5])
def test_what_did_not_fit_is_not_tried_again(fits: int, setup: WorkerSetup) -> None:
    worker = Worker(setup, {})
    worker._stylizer = limited = Limited(Stub().stylize, 1, fits)
    assert all(isinstance(outcome, Stylized) for outcome in worker.stylize(_batch(8)))
    failed = [count for count in limited.calls if count > fits]
    assert failed == [count for count in (8, 4, 2) if count > fits], "each size once"
    limited.calls.clear()
    assert all(isinstance(outcome, Stylized) for outcome in worker.stylize(_batch(8, first=8)))
    assert limited.calls, "photographs were computed"
    assert max(limited.calls) <= fits, "and none in a batch that is too large"


@pytest.mark.parametrize(("depth", "wanted"), [(8, torch.uint8), (16, torch.float32)])
def test_who_takes_levels_gets_them_for_files_of_as_many(
    depth: BitDepth, wanted: torch.dtype, setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[torch.dtype]()

    class Copies:
        def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG002
            seen.extend(each.dtype for each in images)
            return [Stylized(each.clone()) for each in images]

    class Levels(Copies):
        takes_levels = True

    photos, image = _batch(2), ImageSpec(format="png", bit_depth=depth)
    for stylizer, expected in ((Copies(), torch.float32), (Levels(), wanted)):
        monkeypatch.setattr(Stub, "build", lambda *_, made=stylizer: made)
        outcomes = Worker(replace(setup, image=image), {}).stylize(photos)
        assert seen == [expected] * 2
        seen.clear()
        for outcome, loaded in zip(outcomes, photos, strict=True):
            assert isinstance(outcome, Stylized)
            assert torch.equal(as_float(outcome.image), loaded.photo.image)


def test_another_error_does_not_make_batches_smaller(setup: WorkerSetup) -> None:
    worker, calls = Worker(setup, {}), list[int]()

    def breaks_once(images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        calls.append(len(images))
        if len(calls) == 1:
            raise RuntimeError("no")
        return Stub().stylize(images, generators)

    worker._stylizer = breaks_once
    for _ in range(2):
        assert all(isinstance(outcome, Stylized) for outcome in worker.stylize(_batch(4)))
    assert calls == [4, 2, 2, 4]


# Alone or together


def test_photographs_share_passes_on_gpus_unless_each_is_to_be_alone() -> None:
    images = [
        SimpleNamespace(device=torch.device("cuda"), shape=shape) for shape in ((3, 4, 4), (3, 4, 4), (3, 5, 4))
    ]
    assert list(by_shape(images)) == [[0, 1], [2]]  # type: ignore[arg-type]
    assert list(by_shape(images, alone=True)) == [[0], [1], [2]]  # type: ignore[arg-type]
    assert list(by_shape([torch.zeros(3, 4, 4)] * 2)) == [[0], [1]]
