"""A training's identity: `job.json`, written once, before any work, and compared whenever it goes on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.driver.assets import Asset, by_url, read_assets
from jobs.driver.moved import along_with
from jobs.errors import JobMismatch, NoPhotographs, UsageError
from jobs.ledger.begin_job import begin_job, is_begun, refuse_foreign_folder, try_writing
from jobs.ledger.job_record import TRAINING, changed_values, differences, read_job
from jobs.ledger.layout import JOB
from jobs.ledger.lease_holder import utc
from jobs.ledger.left_out import LeftOut
from jobs.ledger.listing import list_photos
from jobs.ledger.manifest import Manifest, ManifestInfo, listed_manifest, write_manifest
from jobs.stores.moved import Move
from jobs.stores.store import LocalStore, Store, open_store
from jobs.training.changes import Change, Changed, read_changes, with_changes
from jobs.training.data import TrainingSet
from jobs.training.evaluate import check_evaluation, check_eyes, check_still_comparable
from jobs.training.job_file import (
    HOW,
    recorded_fingerprints,
    train_fingerprint,
    train_from_table,
    train_to_table,
)
from jobs.training.layout import (
    METRICS,
    change_numbers,
    change_path,
    checkpoint_steps,
    forget_later,
    manifest_path,
    read_done,
    read_last_end,
)
from jobs.training.moved import as_recorded, check_moved, held_out_now, moved_urls, photographs_now
from jobs.training.room import check_room, fitted, with_gpus
from jobs.training.spec import TrainFile
from jobs.training.starts import TrainingFiles, read_files, recorded_assets, same_eyes, same_files, start_notes
from nst.errors import OptionError

__all__ = [
    "TrainJob",
    "TrainPlan",
    "create_or_open_training",
    "plan_training",
    "record_change",
    "reopen_training",
]


@dataclass(frozen=True, slots=True)
class TrainJob:
    """A training that exists in its store."""

    store: Store
    file: TrainFile
    manifests: Mapping[str, Manifest]
    """By the collection's name, in order."""
    assets: tuple[Asset, ...]
    """Of the evaluation."""
    fingerprint: str
    """The fingerprint that the training was begun with."""
    notes: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    """Options that were changed since it was begun, which `file` has."""
    asked: Change | None = None
    """A change that `file` has, too, and that is to be recorded before any work; its step is not known yet."""
    files: TrainingFiles = field(default_factory=TrainingFiles)
    """What it needs beside its photographs."""
    moves: Mapping[str, Move] = field(default_factory=dict)
    """Where collections are now that were moved with the training, by name."""

    @property
    def epoch_steps(self) -> int:
        return _epoch_steps(self.file, self.manifests)

    @property
    def urls(self) -> tuple[pa.ChunkedArray, ...]:
        """Places of the photographs of each collection, in order."""
        return tuple(
            moved_urls(manifest, self.moves[name]) if name in self.moves else manifest.urls()
            for name, manifest in self.manifests.items()
        )

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.epoch_steps * self.file.spec.schedule.epochs


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """A training that could be begun."""

    file: TrainFile
    table: Mapping[str, Any]
    manifests: Mapping[str, ManifestInfo]
    assets: tuple[Asset, ...]
    """Of the evaluation."""
    files: TrainingFiles
    """What it needs beside its photographs."""
    fingerprint: str
    notes: tuple[str, ...]

    @property
    def rows(self) -> dict[str, int]:
        """Of each collection."""
        return {name: info.rows for name, info in self.manifests.items()}

    @property
    def epoch_steps(self) -> int:
        return _epoch_steps(self.file, self.manifests)


def plan_training(file: TrainFile) -> TrainPlan:
    """All that would be fixed if the training were begun now. Writes nothing.

    Raises:
        OptionError, UsageError, WeightsError: it is asked for wrongly.
    """
    open_store(file.spec.output, file.storage)  # and nothing is asked of it
    with tempfile.TemporaryDirectory() as folder:
        return _plan(file, Path(folder))


