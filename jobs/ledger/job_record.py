"""`job.json`: what a folder's job is, whichever kind it is of. Written once, before any work."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from jobs.config.tables import parse_table
from jobs.errors import UsageError
from jobs.ledger.layout import JOB
from jobs.ledger.manifest import ManifestInfo
from jobs.spec import ImageSpec, storage_from_table
from jobs.stores.filesystems import StorageOptions
from jobs.stores.store import Store

__all__ = [
    "FORMAT",
    "PHOTOS",
    "TRAINING",
    "JobRecord",
    "RecordedAsset",
    "changed_values",
    "differences",
    "job_kind",
    "read_job",
]

FORMAT = 1
TRAINING = "train cyclegan"
"""The `kind` of a training, whatever it trains: what the first one was called."""
PHOTOS = "photos"
"""The one collection of a job that stylizes photographs."""


@dataclass(frozen=True, slots=True)
class RecordedAsset:
    """An asset as it was when the job was begun."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What `job.json` says. Its text is `to_bytes`, to the byte, with what it holds that is not known here."""

    kind: str | None = None
    """What is done: None: photographs are stylized; TRAINING: something is trained."""
    created: str
    """When the job was begun, in UTC, as 2026-11-21T03:12:44Z."""
    job: Mapping[str, Any]
    """The resolved job file: every option has its value, every path is absolute."""
    assets: Mapping[str, RecordedAsset]
    """What the job needs besides photographs, by option."""
    manifests: Mapping[str, ManifestInfo]
    """What identifies the listing of each collection, by its name."""
    fingerprint: str
    """Digest of all that the job's results depend on."""
    notes: tuple[str, ...]
    """What its user was told when the job was begun."""
    versions: Mapping[str, str]
    """What the job was begun with, by package."""
    part: Literal["new", "again"] | None = None
    """Of a job that is a part of another one, in a folder of that: whether its photographs came later, or are
    done again, as before or with other options. None: it is a job of its own."""
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """What later versions of this program may have added."""

    @staticmethod
    def from_json(table: Mapping[str, Any]) -> JobRecord:
        """The inverse of `to_json`, but for the format, which is the caller's to look at.

        Raises:
            ValueError: something is missing, or of another type.
        """
        stylizing = table.get("kind") is None
        names = {item.name for item in fields(JobRecord)} - {"unknown"}
        known = {name: value for name, value in table.items() if name in names}
        unknown = {name: value for name, value in table.items() if name not in names | {"format", "manifest"}}
        if stylizing:
            if "manifest" not in table:
                raise ValueError("manifest: Field required")
            known["manifests"] = {PHOTOS: table["manifest"]}
        try:
            record = _adapter().validate_python({**known, "unknown": unknown})
        except ValidationError as error:
            details = error.errors()[0]
            where = ".".join(str(part) for part in details["loc"])
            where = where.replace(f"manifests.{PHOTOS}", "manifest") if stylizing else where
            raise ValueError(f"{where}: {details['msg']}") from error
        if stylizing:
            record._check_stylizing()
        return record

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON types, in the order in which it is written."""
        manifests = {name: asdict(info) for name, info in self.manifests.items()}
        stylizing = self.kind is None
        return {
            "format": FORMAT,
            **({} if stylizing else {"kind": self.kind}),
            "created": self.created,
            "job": dict(self.job),
            "assets": {option: asdict(asset) for option, asset in self.assets.items()},
            **({"manifest": manifests[PHOTOS]} if stylizing else {"manifests": manifests}),
            "fingerprint": self.fingerprint,
            "notes": list(self.notes),
            "versions": dict(self.versions),
            **({} if self.part is None else {"part": self.part}),
            **self.unknown,
        }

    def to_bytes(self) -> bytes:
        """The text of `job.json`."""
        return json.dumps(self.to_json(), indent=2).encode()

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the assets, by option."""
        return {option: asset.sha256 for option, asset in self.assets.items()}

    @property
    def settings(self) -> dict[str, Any]:
        """What a report shows: the options, and what the job was begun with and when."""
        return {
            **self.job,
            "versions": self.versions,
            "begun": self.created,
            "fingerprint": self.fingerprint,
        }

    # Of a job that stylizes photographs

    def _check_stylizing(self) -> None:
        """Raises ValueError: the job file does not have what is read below."""
        for name, kind in (("method", Mapping), ("image", Mapping), ("seed", int)):
            if not isinstance(self.job.get(name), kind):
                raise ValueError(f"job.{name}: {'no number' if kind is int else 'no table'}")
        if not isinstance(self.method.get("kind"), str):
            raise ValueError("job.method.kind: no text")

    @property
    def manifest(self) -> ManifestInfo:
        """What identifies the listing of the photographs."""
        return self.manifests[PHOTOS]

    @property
    def method(self) -> Mapping[str, Any]:
        """The method's `kind` and options."""
        table: Mapping[str, Any] = self.job["method"]
        return table

    @property
    def seed(self) -> int:
        """The seed that those of the photographs are made from."""
        return int(self.job["seed"])

    @property
    def image(self) -> ImageSpec:
        """How photographs are read and pictures written. Raises OptionError: the record was changed."""
        return parse_table(ImageSpec, self.job["image"], "image")

    @property
    def storage(self) -> StorageOptions:
        """How object stores were reached. Raises OptionError: the record was changed."""
        return storage_from_table(self.job.get("storage", {}))


