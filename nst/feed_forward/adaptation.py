"""Fine-tuning of the painter for a job's styles on the job's own photographs, as the runner does it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from nst.feed_forward.options import StyleTrainingOptions
from nst.feed_forward.size import reference_px
from nst.feed_forward.style_training import StyleTraining
from nst.gan.translate import mirrored_beyond
from nst.images.codec import as_float, levels_of, reduced

__all__ = ["PainterAdaptation"]

_WARM = 10
"""Steps in which the learning rate rises."""
_STEADY = 0.3
"""Share of the steps after which it falls."""
_MOST_PX = 1536
"""Side of what is kept of a photograph."""
_LAST = 0.02
"""What it falls to."""


class PainterAdaptation:
    """A training of so many steps, whose learning rate rises, stays and falls.

    Args:
        stroke_side_px: long side at which larger photographs are painted; None: at their own.
    """

    def __init__(
        self, training: StyleTraining, options: StyleTrainingOptions, total: int, stroke_side_px: int | None
    ) -> None:
        self._training, self._options, self._total = training, options, total
        self._stroke_side_px = stroke_side_px

    @property
    def steps(self) -> int:
        return self._training.steps

    def prepared(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """The photograph as it is painted, of a large one its middle, and what its moments are taken from; as
        levels, too, since there are many."""
        small = reduced(photo, self._stroke_side_px)
        reference = reduced(small, min(reference_px(small), self._options.reference_side))
        for dim in (1, 2):
            small = mirrored_beyond(small, dim, 0, max(0, self._options.side - small.shape[dim]))
            start = max(0, small.shape[dim] - _MOST_PX) // 2
            small = small.narrow(dim, start, min(small.shape[dim], _MOST_PX))
        return levels_of(small), levels_of(reference)

    def step(self, photos: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
        rate = self._options.learning_rate * self._rate(self.steps)
        for group in self._training.optimizer.param_groups:
            group["lr"] = rate
        shown = [(as_float(photo), as_float(reference)) for photo, reference in photos]
        losses = self._training.learn(shown)
        return dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))

    def _rate(self, step: int) -> float:
        falls = max(1.0, self._total * (1 - _STEADY))
        left = min(1.0, (self._total - step) / falls)
        return max(_LAST, left) * min(1.0, (step + 1) / _WARM)

    def state_bytes(self) -> bytes:
        file = io.BytesIO()
        torch.save(self._training.state_dict(), file)
        return file.getvalue()

    def restore(self, state: bytes) -> None:
        self._training.load_state_dict(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True))

    def file_bytes(self) -> bytes:
        return self._training.file_bytes()
