"""How near the embedded network, and the one that it took the place of, come to VGG16. All that is painted and
looked at was kept from the training (`nst.features.embedded.data.is_held_out`).

1. Style: photographs are painted through VGG16, the embedded network and the former one, each with its preset
   and the same number of evaluations, at full size only. VGG16, with maximum pooling as it was trained, then
   tells how far content (`relu4_2`) and style (Gram matrices of `relu1_1` ... `relu4_1`, alike) are from what
   they were to be; losses are relative. As one network keeps more content than the other, VGG16 also paints
   with other style weights, each twice the last, until two of its pictures have a content loss below and above
   the other network's. Between them its style loss there is read, on a line in logarithms.
   `style_ratio_...` is a network's style loss over that, median over pairs. Where 64 times the weight, or a
   64th, is not enough, the last picture counts, which is said.
2. Half-way: of pictures that VGG16 has painted on for 4, 8 or 16 evaluations, the distance of Gram matrices to
   those of the style, relative to these: |G(x) - G(y)| / |G(y)|. Those of the embedded network, C x C, are
   not as large as VGG16's, but what is read out of it has VGG16's inner products, so that the distances are
   to be the same. `gram_error_by_layer`: relative error of that distance, median over pictures.
   `gradient_cosine_...`: between a network's gradient of the style loss by the pixels and VGG16's, median;
   Gram losses of the same layers, alike, of the former network those of its preset.
3. Cost: CPU time of one evaluation of loss and gradient with its preset at 256 px, over VGG16's.

The former network: `git show 760291d:nst/features/embedded/embedded.safetensors`.

    python -m benchmarks.feature_quality --teacher VGG16.safetensors --photos FOLDER --pictures FOLDER
        [--embedded FILE] [--former FILE] [--pairs 8] [--side 192] [--steps 50] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import nst
from benchmarks import lacks
from nst.features import FeatureNetwork, build_features, read_state_dict
from nst.features.embedded.data import is_held_out
from nst.features.embedded.distillation import RELUS
from nst.features.layers import VGG_BLOCKS, VGG_CHANNELS, layer_names
from nst.features.weights import published_bytes
from nst.images.codec import decode_image, resize_image
from nst.losses import content_factor, gram_matrix, squared_distance, style_factor
from nst.style_transfer.presets import PRESETS

CONTENT_LAYER = "relu4_2"
STYLE_LAYERS = dict.fromkeys(("relu1_1", "relu2_1", "relu3_1", "relu4_1"), 0.25)
STYLE_FACTORS = tuple(2.0**power for power in range(-6, 7))
"""What VGG16's style weight is multiplied by."""
HALF_WAY = 4, 8, 16
"""Evaluations, by turns, that a picture half-way was painted with."""

