"""Photographs while they are dreamed: many at once, from small octaves to large, each with its own jitter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.deepdream.objective import DreamObjective
from nst.errors import Diverged, ImageError
from nst.features.passes import by_shape
from nst.images.codec import mirrored, resize_image, without_border
from nst.ops import ReLUBackward
from nst.stylizer import Frame, Outcome, Stylized, mean_change

if TYPE_CHECKING:
    from nst.deepdream.method import DeepDream

__all__ = ["DeepDreamStylizer", "Dream"]

# Octaves with a side below this are left out: the networks see nothing in them.
_MIN_OCTAVE_PX = 32


@dataclass(slots=True)
class Dream:
    """One photograph while it is dreamed."""

    bases: list[Tensor]
    """The photograph's octaves, small to large, each (3, h, w)."""
    image: Tensor
    """The current octave with all that was dreamed so far, (3, h, w) in [0, 1]."""
    framed: Tensor
    """The same within its mirrored border, which is dreamed on too."""
    generator: torch.Generator
    octave: int = 0
    """Index of the current octave in `bases`."""
    steps: int = 0
    """Steps taken, over all octaves and frames."""
    objective: float = 0.0
    """Before the last step."""
    error: ImageError | None = None
    dreamed: Stylized | None = None
    """The photograph, once all its octaves are dreamed."""
    curve: list[tuple[float, float]] = field(default_factory=list)
    """Scale and objective of every step until then."""
    frames: list[Frame] = field(default_factory=list)


class DeepDreamStylizer:
    """The loaded network, ready for photographs."""

    def __init__(self, method: DeepDream, objective: DreamObjective) -> None:
        self.method, self.objective = method, objective

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
        photo = image.to(self.objective.network.mean, copy=True)
        bases = self._octaves(photo)
        dream = Dream(bases=bases, image=bases[0], framed=bases[0], generator=generator)
        try:
            self.objective.network.check_size(photo)
        except ImageError as error:
            dream.error = error
        return dream

    def _octaves(self, photo: Tensor) -> list[Tensor]:
        bases = [photo]
        for _ in range(self.method.octaves - 1):
            height, width = bases[0].shape[-2:]
            size = round(height / self.method.octave_scale), round(width / self.method.octave_scale)
            if min(size) < max(_MIN_OCTAVE_PX, self.objective.network.min_side_px):
                break
            bases.insert(0, resize_image(bases[0], size))
        return bases

    def _run(self, dreams: Sequence[Dream]) -> Iterator[None]:
        """The photographs, and then, if asked for, the frames of the zoom into each."""
        yield from self._dream(dreams)
        dreams = [dream for dream in dreams if dream.error is None]
        for dream in dreams:
            dream.dreamed = self._stylized(dream)
        for number in range(self.method.zoom_frames):
            for dream in dreams:
                dream.frames.append(self._frame(dream, number))
                dream.bases = self._octaves(_enlarged(dream.image, self.method.zoom))
                dream.image = dream.bases[0]
            yield from self._dream(dreams)
        if self.method.zoom_frames:
            for dream in dreams:
                dream.frames.append(self._frame(dream, self.method.zoom_frames))

    @staticmethod
    def _frame(dream: Dream, number: int) -> Frame:
        return Frame(number, dream.image.to("cpu", torch.float32), aligned=number == 0)

    def _dream(self, dreams: Sequence[Dream]) -> Iterator[None]:
        """Small octaves first, in lockstep; a photograph with fewer octaves joins at its smallest."""
        for remaining in reversed(range(self.method.octaves)):
            current = [dream for dream in dreams if len(dream.bases) > remaining and dream.error is None]
            if not current:
                continue
            for dream in current:
                dream.octave = len(dream.bases) - 1 - remaining
                if dream.octave > 0:
                    # Only the detail goes up: what was dreamed, not the blur of what was enlarged.
                    below, base = dream.bases[dream.octave - 1], dream.bases[dream.octave]
                    detail = resize_image(dream.image - below, (base.shape[-2], base.shape[-1]))
                    dream.image = (base + detail).clamp(0, 1)
                dream.framed = mirrored(dream.image, self.method.border_px)
            for _ in range(self.method.steps):
                self._step([dream for dream in current if dream.error is None])
                yield

    def _step(self, dreams: Sequence[Dream]) -> None:
        """One normalized step of gradient ascent for each, every photograph with its own jitter and mean."""
        shifts = [self._jitter(dream.generator) for dream in dreams]
        rolled = [dream.framed.roll(shift, dims=(-2, -1)) for dream, shift in zip(dreams, shifts, strict=True)]
        ways = [self._relu_backward(dream) for dream in dreams]
        for group in by_shape(rolled, ways):
            values, grads = self.objective.evaluate(
                torch.stack([rolled[index] for index in group]), ways[group[0]]
            )
            for index, value, grad in zip(group, values.tolist(), grads, strict=True):
                dream, (down, right) = dreams[index], shifts[index]
                grad = self._smoothed(grad)
                scale = grad.abs().mean()
                if not bool(torch.isfinite(scale)):
                    dream.error = Diverged(f"the gradient is not finite at step {dream.steps + 1}")
                    continue
                # A gradient of all zeros (nothing excites the layer) leaves the image as it is.
                change = grad * (self.method.step_size / scale.clamp_min(torch.finfo(grad.dtype).tiny))
                dream.framed = (rolled[index] + change).clamp(0, 1).roll((-down, -right), dims=(-2, -1))
                size = (dream.image.shape[-2], dream.image.shape[-1])
                dream.image = without_border(dream.framed, self.method.border_px, size)
                dream.steps += 1
                dream.objective = value
                if self.method.curve and dream.dreamed is None:
                    dream.curve.append((dream.image.shape[-1] / dream.bases[-1].shape[-1], value))

    def _relu_backward(self, dream: Dream) -> ReLUBackward:
        if self.method.relu_backward == "redirected" and dream.steps >= self.method.redirected_steps:
            return "standard"
        return self.method.relu_backward

    def _smoothed(self, grad: Tensor) -> Tensor:
        """(3, H, W) blurred, mirrored at the border."""
        sigma = self.method.gradient_blur_px
        reach = min(math.ceil(3 * sigma), min(grad.shape[-2:]) - 1)  # there is no more to mirror
        if reach == 0:
            return grad
        axis = torch.arange(-reach, reach + 1, device=grad.device, dtype=grad.dtype)
        kernel = torch.softmax(-axis.square() / (2 * sigma**2), dim=0)
        padded = F.pad(grad[:, None], (reach,) * 4, mode="reflect")
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]

    def _jitter(self, generator: torch.Generator) -> tuple[int, int]:
        most = self.method.jitter_px
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
    return F.grid_sample(image[None], grid, mode="bicubic", align_corners=False)[0].clamp(0, 1)