def create_or_open_training(file: TrainFile) -> TrainJob:
    """Begin a training in its output folder, or go on with it if that is the same one.

    Raises:
        JobMismatch: the folder belongs to another job; the message shows the differences.
        OptionError, UsageError, WeightsError: it is asked for wrongly. Nothing was written.
    """
    store = open_store(file.spec.output, file.storage)
    for name, source in file.spec.collections.items():
        if source.rstrip("/") == file.spec.output.rstrip("/"):
            raise OptionError("output", file.spec.output, reason=f"is the folder of {name}'s photographs")
    if is_begun(store):
        return reopen_training(store, file=file)
    with tempfile.TemporaryDirectory() as folder:
        planned = _plan(file, Path(folder))
        refuse_foreign_folder(store)
        notes = (*planned.notes, *try_writing(store))
        try:
            begin_job(
                store,
                kind=TRAINING,
                job=planned.table,
                assets=recorded_assets(planned.assets, planned.files),
                manifests=planned.manifests,
                fingerprint=planned.fingerprint,
                notes=notes,
            )
        except FileExistsError:
            return reopen_training(store, file=file)
        for name in planned.manifests:
            store.publish(manifest_path(name), (Path(folder) / manifest_path(name)).read_bytes())
    manifests = {name: Manifest(store, manifest_path(name)) for name in planned.manifests}
    return TrainJob(
        store, planned.file, manifests, planned.assets, planned.fingerprint, notes, files=planned.files
    )


def reopen_training(
    store: Store, *, file: TrainFile | None = None, overrides: Mapping[str, Any] | None = None
) -> TrainJob:
    """Go on with the training in `store`.

    Args:
        file: what was asked for now, which must be the same training; None: what is stored.
        overrides: other values of options, by table: of those in `HOW`, which hold for this run, and of those
            that the recipe lets change, which `record_change` has hold from now on.

    Raises:
        JobMismatch: what is stored differs, or was changed since the training was begun.
        OptionError: the schedule would end earlier.
        UsageError: there is no job, or one of another kind.
    """
    record, changes = read_job(store, TRAINING), read_changes(store)
    stored = with_changes(record.job, changes)
    if file is None:
        table = {**stored, "output": store.url}
        for name, options in (overrides or {}).items():
            table[name] = {**stored.get(name, {}), **options}
        file = held_out_now(train_from_table(table, Path.cwd()), stored["output"], store.url)
        store = open_store(store.url, file.storage)
    table = as_recorded(train_to_table(file), file.spec.recipe, stored, store.url)
    changed = _changed(store, stored, table, file, may_change=overrides is not None)
    over = read_last_end(store) is not None and not changed  # then nobody reads them
    moves = {} if over else photographs_now(file.spec.recipe, table, stored["output"], store.url)
    manifests = {
        name: listed_manifest(
            store,
            partial(list_photos, source, exclude=file.spec.output, storage=file.storage),
            record.manifests[name],
            path=manifest_path(name),
        )
        for name, source in file.spec.collections.items()
    }
    for name, move in moves.items():
        check_moved(name, manifests[name], move, file)
    digests = {name: manifest.sha256 for name, manifest in manifests.items()}
    recorded = [record.fingerprint, *(change.fingerprint for change in changes)]
    if recorded_fingerprints(record, changes, digests) != recorded:
        raise JobMismatch(
            f"{store.url}: {JOB}, a change or a manifest was changed since the training was begun"
        )
    file = with_gpus(file, stored["resources"]["num_gpus"])
    check_room(file.resources)
    if not over:
        check_still_comparable(file, store)
    assets = same_eyes(file, record.assets, along_with(store, record))
    notes = (*map(str, changes), *file.evaluation.notes(by_url(assets)), *try_writing(store))
    started = bool(checkpoint_steps(store))
    files = same_files(file, record.assets, along_with(store, record), started=started, over=over)
    job = TrainJob(store, file, manifests, assets, record.fingerprint, notes, changes, files=files, moves=moves)
    if not changed:
        return job
    options = {name: Changed(before=before, after=after) for name, (before, after) in changed.items()}
    asked = Change(number=len(changes) + 1, step=0, created="", options=options, fingerprint="")
    last = recorded_fingerprints(record, [*changes, asked], digests)[-1]
    return replace(job, asked=replace(asked, fingerprint=last))


