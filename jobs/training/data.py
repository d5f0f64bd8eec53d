"""Photographs of collections as the batches of steps, decoded ahead by processes of their own."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from jobs.errors import NoPhotographs, StepFailed, StoreError
from jobs.stores.filesystems import StorageOptions
from jobs.stores.photo_files import read_photo_file
from jobs.stores.store import open_store
from jobs.training.layout import skipped_path
from jobs.training.spec import TrainSpec
from nst.errors import ImageError, ImageTooLarge, ImageTooSmall
from nst.gan.parallel import Share
from nst.gan.sampling import stream
from nst.images.decode import open_photo

__all__ = ["TrainingSet", "batches", "step_failed"]

_TRIES = 100
"""Photographs in a row of which none can be read: then something else is wrong."""
_AHEAD = 4
_TOLD = "Caught "
"""What torch says first of what another process raised."""


@dataclass(frozen=True, slots=True)
class TrainingSet(Dataset[tuple[Tensor, ...]]):
    """By the number of a sample, the photographs that the spec's recipe chooses for it, cropped: (3, h, w) in
    [-1, 1] each.

    In the place of a photograph that cannot be read, or is too small for the networks, comes the next one; it
    is noted in the job's folder, once.
    """

    spec: TrainSpec
    urls: Mapping[str, Any]
    """Places of the photographs by the collection's name, in order: a list, or Arrow's column."""
    storage: StorageOptions
    timeout_s: float = 0.0
    """The process ends, by SIGALRM, when one photograph takes longer: what hangs ends by nothing gentler. 0: it
    may take any time."""
    at_work: Any = None
    """Memory shared with processes that load: the sample that each is at, counted from 1, or 0."""

    @classmethod
    def of(
        cls, spec: TrainSpec, urls: Sequence[Any], storage: StorageOptions, timeout_s: float = 0.0
    ) -> TrainingSet:
        """
        Args:
            urls: places of the photographs of each of the spec's collections, in their order.
        """
        return cls(spec, dict(zip(spec.collections, urls, strict=True)), storage, timeout_s)

    def __getitem__(self, sample: int) -> tuple[Tensor, ...]:
        """Raises NoPhotographs: none of a hundred can be read."""
        seed, process = self.spec.seed, get_worker_info()
        counts = {name: len(urls) for name, urls in self.urls.items()}
        if process is not None:
            self.at_work[process.id] = sample + 1
        images = tuple(
            self._cropped(self.readable(each.collection, each.place)[0], stream(seed, each.stream, sample))
            for each in self.spec.recipe.choose(sample, counts, seed)
        )
        if process is not None:
            self.at_work[process.id] = 0
        return images

    def chosen(self, samples: Iterable[int]) -> list[str]:
        """Places of the photographs that these samples are made of, if all can be read."""
        counts = {name: len(urls) for name, urls in self.urls.items()}
        choices = (self.spec.recipe.choose(sample, counts, self.spec.seed) for sample in samples)
        return [str(self.urls[each.collection][each.place]) for some in choices for each in some]

    def _cropped(self, photo: Image.Image, generator: torch.Generator) -> Tensor:
        return self.spec.data(photo, generator, self.spec.recipe.multiple)

    def images(self, name: str, count: int, *, alike: bool = False) -> Iterator[Tensor]:
        """The first photographs of a collection that can be read, at most as many as there are: (3, h, w) in
        [-1, 1], the same ones whenever they are asked for.

        Args:
            alike: all are cropped by the same random numbers, else each by its own.
        """
        place, number = 0, 0
        while number < count and place < len(self.urls[name]):
            photo, place = self.readable(name, place)
            if place > len(self.urls[name]):  # no other can be read, and these came already
                return
            draws = stream(0, self.spec.recipe.stream_of(name), -1 if alike else -1 - number)
            yield self._cropped(photo, draws)
            number += 1

    def readable(self, name: str, place: int) -> tuple[Image.Image, int]:
        """The photograph of a collection at `place`, or else the next one; and the place after it.

        Raises:
            NoPhotographs: none of a hundred can be trained on.
            OSError: none can be read, and the last one for a reason that may pass.
        """
        return self._readable(name, place, self._note)

    def check(self, name: str) -> None:
        """Raises NoPhotographs, OSError: as `readable` does of the first photographs; nothing is noted."""
        self._readable(name, 0, lambda *_: None)

    def _readable(
        self, name: str, place: int, note: Callable[[str, Exception], None]
    ) -> tuple[Image.Image, int]:
        urls = self.urls[name]
        tries = min(_TRIES, len(urls))
        error: Exception | None = None
        for number in range(tries):
            url = str(urls[(place + number) % len(urls)])
            try:
                return self._photo(url), place + number + 1
            except (ImageError, OSError) as failed:
                error = failed
                note(url, failed)
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise error
        count = f"{tries} photographs" if tries > 1 else "its only photograph"
        raise NoPhotographs(f"{name}: none of {count} can be trained on; the last one: {error}") from error

    def _photo(self, url: str) -> Image.Image:
        spec = self.spec
        with _ended_after(self.timeout_s):
            data = read_photo_file(url, size_bytes=None, max_pixels=spec.max_pixels, storage=self.storage)
            photo = open_photo(data, max_pixels=spec.max_pixels)
            width, height = spec.data.image_size(*photo.size, spec.recipe.multiple)
        scaled = spec.data.scaled_size(*photo.size, spec.recipe.multiple)
        if math.prod(scaled) > spec.max_pixels:  # a line of pixels, enlarged to be as wide as the crop
            said = f"{photo.width} x {photo.height} pixels, scaled to {scaled[0]} x {scaled[1]}"
            raise ImageTooLarge(f"{said}: more than the limit of {spec.max_pixels}")
        refusal = None if spec.data.square else spec.recipe.refusal(height, width)
        if refusal is not None:
            raise ImageTooSmall(refusal)
        return photo

    def _note(self, url: str, error: Exception) -> None:
        name = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        text = json.dumps({"url": url, "error": f"{type(error).__name__}: {error}"})
        open_store(self.spec.output, self.storage).publish(skipped_path(name), text.encode())


def batches(
    photos: TrainingSet, share: Share, steps: range, *, workers: int, pin: bool = False
) -> Iterator[Sequence[Tensor]]:
    """This process's part of the batches of `steps`: (n, 3, h, w) in [-1, 1] per photograph of a sample.

    Args:
        workers: processes that decode ahead; 0: none.
        pin: put them where a GPU can fetch them from.

    Raises:
        NoPhotographs, StoreError, OSError: as of `TrainingSet.readable`.
        StepFailed: the photographs of a step cannot be loaded for another reason, mostly that the process ended
            that was to do it. The message names them.
    """
    more: dict[str, Any] = {}
    if workers:
        # A process forked from this one would share its locks and its connections.
        context = multiprocessing.get_context("forkserver")
        photos = replace(photos, at_work=context.RawArray("q", workers))
        more = {
            "multiprocessing_context": context,
            "prefetch_factor": _AHEAD,
            "worker_init_fn": _one_thread,
        }
    loader = DataLoader(
        photos, batch_sampler=_Numbers(share, steps), num_workers=workers, pin_memory=pin, **more
    )
    loaded, number = iter(loader), steps.start
    try:
        for batch in loaded:
            number += 1
            yield batch
    except (NoPhotographs, StoreError) as error:
        raise type(error)(_last_words(error)) from None
    except Exception as error:
        told = not workers or str(error).startswith(_TOLD)
        if told and isinstance(error, OSError):
            raise
        raise step_failed(photos, share, number + 1, error, told=told) from error


def step_failed(
    photos: TrainingSet, share: Share, number: int, error: Exception, *, told: bool = True
) -> StepFailed:
    """What to raise for what a step raised: it names this process's photographs of the step.

    Args:
        told: else a process that loads photographs ended without a word, be it those of a later step: it names
            those that it was at.
    """
    what = " ".join(f"{type(error).__name__}: {_last_words(error)}".split())
    samples: Sequence[int] = range((number - 1) * share.batch_size, number * share.batch_size)[share.part]
    if not told:
        limit = f"resources.timeout_s = {photos.timeout_s:g}"
        what = f"a process that loads photographs: it crashed, or was ended, for its memory or by {limit}"
        samples = [sample - 1 for sample in photos.at_work or () if sample] or samples
        number = samples[0] // share.batch_size + 1
    urls = ", ".join(photos.chosen(samples))
    return StepFailed(number, f"step {number} fails of {what}; its photographs: {urls}")


def _last_words(error: Exception) -> str:
    """An error's text. From another process it comes with that one's traceback."""
    return str(error).rstrip().rpartition(f"{type(error).__name__}: ")[2]


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


@contextmanager
def _ended_after(limit_s: float) -> Iterator[None]:
    """Within it, the process ends by SIGALRM after so many seconds; 0: it does not. A timer that somebody else
    has set is left alone."""
    if limit_s == 0 or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
