"""CPU time to equal loss: ours against today's tutorial and against a well-written bounded loop.

The target of a pair of photograph and style is the loss of the tutorial's algorithm after 300 evaluations: that
of its best picture, as its clamping within the closure can throw it far off, or with `--last` that of its last
one. A picture is saved with 8 bits before it is judged; the judge is the plain transcription of the tutorial's
losses, in float32, the same for all. One photograph at a time, one thread. All see the network cut at the
deepest layer in use, frozen, and call backward once; all but the tutorial end where they are at the target.

- tutorial: torch's L-BFGS as it comes, clamping inside the closure.
- bounded: torch's L-BFGS with a history of 100, once through a sigmoid and once projected onto [0, 1] after
  every step, where its history learns from where the picture really went (without that it is the tutorial's,
  point for point); what is sooner there counts. If neither is in 300 evaluations (marked +), what these took.
- ours: `StyleTransfer` with the tutorial's preset, in float32 and in bfloat16. Targets included.

The convergence table has the loss of the best saved picture so far over the target, the median of all pairs.

VGG16 or VGG19 from the state dict `--weights` (or the file that NST_PRETRAINED names, where it is there), else
VGG19 with calibrated random parameters. The tutorial's weights of content and style are meant for torchvision's
own files, whose mean activations are near 1. On a file of other scale one of the two is nothing beside the
other; `--unit-activations` brings it there, by one factor per layer.

    python -m benchmarks.time_to_loss [--weights FILE] [--styles FILE ...] [--pairs 8] [--keep FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.style_transfer_step import losses_of
from benchmarks.weights import add_weights, plain_vgg, weights_name
from jobs.demo import sample_photographs
from nst.features import build_features
from nst.images.codec import decode_image, picture_tensor, resize_image
from nst.ops.precision import has_bfloat16
from nst.optim.lbfgs import LBFGS
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from nst.style_transfer.stylizer import FIRST_STEP
from nst.synthetic import brush_strokes, hatching
from reference.style_transfer import convolutions, published_state, tutorial_losses, vgg19

CPU = torch.device("cpu")
EVALUATIONS = 300
CUT = 11
"""Modules up to conv3_1, of either VGG."""
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg")
BATCH = (*PHOTOS, "motorcycle_left.png", "moon.png", "ihc.png")
OURS: dict[str, dict[str, object]] = {"float32": {}, "bfloat16": {"precision": "bfloat16"}}
CHECKPOINTS = (10, 20, 40, 70, 100, 150, 200, 300)
Closure = Callable[[Tensor], tuple[float, Tensor]]
"""Loss and gradient at (1, 3, H, W)."""


@dataclass(frozen=True, slots=True)
class Point:
    """A picture on its way."""

    evaluations: int
    cpu_s: float
    loss: float
    """By its own account."""
    image: Tensor


class _Enough(Exception):
    """Ends an optimization from within."""


class Clock:
    """CPU time of this process, but for what is not to be counted."""

    def __init__(self) -> None:
        self._began, self._off = time.process_time(), 0.0

    def now(self) -> float:
        return time.process_time() - self._began - self._off

    def leave_out(self, seconds: float) -> None:
        self._off += seconds


def pairs(count: int, side: int, styles: Sequence[str] = ()) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, photograph (3, side, side) and style: every photograph with the one rendered style, then with the
    other; or, with files of `styles`, each photograph with the next of these."""
    if styles:
        for number in range(count):
            file, style = PHOTOS[number % (len(PHOTOS) - 1)], Path(styles[number % len(styles)])
            yield f"{Path(file).stem}, {style.stem[:16]}", photograph(file, side), picture(style, side)
        return
    rendered = {
        "strokes": picture_tensor(brush_strokes((side, side), seed=0)),
        "hatching": picture_tensor(hatching((side, side), seed=1)),
    }
    for (name, tensor), file in list(product(rendered.items(), PHOTOS))[:count]:
        yield f"{Path(file).stem}, {name}", photograph(file, side), tensor


def photograph(file: str, side: int) -> Tensor:
    """(3, side, side), of the samples."""
    return picture(sample_photographs() / file, side)


