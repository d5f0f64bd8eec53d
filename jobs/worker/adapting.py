"""A worker that does one thing: let the method's network learn on photographs of the job."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import closing, suppress

import numpy as np
import torch

from jobs.errors import StoreError, WorkersBroken
from jobs.ledger.adapted import (
    CHECKPOINT,
    LOADING,
    PROGRESS,
    AdaptProgress,
    Loading,
    clean_adapting,
    read_adapted,
    read_loading,
)
from jobs.ledger.layout import adapted_path
from jobs.ledger.manifest import Row
from jobs.ledger.results import Result
from jobs.stores.store import Store
from jobs.worker.messages import Task, TaskProgress, TaskReport, WorkerInfo, WorkerSetup
from jobs.worker.process import check_device, device_of, gpu_memory_bytes, open_job, worker_info
from jobs.worker.stages import TaskStages
from nst.stylizer import AdaptableMethod, Adaptation

__all__ = ["Adapter", "not_left_out"]

_CHECKPOINT_S = 30.0
_PROGRESS_S = 2.0
_RECENT = 20
"""Steps whose losses are averaged for people."""


class Adapter:
    """Learns, and publishes the weights that come out, unless they are there. When one is killed, the next goes
    on from the last checkpoint.

    Raises:
        NstError: the method cannot be built, e.g. weights that do not fit.
        RuntimeError: its GPU computes wrongly.
    """

    def __init__(self, setup: WorkerSetup, assets: Mapping[str, bytes]) -> None:
        began = time.perf_counter()
        assert isinstance(setup.method, AdaptableMethod)
        self._setup, self._method = setup, setup.method
        self.store = open_job(setup)
        torch.set_num_threads(setup.threads)
        self._device = device_of(setup)
        check_device(self._device)
        self._training: Adaptation = self._method.adaptation(assets, self._device, setup.seed)
        self._draining = threading.Event()
        self._build_s = time.perf_counter() - began

    def info(self, **seconds: float) -> WorkerInfo:
        return worker_info(self._device, **seconds, build=self._build_s)

    def progress(self) -> tuple[TaskProgress, ...]:
        """None: the store says it."""
        return ()

    def gpu_memory_bytes(self) -> int:
        """GPU memory that this process holds."""
        return gpu_memory_bytes(self._device)

    def evaluations(self) -> int:
        """None are of a photograph."""
        return 0

    def drain(self) -> None:
        """End at the next step, with a checkpoint."""
        self._draining.set()

    def run(self, task: Task) -> TaskReport:
        """Learn to the end, or until drained.

        Raises:
            StoreError: the job's store failed.
        """
        torch.set_num_threads(self._setup.threads)  # of this thread
        try:
            complete = read_adapted(self.store, self._setup.fingerprint) is not None or self._learn(task)
            if complete:
                clean_adapting(self.store)
        except OSError as error:
            raise StoreError(f"{self._setup.output}: {type(error).__name__}: {error}") from error
        return TaskReport(shard=task.shard, counts={}, complete=complete, sealed=False)

    def _learn(self, task: Task) -> bool:
        stages = TaskStages(task, self.store, self._setup, lambda _: [])
        photos = []
        with closing(not_left_out(self.store, self._setup.adapt_rows)) as rows:
            for row in rows:
                loaded = stages.load(row)
                if not isinstance(loaded, Result):  # such are rows of their own, later
                    photos.append(self._training.prepared(loaded.photo.levels))
                if self._draining.is_set():
                    return False
        total = self._method.adapt_steps if photos else 0
        with suppress(FileNotFoundError):
            self._restore(self.store.read(CHECKPOINT))
        began, first = time.monotonic(), self._training.steps
        saved, shown = began - _CHECKPOINT_S, began - _PROGRESS_S
        recent: deque[Mapping[str, float]] = deque(maxlen=_RECENT)
        while self._training.steps < total:
            step = self._training.steps
            # Each step draws anew, so that a checkpoint says all.
            chosen = np.random.default_rng([self._setup.seed, step]).integers(len(photos))
            recent.append(self._training.step([photos[chosen]]))
            if not all(map(math.isfinite, recent[-1].values())):
                raise WorkersBroken(f"the network cannot learn: losses of step {step + 1} are no numbers")
            now = time.monotonic()
            if now - shown >= _PROGRESS_S:
                shown, rate = now, (now - began) / (step + 1 - first)
                means = {name: float(np.mean([each[name] for each in recent])) for name in recent[0]}
                progress = AdaptProgress(
                    step=step + 1, steps=total, losses=means, seconds_left=rate * (total - step - 1)
                )
                self.store.publish(PROGRESS, progress.to_bytes())
            if now - saved >= _CHECKPOINT_S or self._draining.is_set():
                saved = now
                self.store.publish(CHECKPOINT, self._training.state_bytes())
            if self._draining.is_set():
                return False
        with suppress(FileExistsError):  # another driver's worker was quicker: all photographs use that
            self.store.publish(
                adapted_path(self._setup.fingerprint), self._training.file_bytes(), create_only=True
            )
        return True

    def _restore(self, checkpoint: bytes) -> None:
        try:
            self._training.restore(checkpoint)
        except (KeyError, ValueError) as error:
            text = f"is of a version of nst that learned otherwise ({error!r}); without it, it begins anew"
            raise WorkersBroken(f"{self.store.url}/{CHECKPOINT} {text}") from error


def not_left_out(store: Store, rows: tuple[Row, ...]) -> Generator[Row, None, None]:
    """`rows`, one after the other, each noted in the store while it is decoded. One that was noted when two
    processes ended is left out."""
    before = read_loading(store).ended()
    try:
        for row in rows:
            if row.key not in before.left_out:
                store.publish(LOADING, Loading(row.key, before.deaths).to_bytes())
                yield row
    finally:  # whoever ends without dying
        store.publish(LOADING, Loading(None, before.deaths).to_bytes())
