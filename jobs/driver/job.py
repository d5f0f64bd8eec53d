"""A job's identity: `job.json`, written once, before any work, and compared whenever the job goes on."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.config.styles import said_as_styles
from jobs.config.tables import set_words
from jobs.driver.assets import Asset, by_url, check_weights, expand_folders, read_assets
from jobs.driver.moved import along_with, as_recorded, photographs_now
from jobs.driver.photos import listed
from jobs.driver.styles import InStyles, check_style, takes_styles
from jobs.errors import JobMismatch, LeaseHeld, UsageError
from jobs.ledger.begin_job import begin_job, is_begun, refuse_foreign_folder, try_writing
from jobs.ledger.job_record import PHOTOS, JobRecord, RecordedAsset, differences, read_job
from jobs.ledger.layout import JOB, MANIFEST
from jobs.ledger.lease import refuse_if_held
from jobs.ledger.left_out import LeftOut
from jobs.ledger.manifest import Manifest, ManifestInfo, Row, listed_manifest, write_manifest
from jobs.ledger.receipts import Ledger
from jobs.pools.capacity import Fitted, fit, idle_cpus, room_for
from jobs.spec import HOW, JobFile, Resources, StylizeSpec, fingerprint, job_from_table, job_to_table
from jobs.stores.filesystems import StorageOptions
from jobs.stores.moved import Move
from jobs.stores.part_store import reached
from jobs.stores.store import LocalStore, Store, open_store
from nst.errors import OptionError
from nst.methods import METHODS

if TYPE_CHECKING:
    from nst.stylizer import Method

__all__ = ["Job", "create_or_open", "plan", "reopen"]


_SAMPLE = 200
_SHIPPED = "nst:"  # what begins so comes with this package


@dataclass(frozen=True, slots=True)
class Job:
    """A job that exists in its store."""

    store: Store
    spec: StylizeSpec
    resources: Resources
    storage: StorageOptions
    assets: tuple[Asset, ...]
    manifest: Manifest
    fingerprint: str
    notes: tuple[str, ...]
    moved: Move | None = None
    """Where the photographs are, if not where they were when the job was begun."""
    adapted: str | None = None
    """Digest of the weights that the method's network has learned on the job's photographs, if it has."""
    fresh: bool = False
    """Whether it was begun just now, and not found."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A job that could be run."""

    job: JobFile
    """The job, with the pictures of folders, and what the place where it would run has."""
    table: Mapping[str, Any]
    """The resolved job file."""
    manifest: ManifestInfo
    assets: tuple[Asset, ...]
    fingerprint: str
    notes: tuple[str, ...]
    left_out: LeftOut
    """Files at `photos` that are no photographs of it; `notes` tell of them, too."""
    sample: tuple[Row, ...] = ()
    """Some of the photographs, spread evenly over all of them."""


def plan(job: JobFile) -> Plan:
    """All that would be fixed if `job` were run now. Writes nothing.

    Raises:
        OptionError, UsageError, WeightsError: the job is asked for wrongly.
    """
    open_store(job.spec.output, job.storage)  # and nothing is asked of it
    _refuse_nesting(job.spec)
    beside = LeftOut()
    job, fitted = _fitted(_expanded(job, beside))
    with tempfile.TemporaryDirectory() as folder:
        planned = _plan(job, Path(folder) / MANIFEST, beside)
        sample = tuple(Manifest(LocalStore(folder)).sample(_SAMPLE))
    idle = idle_cpus(job.resources, fitted.resources, planned.manifest.rows)
    return replace(planned, notes=(*planned.notes, *fitted.begun, *fitted.notes, *idle), sample=sample)


def create_or_open(job: JobFile, registry: Mapping[str, type[Method]] = METHODS) -> Job:
    """Begin `job` in its output folder, or go on with it if that is the same job.

    Raises:
        JobMismatch: the folder belongs to another job; the message shows the differences.
        OptionError, UsageError, WeightsError: the job is asked for wrongly. Nothing was written.
    """
    store = open_store(job.spec.output, job.storage)
    _refuse_nesting(job.spec)
    begun = is_begun(store)
    beside = LeftOut()
    job = _expanded(job, beside)
    if begun:
        return reopen(store, job=job, registry=registry)
    job, fitted = _fitted(job)
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / MANIFEST
        planned = _plan(job, listing, beside)
        refuse_foreign_folder(store)
        idle = idle_cpus(job.resources, fitted.resources, planned.manifest.rows)
        notes = (*planned.notes, *fitted.begun, *try_writing(store))
        # job.json decides what the manifest is, so that of several that begin at once all publish the same.
        try:
            begin_job(
                store,
                job=planned.table,
                assets={asset.option: RecordedAsset(asset.url, asset.sha256) for asset in planned.assets},
                manifests={PHOTOS: planned.manifest},
                fingerprint=planned.fingerprint,
                notes=notes,
            )
        except FileExistsError:
            return reopen(store, job=job, registry=registry)
        store.publish(MANIFEST, listing.read_bytes())
    return Job(
        store,
        job.spec,
        job.resources,
        job.storage,
        planned.assets,
        Manifest(store),
        planned.fingerprint,
        (*notes, *idle),
        fresh=True,
    )


