"""What paints in each column: what a job's worker would build, but with one painter for all drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from jobs.driver.assets import by_url, read_assets
from jobs.ledger.results import image_seed
from jobs.preview.column import Column
from nst.errors import ImageError, OptionError
from nst.feed_forward.method import FeedForward
from nst.feed_forward.pictures import style_picture
from nst.feed_forward.stylizer import FeedForwardStylizer
from nst.stylizer import Outcome, Stylizer

__all__ = ["Paint", "Painters", "checked_style"]

Paint: TypeAlias = Callable[[Tensor, str], Outcome]
"""Paints a photograph (3, H, W) in [0, 1], with its key, as the job of a column would."""

_STYLE_PX = 512


def checked_style(place: str, data: bytes) -> Tensor | str:
    """A style picture (3, h, w) in [0, 1], or why it cannot be one."""
    try:
        return style_picture("style", place, data, _STYLE_PX)
    except OptionError as error:
        return error.reason or str(error)
    except ImageError as error:
        return str(error)


class Painters:
    """What paints in each of some columns, all of one kind of method.

    Args:
        pictures: files of their styles, by their places.
    """

    def __init__(self, columns: Sequence[Column], pictures: dict[str, bytes], device: torch.device) -> None:
        self._device = device
        self._places = list(pictures)
        self._drafts: FeedForwardStylizer | None = None
        first = columns[0].job
        if isinstance(first.spec.method, FeedForward):
            # Named by number: pictures of different folders may have the same names.
            numbered = {str(number): data for number, data in enumerate(pictures.values())}
            method = replace(first.spec.method, style=tuple(numbered), strength=1.0)
            assets = {**by_url(read_assets(first.spec.method, first.storage)), **numbered}
            drafts = method.build(assets, device)
            assert isinstance(drafts, FeedForwardStylizer)
            self._drafts = drafts

    @property
    def share(self) -> bool:
        """Whether all columns share one network."""
        return self._drafts is not None

    def of(self, column: Column) -> Paint:
        """What paints in a column. Where all `share` a network, several may paint at once.

        Raises:
            NstError: it cannot be built.
        """
        job = column.job
        if self._drafts is not None:
            number = self._places.index(column.style.place)
            drafts = self._drafts.at_strength(column.strength)
            return lambda photo, key: drafts([photo], [_generator(0, key)], [str(number)])[0]
        assets = by_url(read_assets(job.spec.method, job.storage))
        return partial(_painted, job.spec.method.build(assets, self._device), job.spec.seed)


def _painted(stylizer: Stylizer, seed: int, photo: Tensor, key: str) -> Outcome:
    return stylizer([photo], [_generator(seed, key)])[0]


def _generator(seed: int, key: str) -> torch.Generator:
    return torch.Generator().manual_seed(image_seed(seed, key))
