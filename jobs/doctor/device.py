"""A device looked at in a process of its own: what it is, whether it computes right, how fast it is.

`python -m jobs.doctor.device cuda:0` prints that as JSON. What a broken device does to a process, it does to
that one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from jobs.doctor.facts import Check, Device, Gpu, Quality, Speed, attempt
from jobs.pools.gpus import gpu_ids, visible_variable

__all__ = ["examine", "examine_apart"]

_LONGEST_S = 600.0


def examine_apart(name: str) -> Device:
    """Look at a device in another process, as a worker that sees nothing else; its end is a failed check."""
    seen, asked = _alone(name)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jobs.doctor.device", asked],
            env={**os.environ, **seen, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        return _lost(name, f"no answer in {_LONGEST_S:.0f} seconds")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return _lost(name, f"its process ended with {ended}{': ' + said[-1] if said else ''}")
    return dataclasses.replace(Device.from_json(json.loads(done.stdout.splitlines()[-1])), name=name)


def _alone(name: str) -> tuple[dict[str, str], str]:
    """What the environment of a process says that sees this GPU alone, and what the GPU is called there."""
    number, ids = name.removeprefix("cuda:"), gpu_ids() if name != "cpu" else ()
    if not number.isdecimal() or int(number) >= len(ids):
        return {}, name
    return {visible_variable(): ids[int(number)]}, "cuda:0"


def _lost(name: str, reason: str) -> Device:
    check = Check(name="answers", ok=False, text=reason)
    return Device(name=name, gpu=None, bfloat16=False, checks=(check,), speeds=(), bytes_per_pixel=0.0)


def examine(name: str) -> Device:
    """Look at a device in this process."""
    import torch

    from jobs.doctor.self_check import self_check
    from jobs.doctor.speed import MEASURED, best_bytes_per_pixel
    from jobs.worker.process import begin_cuda
    from nst.ops.precision import has_bfloat16

    device = torch.device(name)
    if device.type == "cpu":
        torch.set_num_threads(1)  # as a worker has
    else:
        begin_cuda(deterministic=True)  # and what methods do unless they are told otherwise
        torch.cuda.set_device(device)
    gpu = None if device.type == "cpu" else _gpu(device)
    checks = list(self_check(device))
    speeds: list[Speed] = []

    def measured(quality: Quality) -> tuple[bool, str]:
        speeds.append(MEASURED[quality](device))
        return True, f"{speeds[-1].seconds:.3g} s"

    checks += [attempt(f"speed of {quality}", partial(measured, quality)) for quality in MEASURED]
    return Device(
        name=name,
        gpu=gpu,
        bfloat16=has_bfloat16(device),
        checks=tuple(checks),
        speeds=tuple(speeds),
        bytes_per_pixel=best_bytes_per_pixel(device, speeds),
    )


def _gpu(device: object) -> Gpu:
    import torch

    found = torch.cuda.get_device_properties(device)  # type: ignore[arg-type]
    free, total = torch.cuda.mem_get_info(device)  # type: ignore[arg-type]
    return Gpu(name=found.name, capability=f"{found.major}.{found.minor}", memory_bytes=total, free_bytes=free)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(examine(sys.argv[1]))))
