"""CPU time to equal loss: ours against the tutorial's algorithm and against a well-written baseline.

The target of a pair of photograph and style is the loss of the tutorial's algorithm after 300 evaluations. Its
clamping within the closure can throw it far off, so that its last picture is worse than the photograph;
therefore the target is that of its best picture, unless `--last` is given. A picture is saved with 8 bits
before it is judged; the judge is the plain transcription of the tutorial's losses, in float32, the same for
all. One photograph at a time, one thread.

- tutorial: the whole network runs, one backward pass per loss, torch's L-BFGS as it comes, clamping inside the
  closure. Its gradients are the baseline's, so its points are computed with them; every 30th evaluation is also
  done its own way and timed, and the median, times 300, is its cost.
- baseline: the network cut at the deepest layer, one backward pass, torch's L-BFGS with a history of 100, no
  clamping. If it does not get there in 300 evaluations (marked +), it is counted with what these took.
- ours: `StyleTransfer` with the tutorial's preset, coarse to fine, activations in bfloat16. Targets included.

VGG19 with calibrated random parameters, or `--weights` for a published state dict.

    python -m benchmarks.time_to_loss [--pairs 10] [--side 256] [--weights FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.style_transfer_step import losses_of
from benchmarks.transcriptions import backward_by_loss, convolutions, tutorial_losses, vgg19
from jobs.demo import sample_photographs
from nst.features import build_features, read_state_dict
from nst.images import decode_image, picture_tensor, resize_image
from nst.lbfgs import LBFGS
from nst.painting import FIRST_STEP
from nst.pictures import brush_strokes, hatching
from nst.style_objective import StyleObjective
from nst.style_transfer import StyleTransfer

EVALUATIONS = 300
PLAIN_EVERY = 30
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg")
BATCH = (*PHOTOS, "motorcycle_left.png", "moon.png", "ihc.png")
OURS = {"precision": "bfloat16", "coarse_scales": (0.5,), "coarse_steps": 50}
MEASURES = {
    "float32, one scale": {},
    "+ coarse to fine": {"coarse_scales": (0.5,), "coarse_steps": 50},
    "+ bfloat16": OURS,
}
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


def pairs(count: int, side: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, photograph and style, (3, side, side)."""
    styles = {
        "strokes": picture_tensor(brush_strokes((side, side), seed=0)),
        "hatching": picture_tensor(hatching((side, side), seed=1)),
    }
    for (name, style), file in list(product(styles.items(), PHOTOS))[:count]:
        yield f"{Path(file).stem}, {name}", photograph(file, side), style


def photograph(file: str, side: int) -> Tensor:
    """(3, side, side)"""
    photo = decode_image((sample_photographs() / file).read_bytes())
    height, width = photo.shape[-2:]
    factor = side / min(height, width)
    photo = resize_image(photo, (round(height * factor), round(width * factor)))
    return photo[:, :side, :side].contiguous()


def networks(weights: str | None) -> tuple[dict[str, Tensor], nn.Sequential]:
    """VGG19 as a published state dict, and as the tutorial holds it."""
    if weights is not None:
        state = read_state_dict(Path(weights).read_bytes())
    else:
        seeded = build_features("vgg19", ["relu5_4"]).body.state_dict()
        state = {name: tensor.contiguous() for name, tensor in seeded.items()}
    cnn = vgg19()
    prefix = "features."
    cnn.load_state_dict({name[len(prefix) :]: each for name, each in state.items() if name.startswith(prefix)})
    return state, cnn


def well_written(cnn: nn.Sequential, photo: Tensor, style: Tensor) -> Closure:
    """The network cut at conv3_1, one backward pass."""
    modules = list(cnn)[:11]

    def gram(x: Tensor) -> Tensor:
        flat = x.flatten(2)[0]
        return flat @ flat.T / flat.numel()

    with torch.no_grad():
        content = convolutions(modules, photo[None])[3]
        styles = [gram(x) for x in convolutions(modules, style[None])]

    def closure(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().clone().requires_grad_()
        found = convolutions(modules, x)
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
    clamp: bool,
    beside: Closure | None = None,
    enough: Callable[[Point], bool] = lambda _: False,
    **options: int,
) -> tuple[list[Point], list[float]]:
    """torch's L-BFGS from the photograph, until it is `enough`, which is not timed; with the CPU seconds of
    `beside` at every 30th evaluation."""
    x = photo[None].clone().requires_grad_()
    optimizer = torch.optim.LBFGS([x], **options)  # type: ignore[arg-type]
    points: list[Point] = []
    costs: list[float] = []
    clock = Clock()

    def evaluate() -> float:
        if clamp:
            with torch.no_grad():
                x.clamp_(0, 1)
        loss, grad = closure(x)
        x.grad = grad
        points.append(Point(len(points) + 1, clock.now(), loss, x.detach()[0].clone()))
        if beside is not None and len(points) % PLAIN_EVERY == 1:
            began = time.process_time()
            beside(x)
            costs.append(time.process_time() - began)
            clock.leave_out(costs[-1])
        began = time.process_time()
        if len(points) == EVALUATIONS or enough(points[-1]):
            raise _Enough
        clock.leave_out(time.process_time() - began)
        return loss

    with contextlib.suppress(_Enough):
        while True:
            before = len(points)
            optimizer.step(evaluate)  # type: ignore[no-untyped-call]
            if len(points) == before + 1:  # it stopped by itself
                break
    return points, costs


