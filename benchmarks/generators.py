"""Generators in bfloat16 against float32: CPU time, and how far their pictures are apart.

Of the methods `cyclegan` (`resnet_9blocks`, 64 channels) and `modulated` (as many as is usual), with random
parameters, whole and in bands (`pass_memory_mb`); one thread, in turn. A photograph goes in as levels of 8 bits
and comes out as such.

    python -m benchmarks.generators [--size 384 512] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from nst.cyclegan.method import CycleGANStylizer, GeneratorConfig
from nst.gan.precision import Precision
from nst.images.codec import levels_of, picture_tensor
from nst.modulated.method import ModulatedConfig, ModulatedStylizer
from nst.ops.equalized import draw_parameters
from nst.stylizer import Stylized
from nst.synthetic import brush_strokes

Make = Callable[[Precision, int | None], Any]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
_BANDS_MB = 100


def cyclegan(precision: Precision, memory_mb: int | None) -> CycleGANStylizer:
    config = GeneratorConfig()
    torch.manual_seed(0)
    return CycleGANStylizer(config.build(), config, memory_mb, precision=precision)


def modulated(precision: Precision, memory_mb: int | None) -> ModulatedStylizer:
    network = ModulatedConfig(styles=("photo", "other")).build()
    draw_parameters(network, torch.Generator().manual_seed(0))
    return ModulatedStylizer(network, {"other": 1.0}, alone=True, pass_memory_mb=memory_mb, precision=precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[384, 512], help="height and width, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="after one to warm up")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    height, width = arguments.size
    photo = levels_of(picture_tensor(brush_strokes((height, width), seed=0)))
    megapixels = height * width / 1e6
    cases: dict[str, tuple[Make, int | None]] = {
        "cyclegan": (cyclegan, None),
        "modulated": (modulated, None),
        "cyclegan, in bands": (cyclegan, _BANDS_MB),
        "modulated, in bands": (modulated, _BANDS_MB),
    }
    print(f"{'CPU-s per MP':20} {'float32':>8} {'bfloat16':>9} {'ratio':>6}  gray levels apart: mean, most")
    result: dict[str, dict[str, float]] = {}
    for name, (make, memory_mb) in cases.items():
        stylizers = {precision: make(precision, memory_mb) for precision in PRECISIONS}
        seconds: dict[Precision, list[float]] = {precision: [] for precision in PRECISIONS}
        pictures = {}
        for number in range(arguments.rounds + 1):
            for precision in PRECISIONS if number % 2 else reversed(PRECISIONS):
                began = time.process_time()
                (outcome,) = stylizers[precision]([photo], [torch.Generator()])
                assert isinstance(outcome, Stylized)
                seconds[precision] += [(time.process_time() - began) / megapixels] if number else []
                pictures[precision] = outcome.image.float()
        plain, half = (statistics.median(seconds[precision]) for precision in PRECISIONS)
        pairs = zip(seconds["bfloat16"], seconds["float32"], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        apart = (pictures["bfloat16"] - pictures["float32"]).abs()
        mean, most = float(apart.mean()), float(apart.max())
        print(f"{name:20} {plain:8.2f} {half:9.2f} {ratio:6.2f} {mean:25.2f} {most:5.0f}", flush=True)
        result[name] = {"float32": round(plain, 2), "bfloat16": round(half, 2), "ratio": round(ratio, 2)}
        result[name] |= {"gray_levels_apart": round(mean, 2)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
