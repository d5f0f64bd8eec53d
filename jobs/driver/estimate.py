"""What a job will cost: evaluations, time and memory of each photograph, before anything is begun."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.console.display import duration
from jobs.driver.assets import by_url
from jobs.driver.styles import in_one_style
from jobs.stores.photo_files import photo_size
from nst.memory import pass_bytes

if TYPE_CHECKING:
    from jobs.driver.job import Plan
    from jobs.ledger.manifest import Row
    from jobs.spec import ImageSpec
    from jobs.stores.filesystems import StorageOptions
    from nst.stylizer import Assets, Method, Stylizer

__all__ = [
    "Cost",
    "describe_cost",
    "describe_evaluations",
    "describe_sizes",
    "measure_cost",
    "painted_sizes",
    "schedule_of",
]

Size = tuple[int, int]
"""Width and height in pixels."""

_PROBE_PIXELS = 192 * 192
"""Pixels of the picture that is measured, at least; cost is taken to grow with the pixels from there."""
_ENOUGH_S = 2.0
"""Seconds of a pass that is not tried with more pixels."""
_PICTURE_BYTES, _LEVELS_BYTES = 6 * 3 * 4, 4 * 3
"""Memory of a photograph and its picture, and of what they are made from and into, in bytes per pixel, in
float32 and as levels; it is there whatever a pass is bounded to."""


def schedule_of(method: Method) -> Sequence[tuple[float, int]]:
    """Sizes, and evaluations at each that a photograph gets at most; none: it does not go step by step."""
    from nst.stylizer import IterativeMethod  # which loads torch; making the method did, too

    return method.schedule if isinstance(method, IterativeMethod) else ()


def describe_evaluations(method: Method) -> list[str]:
    """A line on how many evaluations a photograph gets, or none."""
    numbers: Counter[float] = Counter()
    for scale, number in schedule_of(method):
        numbers[scale] += number
    if not numbers:
        return []
    parts = [
        f"{number} at its own size" if scale == 1 else f"{number} at {scale:.2g} of it"
        for scale, number in sorted(numbers.items(), reverse=True)
    ]
    return [f"each photograph gets {numbers.total()} evaluations: {', '.join(parts)}"]


def painted_sizes(rows: Sequence[Row], image: ImageSpec, storage: StorageOptions) -> list[tuple[Size, Size]]:
    """Sizes of photographs as their headers say, and as they will be painted; those that do not say are left
    out."""
    from nst.images.decode import scaled_size

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda row: photo_size(row.url, storage), rows))
    sizes = []
    for size in found:
        if size is not None:
            width, height = size
            small = (height, width)
            if image.max_side_px is not None:
                small = scaled_size(height, width, image.max_side_px)
            sizes.append((size, (small[1], small[0])))
    return sizes


def describe_sizes(sizes: Sequence[tuple[Size, Size]]) -> str:
    """The sizes of photographs, and of what is painted, in a line."""
    stored, painted = ([pair[at] for pair in sizes] for at in (0, 1))
    return f"sizes of {len(sizes)} of them: {_spread(stored)}; painted: {_spread(painted)}"


def _spread(sizes: Sequence[Size]) -> str:
    def text(size: Size) -> str:
        return f"{size[0]} x {size[1]}"

    counts = Counter(sizes)
    if len(counts) <= 3:
        return ", ".join(f"{text(size)} ({number})" for size, number in counts.most_common())
    by_area = sorted(counts, key=math.prod)
    return f"{text(by_area[0])} to {text(by_area[-1])}, mostly {text(counts.most_common(1)[0][0])}"


def describe_cost(planned: Plan) -> list[str]:
    """Lines on the photographs' sizes, and on what painting them takes here."""
    job = planned.job
    sizes = painted_sizes(planned.sample, job.spec.image, job.storage)
    if not sizes:
        return []
    lines = [describe_sizes(sizes)]
    if job.resources.num_gpus:
        return [*lines, "time and memory are not estimated for GPUs"]
    from nst.stylizer import AdaptableMethod

    threads = job.resources.threads
    cost = measure_cost(
        in_one_style(job.spec),
        by_url(planned.assets),
        [each for _, each in sizes],
        threads,
        levels=job.spec.image.bit_depth == 8,
    )
    text = (
        f"about {duration(cost.seconds)} of one worker for each, "
        f"{duration(cost.seconds * planned.manifest.rows)} for all, by a few steps on this machine "
        f"with {threads} thread{'s' if threads > 1 else ''}"
    )
    if cost.memory_bytes is not None:
        text += f"; about {cost.memory_bytes / 1e9:.1f} GB of memory for each worker"
    if isinstance(job.spec.method, AdaptableMethod) and job.spec.method.adapt_steps:
        text += "; what the network learns before takes minutes more"
    return [*lines, text]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a photograph takes, measured."""

    seconds: float
    """Seconds of one worker for the median photograph, without reading and saving it."""
    memory_bytes: int | None
    """Memory of a worker while it paints the largest one; None: it cannot be measured here."""


def measure_cost(
    method: Method,
    assets: Assets,
    sizes: Sequence[Size],
    threads: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    levels: bool = False,
) -> Cost:
    """Build `method` on the CPU, and measure the steps of one small picture, or all of one pass.

    Args:
        sizes: of the photographs as they are painted, not empty.
        threads: of a worker.
        levels: whether a method that takes levels gets them.

    Raises:
        WeightsError, DecodeError: as of `Method.build`.
    """
    import torch

    from nst.stylizer import IterativeMethod, IterativeStylizer, LevelsStylizer

    areas = [math.prod(size) for size in sizes]
    with _threads(threads):
        stylizer = method.build(assets, torch.device("cpu"))
        levels = levels and isinstance(stylizer, LevelsStylizer)
        idle = _memory("VmRSS")
        _forget_peak()
        if isinstance(method, IterativeMethod) and isinstance(stylizer, IterativeStylizer):
            width, height = max(sizes, key=math.prod)
            factor = math.sqrt(min(1.0, _PROBE_PIXELS / max(areas)))
            # So enlarged that the first scale is what is to be measured.
            first, generator = method.schedule[0][0], torch.Generator().manual_seed(0)
            probe = torch.rand(3, *_scaled(height, width, factor / first), generator=generator)
            steps = stylizer.iterate(probe, generator)
            next(steps, None)  # with all that is done but once
            began = clock()
            measured = sum(1 for _ in zip(range(2), steps, strict=False))
            each = (clock() - began) / max(1, measured)
            pixels = math.prod(_scaled(height, width, factor))
            seconds = each * sum(scale**2 * number for scale, number in method.schedule)
            kept = method.kept_bytes(max(areas), torch.device("cpu"))
        else:
            middle = sorted(sizes, key=math.prod)[len(sizes) // 2]
            (seconds, pixels), kept = _pass(stylizer, middle, levels, clock), 0
        peak = _memory("VmHWM")
        memory = None
        if idle is not None and peak is not None:
            whole = (peak - idle) / pixels * max(areas)
            memory = idle + round(_bounded(method, whole, max(areas), levels) + kept)
    return Cost(seconds * statistics.median(areas) / pixels, memory)


def _pass(stylizer: Stylizer, size: Size, levels: bool, clock: Callable[[], float]) -> tuple[float, int]:
    """Seconds of a pass, and its pixels: of a photograph of `size`, or of a smaller one if that takes long
    enough. What is painted at a bounded size, or is mostly overhead, takes no more for more pixels."""
    import torch

    from nst.images.codec import levels_of

    width, height = size
    generator = torch.Generator().manual_seed(0)

    def run(factor: float) -> tuple[float, int]:
        probe = torch.rand(3, *_scaled(height, width, factor), generator=generator)
        probe = levels_of(probe) if levels else probe
        began = clock()
        stylizer([probe], [generator])
        return clock() - began, math.prod(probe.shape[1:])

    factor = math.sqrt(min(1.0, _PROBE_PIXELS / math.prod(size)))
    run(factor)  # with all that is done but once
    while True:
        seconds, pixels = run(factor)
        if factor == 1.0 or seconds >= _ENOUGH_S:
            return seconds, pixels
        factor = min(1.0, 2 * factor)


def _bounded(method: Method, found: float, pixels: int, levels: bool) -> float:
    """Memory in bytes that a pass takes which would take `found`, if there is a bound: of larger photographs, a
    part at a time is passed."""
    import torch

    from nst.stylizer import BoundedMethod

    if not isinstance(method, BoundedMethod):
        return found
    bound = pass_bytes(torch.device("cpu"), method.pass_memory_mb)
    return min(found, bound + (_LEVELS_BYTES if levels else _PICTURE_BYTES) * pixels)


def _scaled(height: int, width: int, factor: float) -> tuple[int, int]:
    return max(1, round(height * factor)), max(1, round(width * factor))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _memory(name: str) -> int | None:
    """A figure of this process in bytes, as Linux tells it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _forget_peak() -> None:
    """Have VmHWM begin anew; see proc(5), clear_refs."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
