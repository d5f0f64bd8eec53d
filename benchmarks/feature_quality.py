"""Whether the embedded network is worth its bytes, against random networks, calibrated as `seeded` ones are.

1. Retrieval: textures of families that it never saw, in other colors, turned and scaled a little; the nearest
   neighbor by normalized Gram matrices must be the same texture. Against the best of 10 random networks of its
   own shape and of 10 of VGG19's.
2. Style: photographs it never saw, stylized with the same budget of evaluations. The distance of the result
   to the style picture is measured in features of other random networks (sliced Wasserstein), and compared at
   equal content distance: random networks run at several content weights, and the curve between is followed.
   With the preset for random networks and with the embedded network's own, so that nothing but the network
   differs: the harder comparison, since that preset suits random networks better than theirs.
   `style_distance_ratio` is over the best of all random networks with either preset. The smaller the
   pictures, the fewer positions the judges' deep layers have to compare.
3. Cost: CPU time of one evaluation of loss and gradient at 256 px, against VGG19's at its default layers.

    python -m benchmarks.feature_quality [--quick] [--side 192]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

import nst
from benchmarks.held_out import FAMILIES, colored, structure
from nst.features import FeatureNetwork, build_features, read_state_dict
from nst.features.weights import published_bytes
from nst.images.codec import picture_tensor, resize_image
from nst.losses import gram_matrix
from nst.synthetic import brush_strokes, hatching, voronoi_mosaic

# Where textures are looked at: the style layers of the presets.
LAYERS: Mapping[str, tuple[str, ...]] = {
    "embedded": ("relu1_1", "relu1_2", "relu2_2", "relu3_2", "relu4_2"),
    "vgg19": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
}


def embedded(layers: Sequence[str]) -> FeatureNetwork:
    state = read_state_dict(published_bytes("nst:embedded"))
    return build_features("embedded", layers, state=state, pooling="average")


def random_networks(count: int) -> Iterator[tuple[str, FeatureNetwork]]:
    for shape, layers in LAYERS.items():
        for seed in range(count):
            yield f"{shape} seed {seed}", build_features(shape, layers, seed=seed, pooling="average")


# 1. Retrieval


def textures(kinds: int, instances: int, *, recolored: bool) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 96, 96) in [0, 1] and which texture each is."""
    pictures, labels = [], []
    for place, family in enumerate(FAMILIES):
        for kind in range(kinds):
            texture = 1000 * place + kind
            for instance in range(instances):
                random = np.random.default_rng([3, texture, instance]) if recolored else None
                pictures.append(colored(structure(family, texture, instance, 96), random))
                labels.append(texture)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)


@torch.no_grad()
def top1(network: FeatureNetwork, pictures: Tensor, labels: Tensor) -> float:
    """Share of pictures whose nearest neighbor is of the same texture. Distance: the sum over layers of the
    squared distance between Gram matrices of unit norm."""
    grams: dict[str, list[Tensor]] = {layer: [] for layer in network.layers}
    for part in torch.split(pictures, 16):
        for layer, features in network(part).items():
            grams[layer].append(gram_matrix(features).flatten(1))
    similarity = torch.zeros(len(pictures), len(pictures))
    for parts in grams.values():
        unit = F.normalize(torch.cat(parts), dim=1)
        similarity += unit @ unit.T
    similarity.fill_diagonal_(-torch.inf)
    return float((labels[similarity.argmax(1)] == labels).float().mean())


