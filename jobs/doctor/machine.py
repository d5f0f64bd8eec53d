"""What this machine has."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
import warnings
from pathlib import Path

from jobs.doctor.facts import Disk, Machine
from jobs.pools.capacity import cpu_count, cpu_limit
from jobs.pools.gpus import gpu_ids, has_nvidia, visible_variable
from jobs.pools.memory import used_share
from nst.memory import total_bytes

__all__ = ["driver_version", "look_around"]

_DRIVER = Path("/proc/driver/nvidia/version")


def look_around() -> Machine:
    """What there is here. No GPU is touched, so that their own processes find them as they are."""
    import torch

    from nst.features.weights import PUBLISHED, published_file
    from nst.images.decode import optional_formats

    files = {name: published_file(name) for name in PUBLISHED}
    folder = next(iter(files.values())).parent
    said = _DRIVER.read_text() if _DRIVER.exists() else ""
    usable = torch.cuda.is_available()
    return Machine(
        python=platform.python_version(),
        nst=importlib.metadata.version("nst"),
        torch=torch.__version__,
        ray=importlib.metadata.version("ray"),
        computes_on=_computes_on(torch.version.cuda, torch.version.hip),
        nvidia=has_nvidia() or Path("/dev/dxg").exists(),
        driver=driver_version(said),
        visible=os.environ.get(visible_variable()),
        gpus=len(gpu_ids()) if usable else 0,
        gpu_trouble=None if usable else _gpu_trouble(),
        cpus=cpu_count(),
        machine_cpus=os.cpu_count() or 1,
        cpu_limit=cpu_limit(),
        memory_bytes=total_bytes(),
        used_share=used_share(),
        load=os.getloadavg()[0],
        disks=(_disk("weights", folder), _disk("temporary files", Path(tempfile.gettempdir()))),
        weights_folder=str(folder),
        weights=tuple(name for name, file in files.items() if file.exists()),
        formats=optional_formats(),
    )


def _computes_on(cuda: str | None, hip: str | None) -> str:
    return f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else "CPUs"


def driver_version(said: str) -> str | None:
    """The version in what the kernel says of NVIDIA's driver."""
    found = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)", said)
    return found[1] if found else None


def _gpu_trouble() -> str:
    """Why torch has no GPU, in its own words."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they say what is raised
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  AssertionError, RuntimeError, and what a driver raises
            return " ".join(str(error).split())[:300]
    return "torch says that there is none, and not why"


def _disk(use: str, folder: Path) -> Disk:
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return Disk(use=use, folder=str(folder), free_bytes=shutil.disk_usage(there).free)
