"""Photographs of two collections as the batches of steps, decoded ahead by processes of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jobs.errors import JobError
from jobs.filesystems import StorageOptions
from jobs.photo_files import read_photo_file
from jobs.storage import open_store
from jobs.training.layout import skipped_path
from nst.cyclegan.parallel import Share
from nst.cyclegan.samples import Domain, Preprocessing, photo_of, stream
from nst.errors import ImageError
from nst.photos import open_photo

__all__ = ["NoPhotographs", "Pairs", "batches"]

_TRIES = 100
"""Photographs in a row of which none can be read: then something else is wrong."""
_AHEAD = 4


class NoPhotographs(JobError):
    """Hardly any photograph of a collection can be read."""


@dataclass(frozen=True, slots=True)
class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """By the number of a sample, a photograph of A and one of B, cropped: (3, h, w) in [-1, 1] each.

    In the place of a photograph that cannot be read comes the next one; it is noted in the job's folder, once.
    """

    a: Any
    """Places of the photographs: a list, or Arrow's column."""
    b: Any
    output: str
    seed: int
    preprocessing: Preprocessing
    multiple: int
    max_pixels: int
    storage: StorageOptions

    def __getitem__(self, sample: int) -> tuple[Tensor, Tensor]:
        return self.image("A", sample), self.image("B", sample)

    def image(self, domain: Domain, sample: int) -> Tensor:
        """Raises NoPhotographs: none of a hundred can be read."""
        urls = self.a if domain == "A" else self.b
        first = photo_of(sample, len(urls), self.seed, domain)
        photo, _ = self.readable(domain, first)
        return self.preprocessing(photo, stream(self.seed, domain, sample), self.multiple)

    def readable(self, domain: Domain, place: int) -> tuple[Image.Image, int]:
        """The photograph at `place`, or else the next one; and the place after it."""
        urls = self.a if domain == "A" else self.b
        error: Exception | None = None
        for number in range(min(_TRIES, len(urls))):
            url = str(urls[(place + number) % len(urls)])
            try:
                data = read_photo_file(url, size_bytes=None, max_pixels=self.max_pixels, storage=self.storage)
                return open_photo(data, max_pixels=self.max_pixels), place + number + 1
            except (ImageError, OSError) as failed:
                error = failed
                self._note(url, failed)
        side = domain.lower()
        raise NoPhotographs(f"{side}: no photograph can be read; the last one: {error}") from error

    def _note(self, url: str, error: Exception) -> None:
        name = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        text = json.dumps({"url": url, "error": f"{type(error).__name__}: {error}"})
        open_store(self.output, self.storage).publish(skipped_path(name), text.encode())


def batches(
    pairs: Pairs, share: Share, steps: range, *, workers: int, pin: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of the batches of `steps`: (n, 3, h, w) of A and of B.

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