_FORMER_BLOCKS, _FORMER_CHANNELS = (2, 2, 2, 2), (64, 64, 128, 256)
_FORMER_PRESET: Mapping[str, Any] = {
    "content_layers": {"relu1_1": 1.0},
    "style_layers": {"relu1_1": 1.0, "relu1_2": 0.2, "relu2_2": 0.05, "relu3_2": 0.02, "relu4_2": 0.01},
    "content_weight": 1.0,
    "style_weight": 300.0,
    "style_loss": "gram",
    "gram_normalization": "hw",
    "loss_scale": "relative",
    "border_px": 16,
    "pooling": "average",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is measured, and on what."""

    teacher: Path
    """VGG16's weights."""
    embedded: Path | None
    """The embedded network's weights; None: those that are shipped."""
    former: Path | None
    """The former one's."""
    photos: Sequence[Path]
    pictures: Sequence[Path]

    def pair(self, index: int, side: int) -> tuple[str, Tensor, Tensor]:
        """A photograph and a style, their long sides `side`; the photographs in turn, each time around with the
        next pictures."""
        photo = self.photos[index % len(self.photos)]
        style = self.pictures[sum(divmod(index, len(self.photos))) % len(self.pictures)]
        return f"{photo.stem[-18:]}, {style.stem[-15:]}", _decoded(photo, side), _decoded(style, side)


def held_out(folder: Path) -> list[Path]:
    """Files that were kept from trainings, in an order that looks random."""
    found = [each for each in folder.iterdir() if is_held_out(each.name)]
    return sorted(found, key=lambda each: hashlib.sha256(each.name.encode()).digest())


def _decoded(file: Path, side: int) -> Tensor:
    image = decode_image(file.read_bytes())
    height, width = image.shape[-2:]
    scale = side / max(height, width)
    return resize_image(image, (round(height * scale), round(width * scale))).clamp(0, 1)


def file_bytes(file: Path | None) -> bytes:
    return published_bytes("nst:embedded") if file is None else file.read_bytes()


@cache
def state_of(file: Path | None) -> dict[str, Tensor]:
    return read_state_dict(file_bytes(file))


@contextmanager
def former_shape() -> Iterator[None]:
    """The embedded network is built in the shape of the former one."""
    try:
        with (
            patch.dict(VGG_BLOCKS, embedded=_FORMER_BLOCKS),
            patch.dict(VGG_CHANNELS, embedded=_FORMER_CHANNELS),
        ):
            layer_names.cache_clear()
            yield
    finally:
        layer_names.cache_clear()


def former_state(file: Path) -> dict[str, Tensor]:
    """With readouts, which it had not, that change nothing."""
    eyes = {
        f"readouts.relu{block}_{number}": torch.eye(width)
        for block, width in enumerate(_FORMER_CHANNELS, start=1)
        for number in (1, 2)
    }
    return state_of(file) | eyes


# 1. Style


@dataclass(frozen=True, slots=True)
class Point:
    content: float
    style: float


class Judge:
    """VGG16's losses of pictures (3, H, W)."""

    @torch.no_grad()
    def __init__(self, teacher: Mapping[str, Tensor], photo: Tensor, style: Tensor) -> None:
        self._network = build_features("vgg16", (*STYLE_LAYERS, CONTENT_LAYER), state=teacher)
        self._content = self._network(photo[None])[CONTENT_LAYER]
        self._style = _grams(self._network, style, STYLE_LAYERS)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Point:
        found = self._network(image[None])
        distance = squared_distance(found[CONTENT_LAYER], self._content)
        content = content_factor(self._content, scale="relative") * distance
        return Point(float(content), float(_style_loss(found, self._style, STYLE_LAYERS)))


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a network comes, and VGG16 at the same content loss."""

    point: Point
    vgg16: float
    beyond: bool
    """Whether VGG16 comes to no such content loss."""

    @property
    def ratio(self) -> float:
        return self.point.style / self.vgg16


def painted(photo: Tensor, style: Tensor, steps: int, state: Mapping[str, Tensor], **options: Any) -> Tensor:
    *_, last = nst.stylize(
        photo, style, state=state, coarse_scales=(), steps=steps, precision="float32", **options
    )
    return last.image


def at_content(run: Callable[[float], Point], weights: Sequence[float], content: float) -> tuple[float, bool]:
    """Style loss at a content loss, on the line in logarithms between its neighbors on the curve over style
    weights, which rise, and whether it lies beyond its ends: then that of the end. The more style weighs, the
    more content is lost: weights are run from the middle on, only until the two neighbors are found."""
    place = len(weights) // 2
    curve = [run(weights[place])]
    way = 1 if curve[0].content < content else -1
    while curve[-1].content * way < content * way and 0 <= place + way < len(weights):
        place += way
        curve.append(run(weights[place]))
    contents, styles = zip(
        *sorted((math.log(each.content), math.log(each.style)) for each in curve), strict=True
    )
    wanted = math.log(content)
    return math.exp(np.interp(wanted, contents, styles)), not contents[0] <= wanted <= contents[-1]


def compared(job: tuple[Setup, int, int, int]) -> tuple[str, Point, dict[str, Reached]]:
    """A pair's name, VGG16's losses of the photograph, and where the networks come."""
    setup, index, side, steps = job
    name, photo, style = setup.pair(index, side)
    teacher = state_of(setup.teacher)
    judge = Judge(teacher, photo, style)
    points = {"embedded": judge(painted(photo, style, steps, state_of(setup.embedded), network="embedded"))}
    if setup.former is not None:
        with former_shape():
            state = former_state(setup.former)
            picture = painted(photo, style, steps, state, network="embedded", **_FORMER_PRESET)
        points["former"] = judge(picture)

    @cache
    def run(factor: float) -> Point:
        weight = factor * PRESETS["pretrained"]["style_weight"]
        return judge(painted(photo, style, steps, teacher, network="vgg16", style_weight=weight))

    reached = {
        name: Reached(point, *at_content(run, STYLE_FACTORS, point.content)) for name, point in points.items()
    }
    return name, judge(photo), reached


def style_ratios(setup: Setup, pool: Executor, pairs: int, side: int, steps: int) -> dict[str, Any]:
    names = ["embedded"] if setup.former is None else ["embedded", "former"]
    ratios: dict[str, list[float]] = {name: [] for name in names}
    beyond = dict.fromkeys(names, 0)
    print(f"VGG16's losses, {side} px, {steps} evaluations; *: VGG16's picture at the end of its curve")
    columns = "".join(f"   {name:>8}: content  style  VGG16  ratio" for name in names)
    print(f"{'pair':36} {'photo':>7}{columns}", flush=True)
    for name, before, reached in pool.map(compared, [(setup, index, side, steps) for index in range(pairs)]):
        line = f"{name:36} {before.style:7.4f}"
        for who, each in reached.items():
            ratios[who].append(each.ratio)
            beyond[who] += each.beyond
            line += f"{each.point.content:20.3f} {each.point.style:6.4f} {each.vgg16:6.4f} {each.ratio:6.3f}"
            line += "*" if each.beyond else " "
        print(line, flush=True)
    medians = {who: round(statistics.median(each), 4) for who, each in ratios.items()}
    print("median ratio: " + ", ".join(f"{who} {ratio:.3f}" for who, ratio in medians.items()))
    return {
        "style_ratio_embedded": medians["embedded"],
        "style_ratio_former": medians.get("former"),
        "beyond_curve": beyond,
        "pairs": pairs,
    }


# 2. Half-way


def _grams(
    network: FeatureNetwork, image: Tensor, layers: Sequence[str] | Mapping[str, float]
) -> dict[str, Tensor]:
    found = network(image[None])
    return {layer: gram_matrix(found[layer]) for layer in layers}


def _style_loss(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layers: Mapping[str, float]
) -> Tensor:
    """Of activations by layer, relative: (1,)."""
    losses = []
    for layer, weight in layers.items():
        distance = squared_distance(gram_matrix(found[layer]), wanted[layer])
        losses.append(weight * style_factor(wanted[layer], scale="relative") * distance)
    return torch.stack(losses).sum(0)


def gradient(network: FeatureNetwork, layers: Mapping[str, float], image: Tensor, style: Tensor) -> Tensor:
    """Of the style loss by the pixels of (3, H, W), flat."""
    with torch.no_grad():
        wanted = _grams(network, style, layers)
    pixels = image[None].clone().requires_grad_()
    (found,) = torch.autograd.grad(_style_loss(network(pixels), wanted, layers).sum(), pixels)
    return found.flatten()


@torch.no_grad()
def gram_distances(network: FeatureNetwork, image: Tensor, style: Tensor) -> dict[str, float]:
    """Of Gram matrices to the style's, relative to these, by layer."""
    mine, wanted = (_grams(network, each, network.layers) for each in (image, style))
    return {layer: float((mine[layer] - wanted[layer]).norm() / wanted[layer].norm()) for layer in wanted}


def looked_at(job: tuple[Setup, int, int]) -> tuple[dict[str, float], dict[str, float]]:
    """Of a picture half-way the errors of the embedded network's Gram distances by layer, and the networks'
    cosines of gradients."""
    setup, index, side = job
    _, photo, style = setup.pair(index, side)
    vgg16 = state_of(setup.teacher)
    image = painted(photo, style, HALF_WAY[index % len(HALF_WAY)], vgg16, network="vgg16")
    teacher = build_features("vgg16", RELUS, state=vgg16)
    embedded = build_features("embedded", RELUS, state=state_of(setup.embedded))
    theirs, ours = (gram_distances(network, image, style) for network in (teacher, embedded))
    errors = {layer: abs(ours[layer] / theirs[layer] - 1) for layer in RELUS}
    gradients = {"embedded": gradient(embedded, STYLE_LAYERS, image, style)}
    if setup.former is not None:
        layers = _FORMER_PRESET["style_layers"]
        with former_shape():
            former = build_features("embedded", layers, state=former_state(setup.former))
        gradients["former"] = gradient(former, layers, image, style)
    wanted = gradient(teacher, STYLE_LAYERS, image, style)
    return errors, {who: float(F.cosine_similarity(each, wanted, dim=0)) for who, each in gradients.items()}


def half_way(setup: Setup, pool: Executor, pictures: int, side: int) -> dict[str, Any]:
    found = list(pool.map(looked_at, [(setup, index, side) for index in range(pictures)]))
    errors, cosines = (_medians(each) for each in zip(*found, strict=True))
    print(f"\n{pictures} pictures half-way, {side} px")
    print("error of the distance of Gram matrices: " + ", ".join(f"{k[4:]} {v:.3f}" for k, v in errors.items()))
    print("cosine of gradients: " + ", ".join(f"{who} {cosine:.3f}" for who, cosine in cosines.items()))
    return {
        "gram_error_by_layer": errors,
        "gradient_cosine_embedded": cosines["embedded"],
        "gradient_cosine_former": cosines.get("former"),
        "pictures": pictures,
    }


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}