def picture(path: Path, side: int) -> Tensor:
    """(3, side, side)"""
    photo = decode_image(path.read_bytes())
    height, width = photo.shape[-2:]
    factor = side / min(height, width)
    photo = resize_image(photo, (round(height * factor), round(width * factor)))
    return photo[:, :side, :side].contiguous()


def networks(
    weights: str | None, unit_activations: bool = False
) -> tuple[str, dict[str, Tensor], nn.Sequential]:
    """Its name, its state dict, and its first modules as the tutorial holds them."""
    if weights is not None:
        network, cnn = plain_vgg(weights)
        if unit_activations:
            scaled = build_features(
                network, ["relu5_3"], state=published_state(cnn), unit_activations=True
            ).body.state_dict()
            cnn.load_state_dict(
                {name: scaled.get(f"features.{name}", old) for name, old in cnn.state_dict().items()}
            )
    else:
        network, cnn = "vgg19", vgg19()
        seeded = build_features(network, ["relu5_4"]).body.state_dict()
        cnn.load_state_dict({name: seeded[f"features.{name}"] for name in cnn.state_dict()})
    return network, published_state(cnn), cnn[:CUT]


def well_written(cnn: nn.Sequential, photo: Tensor, style: Tensor) -> Closure:
    """One backward pass for the sum of all losses."""

    def gram(x: Tensor) -> Tensor:
        flat = x.flatten(2)[0]
        return flat @ flat.T / flat.numel()

    with torch.no_grad():
        content = convolutions(cnn, photo[None])[3]
        styles = [gram(x) for x in convolutions(cnn, style[None])]

    def closure(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().clone().requires_grad_()
        found = convolutions(cnn, x)
        loss = F.mse_loss(found[3], content)
        for own, target in zip(found, styles, strict=True):
            loss = loss + 1e6 * F.mse_loss(gram(own), target)
        (grad,) = torch.autograd.grad(loss, x)
        return float(loss.detach()), grad

    return closure


def with_torch(
    photo: Tensor,
    closure: Closure,
    *,
    bounds: Literal["clamped in the closure", "projected", "sigmoid"],
    enough: Callable[[Point], bool] = lambda _: False,
) -> list[Point]:
    """torch's L-BFGS from the photograph, until it is `enough`, which is not timed."""
    z = photo[None].clone()
    if bounds == "sigmoid":
        z = torch.logit(z.clamp(1 / 512, 1 - 1 / 512))  # half a level of 8 bits from what it cannot reach
    z.requires_grad_()
    options = {"max_iter": 1} if bounds == "projected" else {}
    optimizer = torch.optim.LBFGS([z], history_size=100, **options)  # type: ignore[arg-type]
    points: list[Point] = []
    clock = Clock()

    def evaluate() -> float:
        with torch.no_grad():
            if bounds == "clamped in the closure":
                z.clamp_(0, 1)
            x = torch.sigmoid(z) if bounds == "sigmoid" else z
        loss, grad = closure(x)
        z.grad = grad * x * (1 - x) if bounds == "sigmoid" else grad
        points.append(Point(len(points) + 1, clock.now(), loss, x.detach()[0].clone()))
        began = time.process_time()
        if len(points) == EVALUATIONS or enough(points[-1]):
            raise _Enough
        clock.leave_out(time.process_time() - began)
        return loss

    with contextlib.suppress(_Enough):
        while True:
            before = z.detach().clone()
            optimizer.step(evaluate)  # type: ignore[no-untyped-call]
            if bounds == "projected":
                with torch.no_grad():
                    z.clamp_(0, 1)
                state = optimizer.state[z]
                state["d"], state["t"] = (z.detach() - before).flatten(), 1.0  # the next pair's displacement
            if torch.equal(z, before):  # it stopped by itself
                break
    return points


def with_ours(
    network: str, state: Mapping[str, Tensor], photo: Tensor, style: Tensor, steps: int, **options: object
) -> Iterator[Point]:
    method = StyleTransfer(
        style="style",
        network=network,
        weights="seeded",
        preset="tutorial",
        steps=steps,
        **options,  # type: ignore[arg-type]
    )
    stylizer = method.build_from([style], state, torch.device("cpu"))
    clock = Clock()
    for canvas in stylizer.iterate(photo, torch.Generator()):
        point = Point(canvas.evaluations, clock.now(), canvas.losses.get("loss", float("inf")), canvas.image)
        began = time.process_time()
        yield point
        clock.leave_out(time.process_time() - began)


def convergence(points: Sequence[Point], target: float, judge: Callable[[Tensor], float]) -> list[float]:
    """At each of `CHECKPOINTS`, the loss of the best saved picture so far over the target; who has ended stays
    where he was."""
    found = []
    for count in CHECKPOINTS:
        best = min(points[:count], key=lambda point: point.loss)
        found.append(judge(best.image) / target)
    return found


def per_photo_over_joint(network: str, state: Mapping[str, Tensor], side: int) -> dict[str, float]:
    """Evaluations that eight photographs need, each with an L-BFGS of its own, until their saved pictures are
    together as good as those of one L-BFGS over all of them after 300 evaluations; over these 300. By whose
    L-BFGS that was: torch's, unclamped, as known implementations do batches; or ours, in all else the same."""
    _, _, style = next(pairs(1, side))
    photos = [photograph(file, side) for file in BATCH]
    options = losses_of("tutorial")
    layers = [*options["content_layers"], *options["style_layers"]]
    features = build_features(network, layers, state=state)
    objective = StyleObjective(features, style, ObjectiveOptions(**options))
    targets = [objective.targets(photo) for photo in photos]

    def judged(points: Tensor) -> float:
        saved = (points.clamp(0, 1) * 255).round() / 255
        return sum(each.losses["loss"] for each in objective.evaluate(list(saved), targets))

    def by_torch() -> float:
        points = torch.stack(photos).requires_grad_()
        endless = {"max_iter": EVALUATIONS, "max_eval": EVALUATIONS, "tolerance_grad": 0, "tolerance_change": 0}
        optimizer = torch.optim.LBFGS([points], history_size=100, **endless)  # type: ignore[arg-type]
        best = float("inf")

        def closure() -> float:
            nonlocal best
            found = objective.evaluate(list(points.detach()), targets)
            points.grad = torch.stack([each.grad for each in found])
            best = min(best, judged(points.detach()))
            return sum(each.losses["loss"] for each in found)

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return best

    def by_us(optimizers: Sequence[LBFGS], goals: Sequence[float]) -> tuple[float, list[int]]:
        """The best pictures' loss, and the evaluations until each of `goals`."""
        points, best = torch.stack(photos), float("inf")
        needed: list[int] = []
        for evaluation in range(1, EVALUATIONS + 1):
            best = min(best, judged(points))
            while len(needed) < len(goals) and best <= sorted(goals, reverse=True)[len(needed)]:
                needed.append(evaluation)
            if goals and len(needed) == len(goals):
                break
            grads = torch.stack([each.grad for each in objective.evaluate(list(points), targets)])
            if len(optimizers) == 1:
                points = optimizers[0].step(points, grads)
            else:
                moved = [opt.step(x, grad) for opt, x, grad in zip(optimizers, points, grads, strict=True)]
                points = torch.stack(moved)
            points = points.clamp(0, 1)
        return best, needed + [EVALUATIONS] * (len(goals) - len(needed))

    def optimizer() -> LBFGS:
        return LBFGS(first_step=FIRST_STEP, bounds=(0.0, 1.0))

    goals = {"torch's": by_torch(), "our own": by_us([optimizer()], [])[0]}
    _, needed = by_us([optimizer() for _ in photos], list(goals.values()))
    hardest_last = sorted(goals, key=lambda name: -goals[name])
    return {name: count / EVALUATIONS for name, count in zip(hardest_last, needed, strict=True)}


@dataclass(frozen=True, slots=True)
class Measured:
    """One pair of photograph and style."""

    pair: str
    photo: float
    """Loss of the photograph itself."""
    target: float
    last: float
    """Loss of the tutorial's last picture, by its own account."""
    tutorial_s: float
    """CPU seconds of all its evaluations; so the following, up to the target."""
    bounded_s: float
    bounded_there: bool
    """Whether it got there; else its CPU seconds are those of all evaluations."""
    ours: Mapping[str, tuple[int, float] | None]
    """By precision: evaluations and CPU seconds; None: it did not get there."""
    curves: Mapping[str, Sequence[float]]
    """By who it is, at `CHECKPOINTS`: loss of the best saved picture so far over the target."""

    def ratio(self, precision: str, baseline: Literal["tutorial", "bounded"]) -> float:
        mine = self.ours[precision]
        return (
            0.0 if mine is None else (self.tutorial_s if baseline == "tutorial" else self.bounded_s) / mine[1]
        )


def measure(
    loaded: tuple[str, Mapping[str, Tensor], nn.Sequential],
    pair: tuple[str, Tensor, Tensor],
    precisions: Sequence[str],
    steps: int,
    *,
    last: bool,
) -> Measured:
    """Run all of them on one pair.

    Args:
        loaded: network, state dict, the plain network of the baselines.
        pair: its name, photograph and style.
        steps: ours, at most.
        last: the target is the tutorial's last picture, not its best.
    """
    (network, state, cnn), (name, photo, style) = loaded, pair
    losses = tutorial_losses(cnn, photo[None], style[None], weight=1000.0)

    def judge(image: Tensor) -> float:
        saved = (image.clamp(0, 1) * 255).round() / 255
        with torch.no_grad():
            return float(sum(losses(saved[None])))

    loop = well_written(cnn, photo, style)
    way = with_torch(photo, loop, bounds="clamped in the closure")
    target = judge((way[-1] if last else min(way, key=lambda point: point.loss)).image)

    def there(point: Point) -> bool:
        return point.loss <= 1.1 * target and judge(point.image) <= target

    tries = {
        "sigmoid": with_torch(photo, loop, bounds="sigmoid", enough=there),
        "projected": with_torch(photo, loop, bounds="projected", enough=there),
    }
    bounded = min(tries.values(), key=lambda points: (not there(points[-1]), points[-1].cpu_s))
    runs, ours = {"tutorial": way, **tries}, dict[str, tuple[int, float] | None]()
    for precision in precisions:
        points = []
        for point in with_ours(network, state, photo, style, steps, **OURS[precision]):
            points.append(point)
            if point.loss <= 1.2 * target and judge(point.image) <= target:
                break
        runs[f"ours, {precision}"] = points
        end = points[-1]
        ours[precision] = (end.evaluations, end.cpu_s) if judge(end.image) <= target else None
    return Measured(
        pair=name,
        photo=judge(photo),
        target=target,
        last=way[-1].loss,
        tutorial_s=way[-1].cpu_s * EVALUATIONS / len(way),
        bounded_s=bounded[-1].cpu_s,
        bounded_there=there(bounded[-1]),
        ours=ours,
        curves={label: convergence(points, target, judge) for label, points in runs.items()},
    )


def show(one: Measured) -> None:
    """Print a line for each precision."""
    for precision, mine in one.ours.items():
        evaluations, cpu_s = ("-", float("inf")) if mine is None else mine
        print(
            f"{one.pair:30} {one.photo:9.4g} {one.target:9.4g} {one.last:9.4g} | {precision:8} "
            f"{evaluations:>11} {cpu_s:7.1f} | {one.tutorial_s:8.1f} {one.ratio(precision, 'tutorial'):9.2f} | "
            f"{one.bounded_s:7.1f}{' ' if one.bounded_there else '+'} {one.ratio(precision, 'bounded'):9.2f}",
            flush=True,
        )


def kept_in(path: Path | None, about: str) -> dict[str, Measured]:
    """What an earlier run kept, by pair.

    Args:
        about: weights and options; what was measured with others does not count.
    """
    found: dict[str, Measured] = {}
    for line in path.read_text().splitlines() if path is not None and path.exists() else ():
        record = json.loads(line)
        if record.pop("about") == about:
            found[record["pair"]] = Measured(**record)
    return found


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_weights(parser)
    parser.add_argument(
        "--styles", nargs="*", default=(), metavar="FILE", help="style pictures; default: rendered"
    )
    parser.add_argument(
        "--unit-activations",
        action="store_true",
        help="scale the layers of --weights to a mean activation of 1",
    )
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, default=200, help="ours, at most")
    parser.add_argument("--precisions", nargs="*", default=list(OURS), choices=list(OURS))
    parser.add_argument("--last", action="store_true", help="the target is the tutorial's last picture")
    parser.add_argument("--joint-side", type=int, default=64, help="pixels, of the batch of eight; 0: not done")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="a run that is cut goes on with the pairs that are not in it"
    )
    return parser.parse_args()


