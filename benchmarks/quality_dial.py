"""What each quality gives: one pass, one pass of a network that has learned the style, and optimization.

For each picture, the network learns its style on `--photos`, as a job with `adapt_steps` does, and is looked at
after each of `--at` steps. Photographs that it did not see, `--held`, are painted by it and by the network that
comes along (`draft`), and optimized in VGG16, from the photograph and from the draft. Of each:

- the distance of the style and of the content, as in `benchmarks.fast_style`;
- the loss that optimization minimizes, and how many evaluations of it, from the photograph, reach that;
- CPU seconds, and those of the learning.

And of pictures that are optimized in the embedded network, which is what `best` does unless it is told to.

    python -m benchmarks.quality_dial --photos FOLDER --held FOLDER --pictures FILE...
        --teacher VGG16.safetensors --keep FOLDER [--at 100 200 400] [--side 384]

A picture takes an hour of a core. What was measured of it is kept in `--keep`, with a sheet of what was
painted, and not measured again: so several processes may each take some of the pictures, and a last one, with
all of them, prints.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import lacks
from nst.features import build_features, read_state_dict
from nst.features.weights import published_bytes
from nst.feed_forward.losses import balanced, content_distance
from nst.feed_forward.method import SHIPPED, FeedForward
from nst.images.codec import decode_image, decode_photo, encode_image, reduced
from nst.losses import gram_matrix
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.options import Start
from nst.stylizer import Stylized

CPU = torch.device("cpu")
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
CONTENT_LAYER = "relu3_1"
NOT_REACHED = 10_000
EYES = "nst:embedded"
STARTS: Mapping[str, Start] = {"best": "photo", "best, from draft": "feed_forward"}
Row = dict[str, Any]
"""What was found of one quality with one picture: `content` and `style`, means over photographs; `loss` and
`evaluations`, of each photograph; CPU seconds: `cpu_s` a photograph, `learning_cpu_s` before all."""


def painted(method: Any, assets: Mapping[str, bytes], photos: Sequence[Tensor]) -> tuple[list[Stylized], float]:
    """What a method makes of photographs, and CPU seconds of each."""
    stylizer = method.build(assets, CPU)
    began, found = time.process_time(), []
    for photo in photos:
        (outcome,) = stylizer([photo], [torch.Generator().manual_seed(0)])
        assert isinstance(outcome, Stylized), outcome
        found.append(outcome)
    return found, (time.process_time() - began) / len(photos)


class Judge:
    """Distances in VGG16, and the loss that optimization minimizes."""

    def __init__(self, teacher: bytes, place: str, style: str, data: bytes, photos: Sequence[Tensor]) -> None:
        state = read_state_dict(teacher)
        picture = decode_image(data)
        # Every quality sees it so, as the network of one pass does: other sizes have other Gram matrices.
        self.style_side_px = min(512, max(picture.shape[1:]))
        self._network = build_features("vgg16", STYLE_LAYERS, state=state, unit_activations=True)
        self._assets = {style: data, place: teacher}
        self._method = StyleTransfer(
            style=style,
            style_side_px=self.style_side_px,
            network="vgg16",
            weights=place,
            steps=1,
            coarse_scales=(),
            border_px=0,
        )
        self._photos = photos
        with torch.no_grad():
            self._contents = [self._network(photo[None])[CONTENT_LAYER] for photo in photos]
            seen = self._network(reduced(picture, self.style_side_px)[None])
        self._style = {layer: gram_matrix(seen[layer]) for layer in STYLE_LAYERS}

    @torch.no_grad()
    def distances(self, pictures: Sequence[Tensor]) -> tuple[float, float]:
        """Content's and style's, means over photographs."""
        content, style = [], []
        for picture, wanted in zip(pictures, self._contents, strict=True):
            found = self._network(picture[None])
            content.append(float(content_distance(found[CONTENT_LAYER], wanted)))
            apart = [balanced(gram_matrix(found[layer]), self._style[layer]) for layer in STYLE_LAYERS]
            style.append(float(torch.cat(apart).mean()))
        return statistics.mean(content), statistics.mean(style)

    def losses(self, pictures: Sequence[Tensor]) -> list[float]:
        stylizer = self._method.build(self._assets, CPU)
        found = []
        for picture, photo in zip(pictures, self._photos, strict=True):
            objective = stylizer.objective
            (answer,) = objective.evaluate([picture.contiguous()], [objective.targets(photo, 0)], None)
            found.append(answer.losses["loss"])
        return found


def best_so_far(curve: Mapping[str, Sequence[float]]) -> list[float]:
    """The least loss at full size after each evaluation, those at smaller sizes counted by their pixels."""
    least, found = float("inf"), []
    for scale, loss in zip(curve["scale"], curve["loss"], strict=True):
        least = min(least, loss) if scale == 1.0 else least
        found.append(least)
    return found


def cost(curve: Mapping[str, Sequence[float]]) -> list[float]:
    """Evaluations at full size that as many pixels take, after each evaluation."""
    return [float(each) for each in np.cumsum(np.square(curve["scale"]))]


def reaches(curve: Mapping[str, Sequence[float]], loss: float) -> float:
    """How many evaluations at full size it took to reach a loss."""
    for least, evaluations in zip(best_so_far(curve), cost(curve), strict=True):
        if least <= loss:
            return evaluations
    return NOT_REACHED


def learned(
    method: FeedForward, assets: Mapping[str, bytes], photos: Sequence[Path], at: Sequence[int]
) -> list[tuple[int, bytes, float]]:
    """The network after so many steps, and CPU seconds until then."""
    training = method.adaptation(assets, CPU, 0)
    seen = [training.prepared(decode_photo(photo.read_bytes()).levels) for photo in photos]
    began, spent, found = time.process_time(), 0.0, []
    for step in range(max(at)):
        training.step([seen[np.random.default_rng([0, step]).integers(len(seen))]])
        if step + 1 in at:
            spent = time.process_time() - began
            found.append((step + 1, training.file_bytes(), spent))
    return found


def measured(picture: Path, held: Sequence[Tensor], chosen: Sequence[Path], arguments: Any) -> dict[str, Row]:
    """What each quality gives with one picture, by its name; and the sheet is kept."""
    teacher, place = arguments.teacher.read_bytes(), "/teacher"
    style, data = "/style", picture.read_bytes()
    judge = Judge(teacher, place, style, data, held)
    assets = {style: data, place: teacher, **{url: published_bytes(url) for url in (SHIPPED, EYES)}}
    rows: dict[str, Row] = {}

    def best(network: str, init: Start = "photo") -> tuple[list[Stylized], float]:
        weights = place if network == "vgg16" else None
        method = StyleTransfer(
            style=style,
            style_side_px=judge.style_side_px,
            network=network,
            weights=weights,
            curve=True,
            init=init,
        )
        return painted(method, assets, held)

    optimized = {name: best("vgg16", init) for name, init in STARTS.items()}
    curves = [each.curve for each in optimized["best"][0]]
    ends = [best_so_far(curve)[-1] for curve in curves]
    made = {"draft": (*painted(FeedForward(style=style), assets, held), 0.0)}
    made["best, embedded network"] = (*best("embedded"), 0.0)
    method = FeedForward(style=style, adapt_steps=max(arguments.at))
    for step, network, spent in learned(method, assets, chosen, arguments.at):
        adapted = method.adapted("/adapted", "")
        made[f"adapted, {step} steps"] = (*painted(adapted, {**assets, "/adapted": network}, held), spent)
    for name, (outcomes, cpu_s, spent) in made.items():
        pictures = [each.image for each in outcomes]
        losses = judge.losses(pictures)
        worth = [reaches(curve, loss) for curve, loss in zip(curves, losses, strict=True)]
        rows[name] = row(judge.distances(pictures), losses, worth, cpu_s, spent)
    for name, (outcomes, cpu_s) in optimized.items():
        own = [each.curve for each in outcomes]
        worth = [reaches(curve, 1.02 * end) for curve, end in zip(own, ends, strict=True)]
        losses = [best_so_far(curve)[-1] for curve in own]
        rows[name] = row(judge.distances([each.image for each in outcomes]), losses, worth, cpu_s, 0.0)
        rows[name]["whole"] = [cost(curve)[-1] for curve in own]
    shown = ("draft", f"adapted, {max(arguments.at)} steps", "best, embedded network")
    columns = [held, *([each.image for each in made[name][0]] for name in shown)]
    columns.append([each.image for each in optimized["best, from draft"][0]])
    sheet = [
        torch.cat([_cell(each, arguments.side) for each in cells], 2) for cells in zip(*columns, strict=True)
    ]
    (arguments.keep / f"{picture.stem}.png").write_bytes(encode_image(torch.cat(sheet, 1), format="png"))
    return rows


def row(
    distances: tuple[float, float], losses: Sequence[float], worth: Sequence[float], cpu_s: float, spent: float
) -> Row:
    content, style = distances
    return {
        "content": content,
        "style": style,
        "loss": list(losses),
        "evaluations": list(worth),
        "cpu_s": cpu_s,
        "learning_cpu_s": spent,
    }


def summary(found: Sequence[Row]) -> dict[str, float]:
    """Means over pictures, and of evaluations the median over pictures and photographs."""
    several = {name: statistics.mean(each[name] for each in found) for name in ("content", "style")}
    several["loss"] = statistics.mean(loss for each in found for loss in each["loss"])
    several["evaluations"] = statistics.median(count for each in found for count in each["evaluations"])
    several |= {name: statistics.mean(each[name] for each in found) for name in ("cpu_s", "learning_cpu_s")}
    return {name: round(value, 4) for name, value in several.items()}


def warm(pictures: Sequence[Mapping[str, Row]]) -> dict[str, float]:
    """What optimization gains by its start."""
    cold, begun = ([each[name] for each in pictures] for name in STARTS)

    def ratios(name: str) -> list[float]:
        return [
            one / other
            for ours, theirs in zip(begun, cold, strict=True)
            for one, other in zip(ours[name], theirs[name], strict=True)
        ]

    return {
        "warm_evaluations": round(statistics.median(ratios("evaluations")), 3),
        "warm_loss_worst": round(max(ratios("loss")), 3),
        "warm_loss": round(statistics.median(ratios("loss")), 3),
    }


def pays_from(pictures: Sequence[Mapping[str, Row]], adapted: str) -> float:
    """From how many photographs on an adapted network takes less CPU time than optimization that ends with the
    same loss: infinite, if one photograph takes more."""
    best, own = (summary([each[name] for each in pictures]) for name in ("best", adapted))
    whole = statistics.median(count for each in pictures for count in each["best"]["whole"])
    saved = best["cpu_s"] * own["evaluations"] / whole - own["cpu_s"]
    return round(own["learning_cpu_s"] / saved, 1) if saved > 0 else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, help="what is learned on")
    parser.add_argument("--held", type=Path, help="what is painted")
    parser.add_argument("--pictures", type=Path, nargs="+")
    parser.add_argument("--teacher", type=Path, help="VGG16's weights")
    parser.add_argument("--keep", type=Path, help="folder of what was measured")
    parser.add_argument("--at", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--count", type=int, default=64, help="photographs that are learned on")
    parser.add_argument("--side", type=int, default=384)
    arguments = parser.parse_args()
    if lacks(arguments, "photos", "held", "pictures", "teacher", "keep"):
        return
    held = [
        reduced(decode_image(each.read_bytes()), arguments.side) for each in sorted(arguments.held.iterdir())
    ]
    chosen = sorted(arguments.photos.iterdir(), key=lambda each: hashlib.sha256(each.name.encode()).digest())
    arguments.keep.mkdir(parents=True, exist_ok=True)
    pictures: list[dict[str, Row]] = []
    for picture in arguments.pictures:
        file = arguments.keep / f"{picture.stem}.json"
        if not file.exists():
            file.write_text(json.dumps(measured(picture, held, chosen[: arguments.count], arguments)))
        pictures.append(json.loads(file.read_text()))
    print(f"{'':22} {'content':>8} {'style':>7} {'loss':>7} {'worth':>6} {'CPU-s':>7} {'learning, CPU-s':>16}")
    result: dict[str, Any] = {"pictures": len(pictures), "photos": len(held)}
    for name in pictures[0]:
        result[name] = found = summary([each[name] for each in pictures])
        print("{:22} {:8.3f} {:7.4f} {:7.3f} {:6.1f} {:7.1f} {:16.0f}".format(name, *found.values()))
    result |= warm(pictures)
    last = f"adapted, {max(arguments.at)} steps"
    result["adapted_pays_from"] = pays_from(pictures, last)
    print(
        "from the draft: {warm_evaluations} of the evaluations (median), and it ends with {warm_loss} of the "
        "loss (median), at most {warm_loss_worst}".format(**result)
    )
    print(
        f"{last}: less CPU time than optimization to its loss from {result['adapted_pays_from']} photographs on"
    )
    print(json.dumps(result))


def _cell(image: Tensor, side: int) -> Tensor:
    cell = torch.ones(3, side, side)
    cell[:, : image.shape[1], : image.shape[2]] = image
    return cell


if __name__ == "__main__":
    main()
