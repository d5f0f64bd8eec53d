"""Which photographs a step is trained on, and how they are cropped: functions of seed and step alone.

Nothing is to be remembered, so training goes on from any step, with any number of workers, on the same images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nst import check
from nst.errors import OptionError
from nst.images.codec import picture_tensor

__all__ = ["Preprocess", "Preprocessing", "photo_index", "stream", "style_pair", "style_turns"]

Preprocess = Literal[
    "resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "shrink_and_crop", "none"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """Photographs to training images. Names: the public implementation's, but for `shrink_and_crop`."""

    preprocess: Preprocess = "resize_and_crop"
    """How photographs become images. `resize_and_crop`: to a square of load_size, of which a random square of
    crop_size is taken. `crop`: only that. `scale_width`: to a width of load_size. `scale_width_and_crop`: both.
    `shrink_and_crop`: the same, but narrower ones stay as they are. `none`: sizes stay, but for what the
    generator needs. Photographs that are smaller than the crop are enlarged first, for `shrink_and_crop`
    mirrored beyond their borders."""
    load_size: int = 286
    """Side, or width, in pixels to which photographs are scaled."""
    crop_size: int = 256
    """Side in pixels of the square that is taken of a photograph."""
    flip: bool = True
    """Whether half of the images are mirrored, left to right."""

    def __post_init__(self) -> None:
        check.one_of("preprocess", self.preprocess, get_args(Preprocess))
        check.at_least("load_size", self.load_size, 1)
        check.at_least("crop_size", self.crop_size, 1)
        if self.preprocess.endswith("_and_crop") and self.load_size < self.crop_size:
            raise OptionError("load_size", self.load_size, reason=f"less than crop_size = {self.crop_size}")

    @property
    def square(self) -> bool:
        """Whether all images have one size."""
        return self.preprocess.endswith("crop")

    def check_square(self, why: str) -> None:
        """Raises OptionError: images have several sizes, and `why` they must not."""
        if not self.square:
            choices = [each for each in get_args(Preprocess) if each.endswith("crop")]
            raise OptionError("preprocess", self.preprocess, choices=choices, reason=why)

    def check_multiple(self, multiple: int) -> None:
        """Raises OptionError: crops are no multiple of what a generator needs."""
        if self.square and self.crop_size % multiple:
            reason = f"the generator needs a multiple of {multiple}"
            raise OptionError("crop_size", self.crop_size, reason=reason)

    def __call__(self, photo: Image.Image, generator: torch.Generator, multiple: int = 4) -> Tensor:
        """An RGB photograph to (3, h, w) in [-1, 1]; h and w are multiples of `multiple` if it is a divisor of
        crop_size."""
        image = self._scaled(photo, multiple)
        if self.square:
            left, top = (_within(max(0, side - self.crop_size), generator) for side in image.size)
            right, bottom = (
                min(side, start + self.crop_size) for side, start in zip(image.size, (left, top), strict=True)
            )
            image = image.crop((left, top, right, bottom))
        if self.flip and float(torch.rand((), generator=generator)) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.square and image.size != (self.crop_size, self.crop_size):
            beyond = [(0, self.crop_size - side) for side in reversed(image.size)]
            return picture_tensor(np.pad(np.asarray(image), (*beyond, (0, 0)), "symmetric")).mul_(2).sub_(1)
        return picture_tensor(image).mul_(2).sub_(1)

    def image_size(self, width: int, height: int, multiple: int = 4) -> tuple[int, int]:
        """(width, height) of the image that a photograph becomes."""
        return (self.crop_size,) * 2 if self.square else self.scaled_size(width, height, multiple)

    def _scaled(self, photo: Image.Image, multiple: int) -> Image.Image:
        size = self.scaled_size(*photo.size, multiple)
        return photo if size == photo.size else photo.resize(size, Image.Resampling.BICUBIC)

    def scaled_size(self, width: int, height: int, multiple: int = 4) -> tuple[int, int]:
        """(width, height) to which a photograph is scaled, before it is cropped."""
        if self.preprocess == "resize_and_crop":
            width = height = self.load_size
        elif self.preprocess.startswith("scale_width"):
            width, height = self.load_size, round(height * self.load_size / width)
        elif self.preprocess == "shrink_and_crop":
            scale = min(1.0, self.load_size / width)
            return max(1, round(width * scale)), max(1, round(height * scale))
        if self.square:
            more = max(1.0, self.crop_size / min(width, height))
            width, height = (max(self.crop_size, round(side * more)) for side in (width, height))
        else:
            # The ResNets, of 4, have to be left two pixels at their smallest, the U-Nets one.
            fewest = 2 if multiple <= 4 else 1
            width, height = (max(fewest, round(side / multiple)) * multiple for side in (width, height))
        return width, height


def photo_index(sample: int, photos: int, seed: int, domain: str) -> int:
    """Which of `photos` the sample with this number, counted over the whole training, is made of.

    Args:
        domain: names the order: `A`, `B`, or any other.

    Every photograph comes once before any comes again, each time in another order. The orders of A and B have
    nothing to do with each other.
    """
    epoch, place = divmod(sample, photos)
    return int(_order(photos, seed, domain, epoch)[place])


def style_pair(sample: int, styles: int, seed: int) -> tuple[int, int]:
    """The style from which, and the other one to which, the sample with this number, counted over the whole
    training, is translated. Each of the styles * (styles - 1) directions comes once before any comes again."""
    epoch, place = divmod(sample, styles * (styles - 1))
    return _directions(styles, seed, epoch)[place]


def style_turns(sample: int, styles: int, seed: int) -> tuple[int, int]:
    """How many samples before this one are translated from the style that it is translated from, and how many
    to the style that it is translated to."""
    epoch, place = divmod(sample, styles * (styles - 1))
    directions = _directions(styles, seed, epoch)
    source, target = directions[place]
    before = epoch * (styles - 1)  # a direction for each of the other styles
    return (
        before + sum(a == source for a, _ in directions[:place]),
        before + sum(b == target for _, b in directions[:place]),
    )


def stream(seed: int, domain: str, sample: int) -> torch.Generator:
    """Random numbers for the cropping of a sample's photograph.

    Args:
        domain: names the photograph among those of the sample, as that of `photo_index`.
    """
    return torch.Generator().manual_seed(_seed("crop", seed, domain, sample))


@lru_cache(maxsize=8)
def _directions(styles: int, seed: int, epoch: int) -> tuple[tuple[int, int], ...]:
    order = _order(styles * (styles - 1), seed, "directions", epoch).tolist()
    pairs = (divmod(number, styles - 1) for number in order)
    return tuple((source, rest + (rest >= source)) for source, rest in pairs)


@lru_cache(maxsize=24)
def _order(count: int, seed: int, what: str, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(_seed("order", seed, what, epoch))
    return torch.randperm(count, generator=generator)


def _seed(*parts: object) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _within(room: int, generator: torch.Generator) -> int:
    return int(torch.randint(room + 1, (), generator=generator))
