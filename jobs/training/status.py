"""What the store says about a training. Loads neither torch nor ray, and asks no running process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobs.errors import EXIT_OK, EXIT_UNFINISHED
from jobs.ledger.job_record import TRAINING, read_job
from jobs.ledger.lease import read_holder
from jobs.ledger.lease_holder import Holder
from jobs.stores.store import Store
from jobs.training.changes import Change, read_changes
from jobs.training.layout import (
    checkpoint_steps,
    metrics_path,
    metrics_steps,
    read_done,
    read_evaluations,
    read_skipped,
    snapshot_steps,
)
from jobs.training.metrics import means, read_part
from jobs.training.recipes import TRAININGS, kind_of

__all__ = ["TrainStatus", "train_status"]


@dataclass(frozen=True, slots=True)
class TrainStatus:
    """How far a training is, by what exists."""

    output: str
    kind: str
    created: str
    fingerprint: str
    photos: Mapping[str, int]
    """How many each collection has."""
    training: str
    """Name of the recipe, as `cyclegan`."""
    step: int
    """The last one whose losses are known."""
    checkpoint: int | None
    """The step that the next run goes on from."""
    snapshots: tuple[int, ...]
    """Steps whose generators are kept."""
    losses: Mapping[str, float]
    """Means over the steps that were published last."""
    evaluations: Mapping[int, Mapping[str, float]]
    skipped: int
    """Photographs that cannot be read."""
    done: Mapping[str, Any] | None
    """What the training ended with, if it is complete."""
    changes: tuple[Change, ...]
    """Options that were changed since it was begun."""
    notes: tuple[str, ...]
    driver: Holder | None
    """Who works on it, or was killed at it; None: nobody."""

    @property
    def exit_code(self) -> int:
        return EXIT_UNFINISHED if self.done is None else EXIT_OK

    @property
    def state(self) -> str:
        return "unfinished" if self.done is None else "complete"

    @property
    def groups(self) -> Mapping[str, Mapping[str, float]]:
        """The losses as people read them, see `Recipe.grouped`."""
        return TRAININGS[self.training].grouped(self.losses)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "state": self.state, "exit_code": self.exit_code}


def train_status(store: Store) -> TrainStatus:
    """Read a training's state.

    Raises:
        UsageError: there is no job.
    """
    record = read_job(store, TRAINING)
    newest = metrics_steps(store)[-1:]
    rows = read_part(store.read(metrics_path(newest[0]))) if newest else []
    return TrainStatus(
        output=store.url,
        kind=TRAINING,
        created=record.created,
        fingerprint=record.fingerprint,
        photos={name: manifest.rows for name, manifest in record.manifests.items()},
        training=kind_of(record.job),
        step=rows[-1]["step"] if rows else 0,
        checkpoint=max(checkpoint_steps(store), default=None),
        snapshots=tuple(snapshot_steps(store)),
        losses=means(rows),
        evaluations=read_evaluations(store),
        skipped=len(read_skipped(store)),
        done=read_done(store),
        changes=read_changes(store),
        notes=record.notes,
        driver=read_holder(store),
    )