@cache
def _adapter() -> TypeAdapter[JobRecord]:
    return TypeAdapter(JobRecord)


# Reading


def read_job(store: Store, kind: str | None = None) -> JobRecord:
    """The stored `job.json`.

    Args:
        kind: None: photographs are stylized.

    Raises:
        UsageError: there is no job, or one of another kind or another version of this program.
    """
    table = _read(store)
    found = table.get("kind")
    if found != kind:
        known = {
            None: "stylizes photographs",
            TRAINING: "is a training; resume, status, report, verify and snapshot know it",
        }
        raise UsageError(f"{store.url} holds a job of another kind: it {known.get(found, found)}")
    try:
        record = JobRecord.from_json(table)
    except ValueError as error:
        raise UsageError(f"{store.place(JOB)} is damaged: {error}") from error
    if (record.part is None) != (store.part is None):
        what = "no part" if record.part is None else "a part"
        raise UsageError(f"{store.place(JOB).rpartition('/')[0]} is {what} of the job around it")
    return record


def job_kind(store: Store) -> str | None:
    """What kind of job there is; None: photographs are stylized. Raises UsageError as `read_job`."""
    kind: str | None = _read(store).get("kind")
    return kind


def _read(store: Store) -> dict[str, Any]:
    try:
        table = json.loads(store.read(JOB))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{store.url} is no job: it has no {JOB}") from error
    except ValueError as error:
        raise UsageError(f"{store.place(JOB)} is damaged: {error}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{store.place(JOB)} is damaged: it is no table")
    if table.get("format") != FORMAT:
        raise UsageError(f"{store.place(JOB)} has format {table.get('format')!r}; this program reads {FORMAT}")
    if not isinstance(table.get("kind"), str | None):
        raise UsageError(f"{store.place(JOB)} is damaged: kind: no text")
    return table


def differences(
    stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "", but: Container[str] = ()
) -> list[str]:
    """A line for every value that two tables do not share.

    Args:
        prefix: before every name.
        but: names that may differ.
    """
    found = changed_values(stored, now, prefix, but)
    return [f"{name}: {before!r} in the folder, {after!r} asked for" for name, (before, after) in found.items()]


def changed_values(
    stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "", but: Container[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Both values, in `stored` and `now`, of what two tables do not share, by name, with the tables within them
    before it; see `differences`."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*stored, *now}):
        before, after = stored.get(name), now.get(name)
        if name in but or before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= changed_values(before, after, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = (before, after)
    return found
