"""Whether a training's folder holds what it says: job, manifests, checkpoints, metrics, what it ended with.

Asks the store alone. Reading checkpoints loads torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from jobs.inspect.verify import Fault, manifest_digest
from jobs.ledger.job_record import TRAINING, JobRecord, read_job
from jobs.ledger.layout import JOB
from jobs.ledger.manifest import Manifest, ManifestInfo
from jobs.ledger.parquet import DAMAGED_PARQUET
from jobs.stores.store import Store
from jobs.training.changes import Change, fingerprint_at, read_changes
from jobs.training.layout import (
    DONE,
    METRICS,
    change_path,
    checkpoint_path,
    checkpoint_steps,
    evaluation_path,
    evaluation_steps,
    generator_path,
    generator_steps,
    manifest_path,
    metrics_path,
    metrics_steps,
    read_done,
    snapshot_path,
    snapshot_steps,
)
from jobs.training.metrics import metrics_table, read_part, rows_of
from nst.errors import NstError

__all__ = ["verify_training"]

_DAMAGED = (pickle.UnpicklingError, zipfile.BadZipFile)


def verify_training(store: Store) -> Iterator[Fault]:
    """Read a training again, and list what is not as it must be.

    Raises:
        UsageError: there is no training, or nothing of it can be read.
    """
    record = read_job(store, TRAINING)
    changes: tuple[Change, ...] = ()
    try:
        changes = read_changes(store)
    except (NstError, OSError) as error:
        yield Fault("changes", f"cannot be read: {_first_line(error)}")
    yield from _verify_job(record, changes)
    for name, info in record.manifests.items():
        yield from _verify_manifest(store, manifest_path(name), info)
    checkpoints = checkpoint_steps(store)
    for step in checkpoints:
        yield from _verify_checkpoint(store, step, fingerprint_at(record.fingerprint, changes, step))
    for path in (*map(generator_path, generator_steps(store)), *map(snapshot_path, snapshot_steps(store))):
        yield from _verify_generator(store, path)
    for step in evaluation_steps(store):
        yield from _verify_evaluation(store, evaluation_path(step))
    done: Mapping[str, Any] | None = None
    try:
        done = read_done(store)
    except (OSError, ValueError) as error:
        yield Fault(DONE, f"cannot be read: {error}")
    if done is not None:
        yield from _verify_end(store, done, record.fingerprint)
    known = 0 if done is None else done.get("steps", 0)
    yield from _verify_metrics(store, max([known, *checkpoints]))


def _verify_job(record: JobRecord, changes: Sequence[Change]) -> Iterator[Fault]:
    from jobs.training.job_file import recorded_fingerprints

    digests = {name: info.sha256 for name, info in record.manifests.items()}
    first, *others = recorded_fingerprints(record, changes, digests)
    if first != record.fingerprint:
        yield Fault(JOB, "was changed: its fingerprint is not that of the training in it")
        return
    for change, found in zip(changes, others, strict=True):
        if found != change.fingerprint:
            yield Fault(
                change_path(change.number), "was changed: its fingerprint is not that of the training in it"
            )


def _verify_manifest(store: Store, path: str, recorded: ManifestInfo) -> Iterator[Fault]:
    try:
        manifest = Manifest(store, path)
        digest = manifest_digest(manifest.shard(shard) for shard in range(manifest.shards))
    except (NstError, pa.ArrowException, OSError) as error:
        yield Fault(path, f"cannot be read: {error}")
        return
    if digest != recorded.sha256 or manifest.rows != recorded.rows:
        yield Fault(path, "is not the one that the training was begun with")


def _verify_checkpoint(store: Store, step: int, fingerprint: str) -> Iterator[Fault]:
    import torch

    path = checkpoint_path(step)
    try:
        data = io.BytesIO(store.read(path))
        with zipfile.ZipFile(data) as archive:
            damaged = archive.testzip()  # torch does not compare checksums
        if damaged is not None:
            raise ValueError(f"{damaged} in it is damaged")
        data.seek(0)
        state = torch.load(data, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, *_DAMAGED) as error:
        yield Fault(path, f"cannot be read: {_first_line(error)}")
        return
    if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
        yield Fault(path, "is not a checkpoint of this training")
    elif state.get("step") != step:
        yield Fault(path, f"is the checkpoint of step {state.get('step')}")


def _verify_generator(store: Store, path: str) -> Iterator[Fault]:
    from nst.features import read_state_dict

    try:
        read_state_dict(store.read(path))
    except (NstError, OSError) as error:
        yield Fault(path, f"cannot be read: {_first_line(error)}")


def _verify_evaluation(store: Store, path: str) -> Iterator[Fault]:
    try:
        distances = json.loads(store.read(path))
    except (OSError, ValueError) as error:
        yield Fault(path, f"cannot be read: {error}")
        return
    if not isinstance(distances, dict) or not all(isinstance(each, int | float) for each in distances.values()):
        yield Fault(path, "is no table of distances")


def _verify_end(store: Store, done: Mapping[str, Any], fingerprint: str) -> Iterator[Fault]:
    if done.get("fingerprint") != fingerprint:
        yield Fault(DONE, "is of another training")
    path = str(done.get("generator"))
    try:
        data = store.read(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        yield Fault(path, "the generator is not there" if missing else f"cannot be read: {error}")
        return
    if hashlib.sha256(data).hexdigest() != done.get("sha256"):
        yield Fault(path, f"is not the generator that was trained: its SHA-256 is not the one in {DONE}")


def _verify_metrics(store: Store, steps: int) -> Iterator[Fault]:
    """
    Args:
        steps: so many are done at least.
    """
    damaged = False
    for step in metrics_steps(store):
        try:
            read_part(store.read(metrics_path(step)))
        except (OSError, ValueError) as error:
            damaged = True
            yield Fault(metrics_path(step), f"cannot be read: {error}")
    if damaged:
        return
    path = METRICS if METRICS in store.names("") else "metrics"
    try:
        table = metrics_table(store)
        found = [int(step) for step in table["step"].to_pylist()] if table.num_rows else []
    except (ValueError, *DAMAGED_PARQUET) as error:
        yield Fault(path, f"cannot be read: {_first_line(error)}")
        return
    missing = set(range(1, max([steps, *found]) + 1)) - set(found)
    if missing:
        yield Fault(path, f"lacks {len(missing)} of {max([steps, *found])} steps: {_ranges(missing)}")
    if len(found) > len(set(found)):
        yield Fault(path, f"has {len(found) - len(set(found))} steps more than once")
    strange = [row["step"] for row in rows_of(table) if not all(map(math.isfinite, row.values()))]
    if strange:
        yield Fault(path, f"has numbers that are not finite in {len(strange)} steps: {_ranges(strange)}")


def _ranges(steps: Iterable[int]) -> str:
    """As `1-20, 31`."""
    runs = [
        [step for _, step in run]
        for _, run in groupby(enumerate(sorted(steps)), lambda each: each[1] - each[0])
    ]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
