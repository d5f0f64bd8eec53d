"""A worker: holds a loaded stylizer and runs tasks, with loading, computing and saving overlapped by threads.

Knows no cluster. Whoever hosts it calls `run` from a thread per task, and `progress` and `drain` from others.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from jobs.errors import StoreError
from jobs.ledger.manifest import Manifest
from jobs.ledger.receipts import JournalWriter, read_journal, seal
from jobs.ledger.results import image_seed, total
from jobs.worker.messages import (
    GPU_LOST,
    NOTHING_SPENT,
    AtWork,
    Task,
    TaskProgress,
    TaskReport,
    WorkerInfo,
    WorkerSetup,
)
from jobs.worker.pipeline import Loaded, Pipeline
from jobs.worker.process import check_device, device_of, gpu_memory_bytes, open_job, worker_info
from jobs.worker.stages import TaskStages
from nst.errors import ImageError
from nst.images.codec import is_finite
from nst.stylizer import IterativeStylizer, LevelsStylizer, Outcome, StyledMethod

__all__ = ["Worker"]

_TRUSTED_S = 60.0
"""For so long a GPU that was found to compute right is not looked at again."""
_SIGNS_OF_NO_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED", "NVML_SUCCESS ==")
"""What errors say that are none of torch's own for it: those of CUDA itself, of cuBLAS and its like, and of
torch where it cannot find out who took the memory, as on parts of a GPU."""


class Worker:
    """Loads the method once; then runs tasks.

    Raises:
        NstError: the method cannot be built, e.g. weights that do not fit.
        RuntimeError: its GPU computes wrongly.
    """

    def __init__(self, setup: WorkerSetup, assets: Mapping[str, bytes], at_work: AtWork | None = None) -> None:
        began = time.perf_counter()
        self._setup = setup
        self._at_work = at_work or AtWork([0] * setup.slots)
        self.store = open_job(setup)
        self._manifest = Manifest(self.store)
        self._device = device_of(setup)
        self._compute_thread = ThreadPoolExecutor(  # tasks overlap in all but this
            1, "compute", torch.set_num_threads, (setup.threads,)
        )
        self._stylizer = self._compute_thread.submit(setup.method.build, assets, self._device).result()
        self._compute_thread.submit(check_device, self._device).result()
        self._styled = isinstance(setup.method, StyledMethod)
        self._takes_levels = (
            isinstance(self._stylizer, LevelsStylizer)
            and self._stylizer.takes_levels
            and setup.image.bit_depth == 8
        )
        self._trusted_at = time.monotonic()  # when its device was last found to compute right
        self._too_much = math.inf  # pixels of a batch for which memory did not suffice
        self._draining = threading.Event()
        self._evaluations_before: int | None = (
            None  # those photographs that are being computed; None: there are none
        )
        self._evaluated, self._evaluated_at = 0, 0.0  # how many `progress` last saw, and since when
        self._running: dict[int, _Activity] = {}
        self._load_pool = ThreadPoolExecutor(setup.load_threads, "load")
        self._save_pool = ThreadPoolExecutor(setup.save_threads, "save")
        self._build_s = time.perf_counter() - began

    def info(self, **seconds: float) -> WorkerInfo:
        return worker_info(self._device, **seconds, build=self._build_s)

    def run(self, task: Task) -> TaskReport:
        """Do a task's rows that have no result yet; publish pictures, journal, and, for a whole shard, the
        receipt.

        Raises:
            StoreError: the job's store failed, or all of the photographs'. One that cannot be read is a row.
        """
        activity = self._running[task.id] = _Activity()
        try:
            return self._run(task, activity)
        except OSError as error:
            raise StoreError(f"{self._setup.output}: {type(error).__name__}: {error}") from error
        finally:
            del self._running[task.id]

    def _run(self, task: Task, activity: _Activity) -> TaskReport:
        rows = self._manifest.shard(task.shard)
        wanted = None if task.rows is None else set(task.rows)
        todo = [row for row in rows if wanted is None or row.index in wanted]
        journaled = read_journal(self.store, task.shard, task.generation).results
        earlier = [journaled[row.index] for row in todo if row.index in journaled]
        left = [row for row in todo if row.index not in journaled]
        pipeline = Pipeline(
            left,
            TaskStages(task, self.store, self._setup, self.stylize, left),
            JournalWriter(self.store, task.shard, task.generation).results,
            window=self._setup.window,
            batch_size=self._setup.batch_size,
            prefetch=self._setup.batch_size + self._setup.load_threads,
            load_pool=self._load_pool,
            save_pool=self._save_pool,
            compute_thread=self._compute_thread,
            draining=self._draining,
            at_work=self._at_work,
        )
        pipeline.counts.update(result.status for result in earlier)
        activity.pipeline, activity.since = pipeline, None
        pipeline.run()
        activity.since = time.monotonic()
        complete = pipeline.counts.total() == len(todo)
        sealed = complete and task.rows is None
        results = [*earlier, *pipeline.results]
        if sealed:
            seal(
                self.store,
                task.shard,
                rows,
                results,
                generation=task.generation,
                fingerprint=self._setup.fingerprint,
                adapted=self._setup.adapted,
            )
        return TaskReport(
            shard=task.shard,
            counts=total([pipeline.counts]),
            complete=complete,
            sealed=sealed,
            spent=pipeline.spent(),
            without_picture=tuple(result for result in results if sealed and result.status != "ok"),
        )

    def progress(self) -> tuple[TaskProgress, ...]:
        """How far the running tasks are."""
        evaluations = self._evaluations_so_far()
        if evaluations != self._evaluated:
            self._evaluated, self._evaluated_at = evaluations, time.monotonic()
        return tuple(
            activity.progress(task, self._evaluated_at) for task, activity in list(self._running.items())
        )

    def gpu_memory_bytes(self) -> int:
        """GPU memory that this process holds."""
        return gpu_memory_bytes(self._device)

    def evaluations(self) -> int:
        """Evaluations made for the photographs that are being computed."""
        before = self._evaluations_before
        return 0 if before is None else self._evaluations_so_far() - before

    def _evaluations_so_far(self) -> int:
        return self._stylizer.evaluations if isinstance(self._stylizer, IterativeStylizer) else 0

    def drain(self) -> None:
        """Take no more photographs; running tasks end when those in work are done."""
        self._draining.set()

    def stylize(self, batch: Sequence[Loaded]) -> list[Outcome | Exception]:
        """The outcomes of a batch, in order. If the method raises, e.g. for want of GPU memory, the halves of
        the batch are tried, down to the photographs alone, which keep their errors. What was too much for the
        memory is not tried again."""
        pixels = sum(loaded.photo.levels[0].numel() for loaded in batch)
        if len(batch) > 1 and pixels >= self._too_much:
            return self._halves(batch)
        generators = [
            torch.Generator().manual_seed(image_seed(self._setup.seed, loaded.row.key)) for loaded in batch
        ]
        styles: dict[str, Any] = {"styles": [loaded.row.style for loaded in batch]} if self._styled else {}
        self._evaluations_before = self._evaluations_so_far()
        try:
            outcomes = self._stylizer(self._photos(batch), generators, **styles)
        except (Exception, SystemExit) as error:  # noqa: BLE001  the photograph's own row
            failure: Exception = error if isinstance(error, Exception) else RuntimeError(f"SystemExit: {error}")
            failure = _without_frames(failure)
            outcomes = None
        finally:
            self._evaluations_before = None
        if outcomes is None:
            self._recover()
            if not _is_out_of_memory(failure):
                self._look_again()
            if len(batch) == 1:
                return [failure]
            if _is_out_of_memory(failure):
                self._too_much = pixels
            return self._halves(batch)
        if len(outcomes) != len(batch):
            raise RuntimeError(f"the method gave {len(outcomes)} outcomes for {len(batch)} images")
        checked = [_checked(outcome) for outcome in outcomes]
        if any(isinstance(outcome, ImageError) for outcome in checked):
            self._look_again()
        return [*checked]

    def _photos(self, batch: Sequence[Loaded]) -> list[Tensor]:
        """What the stylizer takes. Nobody else holds those of float32, so they go when it is done with them, or
        fails."""
        return [each.photo.levels if self._takes_levels else each.photo.image for each in batch]

    def _halves(self, batch: Sequence[Loaded]) -> list[Outcome | Exception]:
        half = len(batch) // 2
        return [*self.stylize(batch[:half]), *self.stylize(batch[half:])]

    def _recover(self) -> None:
        """Free the GPU's memory after an error. Where the GPU does not answer, this process is of no use."""
        if self._device.type != "cuda":
            return
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:
            _end(error)

    def _look_again(self) -> None:
        """Check the GPU, now and then, before a photograph fails of what may be its fault: one that computes
        wrongly by now would have all that follow fail."""
        if self._device.type == "cuda" and time.monotonic() - self._trusted_at > _TRUSTED_S:
            try:
                check_device(self._device)
            except RuntimeError as error:
                if not _is_out_of_memory(error):  # which neighbors may have taken
                    _end(error)
            self._trusted_at = time.monotonic()


