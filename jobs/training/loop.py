"""The loop of one of the processes that train together. Knows nothing of Ray.

What is published is named by its step and depends on nothing else, so a process that died, or does not know yet
that others took its place, can do no harm. A training goes on from its newest checkpoint, one object each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor

from jobs.driver.assets import by_url
from jobs.errors import TrainingDiverged
from jobs.stores.filesystems import StorageOptions
from jobs.stores.store import open_store
from jobs.training.changes import Change, change_at, fingerprint_at
from jobs.training.checkpoints import checkpoint_bytes, take_up
from jobs.training.data import TrainingSet, batches, step_failed
from jobs.training.job import TrainJob
from jobs.training.layout import (
    checkpoint_path,
    checkpoint_steps,
    generator_path,
    metrics_path,
    sample_path,
    snapshot_path,
)
from jobs.training.metrics import write_part
from jobs.training.publisher import Publisher
from jobs.training.spec import LogSpec, TrainSpec
from jobs.training.stopping import StopRequest
from nst.gan.parallel import DDPOptions, Share
from nst.gan.schedule import Scheduler
from nst.images.codec import encode_image

__all__ = ["LoopSetup", "train"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSetup:
    """What every process is told."""

    spec: TrainSpec
    log: LogSpec
    ddp: DDPOptions
    storage: StorageOptions
    fingerprint: str
    """The fingerprint that the training was begun with."""
    changes: tuple[Change, ...]
    """Options that were changed since, which `spec` has."""
    starts: Mapping[str, bytes]
    """Files whose weights the networks begin with, by name, if there is no checkpoint yet."""
    assets: Mapping[str, bytes]
    """What the recipe needs, by URL."""
    urls: tuple[pa.ChunkedArray, ...]
    """Places of the photographs of each of the spec's collections."""
    epoch_steps: int
    steps: int
    """Of the whole training."""
    generators_every: int
    """Steps after which the generators are published by themselves; 0: only at the end."""
    loader_workers: int
    timeout_s: float
    """As of `TrainingSet`."""
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
            changes=job.changes,
            starts=by_url(job.files.starts),
            assets=by_url(job.files.recipe),
            urls=job.urls,
            epoch_steps=job.epoch_steps,
            steps=job.steps,
            generators_every=file.evaluation.every,
            loader_workers=file.resources.loader_workers,
            timeout_s=file.resources.timeout_s,
            threads=file.resources.threads,
        )


