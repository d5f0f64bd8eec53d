"""The loop of one of the processes that train together. Knows nothing of Ray.

What is published is named by its step and depends on nothing else, so a process that died, or does not know yet
that others took its place, can do no harm. A training goes on from its newest checkpoint, one object each.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor

from jobs.errors import JobMismatch, StepFailed
from jobs.stores.filesystems import StorageOptions
from jobs.stores.store import Store, open_store
from jobs.training.data import TrainingSet, batches
from jobs.training.job import TrainJob
from jobs.training.layout import (
    STOP,
    checkpoint_path,
    checkpoint_steps,
    generator_path,
    metrics_path,
    sample_path,
)
from jobs.training.metrics import write_part
from jobs.training.spec import LogSpec, TrainSpec
from nst.errors import Diverged
from nst.gan.parallel import DDPOptions, Share
from nst.gan.schedule import Scheduler
from nst.images.codec import encode_image

__all__ = ["LoopSetup", "train"]

_FORMAT = 1
_STOP_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSetup:
    """What every process is told."""

    spec: TrainSpec
    log: LogSpec
    ddp: DDPOptions
    storage: StorageOptions
    fingerprint: str
    urls: tuple[pa.ChunkedArray, ...]
    """Places of the photographs of each of the spec's collections."""
    epoch_steps: int
    steps: int
    """Of the whole training."""
    generators_every: int
    """Steps after which the generators are published by themselves; 0: only at the end."""
    loader_workers: int
    threads: int

    @classmethod
    def of(cls, job: TrainJob) -> LoopSetup:
        file = job.file
        return cls(
            spec=file.spec,
            log=file.log,
            ddp=file.ddp,
            storage=file.storage,
            fingerprint=job.fingerprint,
            urls=job.urls,
            epoch_steps=job.epoch_steps,
            steps=job.steps,
            generators_every=file.evaluation.every,
            loader_workers=file.resources.loader_workers,
            threads=file.resources.threads,
        )


def train(setup: LoopSetup, rank: int = 0, world: int = 1, device: str | torch.device = "cpu") -> int:
    """Train from the newest checkpoint to the end, or until asked to stop; gives the last step.

    Args:
        rank, world: of this process among those of torch's default group, if there are several.

    Raises:
        Diverged: a loss is not finite.
        JobMismatch: a checkpoint is not of this training.
        StepFailed: a step raised.
        NoPhotographs, StoreError, OSError: nothing can be read or written.
    """
    torch.set_num_threads(setup.threads)
    return _Loop(setup, Share(setup.spec.batch_size, rank, world), torch.device(device)).run()