def main() -> None:
    arguments = arguments_of()
    torch.set_num_threads(1)
    loaded = networks(arguments.weights, arguments.unit_activations)
    scale = ", unit activations" if arguments.unit_activations else ""
    print(
        f"{loaded[0]}, {arguments.weights or 'random parameters'}{scale}, "
        f"bfloat16 in hardware: {has_bfloat16(CPU)}"
    )
    print(
        f"{'pair':30} {'photo':>9} {'target':>9} {'last':>9} | {'ours':8} {'evaluations':>11} {'CPU s':>7} | "
        f"{'tutorial':>8} {'over ours':>9} | {'bounded':>8} {'over ours':>9}"
    )
    names = ("unit_activations", "side", "steps", "precisions", "last")
    about = f"{weights_name(arguments.weights)} {[getattr(arguments, name) for name in names]}"
    kept, found = kept_in(arguments.keep, about), list[Measured]()
    for pair in itertools.islice(pairs(arguments.pairs, arguments.side, arguments.styles), arguments.pairs):
        one = kept.get(pair[0]) or measure(
            loaded, pair, arguments.precisions, arguments.steps, last=arguments.last
        )
        if arguments.keep and pair[0] not in kept:
            with arguments.keep.open("a") as file:
                file.write(json.dumps({"about": about, **asdict(one)}) + "\n")
        found.append(one)
        show(one)
    print("\nloss of the best saved picture so far over the target, median; by evaluations")
    print(f"{'':18}" + "".join(f"{count:8}" for count in CHECKPOINTS))
    for label in found[0].curves:
        medians = [
            statistics.median(column) for column in zip(*(one.curves[label] for one in found), strict=True)
        ]
        print(f"{label:18}" + "".join(f"{value:8.2f}" for value in medians))
    print(json.dumps(summary(arguments, loaded, found)))


