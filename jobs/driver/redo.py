"""Photographs that are done again with other options: a part of the job, with pictures of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.driver.assets import check_weights, expand_folders, read_assets
from jobs.driver.job import Job
from jobs.driver.moved import along_with, as_recorded
from jobs.driver.parts import PartPlan, begin_part, unfinished_parts
from jobs.driver.styles import check_style, takes_styles
from jobs.errors import UsageError
from jobs.ledger.folders import Photo
from jobs.ledger.job_record import JobRecord, RecordedAsset, changed_values, read_job
from jobs.ledger.lease import STANDARD_LEASE, LeaseOptions, hold
from jobs.ledger.parts import WHERE, manifest_of, manifests_of, parts_of
from jobs.spec import job_from_table, job_to_table
from nst.methods import METHODS

if TYPE_CHECKING:
    from nst.stylizer import Method

__all__ = ["Redone", "redo"]

_TABLES = ("method", "image")


@dataclass(frozen=True, slots=True)
class Redone:
    """What is done again, and what is not."""

    keys: tuple[str, ...]
    already: tuple[str, ...]
    """Keys of photographs whose last version was made with these very options."""
    options: Mapping[str, Any]
    """Options that are others than the job's, by name."""


def redo(
    job: Job,
    keys: Sequence[str],
    options: Mapping[str, Any],
    *,
    photos: str | None = None,
    tell: Callable[[Redone], None] = lambda _: None,
    lease: LeaseOptions | None = STANDARD_LEASE,
    registry: Mapping[str, type[Method]] = METHODS,
) -> Iterator[Job]:
    """What is left of the parts of `job`, which is finished, then a part of photographs that are done again.

    Args:
        keys: of these photographs.
        options: replacements of the job's, by table: of `method` and `image`, and `seed`.
        photos: where the job's photographs are now, if that was said.
        tell: told what is done again, once the former parts are finished.

    Raises:
        UsageError: a photograph is not in the job, or somebody else is at it.
        OptionError: the options cannot be so.
    """
    plan = _plan(job, options, registry)
    _sorted_out(job, keys, plan)  # which refuses before anything is done
    with hold(job.store, lease):
        begun = False
        while not begun:
            yield from unfinished_parts(job, photos, registry)
            number = len(parts_of(job.store))
            again, already = _sorted_out(job, keys, plan)
            changed = changed_values(read_job(job.store).job, plan.table, but=WHERE)
            others = {name: now for name, (_, now) in changed.items()}
            tell(Redone(tuple(photo.key for photo in again), already, others))
            if not again:
                return
            begun = begin_part(job, number, _of(job, plan, again))
        yield from unfinished_parts(job, photos, registry)


def _plan(job: Job, options: Mapping[str, Any], registry: Mapping[str, type[Method]]) -> PartPlan:
    """A part with these options, and no photograph yet."""
    record = read_job(job.store)
    table = {**record.job, **options}
    for name in _TABLES:
        given = options.get(name, {})
        another = name == "method" and given.get("kind", record.method["kind"]) != record.method["kind"]
        table[name] = {**({} if another else record.job[name]), **given}
    file = job_from_table(table, Path.cwd(), registry)
    method = expand_folders(file.spec.method, job.storage, exclude=job.spec.output)
    assets = read_assets(method, job.storage, recorded=record.digests, elsewhere=along_with(job.store, record))
    if takes_styles(method):
        check_style(method, assets)
    check_weights(method, assets)
    resolved = job_to_table(replace(file, spec=replace(file.spec, method=method)))
    resolved, assets = as_recorded(resolved, assets, record)
    return PartPlan(
        kind="again",
        photos=(),
        table={**resolved, **{name: record.job[name] for name in WHERE if name in record.job}},
        assets={asset.option: RecordedAsset(asset.url, asset.sha256) for asset in assets},
        method=method,
    )


def _sorted_out(job: Job, keys: Sequence[str], plan: PartPlan) -> tuple[list[Photo], tuple[str, ...]]:
    """The photographs to do again, and the keys of those whose last version is as `plan` would have it."""
    rows = _rows(job, set(keys))
    already: set[str] = set()
    for store in parts_of(job.store):
        its = set(manifest_of(store).column("key")) & rows.keys()
        already = already | its if _is_alike(plan, read_job(store)) else already - its
    return [photo for key, photo in rows.items() if key not in already], tuple(sorted(already))


def _rows(job: Job, keys: set[str]) -> dict[str, Photo]:
    """What is on record last of each of these photographs."""
    found: dict[str, Photo] = {}
    for manifest in manifests_of(job.store):
        for shard in range(manifest.shards):
            for row in manifest.shard(shard):
                if row.key in keys:
                    found[row.key] = Photo(row.key, row.url, row.size_bytes, row.style)
    if keys - found.keys():
        raise UsageError(f"{job.store.url} has no photograph with the key {min(keys - found.keys())!r}")
    return found


def _is_alike(plan: PartPlan, record: JobRecord) -> bool:
    digests = {option: asset.sha256 for option, asset in plan.assets.items()}
    return digests == record.digests and not changed_values(record.job, plan.table, but=WHERE)


def _of(job: Job, plan: PartPlan, photos: Sequence[Photo]) -> PartPlan:
    """`plan` with photographs; where the job's are single files, some of which may be gone, these alone."""
    several = {} if isinstance(job.spec.photos, str) else {"photos": [photo.url for photo in photos]}
    return replace(plan, photos=photos, table={**plan.table, **several})