def _changed(
    store: Store,
    stored: Mapping[str, Any],
    table: Mapping[str, Any],
    file: TrainFile,
    *,
    may_change: bool,
) -> dict[str, tuple[Any, Any]]:
    """Both values of the options that are to be changed, by name.

    Raises:
        JobMismatch: others differ, or those that do cannot be changed.
        OptionError: the schedule would end earlier.
    """
    changed = changed_values(stored, table, but=HOW)
    changeable = file.spec.recipe.changeable()
    if not may_change or not changed.keys() <= {*changeable}:
        lines = "\n  ".join(differences(stored, table, but=HOW))
        if lines:
            raise JobMismatch(
                f"output = {store.url!r} belongs to another training. It differs in:\n  {lines}\n"
                f"`nst resume OUT --set NAME=VALUE` can change {', '.join(changeable)}"
            )
    least = sum(stored["schedule"][name] for name in ("n_epochs", "n_epochs_decay"))
    if file.spec.schedule.epochs < least:
        option = next(name for name in changed if name.startswith("schedule."))
        reason = f"n_epochs and n_epochs_decay are {least} together, and can only become more"
        raise OptionError(option, changed[option][1], reason=reason)
    return changed


def record_change(job: TrainJob) -> TrainJob:
    """Record the change that was asked for, if one was, as holding from the newest checkpoint on, and forget
    what later steps gave without it. To be called by who holds the lease, before any work; when it is
    interrupted, the next call ends it.

    Raises:
        OptionError: the training is complete, and would not become longer.
        JobMismatch: another change was recorded meanwhile.
    """
    store, asked = job.store, job.asked
    newest = max(checkpoint_steps(store), default=0)
    if len(change_numbers(store)) != len(job.changes):
        raise JobMismatch(
            f"{store.url} was changed by another `nst resume` meanwhile; go on with it as it is now"
        )
    if asked is not None:
        end = read_last_end(store)
        if end is not None and end["steps"] >= job.steps:
            name, values = next(iter(asked.options.items()))
            reason = "the training is complete; a greater schedule.n_epochs goes on with it"
            raise OptionError(name, values.after, reason=reason)
        change = replace(asked, step=newest, created=utc(time.time()))
        store.publish(change_path(change.number), change.to_bytes(), create_only=True)
        job = replace(job, changes=(*job.changes, change), asked=None)
    if job.changes and job.changes[-1].step == newest:
        forget_later(store, newest)
        if read_done(store) is None:
            store.remove(METRICS)  # of an earlier end: the parts have all
    return job


def _plan(file: TrainFile, folder: Path) -> TrainPlan:
    file, on_what = fitted(file)
    assets = tuple(read_assets(file.evaluation, file.storage, table="evaluation"))
    manifests, left_out = {}, {name: LeftOut() for name in file.spec.collections}
    for name, source in file.spec.collections.items():
        option = file.spec.recipe.option_of(name)
        try:
            photos = list_photos(
                source, exclude=file.spec.output, storage=file.storage, left_out=left_out[name]
            )
            manifests[name] = write_manifest(photos, folder / manifest_path(name), None)
        except OptionError as error:
            raise OptionError(option, source, choices=error.choices, reason=error.reason) from error
        except (UsageError, OSError) as error:
            raise OptionError(option, source, reason=str(error).removeprefix(f"{source}: ")) from error
    urls = {name: Manifest(LocalStore(str(folder)), manifest_path(name)).urls() for name in manifests}
    _check_photographs(file, urls)
    check_evaluation(file, urls)
    check_eyes(file.evaluation, by_url(assets))
    table = train_to_table(file)
    digests = {name: info.sha256 for name, info in manifests.items()}
    files = read_files(file)
    notes = (
        *on_what,
        *start_notes(file, files),
        *file.evaluation.notes(by_url(assets)),
        *(f"{name}: {note}" for name, found in left_out.items() for note in found.notes(with_options=False)),
    )
    begun_with = {name: asset.sha256 for name, asset in files.recorded().items()}
    fingerprint = train_fingerprint(table, digests, begun_with)
    return TrainPlan(file, table, manifests, assets, files, fingerprint, notes)


def _check_photographs(file: TrainFile, urls: Mapping[str, pa.ChunkedArray]) -> None:
    """Raises OptionError: a collection has hardly a photograph that can be trained on."""
    photos = TrainingSet.of(file.spec, [*urls.values()], file.storage)
    for name, source in file.spec.collections.items():
        try:
            photos.check(name)
        except (NoPhotographs, OSError) as error:
            raise OptionError(file.spec.recipe.option_of(name), source, reason=str(error)) from error


def _epoch_steps(file: TrainFile, manifests: Mapping[str, Manifest] | Mapping[str, ManifestInfo]) -> int:
    photos = max(manifest.rows for manifest in manifests.values())
    return file.spec.schedule.epoch_steps(file.spec.recipe.epoch_samples(photos), file.spec.batch_size)
