"""A job's identity: `job.json`, written once, before any work, and compared whenever the job goes on."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jobs.assets import Asset, read_assets
from jobs.errors import JobMismatch, UsageError
from jobs.listing import list_photos
from jobs.manifest import MANIFEST, Manifest, ManifestInfo, write_manifest
from jobs.spec import JobFile, Resources, StylizeSpec, fingerprint, job_from_table, job_to_table
from jobs.storage import Store, open_store
from nst.errors import OptionError
from nst.methods import METHODS

if TYPE_CHECKING:
    from nst.stylizer import Method

__all__ = ["JOB", "Job", "create_or_open", "plan", "read_job", "reopen"]

JOB = "job.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A job that exists in its store."""

    store: Store
    spec: StylizeSpec
    resources: Resources
    assets: tuple[Asset, ...]
    manifest: Manifest
    fingerprint: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A job that could be run."""

    table: Mapping[str, Any]
    """The resolved job file."""
    manifest: ManifestInfo
    assets: tuple[Asset, ...]
    fingerprint: str
    notes: tuple[str, ...]


def read_job(store: Store) -> dict[str, Any]:
    """The stored `job.json`.

    Raises:
        UsageError: there is no job, or one of another version of this program.
    """
    try:
        record = json.loads(store.read(JOB))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{store.url} is no job: it has no {JOB}") from error
    except ValueError as error:
        raise UsageError(f"{store.url}/{JOB} is damaged: {error}") from error
    if record.get("format") != _FORMAT:
        raise UsageError(f"{store.url}/{JOB} has format {record.get('format')!r}; this program reads {_FORMAT}")
    return cast(dict[str, Any], record)


def plan(job: JobFile) -> Plan:
    """All that would be fixed if `job` were run now. Writes nothing.

    Raises:
        OptionError, UsageError, WeightsError: the job is asked for wrongly.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _plan(job, Path(folder) / MANIFEST)


def create_or_open(job: JobFile, registry: Mapping[str, type[Method]] = METHODS) -> Job:
    """Begin `job` in its output folder, or go on with it if that is the same job.

    Raises:
        JobMismatch: the folder belongs to another job; the message shows the differences.
        OptionError, UsageError, WeightsError: the job is asked for wrongly. Nothing was written.
    """
    store = open_store(job.spec.output)
    _refuse_nesting(job.spec)
    if store.exists(JOB):
        return reopen(store, job=job, registry=registry)
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / MANIFEST
        planned = _plan(job, listing)
        _refuse_foreign_folder(store)
        record = {
            "format": _FORMAT,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "job": planned.table,
            "assets": {asset.option: {"url": asset.url, "sha256": asset.sha256} for asset in planned.assets},
            "manifest": asdict(planned.manifest),
            "fingerprint": planned.fingerprint,
            "notes": planned.notes,
            "versions": _versions(),
        }
        # job.json decides what the manifest is, so that of several that begin at once all publish the same.
        try:
            store.publish(JOB, json.dumps(record, indent=2).encode(), create_only=True)
        except FileExistsError:
            return reopen(store, job=job, registry=registry)
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}"
            raise OptionError("output", store.url, reason=reason) from error
        store.publish(MANIFEST, listing.read_bytes())
    return Job(
        store,
        job.spec,
        job.resources,
        planned.assets,
        Manifest(store),
        planned.fingerprint,
        planned.notes,
    )


