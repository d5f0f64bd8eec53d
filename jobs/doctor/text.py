"""What `nst doctor` says, in lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from jobs.doctor.advice import Advice
from jobs.doctor.facts import Check, Device, Machine, Quality
from jobs.pools.capacity import Capacity

__all__ = ["describe_advice", "describe_check", "describe_cluster", "describe_device", "describe_machine"]

_GB = 1e9


def describe_machine(machine: Machine) -> Iterator[str]:
    """What it has."""
    yield f"Python {machine.python}, nst {machine.nst}, Ray {machine.ray}"
    yield f"torch {machine.torch}, a build for {machine.computes_on}"
    limit = "" if machine.cpu_limit is None else f", limited to {machine.cpu_limit:g}"
    has = f"the machine has {machine.machine_cpus}{limit}; load {machine.load:.1f}"
    yield f"CPUs: {machine.cpus} to be used, {has}"
    free = (1 - machine.used_share) * machine.memory_bytes
    yield f"memory: {machine.memory_bytes / _GB:.1f} GB, {free / _GB:.1f} GB of them free"
    for disk in machine.disks:
        yield f"disk for {disk.use}: {disk.free_bytes / _GB:.1f} GB free, {disk.folder}"
    there = ", ".join(machine.weights) or "none; the embedded networks need none"
    yield f"published weights in {machine.weights_folder}: {there}"
    reads = [name for name, here in machine.formats.items() if here]
    lacks = [name for name, here in machine.formats.items() if not here]
    yield f"reads {', '.join(reads)}{'; not ' + ', '.join(lacks) if lacks else ''}"
    yield from _describe_gpus(machine)


def _describe_gpus(machine: Machine) -> Iterator[str]:
    visible = "" if machine.visible is None else f", CUDA_VISIBLE_DEVICES = {machine.visible!r}"
    driver = "" if machine.driver is None else f", driver {machine.driver}"
    if machine.gpus:
        yield f"GPUs: {machine.gpus}{driver}{visible}"
    else:
        yield f"GPUs: none{driver}{visible}"


def describe_cluster(cluster: Capacity) -> str:
    """What a Ray cluster has."""
    memory = cluster.memory_bytes / _GB
    return f"{cluster.place}: {cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs, {memory:.1f} GB of memory"


def describe_device(device: Device) -> Iterator[str]:
    """A GPU or the CPU, and how its checks went."""
    half = "bfloat16 in hardware" if device.bfloat16 else "no bfloat16 in hardware"
    if device.gpu is not None:
        gpu = device.gpu
        yield (
            f"{device.name}: {gpu.name}, compute capability {gpu.capability}, {gpu.memory_bytes / _GB:.1f} GB, "
            f"{gpu.free_bytes / _GB:.1f} GB of them free, {half}"
        )
    elif device.name == "cpu":
        yield f"cpu: one core, {half}"
    else:
        yield f"{device.name}:"
    yield from (f"  {describe_check(check)}" for check in device.checks)


def describe_check(check: Check) -> str:
    """How it went, in a line."""
    return f"{'ok    ' if check.ok else 'FAILED'} {check.name}: {check.text}"


def describe_advice(advice: Advice, rates: Mapping[Quality, float], devices: Sequence[Device]) -> Iterator[str]:
    """What to set, and what to expect."""
    yield "to set in a job file:"
    yield ""
    yield "[resources]"
    yield from (f"{name} = {value}" for name, value in advice.resources.items())
    yield ""
    yield from (f"note: {note}" for note in advice.notes)
    if not rates:
        return
    workers = f"{advice.resources['max_workers']} worker{'' if advice.resources['max_workers'] == 1 else 's'}"
    yield f"photographs an hour to expect of {workers}, measured here, a few seconds each:"
    sizes = {speed.quality: (speed.width, speed.height) for device in devices for speed in device.speeds}
    for quality, rate in rates.items():
        width, height = sizes[quality]
        yield f"  {quality:<6} {_rounded(rate):>9,}  of {width} x {height} pixels"


def _rounded(rate: float) -> int:
    """Two digits: no more are known."""
    digits = max(0, len(str(int(rate))) - 2)
    return int(round(rate / 10**digits) * 10**digits)