class _Activity:
    """A running task, seen from outside: in its pipeline, or since when at what comes before and after."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None
        self.since: float | None = time.monotonic()

    def progress(self, task: int, evaluated_at: float) -> TaskProgress:
        pipeline, since = self.pipeline, self.since
        if since is not None:
            slowest_s = time.monotonic() - since
        else:
            slowest_s = pipeline.slowest_s(evaluated_at) if pipeline is not None else 0.0
        return TaskProgress(
            task=task,
            counts=total([pipeline.counts] if pipeline is not None else []),
            in_flight=pipeline.in_flight() if pipeline is not None else 0,
            slowest_s=slowest_s,
            spent=pipeline.spent() if pipeline is not None else NOTHING_SPENT,
        )


def _end(error: Exception) -> None:
    """End this process: another one may still be able to use the GPU, and if not, is told why."""
    print(f"the GPU is lost to this process: {error}", file=sys.stderr, flush=True)
    os._exit(GPU_LOST)


def _is_out_of_memory(error: Exception) -> bool:
    said = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in said for sign in _SIGNS_OF_NO_MEMORY)


def _without_frames(error: Exception) -> Exception:
    """An error that does not hold what the failed call held, nor do those that it came of."""
    each: BaseException | None = error
    while each is not None and each.__traceback__ is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def _checked(outcome: Outcome) -> Outcome:
    """`outcome`, or an error in its place if it is no finite picture."""
    if isinstance(outcome, ImageError):
        return outcome
    image = outcome.image
    if image.ndim != 3 or image.shape[0] != 3 or not is_finite(image):
        return ImageError(f"the method's picture is not finite or no (3, H, W): {tuple(image.shape)}")
    return outcome
