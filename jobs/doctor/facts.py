"""What is known of a machine, as plain values: what is said and advised can be had of any. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Check", "Device", "Disk", "Gpu", "Machine", "Quality", "Speed", "attempt"]

Quality: TypeAlias = Literal["draft", "best", "dream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that was tried."""

    name: str
    ok: bool
    text: str
    """What was found, with figures; or why it could not be tried."""


def attempt(name: str, work: Callable[[], tuple[bool, str]]) -> Check:
    """Check something. An error is a failed check, and the next one goes on."""
    try:
        ok, text = work()
    except Exception as error:  # noqa: BLE001  whatever a broken machine does
        ok, text = False, f"{type(error).__name__}: {_first_sentence(error)}"
    return Check(name=name, ok=ok, text=text)


def _first_sentence(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no more was said")[:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Where files are put."""

    use: str
    folder: str
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is, but for what only a device's own process says."""

    python: str
    nst: str
    torch: str
    ray: str
    computes_on: str
    """What this build of torch is for: `CUDA 13.0`, `ROCm 6.4`, or `CPUs`."""
    nvidia: bool
    """Whether the machine has a device of NVIDIA's, or its driver, whatever torch says."""
    driver: str | None
    """Version of NVIDIA's driver."""
    visible: str | None
    """CUDA_VISIBLE_DEVICES, if it is set."""
    gpus: int
    """GPUs that torch can use."""
    gpu_trouble: str | None
    """Why torch can use none, in its own words."""
    cpus: int
    """CPUs that this process may use."""
    machine_cpus: int
    cpu_limit: float | None
    """CPUs that the container may use at a time, if it is limited."""
    memory_bytes: int
    """The machine's memory, or the container's."""
    used_share: float
    """How much of it is in use, from 0 to 1."""
    load: float
    """Processes that computed, or waited for it, in the last minute."""
    disks: tuple[Disk, ...]
    weights_folder: str
    weights: tuple[str, ...]
    """Published weights that are there."""
    formats: Mapping[str, bool]
    """Formats of photographs that not every install reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU, as its own process sees it."""

    name: str
    capability: str
    memory_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How long a photograph takes in one quality."""

    quality: Quality
    width: int
    height: int
    seconds: float
    """Seconds of one worker, without reading and saving."""
    file_seconds: float
    """Seconds of a CPU core to decode and encode a JPEG of that size."""
    memory_bytes: int | None = None
    """Memory that a worker takes meanwhile; on a GPU, that of the GPU; None: it cannot be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What was found of a GPU, or of the CPU."""

    name: str
    """What torch calls it: `cpu`, `cuda:0`."""
    gpu: Gpu | None
    bfloat16: bool
    """Whether it is faster in bfloat16."""
    checks: tuple[Check, ...]
    speeds: tuple[Speed, ...]
    bytes_per_pixel: float
    """Memory of `best` for each pixel of a photograph that is painted at its own size."""

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Device:
        """The inverse of `dataclasses.asdict`."""
        gpu = None if said["gpu"] is None else Gpu(**said["gpu"])
        checks = tuple(Check(**each) for each in said["checks"])
        speeds = tuple(Speed(**each) for each in said["speeds"])
        return cls(**{**said, "gpu": gpu, "checks": checks, "speeds": speeds})
