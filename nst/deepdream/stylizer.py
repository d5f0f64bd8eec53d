"""Photographs while they are dreamed: many at once, from small octaves to large, each with its own jitter."""

from __future__ import annotations

import math
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.deepdream.objective import DreamObjective
from nst.errors import Diverged, ImageError
from nst.features.passes import by_shape
from nst.images.codec import mirrored, resize_image, without_border
from nst.ops import ReLUBackward
from nst.ops.graphs import Graphs, Recorded
from nst.optim.rounds import run_together
from nst.recent import Recent
from nst.stylizer import Frame, Outcome, Stylized, mean_change

__all__ = ["DeepDreamStylizer", "Dream", "DreamPlan"]

# Octaves with a side below this are left out: the networks see nothing in them.
_MIN_OCTAVE_PX = 32
_MOST_RECORDED = 8
"""Graphs that are kept, each of one size: photographs of a job are often alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DreamPlan:
    """How a photograph is dreamed. Names and meanings are those of `DeepDream`."""

    octaves: int
    """Sizes that the photograph is dreamed at."""
    octave_scale: float
    """Ratio of one octave's size to the next."""
    steps: int
    """Steps of gradient ascent per octave."""
    step_size: float
    """Mean change of a pixel per step."""
    jitter_px: int
    """Pixels by which the image is rolled at most before each step."""
    border_px: int
    """Pixels that are mirrored around the photograph."""
    gradient_blur_px: float
    """Standard deviation of the Gaussian that smooths the gradient; 0: none."""
    relu_backward: ReLUBackward
    """What the network's ReLUs let back through."""
    redirected_steps: int
    """Steps for which `redirected` ReLUs are so."""
    zoom_frames: int
    """Frames of the zoom after the dream."""
    zoom: float
    """Enlargement from one frame to the next."""
    deterministic: bool
    """Whether each photograph has its passes for itself."""
    cuda_graphs: bool
    """Whether what is computed is recorded, on GPUs."""
    curve: bool
    """Whether the objective of every step is kept."""


@dataclass(slots=True)
class Dream:
    """One photograph while it is dreamed."""

    bases: list[Tensor]
    """The photograph's octaves, small to large, each (3, h, w)."""
    image: Tensor
    """The current octave with all that was dreamed so far, (3, h, w) in [0, 1]."""
    generator: torch.Generator
    """The source of its jitter."""
    octave: int = 0
    """Index of the current octave in `bases`."""
    steps: int = 0
    """Steps taken, over all octaves and frames."""
    objective: float = 0.0
    """The objective before the last step."""
    error: ImageError | None = None
    """Why the photograph cannot be dreamed."""
    dreamed: Stylized | None = None
    """The photograph, once all its octaves are dreamed."""
    curve: list[tuple[float, float]] = field(default_factory=list)
    """Scale and objective of every step until then."""
    frames: list[Frame] = field(default_factory=list)
    """Frames of the zoom so far."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What a dream wants to know next: the objective and its gradient at `point`, (3, H, W)."""

    point: Tensor
    backward: ReLUBackward


@dataclass(frozen=True, slots=True)
class _Answer:
    objective: float
    grad: Tensor
    """The objective's gradient, smoothed, of the point's shape."""
    mean: Tensor
    """Mean size of an element of `grad`."""
    finite: bool
    """Whether that is a number."""


