"""A training's identity: `job.json`, written once, before any work, and compared whenever it goes on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.driver.assets import Asset, by_url, read_assets
from jobs.errors import JobMismatch, NoPhotographs, UsageError
from jobs.ledger.begin_job import begin_job, is_begun, refuse_foreign_folder, try_writing
from jobs.ledger.job_record import TRAINING, RecordedAsset, differences, read_job
from jobs.ledger.layout import JOB
from jobs.ledger.left_out import LeftOut
from jobs.ledger.listing import list_photos
from jobs.ledger.manifest import Manifest, ManifestInfo, listed_manifest, write_manifest
from jobs.pools.capacity import cluster_address, refuse_too_much, this_machine
from jobs.stores.store import LocalStore, Store, open_store
from jobs.training.data import TrainingSet
from jobs.training.job_file import HOW, train_fingerprint, train_from_table, train_to_table
from jobs.training.layout import manifest_path
from jobs.training.spec import TrainFile, TrainResources
from nst.errors import OptionError

__all__ = ["TrainJob", "TrainPlan", "create_or_open_training", "plan_training", "reopen_training"]


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
    notes: tuple[str, ...]

    @property
    def epoch_steps(self) -> int:
        return _epoch_steps(self.file, self.manifests)

    @property
    def urls(self) -> tuple[pa.ChunkedArray, ...]:
        """Places of the photographs of each collection, in order."""
        return tuple(manifest.urls() for manifest in self.manifests.values())

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
                assets={asset.option: RecordedAsset(asset.url, asset.sha256) for asset in planned.assets},
                manifests=planned.manifests,
                fingerprint=planned.fingerprint,
                notes=notes,
            )
        except FileExistsError:
            return reopen_training(store, file=file)
        for name in planned.manifests:
            store.publish(manifest_path(name), (Path(folder) / manifest_path(name)).read_bytes())
    manifests = {name: Manifest(store, manifest_path(name)) for name in planned.manifests}
    return TrainJob(store, file, manifests, planned.assets, planned.fingerprint, notes)


def reopen_training(
    store: Store, *, file: TrainFile | None = None, overrides: Mapping[str, Any] | None = None
) -> TrainJob:
    """Go on with the training in `store`.

    Args:
        file: what was asked for now, which must be the same training; None: what is stored.
        overrides: replacements of stored options, by table: of those in `HOW`.

    Raises:
        JobMismatch: what is stored differs, or was changed since the training was begun.
        UsageError: there is no job, or one of another kind.
    """
    record = read_job(store, TRAINING)
    stored = record.job
    if file is None:
        table = {**stored, "output": store.url}
        for name, options in (overrides or {}).items():
            table[name] = {**stored.get(name, {}), **options}
        file = train_from_table(table, Path.cwd())
        store = open_store(store.url, file.storage)
    table = train_to_table(file)
    found = differences(stored, table, but=HOW)
    if found:
        lines = "\n  ".join(found)
        raise JobMismatch(f"output = {store.url!r} belongs to another training. It differs in:\n  {lines}")
    manifests = {
        name: listed_manifest(
            store,
            partial(list_photos, source, exclude=file.spec.output, storage=file.storage),
            record.manifests[name],
            path=manifest_path(name),
        )
        for name, source in file.spec.collections.items()
    }
    digests = {name: manifest.sha256 for name, manifest in manifests.items()}
    if train_fingerprint(table, digests) != record.fingerprint:
        raise JobMismatch(f"{store.url}: {JOB} or a manifest was changed since the training was begun")
    if (TrainResources(**stored["resources"]).num_gpus > 0) != (file.resources.num_gpus > 0):
        before = stored["resources"]["num_gpus"]
        reason = f"the training was begun with {before}: GPUs and CPUs round differently"
        raise OptionError("resources.num_gpus", file.resources.num_gpus, reason=reason)
    _check_room(file.resources)
    assets = tuple(read_assets(file.evaluation, file.storage, table="evaluation"))
    notes = (*file.evaluation.notes(by_url(assets)), *try_writing(store))
    return TrainJob(store, file, manifests, assets, record.fingerprint, notes)


def _check_room(own: TrainResources) -> None:
    """Raises OptionError: Ray is to be started on this machine, which does not have what workers need."""
    if cluster_address(own.address) is None:
        wanted = {"num_cpus": own.num_cpus * own.min_workers, "num_gpus": own.num_gpus * own.min_workers}
        refuse_too_much(this_machine(), wanted)


def _plan(file: TrainFile, folder: Path) -> TrainPlan:
    _check_room(file.resources)
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
            raise OptionError(option, source, reason=str(error)) from error
    _check_photographs(file, folder)
    table = train_to_table(file)
    digests = {name: info.sha256 for name, info in manifests.items()}
    notes = (
        *file.evaluation.notes(by_url(assets)),
        *(f"{name}: {note}" for name, found in left_out.items() for note in found.notes(with_options=False)),
    )
    return TrainPlan(file, table, manifests, assets, train_fingerprint(table, digests), notes)


def _check_photographs(file: TrainFile, folder: Path) -> None:
    """Raises OptionError: a collection has hardly a photograph that can be trained on."""
    names = file.spec.collections
    urls = [Manifest(LocalStore(str(folder)), manifest_path(name)).urls() for name in names]
    photos = TrainingSet.of(file.spec, urls, file.storage)
    for name, source in names.items():
        try:
            photos.check(name)
        except (NoPhotographs, OSError) as error:
            raise OptionError(file.spec.recipe.option_of(name), source, reason=str(error)) from error


def _epoch_steps(file: TrainFile, manifests: Mapping[str, Manifest] | Mapping[str, ManifestInfo]) -> int:
    photos = max(manifest.rows for manifest in manifests.values())
    return file.spec.schedule.epoch_steps(file.spec.recipe.epoch_samples(photos), file.spec.batch_size)
