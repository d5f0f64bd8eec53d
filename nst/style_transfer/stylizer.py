"""Photographs while they are painted: many at once, coarse to fine, each with its own optimizer."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nst.errors import ImageError, ImageTooSmall, OptionError, UnknownStyle
from nst.images.codec import border_width, mirrored, resize_image, without_border
from nst.memory import history_bytes
from nst.optim.descent import Descent, Evaluation
from nst.optim.lbfgs import LBFGS, Adam, Optimizer
from nst.optim.rounds import run_together
from nst.style_transfer.color import luminance, with_luminance
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import PaintingPlan
from nst.style_transfer.targets import Targets
from nst.stylizer import Frame, Outcome, StyledStylizer, Stylized, asked_styles, mean_change

__all__ = ["Canvas", "StyleTransferStylizer"]


FIRST_STEP = 0.05
"""Mean change of a pixel in the first step of L-BFGS, of the range [0, 1]. Far above rounding; what is wrong
with it is mended by the steps after it."""
_RESOLVED, _PATIENCE = 2.0**-11, 3
"""When the mean change of a pixel was below the first for so many steps, bfloat16 is left. Its numbers
are 2^-8 apart between a half and one, and a normalized pixel is about a fifth of that."""
_COARSE_SIDE_PX = 8
"""Coarse scales are left out at which a side would have less."""


@dataclass(slots=True)
class Canvas:
    """One photograph while it is painted."""

    photo: Tensor
    """(3, H, W) in [0, 1], as the method sees it."""
    image: Tensor
    """The best picture so far, (3, h, w) in [0, 1], at the size of the current scale."""
    style: str | None = None
    """The one of the objective's styles that it asks for."""
    fast: Tensor | None = None
    """A picture (3, H, W) made in one pass, to start from instead, if its loss is lower."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Losses of `image` by name, at the current scale."""
    evaluations: int = 0
    """Evaluations of loss and gradient so far, over all scales."""
    error: ImageError | None = None
    curve: list[Mapping[str, float]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Request:
    """What a photograph wants to know next: loss and gradient at `point`."""

    point: Tensor
    targets: Targets
    dtype: torch.dtype | None
    pixels: int
    """Pixels of the photograph at its own size, border included, which decide how many are in work at once."""
    before: Tensor | None = None
    """The point before, if it is to be known how far this one has moved; of one precision all have it, or
    none."""


class StyleTransferStylizer:
    """The loaded network and style, ready for photographs."""

    def __init__(
        self,
        plan: PaintingPlan,
        objective: StyleObjective,
        init: Tensor | None = None,
        fast: StyledStylizer | None = None,
    ) -> None:
        self.plan, self.objective = plan, objective
        self._init, self._fast = init, fast
        self.evaluations = 0

    def __call__(
        self,
        images: Sequence[Tensor],
        generators: Sequence[torch.Generator],
        styles: Sequence[str | None] | None = None,
    ) -> list[Outcome]:
        asked = asked_styles(images, styles)
        canvases = [self._canvas(*each) for each in zip(images, generators, asked, strict=True)]
        for _ in self._paint(canvases):
            pass
        return [
            canvas.error or self._stylized(canvas, image)
            for canvas, image in zip(canvases, images, strict=True)
        ]

    def iterate(self, image: Tensor, generator: torch.Generator) -> Iterator[Canvas]:
        """Stylize one photograph and look on: its state after every evaluation, coarse scales first.

        Raises:
            ImageTooSmall: the image vanishes before the deepest layer.
            Diverged: after the last step, if there is no usable picture.
        """
        canvas = self._canvas(image, generator)
        for _ in self._paint([canvas]):
            yield canvas
        if canvas.error is not None:
            raise canvas.error

    def finish(self, painted: Tensor, image: Tensor) -> Tensor:
        """A painted picture (3, h, w) as it is shown: with the colors of `image`, if these are kept."""
        if self.plan.preserve_color not in ("luminance", "original"):
            return painted
        return with_luminance(resize_image(image.to(painted), (painted.shape[1], painted.shape[2])), painted)

    def _canvas(self, image: Tensor, generator: torch.Generator, style: str | None = None) -> Canvas:
        if style is not None and style not in self.objective.named:
            error = UnknownStyle(str(OptionError("style", style, choices=self.objective.named)))
            return Canvas(image, image, error=error)
        photo = image.to(self.objective.network.mean, non_blocking=True)
        if self.plan.preserve_color == "luminance":
            photo = luminance(photo).contiguous()
        start = photo
        if self.plan.init == "noise":
            start = torch.rand(image.shape, generator=generator).to(photo)
        elif self.plan.init == "gray":
            start = (0.5 + torch.rand(image.shape, generator=generator) / 255).to(photo)
        elif self._init is not None:
            start = resize_image(self._init.to(photo), (photo.shape[1], photo.shape[2])).clamp(0, 1)
        fast = None if self._fast is None else self._in_one_pass(photo, generator, style)
        return Canvas(photo, start, style, fast)

    def _in_one_pass(self, photo: Tensor, generator: torch.Generator, style: str | None) -> Tensor | None:
        assert self._fast is not None
        (found,) = self._fast([photo], [generator], [style])
        if not isinstance(found, Stylized):
            return None
        image = found.image.to(photo)
        return luminance(image) if self.plan.preserve_color == "luminance" else image

    def _paint(self, canvases: Sequence[Canvas]) -> Iterator[None]:
        def evaluate(requests: Sequence[_Request]) -> list[Evaluation]:
            self.evaluations += len(requests)
            answers: dict[int, Evaluation] = {}
            for dtype in dict.fromkeys(request.dtype for request in requests):
                mine = [index for index, request in enumerate(requests) if request.dtype == dtype]
                points, targets = zip(*((requests[at].point, requests[at].targets) for at in mine), strict=True)
                before = [last for at in mine if (last := requests[at].before) is not None]
                found = self.objective.evaluate(points, targets, dtype, before or None)
                answers.update(zip(mine, found, strict=True))
            return [answers[index] for index in range(len(requests))]

        def has_room(requests: Sequence[_Request]) -> bool:
            return self.objective.has_room([request.pixels for request in requests])

        paintings = [self._painting(canvas) for canvas in canvases if canvas.error is None]
        return run_together(paintings, evaluate, has_room)

    def _painting(self, canvas: Canvas) -> Generator[_Request, Evaluation, None]:
        """Coarse to fine (Gatys et al. 2017): every scale starts from the last one's picture. What was made in
        one pass has its large strokes already, and is only refined."""
        if canvas.fast is not None:
            yield from self._choose_start(canvas)
        for scale, steps in self.plan.scales if canvas.fast is None else self.plan.scales[-1:]:
            height, width = canvas.photo.shape[-2:]
            size = max(1, round(height * scale)), max(1, round(width * scale))
            if scale < 1.0 and min(size) < _COARSE_SIDE_PX:
                continue
            try:
                photo = resize_image(canvas.photo, size)
                targets = self.objective.targets(photo, self.plan.border_px, canvas.style)
            except ImageTooSmall as error:
                if scale == 1.0:
                    canvas.error = error
                continue  # a coarse scale that the network cannot see is left out
            yield from self._at_scale(canvas, targets, scale, size, steps)
            if canvas.error is not None:
                return

    def _choose_start(self, canvas: Canvas) -> Generator[_Request, Evaluation, None]:
        """Start from what was made in one pass if its loss is lower, and else forget it."""
        assert canvas.fast is not None
        height, width = canvas.photo.shape[-2:]
        try:
            targets = self.objective.targets(canvas.photo, self.plan.border_px, canvas.style)
        except ImageTooSmall:  # which is said by whoever paints
            canvas.fast = None
            return
        pixels = self._pixels(canvas)
        losses = []
        for start in (canvas.image, canvas.fast):
            point = mirrored(resize_image(start, (height, width)).clamp(0, 1), self.plan.border_px)
            answer = yield _Request(point, targets, None, pixels)
            canvas.evaluations += 1
            losses.append(answer.losses["loss"])
        if losses[1] < losses[0]:
            canvas.image = canvas.fast
        else:
            canvas.fast = None

    def _pixels(self, canvas: Canvas) -> int:
        border = border_width((canvas.photo.shape[-2], canvas.photo.shape[-1]), self.plan.border_px)
        return math.prod(side + 2 * border for side in canvas.photo.shape[-2:])

    def _at_scale(
        self, canvas: Canvas, targets: Targets, scale: float, size: tuple[int, int], steps: int
    ) -> Generator[_Request, Evaluation, None]:
        plan = self.plan
        start = mirrored(resize_image(canvas.image, size).clamp(0, 1), plan.border_px)
        descent = Descent(start, self._optimizer(start), tolerance=plan.stop_tolerance)
        average = _Average(plan.average_iterates) if plan.average_iterates else None
        pixels = self._pixels(canvas)
        phases: list[tuple[torch.dtype | None, int]] = [(None, steps)]
        if plan.precision == "bfloat16":
            refine = min(plan.refine_steps, steps - 1) if scale == 1.0 else 0
            phases = [(torch.bfloat16, steps - refine), (None, refine)]
        left_over = 0
        for dtype, planned in phases:
            evaluations, stuck, point = planned + left_over, 0, descent.x
            if descent.evaluations and evaluations:
                descent.restart_from_best()
            for number in range(evaluations):
                if descent.done:
                    break
                before, point = None if dtype is None else point, descent.x
                answer = yield _Request(point, targets, dtype, pixels, before)
                descent.advance(answer)
                if average is not None and descent.taken is point:
                    average.add(point)
                canvas.image = without_border(descent.best, plan.border_px, size)
                canvas.losses = descent.losses
                self._note(canvas, answer, scale)
                stuck = stuck + 1 if number and answer.moved < _RESOLVED else 0
                del answer  # its gradient is not kept while the next is computed
                if stuck == _PATIENCE:
                    left_over = evaluations - number - 1
                    break
        canvas.error = descent.error
        if average is None or descent.error is not None:
            return
        canvas.image = without_border(average.value(), plan.border_px, size)
        if scale == 1.0:
            answer = yield _Request(average.value(), targets, None, pixels)
            canvas.losses = answer.losses
            self._note(canvas, answer, scale)

    def _note(self, canvas: Canvas, answer: Evaluation, scale: float) -> None:
        """Count an evaluation, and keep of it what was asked for."""
        canvas.evaluations += 1
        if self.plan.curve:
            canvas.curve.append({"scale": scale, **answer.losses})
        every = self.plan.frame_every
        if every and canvas.evaluations % every == 0:
            canvas.frames.append(Frame(canvas.evaluations, canvas.image.to("cpu", torch.float32)))

    def _optimizer(self, start: Tensor) -> Optimizer:
        rate = self.plan.learning_rate
        if self.plan.optimizer == "adam":
            return Adam(learning_rate=0.02 if rate is None else rate)
        return LBFGS(
            history_size=min(self.plan.history_size, _pairs_in_memory(start)),
            learning_rate=1.0 if rate is None else rate,
            first_step=FIRST_STEP,
            bounds=(0.0, 1.0),
        )

    def _stylized(self, canvas: Canvas, image: Tensor) -> Stylized:
        painted = self.finish(canvas.image.to("cpu", torch.float32), image)
        stats = {
            **canvas.losses,
            "evaluations": float(canvas.evaluations),
            "pretrained": float(self.objective.network.pretrained),
            "change": mean_change(painted, image),
        }
        names = canvas.curve[0] if canvas.curve else {}
        return Stylized(
            image=painted,
            stats=stats,
            curve={name: [each[name] for each in canvas.curve] for name in names},
            frames=[Frame(each.number, self.finish(each.image, image)) for each in canvas.frames],
        )


class _Average:
    """Exponential average of pictures, its start corrected as Adam's (Kingma and Ba 2015)."""

    def __init__(self, decay: float) -> None:
        self._decay, self._count = decay, 0
        self._sum: Tensor | None = None

    def add(self, image: Tensor) -> None:
        share = (1 - self._decay) * image
        self._sum = share if self._sum is None else self._decay * self._sum + share
        self._count += 1

    def value(self) -> Tensor:
        assert self._sum is not None
        return (self._sum / (1 - self._decay**self._count)).clamp(0, 1)


def _pairs_in_memory(point: Tensor) -> int:
    """How many of L-BFGS's pairs at `point` its share of the memory has room for."""
    return max(1, history_bytes(point.device) // (2 * point.nbytes))