class DeepDreamStylizer:
    """The loaded network, ready for photographs."""

    def __init__(self, plan: DreamPlan, objective: DreamObjective) -> None:
        self.plan, self.objective = plan, objective
        self.evaluations = 0
        self._graphs = Graphs(plan.cuda_graphs)
        self._recorded = Recent[Hashable, Recorded](_MOST_RECORDED)

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        dreams = [self._start(image, generator) for image, generator in zip(images, generators, strict=True)]
        for _ in self._run(dreams):
            pass
        return [dream.error or self._finished(dream) for dream in dreams]

    def iterate(self, image: Tensor, generator: torch.Generator) -> Iterator[Dream]:
        """Dream one photograph and look on: its state after every step.

        Raises:
            ImageTooSmall: the image vanishes before the deepest layer.
            Diverged: the network's activations are not finite.
        """
        dream = self._start(image, generator)
        for _ in self._run([dream]):
            yield dream
        if dream.error is not None:
            raise dream.error

    def _start(self, image: Tensor, generator: torch.Generator) -> Dream:
        photo = image.to(self.objective.network.mean, non_blocking=True, copy=True)
        bases = self._octaves(photo)
        dream = Dream(bases=bases, image=bases[0], generator=generator)
        try:
            self.objective.network.check_size(photo)
        except ImageError as error:
            dream.error = error
        return dream

    def _octaves(self, photo: Tensor) -> list[Tensor]:
        bases = [photo]
        for _ in range(self.plan.octaves - 1):
            height, width = bases[0].shape[-2:]
            size = round(height / self.plan.octave_scale), round(width / self.plan.octave_scale)
            if min(size) < max(_MIN_OCTAVE_PX, self.objective.network.min_side_px):
                break
            bases.insert(0, resize_image(bases[0], size))
        return bases

    def _run(self, dreams: Sequence[Dream]) -> Iterator[None]:
        def evaluate(requests: Sequence[_Request]) -> list[_Answer]:
            self.evaluations += len(requests)
            answers: dict[int, _Answer] = {}
            points, ways = [each.point for each in requests], [each.backward for each in requests]
            for group in by_shape(points, ways, alone=self.plan.deterministic):
                found = self._evaluated(torch.stack([points[index] for index in group]), ways[group[0]])
                answers.update(zip(group, found, strict=True))
            return [answers[index] for index in range(len(requests))]

        return run_together([self._dreaming(dream) for dream in dreams if dream.error is None], evaluate)

    def _evaluated(self, points: Tensor, backward: ReLUBackward) -> list[_Answer]:
        """What there is to know of (N, 3, H, W). A GPU is waited for here only."""

        def compute(given: Tensor) -> tuple[Tensor, ...]:
            values, grads = self.objective.evaluate(given, backward)
            smooth = [self._smoothed(grad) for grad in grads]
            means = torch.stack([grad.abs().mean() for grad in smooth])
            return torch.stack([values, means.to(values)]), means, *smooth

        if self._graphs.suit(points):
            recorded = self._recorded.get((points.shape, backward), lambda: Recorded(self._graphs))
            known, means, *smooth = recorded(compute, points)
        else:
            known, means, *smooth = compute(points)
        return [
            _Answer(value, grad, mean, math.isfinite(size))
            for value, size, grad, mean in zip(*known.tolist(), smooth, means, strict=True)
        ]

    def _dreaming(self, dream: Dream) -> Generator[_Request, _Answer, None]:
        """The photograph, and then, if asked for, the frames of the zoom into it."""
        yield from self._octaves_up(dream, dream.bases)
        if dream.error is not None:
            return
        dream.dreamed = self._stylized(dream)
        for number in range(self.plan.zoom_frames):
            dream.frames.append(self._frame(dream, number))
            yield from self._octaves_up(dream, self._octaves(_enlarged(dream.image, self.plan.zoom)))
            if dream.error is not None:
                return
        if self.plan.zoom_frames:
            dream.frames.append(self._frame(dream, self.plan.zoom_frames))

    @staticmethod
    def _frame(dream: Dream, number: int) -> Frame:
        return Frame(number, dream.image.to("cpu", torch.float32), aligned=number == 0)

    def _octaves_up(self, dream: Dream, bases: Sequence[Tensor]) -> Generator[_Request, _Answer, None]:
        """Dream at every octave, small ones first. `dream` changes with each step, not between them, as who
        looks on sees it after this has gone on to its next request."""
        for octave, base in enumerate(bases):
            start = base
            if octave > 0:
                # Only the detail goes up: what was dreamed, not the blur of what was enlarged.
                detail = dream.image - bases[octave - 1]
                start = (base + resize_image(detail, (base.shape[-2], base.shape[-1]))).clamp(0, 1)
            framed = mirrored(start, self.plan.border_px)  # the border is dreamed on, too
            for _ in range(self.plan.steps):
                framed = yield from self._step(dream, framed)
                if dream.error is not None:
                    return
                dream.octave = octave
                dream.image = without_border(framed, self.plan.border_px, (base.shape[-2], base.shape[-1]))
                if self.plan.curve and dream.dreamed is None:
                    dream.curve.append((base.shape[-1] / bases[-1].shape[-1], dream.objective))

    def _step(self, dream: Dream, framed: Tensor) -> Generator[_Request, _Answer, Tensor]:
        """One normalized step of gradient ascent, with its own jitter and mean, from an octave within its
        border."""
        down, right = self._jitter(dream.generator)
        rolled = framed.roll((down, right), dims=(-2, -1))
        answer = yield _Request(rolled, self._relu_backward(dream))
        if not answer.finite:
            dream.error = Diverged(f"the gradient is not finite at step {dream.steps + 1}")
            return framed
        dream.steps += 1
        dream.objective = answer.objective
        # A gradient of all zeros (nothing excites the layer) leaves the image as it is.
        tiny = torch.finfo(answer.grad.dtype).tiny
        change = answer.grad * (self.plan.step_size / answer.mean.clamp_min(tiny))
        return (rolled + change).clamp(0, 1).roll((-down, -right), dims=(-2, -1))

    def _relu_backward(self, dream: Dream) -> ReLUBackward:
        if self.plan.relu_backward == "redirected" and dream.steps >= self.plan.redirected_steps:
            return "standard"
        return self.plan.relu_backward

    def _smoothed(self, grad: Tensor) -> Tensor:
        """(3, H, W) blurred, mirrored at the border."""
        sigma = self.plan.gradient_blur_px
        reach = min(math.ceil(3 * sigma), min(grad.shape[-2:]) - 1)  # there is no more to mirror
        if reach == 0:
            return grad
        axis = torch.arange(-reach, reach + 1, device=grad.device, dtype=grad.dtype)
        kernel = torch.softmax(-axis.square() / (2 * sigma**2), dim=0)
        padded = F.pad(grad[:, None], (reach,) * 4, mode="reflect")
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]

    def _jitter(self, generator: torch.Generator) -> tuple[int, int]:
        most = self.plan.jitter_px
        down, right = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
        return down, right

    def _stylized(self, dream: Dream) -> Stylized:
        stats = {
            "objective": dream.objective,
            "steps": float(dream.steps),
            "pretrained": float(self.objective.network.pretrained),
            "change": mean_change(dream.image, dream.bases[-1]),
        }
        columns = zip(*dream.curve, strict=True)
        return Stylized(
            image=dream.image.to("cpu", torch.float32),
            stats=stats,
            curve=dict(zip(("scale", "objective"), columns, strict=False)),
        )

    def _finished(self, dream: Dream) -> Stylized:
        assert dream.dreamed is not None
        return replace(dream.dreamed, frames=dream.frames)


def _enlarged(image: Tensor, factor: float) -> Tensor:
    """The middle of (3, H, W), `factor` times as large, at the same size."""
    theta = torch.eye(2, 3, device=image.device, dtype=image.dtype)[None] / factor
    grid = F.affine_grid(theta, [1, *image.shape], align_corners=False)
    # Of a slow zoom, outermost pixels are made of some beyond the border: zeros there would make a frame.
    found = F.grid_sample(image[None], grid, mode="bicubic", padding_mode="border", align_corners=False)
    return found[0].clamp(0, 1)
