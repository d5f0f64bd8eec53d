"""Generators of a training that need not be complete: from its newest checkpoint, without a running driver."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jobs.errors import UsageError
from jobs.ledger.job_record import TRAINING, read_job
from jobs.stores.store import Store
from jobs.training.changes import fingerprint_at, read_changes, with_changes
from jobs.training.checkpoints import take_up
from jobs.training.job_file import train_from_table
from jobs.training.layout import checkpoint_steps, snapshot_path

if TYPE_CHECKING:
    from nst.stylizer import AssetRef

__all__ = ["publish_snapshot"]

_TRIES = 3


def publish_snapshot(store: Store) -> tuple[int, AssetRef]:
    """Publish the generators of the newest checkpoint, to be kept.

    Returns:
        The checkpoint's step, and the file as the option of a method that takes it.

    Raises:
        UsageError: there is no training, or no checkpoint of it yet.
        JobMismatch: the checkpoint is not of this training.
    """
    for left in reversed(range(_TRIES)):
        try:
            return _published(store)
        except FileNotFoundError:
            # A running training removes older checkpoints when there is a newer one.
            if not left:
                raise
    raise AssertionError


def _published(store: Store) -> tuple[int, AssetRef]:
    record, changes = read_job(store, TRAINING), read_changes(store)
    step = max(checkpoint_steps(store), default=0)
    if not step:
        raise UsageError(f"{store.url} has no checkpoint yet: log.checkpoint_every says after how many steps")
    table = {**with_changes(record.job, changes), "output": store.url}
    spec = train_from_table(table, Path.cwd()).spec
    trainer = spec.recipe.build(seed=spec.seed, device=torch.device("cpu"))
    take_up(trainer, store, step, fingerprint_at(record.fingerprint, changes, step))
    data = trainer.file_bytes()
    store.publish(snapshot_path(step), data)
    url = f"{store.url.rstrip('/')}/{snapshot_path(step)}"
    return step, spec.recipe.asset(url, hashlib.sha256(data).hexdigest())