def reopen(
    store: Store,
    *,
    job: JobFile | None = None,
    registry: Mapping[str, type[Method]] = METHODS,
    overrides: Mapping[str, Any] | None = None,
    photos: str | None = None,
) -> Job:
    """Go on with the job in `store`. Where its photographs and assets are may have changed, not what they are.

    Args:
        job: what was asked for now, which must be the same job; None: what is stored.
        overrides: replacements of stored options, by table: of `resources` and `storage`.
        photos: where the photographs are now (absolute); None: where `job` says, or where they are found.

    Raises:
        JobMismatch: the stored job, its manifest, photographs or assets differ from what it was begun with.
        OptionError: a worker is to have what is not there, or other arithmetic than the job was begun with.
        UsageError: there is no job.
    """
    record = read_job(store)
    stored = record.job
    if job is None:
        table = {**stored, "output": store.url}
        for name, options in (overrides or {}).items():
            table[name] = {**stored.get(name, {}), **options}
        job = job_from_table(table, Path.cwd(), registry)
        store = reached(store, job.storage)
    given = job.spec.photos
    said = photos or (given if isinstance(given, str) else None)
    job, assets = _at_recorded_places(job, store, record, registry)
    spec, storage = job.spec, job.storage
    manifest = listed_manifest(
        store,
        lambda: InStyles(spec, assets)(listed(spec, storage, LeftOut())),
        record.manifest,
        styled=takes_styles(spec.method),
    )
    table = job_to_table(job)
    digests = {asset.option: asset.sha256 for asset in assets}
    found = differences(stored, table, but=HOW)
    found += differences(record.digests, digests, "SHA-256 of ")
    if manifest.sha256 != record.manifest.sha256 or manifest.rows != record.manifest.rows:
        found.append(f"{MANIFEST}: not the one that the job was begun with")
    if found:
        raise _mismatch(store, storage, record, assets, found)
    print_now = fingerprint(table, digests, manifest.sha256)
    if print_now != record.fingerprint:
        raise JobMismatch(f"{store.url}/{JOB} was changed: its fingerprint is not that of the job in it")
    moved = photographs_now(store, record, manifest, said, job.spec, job.storage)
    resources = _same_arithmetic(store, record, job.resources)
    found_at = (
        () if moved is None else (f"the photographs that were in {moved.before} are read from {moved.now}",)
    )
    return Job(
        store,
        job.spec,
        resources,
        job.storage,
        assets,
        manifest,
        print_now,
        (*job.spec.method.notes(by_url(assets)), *try_writing(store), *found_at),
        moved,
    )


def _mismatch(
    store: Store,
    storage: StorageOptions,
    record: JobRecord,
    assets: Sequence[Asset],
    found: Sequence[str],
) -> JobMismatch:
    """What is said of a folder that belongs to another job, and what to do about it."""
    lines = "\n  ".join(found)
    said = f"output = {store.url!r} belongs to another job. It differs in:\n  {lines}\n"
    changed = [
        asset.url
        for asset in assets
        if asset.url.startswith(_SHIPPED) and record.digests.get(asset.option) not in (None, asset.sha256)
    ]
    if changed:
        return JobMismatch(
            f"{said}{' and '.join(changed)} came with an earlier version of nst, and is another one in this "
            f"version: go on with that version, or choose another output"
        )
    go_on = shlex.join(["nst", "resume", store.url, *set_words("storage", storage)])
    nothing = "" if _was_worked_on(store) else ", or delete this one, since nothing was done in it yet"
    return JobMismatch(f"{said}choose another output{nothing}; that job goes on with: {go_on}")


def _was_worked_on(store: Store) -> bool:
    ledger = Ledger(store)
    return bool(ledger.done() or ledger.begun())


