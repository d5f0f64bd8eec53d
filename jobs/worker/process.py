"""What every worker's process has, whatever it does for a job."""

from __future__ import annotations

import os
import socket

import PIL.Image
import torch

from jobs.errors import JobMismatch
from jobs.ledger.job_record import read_job
from jobs.stores.store import Store, open_store
from jobs.worker.messages import WorkerInfo, WorkerSetup

__all__ = ["device_of", "gpu_memory_bytes", "open_job", "worker_info"]


def open_job(setup: WorkerSetup) -> Store:
    """The job's store, for a process that decodes its photographs.

    Raises:
        JobMismatch: it is another job's.
    """
    store = open_store(setup.output, setup.storage, create_only=setup.create_only)
    # On a store that ignores create-only writes, two jobs may have begun here at once; one of them remains.
    if read_job(store).fingerprint != setup.fingerprint:
        raise JobMismatch(f"{setup.output} belongs to another job")
    PIL.Image.MAX_IMAGE_PIXELS = None  # decode_photo has a limit of its own, from the header
    return store


def device_of(setup: WorkerSetup) -> torch.device:
    return torch.device("cuda" if setup.use_gpu else "cpu")


def worker_info(device: torch.device, **seconds: float) -> WorkerInfo:
    """What a worker says of itself when it is ready."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return WorkerInfo(host=socket.gethostname(), pid=os.getpid(), device=name, seconds=seconds)


def gpu_memory_bytes(device: torch.device) -> int:
    """GPU memory that this process holds."""
    return torch.cuda.memory_reserved() if device.type == "cuda" else 0