def summary(
    arguments: argparse.Namespace,
    loaded: tuple[str, Mapping[str, Tensor], nn.Sequential],
    found: Sequence[Measured],
) -> dict[str, object]:
    """The last line; of the joint optimization, which is measured here, also a table."""
    bfloat16 = has_bfloat16(CPU) and "bfloat16" in arguments.precisions
    usual = "bfloat16" if bfloat16 else arguments.precisions[0]
    ratios = {
        (precision, baseline): [one.ratio(precision, baseline) for one in found]
        for precision in arguments.precisions
        for baseline in ("tutorial", "bounded")
    }
    result: dict[str, object] = {
        "weights": weights_name(arguments.weights),
        "unit_activations": arguments.unit_activations,
        "network": loaded[0],
        "bfloat16_in_hardware": has_bfloat16(CPU),
        "pairs": len(found),
        "precision": usual,  # of the three that follow
        "vs_tutorial_median": round(statistics.median(ratios[usual, "tutorial"]), 2),
        "vs_tutorial_worst": round(min(ratios[usual, "tutorial"]), 2),
        "vs_baseline_median": round(statistics.median(ratios[usual, "bounded"]), 2),
    }
    for (precision, baseline), values in ratios.items():
        result[f"vs_{baseline}_{precision}_median"] = round(statistics.median(values), 2)
        result[f"vs_{baseline}_{precision}_worst"] = round(min(values), 2)
    if arguments.joint_side:
        joint = per_photo_over_joint(loaded[0], loaded[1], arguments.joint_side)
        print("\nevaluations of eight L-BFGS over those of a joint one, at batch 8:")
        for label, ratio in joint.items():
            print(f"  {label:22} {ratio:6.2f}")
        result["per_photo_over_joint"] = round(joint["torch's"], 3)
        result["per_photo_over_our_joint"] = round(joint["our own"], 3)
    return result


if __name__ == "__main__":
    main()
