"""What is looked at before a job is begun, and how its `job.json` comes to be there."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from jobs.ledger.job_record import JobRecord, RecordedAsset
from jobs.ledger.layout import JOB
from jobs.ledger.lease_holder import utc
from jobs.ledger.manifest import ManifestInfo
from jobs.stores.backoff import is_lasting
from jobs.stores.store import TEMPORARY, Store
from nst.errors import OptionError

__all__ = ["begin_job", "is_begun", "refuse_foreign_folder", "try_writing"]


def is_begun(store: Store) -> bool:
    """Whether there is a job, of whichever kind.

    Raises:
        OptionError: the store cannot be reached.
    """
    with _reached(store):
        # Listings can lag behind; this one is made for what it says of a place that cannot be a job's.
        return JOB in store.names("") or store.exists(JOB)


def begin_job(
    store: Store,
    *,
    kind: str | None = None,
    job: Mapping[str, Any],
    assets: Mapping[str, RecordedAsset],
    manifests: Mapping[str, ManifestInfo],
    fingerprint: str,
    notes: tuple[str, ...],
    part: Literal["new", "again"] | None = None,
) -> None:
    """Publish `job.json`; see `JobRecord`.

    Raises:
        FileExistsError: another one is there, and stays.
        OptionError: the store cannot be written.
    """
    record = JobRecord(
        kind=kind,
        created=utc(time.time()),
        job=job,
        assets=assets,
        manifests=manifests,
        fingerprint=fingerprint,
        notes=notes,
        versions=_versions(),
        part=part,
    )
    with _reached(store, "cannot be written"):
        store.publish(JOB, record.to_bytes(), create_only=True)


@contextmanager
def _reached(store: Store, problem: str = "cannot be reached") -> Iterator[None]:
    """A store that cannot even be asked is the user's to mend."""
    try:
        yield
    except NotADirectoryError as error:
        raise OptionError("output", store.url, reason="is a file") from error
    except FileExistsError as error:
        if not is_lasting(error):
            raise
        raise OptionError("output", store.url, reason=f"{problem}: {error}") from error
    except OSError as error:
        raise OptionError("output", store.url, reason=f"{problem}: {error.strerror or error}") from error


def try_writing(store: Store) -> tuple[str, ...]:
    """Find out whether the store honors create-only writes; what the user should know about it."""
    with _reached(store, "cannot be written"):
        store.create_only = store.honors_create_only()
    if store.create_only:
        return ()
    return (
        "this store ignores create-only writes: if a job runs twice at once, its photographs are done twice; "
        "each still has one picture and one result, those of whoever was last",
    )


def refuse_foreign_folder(store: Store) -> None:
    """A folder that holds anything is not ours to write to, unless it became a job a moment ago."""
    names = store.names("")
    foreign = [name for name in names if name != TEMPORARY]
    if foreign and JOB not in names:
        raise OptionError(
            "output",
            store.url,
            reason=f"is not empty and no job: it holds {foreign[0]!r}; choose a new folder",
        )


def _versions() -> dict[str, str]:
    """Versions of what this program computes with."""
    names = ("nst", "torch", "torchvision", "ray", "pillow", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
