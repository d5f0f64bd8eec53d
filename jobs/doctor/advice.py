"""What to set on a machine, and what to expect of it: decided from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.doctor.facts import Check, Device, Machine, Quality, Speed
from jobs.pools.capacity import Capacity, fit
from jobs.pools.gpus import are_hidden, gpu_names
from jobs.spec import Resources

__all__ = ["Advice", "advise", "check_gpus", "per_hour"]

_MOST_CPUS = 8
"""CPUs of a GPU's worker: more do not read and save faster than it paints."""
_MOST_AT_ONCE = 8
"""Photographs that may share a GPU's passes."""
_USUAL_PIXELS = 512 * 512
_CONTEXT_BYTES = 1_000_000_000
"""GPU memory of a process that computes nothing yet."""
_SHARE = 0.9
"""Share of what is free that is planned with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to set."""

    resources: Mapping[str, int | float]
    """Options of the table `[resources]`."""
    notes: tuple[str, ...] = ()


def check_gpus(machine: Machine) -> Check | None:
    """Whether torch can use the GPUs that there are; None: none were found, or none are to be used."""
    if machine.gpus or not machine.nvidia or are_hidden(machine.visible):
        return None
    driver = f"driver {machine.driver}" if machine.driver else "a device of NVIDIA's"
    if machine.computes_on == "CPUs":
        text = (
            f"{driver} is here, and torch {machine.torch} is a build for CPUs only: install one for CUDA, "
            f"as PyPI has it"
        )
    else:
        text = f"{driver} is here, and torch {machine.torch}, a build for {machine.computes_on}, cannot use it"
    return Check(name="GPUs", ok=False, text=f"{text}; it says: {machine.gpu_trouble}")


def advise(machine: Machine, devices: Sequence[Device]) -> Advice:
    """What to set, so that workers have room beside each other."""
    gpus = _sound_gpus(devices)
    capacity = Capacity(
        place="this machine", cpus=machine.cpus, gpus=len(gpus), memory_bytes=machine.memory_bytes
    )
    found = _for_gpus(machine, gpus, capacity) if gpus else _for_cpus(machine, devices, capacity)
    notes = [*found.notes]
    if machine.load > machine.cpus / 2:
        notes.append(
            f"the machine was busy (load {machine.load:.1f}): what was measured is slower than it need be"
        )
    if gpus and len(gpus) < len(devices):
        ids = gpu_names(machine.gpus, machine.visible)
        sound = ",".join(ids[int(device.name.removeprefix("cuda:"))] for device in gpus)
        notes.append(f"some GPUs failed their checks; CUDA_VISIBLE_DEVICES={sound} leaves them out")
    return replace(found, notes=tuple(notes))


def _sound_gpus(devices: Sequence[Device]) -> list[Device]:
    return [device for device in devices if device.gpu is not None and all(each.ok for each in device.checks)]


def _speeds_of_cpu(devices: Sequence[Device]) -> list[Speed]:
    return [speed for device in devices if device.gpu is None for speed in device.speeds]


def _for_gpus(machine: Machine, gpus: Sequence[Device], capacity: Capacity) -> Advice:
    cpus = max(1, min(_MOST_CPUS, machine.cpus // len(gpus)))
    workers = fit(Resources(num_gpus=1, num_cpus=cpus), capacity).resources.max_workers
    assert workers is not None
    free = min(device.gpu.free_bytes for device in gpus if device.gpu is not None)
    room = max(0.0, _SHARE * free - _CONTEXT_BYTES)
    each = max(device.bytes_per_pixel for device in gpus)
    at_once = max(1, min(_MOST_AT_ONCE, int(room / (each * _USUAL_PIXELS))))
    resources = {"max_workers": workers, "num_gpus": 1, "num_cpus": cpus, "batch_size": at_once}
    notes = []
    if workers < len(gpus):
        notes.append(
            f"{len(gpus) - workers} of {len(gpus)} GPUs stay idle: each needs a CPU core and a GiB of memory, "
            f"and there are {machine.cpus} cores"
        )
    elif any(speed.seconds < speed.file_seconds / cpus for device in gpus for speed in device.speeds):
        cores = "core" if cpus == 1 else "cores"
        notes.append(f"{cpus} CPU {cores} for each GPU: some qualities paint faster than these read and save")
    if at_once > 1:
        notes.append(
            "photographs of a batch share passes where the method has deterministic = false: small ones are "
            "painted sooner, and their last bits differ"
        )
    return Advice(resources=resources, notes=tuple(notes))


def _for_cpus(machine: Machine, devices: Sequence[Device], capacity: Capacity) -> Advice:
    speeds = _speeds_of_cpu(devices)
    needs = max((speed.memory_bytes or 0 for speed in speeds), default=0)
    workers = fit(Resources(num_gpus=0), capacity).resources.max_workers
    assert workers is not None
    notes = []
    if needs and workers * needs > _SHARE * machine.memory_bytes:
        workers = max(1, int(_SHARE * machine.memory_bytes / needs))
        notes.append(f"memory is for {workers} workers: each takes {needs / 1e9:.1f} GB at 512 pixels")
    resources = {"max_workers": workers, "num_gpus": 0, "num_cpus": 1, "batch_size": 1}
    return Advice(resources=resources, notes=tuple(notes))


def per_hour(advice: Advice, devices: Sequence[Device]) -> dict[Quality, float]:
    """Photographs an hour that all workers paint, in each quality that was measured.

    A GPU paints while its worker's CPUs read and save others; a CPU does one after the other.
    """
    workers, cpus = int(advice.resources["max_workers"]), advice.resources["num_cpus"]
    found: dict[Quality, float] = {}
    if advice.resources["num_gpus"]:
        for device in _sound_gpus(devices)[:workers]:
            for speed in device.speeds:
                took = max(speed.seconds, speed.file_seconds / cpus)
                found[speed.quality] = found.get(speed.quality, 0.0) + 3600 / took
        return found
    speeds = _speeds_of_cpu(devices)
    return {each.quality: workers * 3600 / (each.seconds + each.file_seconds) for each in speeds}