def reopen(
    store: Store,
    *,
    job: JobFile | None = None,
    registry: Mapping[str, type[Method]] = METHODS,
    overrides: Mapping[str, Any] | None = None,
) -> Job:
    """Go on with the job in `store`.

    Args:
        job: what was asked for now, which must be the same job; None: what is stored.
        overrides: replacements of stored options of `resources`.

    Raises:
        JobMismatch: the stored job, its manifest, or its assets differ from what the job was begun with.
        UsageError: there is no job.
    """
    record = read_job(store)
    stored = record["job"]
    if job is None:
        table = {**stored, "output": store.url, "resources": {**stored["resources"], **(overrides or {})}}
        job = job_from_table(table, Path.cwd(), registry)
    assets = read_assets(job.spec.method)
    manifest = _manifest(store, job.spec, record["manifest"])
    table = job_to_table(job)
    digests = {asset.option: asset.sha256 for asset in assets}
    differences = _differences(
        {name: value for name, value in stored.items() if name not in ("output", "resources")},
        {name: value for name, value in table.items() if name not in ("output", "resources")},
    )
    recorded = {option: asset["sha256"] for option, asset in record["assets"].items()}
    differences += _differences(recorded, digests, "SHA-256 of ")
    if manifest.sha256 != record["manifest"]["sha256"] or manifest.rows != record["manifest"]["rows"]:
        differences.append(f"{MANIFEST}: not the one that the job was begun with")
    if differences:
        raise JobMismatch(
            f"output = {store.url!r} belongs to another job. It differs in:\n  " + "\n  ".join(differences)
        )
    print_now = fingerprint(table, digests, manifest.sha256)
    if print_now != record["fingerprint"]:
        raise JobMismatch(f"{store.url}/{JOB} was changed: its fingerprint is not that of the job in it")
    _refuse_other_arithmetic(Resources(**stored["resources"]), job.resources)
    return Job(
        store,
        job.spec,
        job.resources,
        tuple(assets),
        manifest,
        print_now,
        tuple(job.spec.method.notes()),
    )


def _plan(job: JobFile, listing: Path) -> Plan:
    assets = tuple(read_assets(job.spec.method))
    try:
        photos = list_photos(job.spec.photos, exclude=job.spec.output)
        info = write_manifest(photos, listing, job.resources.shard_size)
    except (UsageError, OSError) as error:
        raise OptionError("photos", job.spec.photos, reason=str(error)) from error
    table = job_to_table(job)
    digests = {asset.option: asset.sha256 for asset in assets}
    return Plan(table, info, assets, fingerprint(table, digests, info.sha256), tuple(job.spec.method.notes()))


def _manifest(store: Store, spec: StylizeSpec, recorded: Mapping[str, Any]) -> Manifest:
    """The job's manifest; listed again if the process that began the job died before it could publish it."""
    if not store.exists(MANIFEST):
        with tempfile.TemporaryDirectory() as folder:
            listing = Path(folder) / MANIFEST
            photos = list_photos(spec.photos, exclude=spec.output)
            if asdict(write_manifest(photos, listing, recorded["shard_size"])) != recorded:
                raise JobMismatch(
                    f"{store.url}/{JOB} was begun and its listing never published, and the photographs have "
                    f"changed since. Nothing was done yet: delete it, or choose a new output"
                )
            store.publish(MANIFEST, listing.read_bytes())
    return Manifest(store)


def _differences(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name in sorted({*stored, *now}):
        before, after = stored.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before!r} in the folder, {after!r} asked for")
    return lines


def _refuse_other_arithmetic(before: Resources, now: Resources) -> None:
    """The number of threads and the kind of device decide in which order sums are rounded."""
    if before.threads != now.threads:
        reason = f"the job was begun with {before.num_cpus:g}: it decides the last bits of pictures"
        raise OptionError("resources.num_cpus", now.num_cpus, reason=reason)
    if (before.num_gpus > 0) != (now.num_gpus > 0):
        reason = f"the job was begun with {before.num_gpus:g}: GPUs and CPUs round differently"
        raise OptionError("resources.num_gpus", now.num_gpus, reason=reason)


def _refuse_nesting(spec: StylizeSpec) -> None:
    if spec.output.rstrip("/") == spec.photos.rstrip("/"):
        raise OptionError("output", spec.output, reason="is the folder of the photographs")


def _refuse_foreign_folder(store: Store) -> None:
    """A folder that holds anything is not ours to write to, unless it became a job a moment ago."""
    try:
        names = store.names("")
    except NotADirectoryError as error:
        raise OptionError("output", store.url, reason="is a file") from error
    foreign = [name for name in names if name != ".tmp"]
    if foreign and JOB not in names:
        raise OptionError(
            "output",
            store.url,
            reason=f"is not empty and no job: it holds {foreign[0]!r}; choose a new folder",
        )


def _versions() -> dict[str, str]:
    names = ("nst", "torch", "torchvision", "ray", "pillow", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
