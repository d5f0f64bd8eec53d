"""Photographs of collections as the batches of steps, decoded ahead by processes of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jobs.errors import JobError
from jobs.stores.filesystems import StorageOptions
from jobs.stores.photo_files import read_photo_file
from jobs.stores.store import open_store
from jobs.training.layout import skipped_path
from nst.errors import ImageError
from nst.gan.parallel import Share
from nst.gan.sampling import Domain, Preprocessing, photo_index, stream, style_pair, style_turns
from nst.images.decode import open_photo

__all__ = ["NoPhotographs", "Pairs", "batches"]

_TRIES = 100
"""Photographs in a row of which none can be read: then something else is wrong."""
_AHEAD = 4
_DOMAINS: tuple[Domain, Domain] = ("A", "B")


class NoPhotographs(JobError):
    """Hardly any photograph of a collection can be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """By the number of a sample, two photographs, cropped: (3, h, w) in [-1, 1] each; one of A and one of B, or
    with `many_styles` one of the style that the sample is translated from, and one of that it is translated to.

    In the place of a photograph that cannot be read comes the next one; it is noted in the job's folder, once.
    """

    urls: Mapping[str, Any]
    """Places of the photographs, of each collection: a list, or Arrow's column."""
    many_styles: bool = False
    output: str
    seed: int
    preprocessing: Preprocessing
    multiple: int
    max_pixels: int
    storage: StorageOptions

    def __getitem__(self, sample: int) -> tuple[Tensor, Tensor]:
        """Raises NoPhotographs: none of a hundred can be read."""
        chosen = self._of_directions(sample) if self.many_styles else self._of_domains(sample)
        first, second = (
            self.preprocessing(self.readable(name, place)[0], stream(self.seed, domain, sample), self.multiple)
            for domain, (name, place) in zip(_DOMAINS, chosen, strict=True)
        )
        return first, second

    def _of_domains(self, sample: int) -> list[tuple[str, int]]:
        """Collections, and places in them."""
        return [
            (name, photo_index(sample, len(urls), self.seed, domain))
            for (name, urls), domain in zip(self.urls.items(), _DOMAINS, strict=True)
        ]

    def _of_directions(self, sample: int) -> list[tuple[str, int]]:
        """Of each style, the photographs that are translated come in an order, and those that are shown to the
        discriminator in another."""
        names = list(self.urls)
        styles = style_pair(sample, len(names), self.seed)
        turns = style_turns(sample, len(names), self.seed)
        return [
            (names[style], photo_index(turn, len(self.urls[names[style]]), self.seed, f"{domain} {style}"))
            for style, turn, domain in zip(styles, turns, _DOMAINS, strict=True)
        ]

    def readable(self, name: str, place: int) -> tuple[Image.Image, int]:
        """The photograph of a collection at `place`, or else the next one; and the place after it."""
        urls = self.urls[name]
        error: Exception | None = None
        for number in range(min(_TRIES, len(urls))):
            url = str(urls[(place + number) % len(urls)])
            try:
                data = read_photo_file(url, size_bytes=None, max_pixels=self.max_pixels, storage=self.storage)
                return open_photo(data, max_pixels=self.max_pixels), place + number + 1
            except (ImageError, OSError) as failed:
                error = failed
                self._note(url, failed)
        raise NoPhotographs(f"{name}: no photograph can be read; the last one: {error}") from error

    def first(self, name: str, count: int) -> Iterator[tuple[int, Image.Image]]:
        """The first photographs of a collection that can be read, at most as many as there are, numbered."""
        place = 0
        for number in range(min(count, len(self.urls[name]))):
            photo, place = self.readable(name, place)
            yield number, photo

    def _note(self, url: str, error: Exception) -> None:
        name = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        text = json.dumps({"url": url, "error": f"{type(error).__name__}: {error}"})
        open_store(self.output, self.storage).publish(skipped_path(name), text.encode())


def batches(
    pairs: Pairs, share: Share, steps: range, *, workers: int, pin: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of the batches of `steps`: (n, 3, h, w) of A and of B; see `Pairs`.

    Args:
        workers: processes that decode ahead; 0: none.
        pin: put them where a GPU can fetch them from.
    """
    more: dict[str, Any] = {}
    if workers:
        # A process forked from this one would share its locks and its connections.
        more = {
            "multiprocessing_context": "forkserver",
            "prefetch_factor": _AHEAD,
            "worker_init_fn": _one_thread,
        }
    loader = DataLoader(
        pairs, batch_sampler=_Numbers(share, steps), num_workers=workers, pin_memory=pin, **more
    )
    yield from loader


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Of the samples of each step's batch, as far as they are this process's."""

    share: Share
    steps: range

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            first = step * self.share.batch_size
            yield list(range(first, first + self.share.batch_size)[self.share.part])

    def __len__(self) -> int:
        return len(self.steps)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