def train(setup: LoopSetup, rank: int = 0, world: int = 1, device: str | torch.device = "cpu") -> int:
    """Train from the newest checkpoint to the end, or until asked to stop; gives the last step.

    Args:
        rank, world: of this process among those of torch's default group, if there are several.

    Raises:
        TrainingDiverged: a loss, or what was trained, is not finite.
        JobMismatch: a checkpoint is not of this training, or of a version that trained otherwise.
        StepFailed: a step raised, or its photographs cannot be loaded.
        NoPhotographs, StoreError, OSError: nothing can be read or written.
    """
    torch.set_num_threads(setup.threads)
    share = Share(setup.spec.batch_size, rank, world, alike=setup.spec.data.square)
    return _Loop(setup, share, torch.device(device)).run()


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that was done."""

    number: int
    losses: Mapping[str, Tensor]
    learning_rate: float
    time: float
    """When it ended, in seconds since 1970."""
    seconds: float
    """Since the step before ended."""
    data_seconds: float
    """As far as it waited for its photographs."""


class _Loop:
    def __init__(self, setup: LoopSetup, share: Share, device: torch.device) -> None:
        spec = setup.spec
        self._setup, self._share, self._device = setup, share, device
        self._store = open_store(spec.output, setup.storage)
        self._trainer = spec.recipe.build(seed=spec.seed, device=device)
        spec.recipe.equip(self._trainer, setup.assets)
        self._scheduler = Scheduler(spec.schedule, list(self._trainer.optimizers))
        self._epoch_loss, self._epoch_count = 0.0, 0
        self._photos = TrainingSet.of(spec, setup.urls, setup.storage, setup.timeout_s)
        self._fresh: list[_Step] = []
        """Steps that were not published yet."""
        self._newest = 0
        """The step of the newest checkpoint."""
        self._stop = StopRequest(self._store, share, device, waits=device.type == "cuda")
        self._publisher = Publisher(self._store)

    def run(self) -> int:
        setup, trainer, log = self._setup, self._trainer, self._setup.log
        begin = self._newest = self._load()
        trainer.distribute(self._share, setup.ddp)
        done, before = begin, time.monotonic()
        with self._publisher:
            if begin and self._share.rank == 0:
                self._remove_checkpoints(begin)  # what was left of those by a process that died
            waits = time.monotonic()
            for done, images in enumerate(self._batches(begin), begin + 1):
                waited = time.monotonic() - waits
                epoch, place = divmod(done - 1, setup.epoch_steps)
                self._scheduler.begin(epoch)
                losses = self._step(done, images)
                now = time.monotonic()
                self._fresh.append(_Step(done, losses, self._rate(), time.time(), now - before, waited))
                before = now
                last, ends = done == setup.steps, place == setup.epoch_steps - 1
                stop = not last and self._stop.after(done)
                keep = last or stop or done % log.checkpoint_every == 0
                if keep or ends or done % log.metrics_every == 0:
                    self._flush()
                if ends:
                    self._end_epoch()
                samples = last or _falls_on(done, log.samples_every)
                generators = last or _falls_on(done, setup.generators_every)
                kept = log.keeps(done, ends=ends)
                if keep or samples or generators or kept:
                    self._check_finite(done)
                if samples:
                    self._publish_samples(done)
                if generators:
                    self._publish_generators(generator_path(done))
                if kept:
                    self._publish_generators(snapshot_path(done))
                if keep:
                    self._checkpoint(done)
                if stop:
                    break
                waits = time.monotonic()
        return done

    def _rate(self) -> float:
        rate: float = self._trainer.optimizers[0].param_groups[0]["lr"]
        return rate

    def _step(self, number: int, images: list[Tensor]) -> dict[str, Tensor]:
        try:
            return self._trainer.step(images)
        except Exception as error:
            raise step_failed(self._photos, self._share, number, error) from error

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
            if self._setup.starts:
                init = self._setup.spec.init
                self._trainer.start_from(self._setup.starts, init.networks, strict=init.strict)
            return 0
        state = take_up(self._trainer, self._store, step, self._fingerprint(step))
        self._scheduler.load_state_dict(state["scheduler"])
        self._epoch_loss, self._epoch_count = state["epoch_loss"], state["epoch_count"]
        return step

    def _fingerprint(self, step: int) -> str:
        return fingerprint_at(self._setup.fingerprint, self._setup.changes, step)

    def _checkpoint(self, step: int) -> None:
        """Published whole or not at all: that is its commit. Older ones go when it is there."""
        self._newest = step
        if self._share.rank:
            return
        state = {
            "training": self._trainer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "epoch_loss": self._epoch_loss,
            "epoch_count": self._epoch_count,
        }
        data = checkpoint_bytes(self._fingerprint(step), step, state)
        self._publisher.publish(checkpoint_path(step), data)
        self._remove_checkpoints(step)

    def _remove_checkpoints(self, newest: int) -> None:
        """All but the newest ones; there may be later ones, of who took this process's place."""
        others = [step for step in checkpoint_steps(self._store) if step < newest]
        for old in others[: max(0, len(others) - self._setup.log.keep_checkpoints + 1)]:
            self._publisher.remove(checkpoint_path(old))

    # What is kept

    def _flush(self) -> None:
        """Find the losses of the steps since the last time, over all processes, and publish them."""
        if not self._fresh:
            return
        names = list(self._fresh[0].losses)
        table = torch.stack([torch.stack([step.losses[name] for name in names]) for step in self._fresh])
        values = self._share.mean(table.double()).tolist()
        rows: list[dict[str, Any]] = []
        for step, row in zip(self._fresh, values, strict=True):
            losses = dict(zip(names, row, strict=True))
            bad = next((name for name, loss in losses.items() if not math.isfinite(loss)), None)
            if bad is not None:
                raise self._diverged(f"loss {bad} is {losses[bad]} in step {step.number}")
            rows.append({**self._about(step), **losses})
            self._epoch_loss += self._trainer.plateau_loss(losses)
            self._epoch_count += 1
        if self._share.rank == 0:
            self._publisher.publish(metrics_path(rows[-1]["step"]), write_part(rows))
        self._fresh.clear()

    def _about(self, step: _Step) -> dict[str, Any]:
        """What a row of the metrics says besides losses."""
        change = change_at(self._setup.changes, step.number)
        return {
            "step": step.number,
            "epoch": (step.number - 1) // self._setup.epoch_steps,
            "learning_rate": step.learning_rate,
            "seconds": step.seconds,
            "data_seconds": step.data_seconds,
            "time": step.time,
            **({"change": change} if change else {}),
        }

    def _check_finite(self, step: int) -> None:
        """Raises TrainingDiverged: what was trained is not finite, though the losses, which are of the
        parameters before the step, still were."""
        if not _is_finite(self._trainer.state_dict()):
            raise self._diverged(f"parameters are not finite after step {step}")

    def _diverged(self, what: str) -> TrainingDiverged:
        self._publisher.wait()
        newest = f"its newest checkpoint, of step {self._newest}" if self._newest else "its beginning"
        names = self._setup.spec.recipe.changeable()
        options = ", ".join(name for name in names if not name.startswith("schedule."))
        return TrainingDiverged(
            f"the training diverged: {what}. It goes on from {newest}, and would diverge again unless an "
            f"option is changed, with `nst resume` and --set: {options}"
        )

    def _end_epoch(self) -> None:
        self._scheduler.end(self._epoch_loss / self._epoch_count)
        self._epoch_loss, self._epoch_count = 0.0, 0

    def _publish_generators(self, path: str) -> None:
        if self._share.rank == 0:
            self._publisher.publish(path, self._trainer.file_bytes())

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


def _falls_on(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _is_finite(state: object) -> bool:
    """Whether all numbers in nested tables and lists of tensors are."""
    if isinstance(state, Tensor):
        return not state.is_floating_point() or bool(state.isfinite().all())
    if isinstance(state, Mapping):
        return all(map(_is_finite, state.values()))
    return all(map(_is_finite, state)) if isinstance(state, list | tuple) else True