def with_ours(
    state: Mapping[str, Tensor], photo: Tensor, style: Tensor, steps: int, **options: object
) -> Iterator[Point]:
    method = StyleTransfer(
        style="style",
        network="vgg19",
        weights="seeded",
        preset="tutorial",
        steps=steps,
        **options,  # type: ignore[arg-type]
    )
    stylizer = method.build_from([style], state, torch.device("cpu"))
    clock = Clock()
    for canvas in stylizer.iterate(photo, torch.Generator()):
        yield Point(canvas.evaluations, clock.now(), canvas.losses.get("loss", float("inf")), canvas.image)


def reach(points: Sequence[Point], target: float, judge: Callable[[Tensor], float]) -> Point | None:
    """The first point that is judged to be at the target."""
    side = points[-1].image.shape[-1]  # no coarser one counts
    near = (point for point in points if point.image.shape[-1] == side and point.loss <= 1.2 * target)
    return next((point for point in near if judge(point.image) <= target), None)


def per_photo_over_joint(state: Mapping[str, Tensor], side: int) -> dict[str, float]:
    """Evaluations that eight photographs need, each with an L-BFGS of its own, until their saved pictures are
    together as good as those of one L-BFGS over all of them after 300 evaluations; over these 300. By whose
    L-BFGS that was: torch's, unclamped, as known implementations do batches; or ours, in all else the same."""
    _, _, style = next(pairs(1, side))
    photos = [photograph(file, side) for file in BATCH]
    options = losses_of("tutorial")
    layers = [*options["content_layers"], *options["style_layers"]]
    objective = StyleObjective(build_features("vgg19", layers, state=state), style, **options)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, default=150, help="ours, at the full size, at most")
    parser.add_argument("--measures", type=int, default=1, help="pairs for the table of what each measure does")
    parser.add_argument("--last", action="store_true", help="the target is the tutorial's last picture")
    parser.add_argument("--joint-side", type=int, default=64, help="pixels, of the batch of eight")
    parser.add_argument("--weights", help="a state dict of VGG19; default: calibrated random parameters")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state, cnn = networks(arguments.weights)
    vs_tutorial: list[float] = []
    vs_baseline: list[float] = []
    table: dict[str, list[float]] = {name: [] for name in MEASURES}
    print(
        f"{'pair':27} {'photo':>9} {'target':>9} {'last':>9} | {'tutorial':>9} {'baseline':>9}  {'ours':>7} | "
        f"{'baseline':>9} {'ours':>5} | {'tutorial':>8} {'baseline':>8}\n"
        f"{'':27} {'losses':>29} | {'CPU seconds':>28} | {'evaluations':>15} | {'over ours':>17}"
    )
    for number, (name, photo, style) in enumerate(pairs(arguments.pairs, arguments.side)):
        losses = tutorial_losses(cnn, photo[None], style[None], weight=1000.0)

        def judge(image: Tensor, losses: Callable[[Tensor], list[Tensor]] = losses) -> float:
            saved = (image.clamp(0, 1) * 255).round() / 255
            with torch.no_grad():
                return float(sum(losses(saved[None])))

        efficient = well_written(cnn, photo, style)
        way, costs = with_torch(photo, efficient, clamp=True, beside=partial(backward_by_loss, losses))
        tutorial_s = EVALUATIONS * statistics.median(costs)
        target = judge((way[-1] if arguments.last else min(way, key=lambda point: point.loss)).image)
        baseline, _ = with_torch(
            photo,
            efficient,
            clamp=False,
            history_size=100,
            enough=lambda point: point.loss <= 1.1 * target and judge(point.image) <= target,  # noqa: B023
        )
        runs = {
            label: list(with_ours(state, photo, style, arguments.steps, **options))
            for label, options in MEASURES.items()
            if options is OURS or number < arguments.measures
        }
        reached = {label: reach(points, target, judge) for label, points in runs.items()}
        mine, theirs_s = reached["+ bfloat16"], baseline[-1].cpu_s
        mine_s = mine.cpu_s if mine else float("inf")
        vs_tutorial.append(tutorial_s / mine_s)
        vs_baseline.append(theirs_s / mine_s)
        for label, there in reached.items():
            if number < arguments.measures:
                table[label].append(tutorial_s / there.cpu_s if there else 0.0)
        print(
            f"{name:27} {judge(photo):9.4g} {target:9.4g} {way[-1].loss:9.4g} | {tutorial_s:9.1f} "
            f"{theirs_s:9.1f}{'+' if len(baseline) == EVALUATIONS else ' '} {mine_s:7.1f} | {len(baseline):9} "
            f"{mine.evaluations if mine else 0:5} | {vs_tutorial[-1]:8.1f} {vs_baseline[-1]:8.1f}",
            flush=True,
        )
    print("\ntutorial over ours by measure (median of the first pairs):")
    for label, values in table.items():
        ratio = statistics.median(values)
        print(
            f"  {label:22} " + (f"{ratio:6.1f}" if ratio else f"not reached in {arguments.steps} evaluations")
        )
    joint = per_photo_over_joint(state, arguments.joint_side)
    print("\nevaluations of eight L-BFGS over those of a joint one, at batch 8:")
    for label, ratio in joint.items():
        print(f"  {label:22} {ratio:6.2f}")
    print(
        json.dumps(
            {
                "vs_tutorial_median": round(statistics.median(vs_tutorial), 2),
                "vs_tutorial_worst": round(min(vs_tutorial), 2),
                "vs_baseline_median": round(statistics.median(vs_baseline), 2),
                "per_photo_over_joint": round(joint["torch's"], 3),
                "per_photo_over_our_joint": round(joint["our own"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