class _Loop:
    def __init__(self, setup: LoopSetup, share: Share, device: torch.device) -> None:
        spec = setup.spec
        self._setup, self._share, self._device = setup, share, device
        self._store = open_store(spec.output, setup.storage)
        self._trainer = spec.recipe.build(seed=spec.seed, device=device)
        self._scheduler = Scheduler(spec.schedule, list(self._trainer.optimizers))
        self._epoch_loss, self._epoch_count = 0.0, 0
        self._photos = TrainingSet.of(spec, setup.urls, setup.storage)
        self._fresh: list[tuple[int, dict[str, Tensor], float, float]] = []
        """Steps that were not published yet: number, losses, learning rate, seconds."""
        self._stop_asked_at = 0.0
        self._stop_asked_every = 20 if device.type == "cuda" else 1  # the answer is waited for
        self._publisher = _Publisher(self._store)

    def run(self) -> int:
        setup, trainer, log = self._setup, self._trainer, self._setup.log
        begin = self._load()
        trainer.distribute(self._share, setup.ddp)
        done, before = begin, time.monotonic()
        with self._publisher:
            if begin and self._share.rank == 0:
                self._remove_checkpoints(begin)  # what was left of those by a process that died
            for done, images in enumerate(self._batches(begin), begin + 1):
                epoch, place = divmod(done - 1, setup.epoch_steps)
                self._scheduler.begin(epoch)
                losses = self._step(done, images)
                now = time.monotonic()
                rate = trainer.optimizers[0].param_groups[0]["lr"]
                self._fresh.append((done, losses, rate, now - before))
                before = now
                last = done == setup.steps
                stop = not last and done % self._stop_asked_every == 0 and self._stop_asked()
                keep = last or stop or done % log.checkpoint_every == 0
                if keep or done % log.metrics_every == 0 or place == setup.epoch_steps - 1:
                    self._flush()
                if place == setup.epoch_steps - 1:
                    self._end_epoch()
                if last or (log.samples_every and done % log.samples_every == 0):
                    self._publish_samples(done)
                if last or (setup.generators_every and done % setup.generators_every == 0):
                    self._publish_generators(done)
                if keep:
                    self._checkpoint(done)
                if stop:
                    break
        return done

    def _step(self, number: int, images: list[Tensor]) -> dict[str, Tensor]:
        try:
            return self._trainer.step(images)
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            batch = self._setup.spec.batch_size
            samples = range((number - 1) * batch, number * batch)[self._share.part]
            urls = ", ".join(self._photos.chosen(samples))
            raise StepFailed(number, f"step {number} fails of {what}; its photographs: {urls}") from error

    # Data

    def _batches(self, begin: int) -> Iterator[list[Tensor]]:
        setup = self._setup
        pin = self._device.type == "cuda"
        steps = range(begin, setup.steps)
        for batch in batches(self._photos, self._share, steps, workers=setup.loader_workers, pin=pin):
            yield [self._moved(images) for images in batch]

    def _moved(self, images: Tensor) -> Tensor:
        return images.to(self._device, self._trainer.dtype, non_blocking=True)

    # Going on

    def _load(self) -> int:
        """Takes up the newest checkpoint; gives its step."""
        newest = torch.tensor(max(checkpoint_steps(self._store), default=0), device=self._device)
        if self._share.world > 1:  # a listing that lags may show them different ones
            dist.broadcast(newest, 0)
        step = int(newest)
        if step == 0:
            return 0
        data = self._store.read(checkpoint_path(step))
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if state.get("format") != _FORMAT or state.get("fingerprint") != self._setup.fingerprint:
            raise JobMismatch(f"{self._store.url}/{checkpoint_path(step)} is not a checkpoint of this training")
        self._trainer.load_state_dict(state["training"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._epoch_loss, self._epoch_count = state["epoch_loss"], state["epoch_count"]
        return step

    def _checkpoint(self, step: int) -> None:
        """Published whole or not at all: that is its commit. Older ones go when it is there."""
        if self._share.rank:
            return
        state = {
            "format": _FORMAT,
            "fingerprint": self._setup.fingerprint,
            "step": step,
            "training": self._trainer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "epoch_loss": self._epoch_loss,
            "epoch_count": self._epoch_count,
        }
        out = io.BytesIO()
        torch.save(state, out)
        self._publisher.publish(checkpoint_path(step), out.getvalue())
        self._remove_checkpoints(step)

    def _remove_checkpoints(self, newest: int) -> None:
        """All but the newest ones."""
        others = [step for step in checkpoint_steps(self._store) if step != newest]
        for old in others[: max(0, len(others) - self._setup.log.keep_checkpoints + 1)]:
            self._publisher.remove(checkpoint_path(old))

    def _stop_asked(self) -> bool:
        """Whether all are to end after this step; all get the same answer."""
        asked = False
        if self._share.rank == 0 and time.monotonic() - self._stop_asked_at > _STOP_EVERY_S:
            self._stop_asked_at = time.monotonic()
            asked = self._store.exists(STOP)
        if self._share.world == 1:
            return asked
        flag = torch.tensor(float(asked), device=self._device)
        dist.broadcast(flag, 0)
        return bool(flag)

    # What is kept

    def _flush(self) -> None:
        """Find the losses of the steps since the last time, over all processes, and publish them."""
        if not self._fresh:
            return
        names = list(self._fresh[0][1])
        table = torch.stack([torch.stack([losses[name] for name in names]) for _, losses, _, _ in self._fresh])
        values = self._share.mean(table.double()).tolist()
        rows = []
        for (step, _, rate, seconds), row in zip(self._fresh, values, strict=True):
            losses = dict(zip(names, row, strict=True))
            bad = next((name for name, loss in losses.items() if not math.isfinite(loss)), None)
            if bad is not None:
                raise Diverged(f"loss {bad} is {losses[bad]} in step {step}")
            epoch = (step - 1) // self._setup.epoch_steps
            rows.append({"step": step, "epoch": epoch, "learning_rate": rate, "seconds": seconds, **losses})
            self._epoch_loss += self._trainer.plateau_loss(losses)
            self._epoch_count += 1
        if self._share.rank == 0:
            self._publisher.publish(metrics_path(rows[-1]["step"]), write_part(rows))
        self._fresh.clear()

    def _end_epoch(self) -> None:
        self._scheduler.end(self._epoch_loss / self._epoch_count)
        self._epoch_loss, self._epoch_count = 0.0, 0

    def _publish_generators(self, step: int) -> None:
        if self._share.rank == 0:
            self._publisher.publish(generator_path(step), self._trainer.file_bytes())

    def _publish_samples(self, step: int) -> None:
        if self._share.rank:
            return
        spec, count = self._setup.spec, self._setup.log.samples
        photos = {
            name: [self._moved(image[None]) for image in self._photos.images(name, count, alike=True)]
            for name in spec.collections
        }
        grid = self._trainer.samples(photos, spec.data.crop_size)
        self._publisher.publish(sample_path(step), encode_image((grid + 1) / 2, format="jpeg", quality=90))


class _Publisher:
    """Publishes one object after the other, in order, while steps go on; at most one waits.

    Inside a `with`, which ends when all is published. After an error nothing more is: a checkpoint must not be
    there without the metrics before it. The error is raised by the next call or at the end.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "publisher")
        self._pending: list[Future[None]] = []
        self._error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def publish(self, path: str, data: bytes) -> None:
        self._wait(1)
        self._then(lambda: self._store.publish(path, data))

    def remove(self, path: str) -> None:
        self._then(lambda: self._store.remove(path))

    def _then(self, work: Callable[[], None]) -> None:
        def unless_failed() -> None:
            if self._error is not None:
                raise self._error
            try:
                work()
            except BaseException as error:
                self._error = error
                raise

        self._pending.append(self._thread.submit(unless_failed))

    def _wait(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.pop(0).result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._thread.shutdown(cancel_futures=True)