def _at_recorded_places(
    job: JobFile, store: Store, record: JobRecord, registry: Mapping[str, type[Method]]
) -> tuple[JobFile, tuple[Asset, ...]]:
    """`job` with the places on record of all that is what it was, wherever it is now, and its assets."""
    elsewhere = along_with(store, record)
    with said_as_styles(job.spec.styles_per_photo):
        assets = read_assets(job.spec.method, job.storage, recorded=record.digests, elsewhere=elsewhere)
    table, assets = as_recorded(job_to_table(job), assets, record)
    table["photos"] = record.job.get("photos", job.spec.photos)
    if table != job_to_table(job):
        job = job_from_table(table, Path.cwd(), registry)
    return job, tuple(assets)


def _expanded(job: JobFile, beside: LeftOut) -> JobFile:
    """`job` with the pictures that are now in the folders that its method names; `beside` counts what else is
    in these."""
    with said_as_styles(job.spec.styles_per_photo):
        method = expand_folders(job.spec.method, job.storage, exclude=job.spec.output, left_out=beside)
    return replace(job, spec=replace(job.spec, method=method))


def _plan(job: JobFile, listing: Path, beside: LeftOut) -> Plan:
    styled = takes_styles(job.spec.method)
    with said_as_styles(job.spec.styles_per_photo):
        assets = tuple(read_assets(job.spec.method, job.storage))
        if styled:
            check_style(job.spec.method, assets)
        check_weights(job.spec.method, assets)
    left_out, in_styles = LeftOut(), InStyles(job.spec, assets)
    try:
        photos = in_styles(listed(job.spec, job.storage, left_out))
        info = write_manifest(photos, listing, job.resources.shard_size, styled=styled)
    except (UsageError, OSError) as error:
        first, *more = job.spec.places
        shown = f"{first} and {len(more)} more" if more else first
        reason = "; ".join([str(error).removeprefix(f"{first}: "), *left_out.notes()])
        raise OptionError("photos", shown, reason=reason) from error
    table = job_to_table(job)
    digests = {asset.option: asset.sha256 for asset in assets}
    aside = (f"pictures of [method]: {note}" for note in beside.notes(with_options=False))
    notes = (*in_styles.notes(), *job.spec.method.notes(by_url(assets)), *aside, *left_out.notes())
    return Plan(job, table, info, assets, fingerprint(table, digests, info.sha256), notes, left_out)


def _fitted(job: JobFile) -> tuple[JobFile, Fitted]:
    """`job`, for good on GPUs or on CPUs, and its resources as a run here would have them."""
    fitted = fit(job.resources, room_for(job.resources), "num_gpus = 0 computes on CPUs")
    return replace(job, resources=replace(job.resources, num_gpus=fitted.resources.num_gpus)), fitted


def _same_arithmetic(store: Store, record: JobRecord, now: Resources) -> Resources:
    """`now`, with the arithmetic that the job was begun with: numbers of threads and kinds of device decide in
    which order sums are rounded. It may change as long as nothing was done; the record follows."""
    stored = record.job["resources"]
    before = Resources(**{**stored, "num_gpus": min(1, stored["num_gpus"] or 0)})  # more were once accepted
    if now.num_gpus is None:
        now = replace(now, num_gpus=before.num_gpus)
    changed = _other_arithmetic(before, now)
    if changed is None:
        return now
    if _was_worked_on(store):
        raise changed
    try:
        refuse_if_held(store)
    except LeaseHeld as error:  # by somebody who does something now
        raise changed from error
    resources = {**record.job["resources"], "num_cpus": now.num_cpus, "num_gpus": now.num_gpus}
    store.publish(JOB, replace(record, job={**record.job, "resources": resources}).to_bytes())
    return now


def _other_arithmetic(before: Resources, now: Resources) -> OptionError | None:
    go_on = "go on with that, or begin the job in another output"
    if before.threads != now.threads:
        reason = f"the job was begun with {before.num_cpus:g}: it decides the last bits of pictures; {go_on}"
        return OptionError("resources.num_cpus", now.num_cpus, reason=reason)
    if bool(before.num_gpus) != bool(now.num_gpus):
        reason = f"the job was begun with {before.num_gpus or 0:g}: GPUs and CPUs round differently; {go_on}"
        return OptionError("resources.num_gpus", now.num_gpus, reason=reason)
    return None


def _refuse_nesting(spec: StylizeSpec) -> None:
    output = spec.output.rstrip("/")
    for place in spec.places:
        if place.rstrip("/") == output:
            raise OptionError("output", spec.output, reason="is the folder of the photographs")
        if place.startswith(f"{output}/"):  # of its own folder a job takes no photographs
            reason = f"holds the photographs, {place}: take a folder beside them, or below"
            raise OptionError("output", spec.output, reason=reason)
