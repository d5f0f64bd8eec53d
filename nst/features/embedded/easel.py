"""Pictures in work, on their way through style transfer and DeepDream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Easel", "Work"]

_MOMENTS = 0.9, 0.99
_RATE = 0.025  # of the Adam that paints pixels, of the range [0, 1]
_LEAST_AGE, _MOST_AGE = 20, 80  # steps on a picture after which it is replaced by a new one
_DREAMS = 0.25
_FROM_NOISE = 0.1
_FROM_PHOTO = 0.8  # of those that do not begin with noise; the others begin with another picture
_LEAST_CONTENT = 0.02  # weight of the content's loss, beside the style's


@dataclass(frozen=True, slots=True)
class Work:
    """Some of the pictures in work, and what they are to become; n of each."""

    places: Tensor
    """Which ones, (n,), on the CPU."""
    images: Tensor
    """(n, 3, H, W) in [0, 1]."""
    photos: Tensor
    """What they began with, (n, 3, H, W), whose content they are to keep."""
    styles: Tensor
    """Pictures whose style they are to have, (n, 3, H, W)."""
    content_weight: Tensor
    """(n,), 0 for dreams."""
    style_weight: Tensor
    """(n,), 0 for dreams, else 1."""
    dream: Tensor
    """Which of the layers is amplified, (n,), on the CPU; -1: none."""
    channel: Tensor
    """Which channel of it, (n,), to be taken modulo their number; -1: all."""
    new: Tensor
    """Whether it is seen for the first time, (n,), on the CPU."""
    taught: Tensor
    """Whether the teacher paints, (n,); else the network that learns does."""


class Easel:
    """Pictures in work, each with Adam's moments.

    Args:
        patches: uint8 (N, 3, P, P), what pictures and styles are cut from.
        count: pictures in work.
        side: of these, in pixels.
        dream_layers: how many layers there are to amplify.
    """

    def __init__(
        self, patches: Tensor, *, count: int, side: int, dream_layers: int, random: torch.Generator
    ) -> None:
        self._patches, self._side, self._dream_layers, self._random = patches, side, dream_layers, random
        shape = count, 3, side, side
        device = patches.device
        self._images, self._photos, self._styles, self._first, self._second = (
            torch.zeros(shape, device=device) for _ in range(5)
        )
        self._age, self._end = torch.zeros(count), torch.zeros(count)
        self._content, self._style = torch.zeros(count), torch.zeros(count)
        self._dream, self._channel = torch.zeros(count).long(), torch.zeros(count).long()
        self._taught = torch.zeros(count).bool()
        for place in range(count):
            self._begin(place)
        # Not all at once.
        self._end = torch.randint(1, _MOST_AGE, (count,), generator=random).float()

    def some(self, count: int) -> Work:
        """Some at random."""
        places = torch.randperm(len(self._images), generator=self._random)[:count]
        at = places.to(self._images.device)

        def given(values: Tensor) -> Tensor:
            return values[places].to(self._images.device)

        return Work(
            places,
            self._images[at],
            self._photos[at],
            self._styles[at],
            given(self._content),
            given(self._style),
            self._dream[places],
            given(self._channel),
            self._age[places] == 0,
            given(self._taught),
        )

    @torch.no_grad()
    def step(self, work: Work, gradients: Tensor) -> None:
        """Adam on normalized gradients (n, 3, H, W), within [0, 1]; finished pictures are replaced."""
        at = work.places.to(self._images.device)
        size = gradients.flatten(1).square().mean(1).sqrt().clamp_min(1e-12)
        gradients = gradients / size.view(-1, 1, 1, 1)
        self._age[work.places] += 1
        age = self._age[work.places].view(-1, 1, 1, 1).to(gradients)
        slow, slower = _MOMENTS
        self._first[at] = first = slow * self._first[at] + (1 - slow) * gradients
        self._second[at] = second = slower * self._second[at] + (1 - slower) * gradients.square()
        way = first / (1 - slow**age) / ((second / (1 - slower**age)).sqrt() + 1e-8)
        self._images[at] = (work.images - _RATE * way).clamp(0, 1)
        ended = self._age[work.places] >= self._end[work.places]
        ended |= ~size.isfinite().cpu()
        for place in work.places[ended].tolist():
            self._begin(place)

    def state_dict(self) -> dict[str, Tensor]:
        """All that is in work; the random generator is its owner's."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        del tensors["_patches"]
        return tensors

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    def _begin(self, place: int) -> None:
        photo, style = self._patch(), self._patch()
        if self._chance(_FROM_NOISE):
            image = torch.rand(1, 3, *photo.shape[1:], generator=self._random).to(photo)[0]
        elif self._chance(_FROM_PHOTO):
            image = photo
        else:
            image = self._patch()
        self._images[place], self._photos[place], self._styles[place] = image, photo, style
        self._first[place] = self._second[place] = 0
        self._age[place] = 0
        self._end[place] = _LEAST_AGE + self._draw(_MOST_AGE - _LEAST_AGE)
        dream = self._chance(_DREAMS)
        self._style[place] = float(not dream)
        self._content[place] = 0.0 if dream else _LEAST_CONTENT ** float(torch.rand((), generator=self._random))
        self._dream[place] = self._draw(self._dream_layers) if dream else -1
        self._channel[place] = self._draw(1 << 16) if self._chance(0.5) else -1
        self._taught[place] = self._chance(0.5)

    def _patch(self) -> Tensor:
        """A random square of a patch, flipped and turned, its channels mixed: (3, side, side)."""
        patch = self._patches[self._draw(len(self._patches))]
        whole = patch.shape[-1]
        side = self._side if self._chance(0.5) else self._side + self._draw(whole - self._side + 1)
        top, left = self._draw(whole - side + 1), self._draw(whole - side + 1)
        square = patch[:, top : top + side, left : left + side].float() / 255
        if side != self._side:
            size = self._side, self._side
            square = F.interpolate(square[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        square = square.flip(2) if self._draw(2) else square
        square = square.mT if self._draw(8) == 0 else square
        if self._chance(0.4):
            mixing = 0.4 * torch.rand(1, generator=self._random) * torch.randn(3, 3, generator=self._random)
            mixing = torch.eye(3) + mixing
            mixing = mixing / mixing.sum(1, keepdim=True).clamp_min(0.3)
            square = torch.einsum("ij,jhw->ihw", mixing.to(square), square).clamp(0, 1)
        return square

    def _draw(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self._random))

    def _chance(self, share: float) -> bool:
        return float(torch.rand((), generator=self._random)) < share