# 3. Cost


def cost_ratio(setup: Setup, rounds: int) -> float:
    """CPU time of one evaluation with the embedded network's preset over that with VGG16's, in turn."""
    photo, style = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    states = {"embedded": state_of(setup.embedded), "vgg16": state_of(setup.teacher)}
    times: dict[str, list[float]] = {name: [] for name in states}
    prepared = {}
    for name, state in states.items():
        method = nst.StyleTransfer(style="s", network=name)
        objective = method.build_from([style], state, torch.device("cpu")).objective
        prepared[name] = objective, objective.targets(photo)
    for _ in range(rounds + 1):
        for name, (objective, targets) in prepared.items():
            began = time.process_time()
            objective.evaluate([photo], [targets])
            times[name].append(time.process_time() - began)
    ours, theirs = (statistics.median(times[name][1:]) for name in states)
    ratio = ours / theirs
    print(f"\none evaluation at 256 px: embedded {ours:.3f} s of CPU, VGG16 {theirs:.3f} s, ratio {ratio:.3f}")
    return round(ratio, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, help="VGG16's weights")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--pictures", type=Path, help="styles")
    parser.add_argument("--embedded", type=Path, help="the embedded network's weights; left out: those shipped")
    parser.add_argument("--former", type=Path, help="the former one's; left out: it is not measured")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--side", type=int, default=192, help="long side of what is painted, in pixels")
    parser.add_argument("--steps", type=int, default=50, help="evaluations")
    parser.add_argument("--threads", type=int, default=1, help="of each process; there are as many as cores")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller pictures, fewer evaluations")
    arguments = parser.parse_args()
    if lacks(arguments, "teacher", "photos", "pictures"):
        return
    photos, pictures = held_out(arguments.photos), held_out(arguments.pictures)
    if not photos or not pictures:
        parser.error("no file of --photos or of --pictures was kept from trainings")
    if arguments.former is None:
        print("the former network is not measured: there is no --former")
    setup = Setup(
        teacher=arguments.teacher,
        embedded=arguments.embedded,
        former=arguments.former,
        photos=photos,
        pictures=pictures,
    )
    quick = arguments.quick
    pairs, side, steps = (2, 96, 8) if quick else (arguments.pairs, arguments.side, arguments.steps)
    torch.set_num_threads(arguments.threads)
    data = file_bytes(arguments.embedded)
    found: dict[str, Any] = {"embedded_sha256": hashlib.sha256(data).hexdigest(), "embedded_bytes": len(data)}
    # Several processes: two threads of one wait for each other at this size.
    spawn = multiprocessing.get_context("spawn")
    workers = max(1, (os.cpu_count() or 1) // arguments.threads)
    with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (arguments.threads,)) as pool:
        found = style_ratios(setup, pool, pairs, side, steps) | found
        found |= half_way(setup, pool, *((6, 64) if quick else (50, 128)))
    found["cost_ratio_to_vgg16"] = cost_ratio(setup, 4 if quick else 12)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
