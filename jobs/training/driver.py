"""A training as a job: Ray Train starts the workers; the store remembers from where they start again.

Checkpoints are this program's own, one object each, and not Ray Train's: with one authority nothing can
disagree, and what is published is committed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchTrainer

from jobs.console.stop import StopSignal
from jobs.driver.assets import by_url
from jobs.errors import (
    EXIT_OK,
    EXIT_STOPPED,
    EXIT_UNFINISHED,
    Stopped,
    WorkersBroken,
    exit_code_of,
)
from jobs.ledger.lease import STANDARD_LEASE, Lease, LeaseOptions, hold
from jobs.ledger.parquet import parquet_bytes
from jobs.pools.ray_session import RaySession
from jobs.training.evaluate import evaluate_beside
from jobs.training.failures import Failures
from jobs.training.job import TrainJob, record_change
from jobs.training.layout import (
    DONE,
    GENERATOR,
    METRICS,
    STOP,
    best_step,
    checkpoint_steps,
    generator_path,
    generator_steps,
    read_done,
    read_evaluations,
    read_last_end,
)
from jobs.training.metrics import metrics_table
from jobs.training.monitor import TrainSnapshot, Watch
from jobs.training.ray_errors import brief, cause_of, may_pass, no_room
from jobs.training.ray_workers import has_room, nodes_now, trainer_of
from nst.errors import NstError

__all__ = ["TrainSummary", "run_training"]

_POLL_S = 0.25
_LOOK_EVERY_S = 2.0
_EVALUATION_TRIES = 3
_EVALUATIONS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """How a run ended."""

    steps: int
    done: Mapping[str, Any] | None
    """What `done.json` says, if the training is complete."""
    stopped: bool = False
    error: NstError | None = None

    @property
    def exit_code(self) -> int:
        if self.done is not None:
            return EXIT_OK
        if self.stopped:
            return EXIT_STOPPED
        return EXIT_UNFINISHED if self.error is None else exit_code_of(self.error)


def run_training(
    job: TrainJob,
    *,
    observe: Callable[[TrainSnapshot], None] | None = None,
    stop: StopSignal | None = None,
    lease: LeaseOptions | None = STANDARD_LEASE,
) -> TrainSummary:
    """Do what is left of a training. Whatever ends it, the next run goes on from its newest checkpoint.

    Args:
        lease: None: begin also while another driver is at it.

    Raises:
        LeaseHeld: another driver is at it.
        OptionError, JobMismatch: options were to be changed and cannot be; see `record_change`.
    """
    done = read_done(job.store)
    if done is not None and job.asked is None:
        return TrainSummary(job.steps, done)
    with hold(job.store, lease) as held:
        asked, job = job.asked, record_change(job)
        done = read_done(job.store)  # of the driver that was waited for
        if done is not None:
            return TrainSummary(job.steps, done)
        run = _Run(job, observe or (lambda _: None), stop or StopSignal(), held)
        if asked is not None:
            run.tell_change()
        return run.go()


class _Run:
    def __init__(
        self,
        job: TrainJob,
        observe: Callable[[TrainSnapshot], None],
        stop: StopSignal,
        lease: Lease | None,
    ) -> None:
        self._job, self._observe, self._stop, self._lease = job, observe, stop, lease
        self._store = job.store
        self._watch = Watch(job)
        self._evaluations: dict[int, Any] = {}
        self._tries: dict[int, int] = {}
        self._found: dict[int, dict[str, float]] = {}
        """Evaluations, by step, as far as they were read."""
        self._asset: Any = None

    def tell_change(self) -> None:
        """Say which options are changed from now on."""
        self._watch.tell("options_changed", str(self._job.changes[-1]))

    def go(self) -> TrainSummary:
        resources = self._job.file.resources
        self._stop.running()
        self._store.remove(STOP)
        self._store.clean()
        self._take_up_last_end()
        try:
            with (
                RaySession(resources.address),
                # Ray may still be at it when workers are not waited for.
                tempfile.TemporaryDirectory(prefix="nst-train-", ignore_cleanup_errors=True) as folder,
            ):
                self._asset = ray.put(dict(by_url(self._job.assets)))
                ended = self._train(folder)
                if ended is not None:
                    return ended
                if not self._evaluate_all():
                    return TrainSummary(self._job.steps, None, stopped=True)
            self._check_lease()
        except NstError as error:
            gone = self._stop.gently and isinstance(error, WorkersBroken)  # nobody waits for them any more
            return TrainSummary(self._job.steps, None, stopped=gone, error=None if gone else error)
        finally:
            if self._lease is None or self._lease.lost is None:
                self._store.remove(STOP)
        return TrainSummary(self._job.steps, self._finish())

    def _take_up_last_end(self) -> None:
        """A training that is made longer may still end with the generators that it ended with."""
        end = read_last_end(self._store)
        if end is not None and end["step"] not in generator_steps(self._store):
            data = self._store.read(GENERATOR)
            if hashlib.sha256(data).hexdigest() == end["sha256"]:
                self._store.publish(generator_path(end["step"]), data)

    def _check_lease(self) -> None:
        """Raises LeaseLost: the training is another driver's now, and nothing more may be published."""
        if self._lease is not None and self._lease.lost is not None:
            raise self._lease.lost

    # Training

    def _train(self, folder: str) -> TrainSummary | None:
        """Until all steps are done (None), or how it ended before."""
        failures = Failures(self._job.file.resources.max_failures, self._checkpoint())
        while True:
            error = self._fit(trainer_of(self._job, folder))
            if error is None and self._job.steps in generator_steps(self._store):
                return None
            if self._stop.gently:
                return TrainSummary(self._job.steps, None, stopped=True)
            cause, newest = cause_of(error), self._checkpoint()
            if error is None or not may_pass(error) or not failures.go_on(cause, newest):
                return TrainSummary(self._job.steps, None, error=cause)
            why = brief(error if isinstance(cause, WorkersBroken) else cause)
            text = f"workers failed, and begin again after step {newest}: {why}"
            self._watch.tell("workers_failed", text, step=newest)
            self._look()

    def _checkpoint(self) -> int:
        return max(checkpoint_steps(self._store), default=0)

    def _fit(self, trainer: TorchTrainer) -> BaseException | None:
        """Until workers end; what they failed of, or why they are not waited for."""
        outcome: list[BaseException | None] = []

        def fit() -> None:
            try:
                trainer.fit()
                outcome.append(None)
            except BaseException as error:  # noqa: BLE001  told to who waits
                outcome.append(error)

        own = self._job.file.resources
        thread = threading.Thread(target=fit, name="ray-train", daemon=True)
        thread.start()
        asked_at: float | None = None
        looked_at, room_at = 0.0, time.monotonic()
        while thread.is_alive():
            thread.join(_POLL_S)
            self._check_lease()
            now = time.monotonic()
            if now - looked_at >= _LOOK_EVERY_S:
                looked_at = now
                self._look()
                if has_room(own, nodes_now()):
                    room_at = now
                elif now - room_at > own.start_timeout_s:
                    return no_room()
            if self._stop.gently and asked_at is None:
                asked_at = now
                self._store.publish(STOP, b"")
            late = asked_at is not None and now - asked_at > own.grace_s
            if self._stop.at_once or late:
                return Stopped("the step in work was not waited for")
        self._check_lease()
        self._look()
        return outcome[0]

    def _look(self) -> None:
        """Show what is new, keep TensorBoard's files up to it, and have what is to be evaluated evaluated."""
        self._observe(self._watch.look())
        self._start_evaluations()

    # Evaluation

    def _start_evaluations(self) -> None:
        own = self._job.file.evaluation
        if not own.every:
            return
        new = read_evaluations(self._store, but=self._found)
        self._watch.evaluated(new)
        self._found |= new
        found = self._found
        for step in [step for step in self._evaluations if step in found]:
            self._evaluations.pop(step)
        ready, _ = ray.wait(list(self._evaluations.values()), timeout=0) if self._evaluations else ([], [])
        for step in [step for step, task in self._evaluations.items() if task in ready]:
            task = self._evaluations.pop(step)
            try:
                ray.get(task)
            except ray.exceptions.RayError as error:
                text = f"evaluation of step {step} failed: {brief(error)}"
                self._watch.tell("evaluation_failed", text, step=step)
        for step in _due(generator_steps(self._store), found, self._evaluations, self._tries, own.num_cpus):
            self._tries[step] = self._tries.get(step, 0) + 1
            # Ray ends processes after one call if it has given them a GPU, and here it has not.
            calls = 1 if self._job.file.resources.num_gpus else 0
            remote = ray.remote(num_cpus=own.num_cpus, max_retries=0, max_calls=calls)(evaluate_beside)
            self._evaluations[step] = remote.remote(self._job.file, self._job.urls, self._asset, step)
        self._forget_generators(found)

    def _forget_generators(self, found: Mapping[int, Mapping[str, float]]) -> None:
        """Only the best ones and those that are not evaluated yet are kept, and the last."""
        there = generator_steps(self._store)
        best = best_step(_of(there, found), self._job.file.evaluation.metric)
        for step in there:
            if step in found and step not in (best, self._job.steps):
                self._store.remove(generator_path(step))

    def _evaluate_all(self) -> bool:
        """Whether it was done, and not stopped."""
        self._look()
        while self._evaluations and not self._stop.gently:
            self._check_lease()
            ray.wait(list(self._evaluations.values()), timeout=_LOOK_EVERY_S)
            self._look()
        return not self._evaluations

    # The end

    def _finish(self) -> Mapping[str, Any]:
        """Publish what the training was for; `done.json` last."""
        store, own = self._store, self._job.file.evaluation
        evaluations = read_evaluations(store)
        step = self._job.steps
        if own.every and own.keep == "best":
            best = best_step(_of(generator_steps(store), evaluations), own.metric)
            step = step if best is None else best
        data = store.read(generator_path(step))
        store.publish(GENERATOR, data)
        store.publish(METRICS, parquet_bytes(metrics_table(store)))
        done = {
            "generator": GENERATOR,
            "sha256": hashlib.sha256(data).hexdigest(),
            "step": step,
            "steps": self._job.steps,
            "evaluation": evaluations.get(step),
            "fingerprint": self._job.fingerprint,
            "changes": len(self._job.changes),
        }
        store.publish(DONE, json.dumps(done, indent=2).encode())
        for old in generator_steps(store):
            store.remove(generator_path(old))
        return done


def _due(
    there: Sequence[int],
    found: Container[int],
    running: Collection[int],
    tries: Mapping[int, int],
    num_cpus: float,
) -> list[int]:
    """The steps whose generators are to be evaluated now, as well: the first ones that wait. Those for which no
    CPUs are set aside would else take more and more of the workers', where they take longer than it is to the
    next one."""
    waiting = [
        step
        for step in there
        if step not in found and step not in running and tries.get(step, 0) < _EVALUATION_TRIES
    ]
    return waiting if num_cpus else waiting[: max(0, _EVALUATIONS_AT_ONCE - len(running))]


def _of(steps: Iterable[int], found: Mapping[int, Mapping[str, float]]) -> dict[int, Mapping[str, float]]:
    return {step: found[step] for step in steps if step in found}