def retrieval(networks: int, kinds: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for recolored in (True, False):
        pictures, labels = textures(kinds, 4, recolored=recolored)
        ours = top1(embedded(LAYERS["embedded"]), pictures, labels)
        theirs = {name: top1(network, pictures, labels) for name, network in random_networks(networks)}
        what = "other colors" if recolored else "same colors"
        print(f"\nretrieval, {what}: {len(pictures)} pictures of {len(set(labels.tolist()))} held-out textures")
        print(f"  {'embedded':20} {ours:.3f}")
        for shape in LAYERS:
            scores = [score for name, score in theirs.items() if name.startswith(shape)]
            print(f"  {f'random {shape}':20} best {max(scores):.3f}, median {statistics.median(scores):.3f}")
        suffix = "" if recolored else "_same_colors"
        found[f"retrieval_embedded{suffix}"] = round(ours, 4)
        found[f"retrieval_best_random{suffix}"] = round(max(theirs.values()), 4)
    return found


# 2. Style


class Judge:
    """Distances in the features of random networks that no contestant uses."""

    def __init__(self) -> None:
        self._networks = [
            build_features(shape, layers, seed=seed, pooling="average")
            for seed in (101, 102)
            for shape, layers in (("vgg16", LAYERS["vgg19"]), ("embedded", LAYERS["embedded"]))
        ]
        self._deep = [
            build_features(shape, [layer], seed=seed, pooling="average")
            for seed in (101, 102)
            for shape, layer in (("vgg16", "relu3_1"), ("embedded", "relu3_2"))
        ]

    @torch.no_grad()
    def style(self, image: Tensor, style: Tensor) -> float:
        """Sliced Wasserstein distance (Heitz et al. 2021) between the features' distributions, relative to the
        style's spread; mean over networks and layers."""
        return statistics.fmean(
            self._sliced(mine, other[layer])
            for network in self._networks
            for mine_all, other in [(network(image[None]), network(style[None]))]
            for layer, mine in mine_all.items()
        )

    @staticmethod
    def _sliced(first: Tensor, second: Tensor) -> float:
        channels = first.shape[1]
        random = torch.Generator().manual_seed(channels)
        axes = F.normalize(torch.randn(64, channels, generator=random), dim=1)
        quantiles = (torch.arange(512) + 0.5) / 512
        a, b = (
            torch.quantile((axes @ features[0].flatten(1))[:, :200_000], quantiles, dim=1)
            for features in (first, second)
        )
        return float((a - b).square().mean().sqrt() / b.std())

    @torch.no_grad()
    def content(self, image: Tensor, photo: Tensor) -> float:
        """How much of the photograph's structure is lost: 1 - correlation of centered features at deep
        layers, 0 for the photograph. In gray, of one mean and contrast and at half the size: colors and strokes
        are style."""
        lost = []
        for network in self._deep:
            (layer,) = network.layers
            a, b = (network(_structure(each))[layer][0] for each in (image, photo))
            a, b = (each - each.mean((1, 2), keepdim=True) for each in (a, b))
            lost.append(1 - float((a * b).sum() / (a.norm() * b.norm())))
        return statistics.fmean(lost)


def _structure(image: Tensor) -> Tensor:
    gray = F.avg_pool2d(image.mean(0)[None, None], 2)
    return (0.5 + 0.2 * (gray - gray.mean()) / gray.std()).expand(1, 3, -1, -1)


@dataclass(frozen=True, slots=True)
class Point:
    content: float
    style: float


def pairs(side: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Photographs that the network was not trained on, and pictures with a plain style."""
    styles = {
        "strokes": picture_tensor(brush_strokes((side, side), seed=77)),
        "mosaic": picture_tensor(voronoi_mosaic((side, side), seed=78)),
        "hatching": picture_tensor(hatching((side, side), seed=79)),
        "marble": picture_tensor(colored(structure("marble", 3, 0, side), np.random.default_rng(80))),
    }
    for name in ("chelsea", "coffee"):
        photo = picture_tensor(getattr(skimage.data, name)())
        height, width = photo.shape[-2:]
        scaled = resize_image(photo, (round(height * side / width), side)).clamp(0, 1)
        for style, picture in styles.items():
            yield f"{name}, {style}", scaled, picture


def stylized(photo: Tensor, style: Tensor, steps: int, **options: Any) -> Tensor:
    *_, last = nst.stylize(photo, style, coarse_steps=steps, steps=steps, **options)
    return last.image


def at_content(run: Callable[[float], Point], weights: Sequence[float], content: float) -> float:
    """Style distance at a content distance, on the line between its neighbors on the curve over weights,
    which rise; beyond its ends, that of the end. The more content weighs, the less of it is lost: weights are
    run from the middle on, only until the two neighbors are found."""
    place = len(weights) // 2
    curve = [run(weights[place])]
    way = 1 if curve[0].content > content else -1
    while curve[-1].content * way > content * way and 0 <= place + way < len(weights):
        place += way
        curve.append(run(weights[place]))
    ordered = sorted(curve, key=lambda point: point.content)
    return float(np.interp(content, [point.content for point in ordered], [point.style for point in ordered]))


# What random networks run with: their preset, and that of the embedded network, in layers of the same names.
_CONTENT_WEIGHTS = {"seeded": (0.5, 2.0, 8.0, 32.0), "embedded": (0.2, 1.0, 4.0)}
_STYLE_WEIGHTS = {"seeded": 100.0, "embedded": 300.0}


def style_distance(networks: int, side: int, steps: int) -> dict[str, float]:
    ratios: dict[str, list[float]] = {loss: [] for loss in _CONTENT_WEIGHTS}
    over_best: list[float] = []
    print(f"\nstyle distance at equal content distance, {side} px, {steps} evaluations per scale")
    print(f"{'pair':20} {'content':>8} {'embedded':>9}   best random: style distance, ratio, which", flush=True)
    jobs = [(index, networks, side, steps) for index in range(len(list(pairs(side))))]
    # A process each: two threads of one wait for each other at this size.
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for name, ours, best in pool.imap(_compared, jobs):
            line = f"{name:20} {ours.content:8.3f} {ours.style:9.4f}"
            for loss, (who, reached) in best.items():
                ratios[loss].append(ours.style / reached)
                line += f"   {loss}: {reached:.4f} {ratios[loss][-1]:.3f} {who}"
            over_best.append(max(each[-1] for each in ratios.values()))
            print(line, flush=True)
    medians = {f"style_distance_ratio_{loss}_preset": statistics.median(each) for loss, each in ratios.items()}
    return {
        "style_distance_ratio": round(statistics.median(over_best), 4),
        **{name: round(median, 4) for name, median in medians.items()},
        "pairs": len(over_best),
    }


def _compared(job: tuple[int, int, int, int]) -> tuple[str, Point, dict[str, tuple[str, float]]]:
    """A pair's name, where the embedded network comes, and by preset which random network comes nearest to the
    style there, and how near."""
    index, networks, side, steps = job
    judge = Judge()
    name, photo, style = list(pairs(side))[index]

    def point(options: Mapping[str, Any], **more: Any) -> Point:
        picture = stylized(photo, style, steps, **options, **more)
        return Point(judge.content(picture, photo), judge.style(picture, style))

    ours = point({"network": "embedded"})
    best: dict[str, tuple[str, float]] = {}
    for shape in LAYERS:
        for seed in range(networks):
            # Calibrated with the pooling they run with.
            network = build_features(shape, ["relu4_2"], seed=seed, pooling="average")
            random = {"network": shape, "state": network.body.state_dict(), "pooling": "average"}
            for loss, weights in _CONTENT_WEIGHTS.items():
                options = random | {"preset": loss, "style_weight": _STYLE_WEIGHTS[loss]}

                def run(weight: float, options: Mapping[str, Any] = options) -> Point:
                    return point(options, content_weight=weight)

                reached = at_content(run, weights, ours.content)
                if loss not in best or reached < best[loss][1]:
                    best[loss] = f"{shape} seed {seed}", reached
    return name, ours, best


# 3. Cost


def cost_ratio(rounds: int) -> float:
    """CPU time of one evaluation with the embedded network's preset over that with VGG19's, in turn."""
    photo, style = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {"embedded": [], "vgg19": []}
    prepared = {}
    for name in times:
        state = None if name == "vgg19" else read_state_dict(published_bytes("nst:embedded"))
        method = nst.StyleTransfer(style="s", network=name)  # VGG19's weights change nothing about its cost
        objective = method.build_from(style, state, torch.device("cpu")).objective
        prepared[name] = objective, objective.targets(photo)
    for _ in range(rounds):
        for name, (objective, targets) in prepared.items():
            began = time.process_time()
            objective.evaluate([photo], [targets])
            times[name].append(time.process_time() - began)
    ours, theirs = (statistics.median(times[name][1:]) for name in ("embedded", "vgg19"))
    print(f"\none evaluation at 256 px: embedded {ours:.3f} s of CPU, VGG19 {theirs:.3f} s")
    return round(ours / theirs, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer networks and smaller pictures")
    parser.add_argument("--side", type=int, default=192, help="of stylized photographs, in pixels")
    arguments = parser.parse_args()
    quick, side = arguments.quick, arguments.side
    torch.set_num_threads(2)
    found = retrieval(networks=2 if quick else 10, kinds=4 if quick else 10)
    found |= style_distance(networks=1 if quick else 2, side=96 if quick else side, steps=20 if quick else 40)
    found["cost_ratio_to_vgg19"] = cost_ratio(4 if quick else 12)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
