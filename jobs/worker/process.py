"""What every worker's process has, whatever it does for a job."""

from __future__ import annotations

import os
import socket

import PIL.Image
import torch

from jobs.errors import JobMismatch
from jobs.ledger.job_record import read_job
from jobs.stores.part_store import PartStore
from jobs.stores.store import Store, open_store
from jobs.worker.messages import WorkerInfo, WorkerSetup

__all__ = [
    "begin_cuda",
    "check_device",
    "device_of",
    "gpu_memory_bytes",
    "memory_fraction",
    "open_job",
    "worker_info",
]

_CONTEXT_BYTES = 768 << 20


def open_job(setup: WorkerSetup) -> Store:
    """The job's store, for a process that decodes its photographs.

    Raises:
        JobMismatch: it is another job's.
    """
    store = open_store(setup.output, setup.storage, create_only=setup.create_only)
    if setup.part is not None:
        store = PartStore(store, setup.part)
    # On a store that ignores create-only writes, two jobs may have begun here at once; one of them remains.
    if read_job(store).fingerprint != setup.fingerprint:
        raise JobMismatch(f"{setup.output} belongs to another job")
    PIL.Image.MAX_IMAGE_PIXELS = None  # decode_photo has a limit of its own, from the header
    return store


def device_of(setup: WorkerSetup) -> torch.device:
    """The device that this process computes on. Of a GPU it gets no more memory than its share, so that none of
    its neighbors runs out of theirs; and unless the method says that bytes may differ, the algorithms on it are
    such that give the same ones again."""
    if not setup.num_gpus:
        return torch.device("cpu")
    begin_cuda(deterministic=getattr(setup.method, "deterministic", True))
    if setup.num_gpus < 1:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(memory_fraction(setup.num_gpus, total))
    return torch.device("cuda")


def check_device(device: torch.device) -> None:
    """Check a GPU before it paints photographs that nobody looks at: the short part of `nst doctor`.

    Raises:
        RuntimeError: it does not compute what a CPU computes.
    """
    if device.type == "cpu":
        return
    from jobs.doctor.self_check import short_check  # which imports every method

    found = short_check(device)
    if not found.ok:
        name = f"{torch.cuda.get_device_name()} of {socket.gethostname()}"
        raise RuntimeError(f"{name} computes wrongly ({found.name}: {found.text}); nst doctor tells more")


def begin_cuda(*, deterministic: bool) -> None:
    """Set what is read when CUDA begins in this process, and, if `deterministic`, have the same bytes again.
    Matrix products are those of float32, as L-BFGS and Gram matrices need them, also in containers that ask for
    TF32 (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE)."""
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    torch.set_float32_matmul_precision("highest")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if torch.cuda.is_available():
        _allocate_once()


def _allocate_once() -> None:
    """Find out whether memory can be had. Virtual GPUs and small boards cannot map it as segments that expand
    want it: there torch does without these."""
    try:
        torch.empty(1, device="cuda")
    except RuntimeError as error:
        if "not supported" not in str(error):
            raise
        torch._C._accelerator_setAllocatorSettings("expandable_segments:False")


def memory_fraction(share: float, total_bytes: int) -> float:
    """What PyTorch may take of a GPU's memory, in [0, 1]: a worker's share of it, without what a process takes
    besides (context, kernels, cuBLAS)."""
    return max(0.05, share - _CONTEXT_BYTES / total_bytes)


def worker_info(device: torch.device, **seconds: float) -> WorkerInfo:
    """What a worker says of itself when it is ready."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return WorkerInfo(host=socket.gethostname(), pid=os.getpid(), device=name, seconds=seconds)


def gpu_memory_bytes(device: torch.device) -> int:
    """GPU memory that this process holds."""
    return torch.cuda.memory_reserved() if device.type == "cuda" else 0
