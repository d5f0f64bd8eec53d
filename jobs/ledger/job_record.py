"""`job.json`: what a folder's job is, whichever kind it is of. Written once, before any work."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from jobs.errors import UsageError
from jobs.stores.backoff import is_lasting
from jobs.stores.store import Store
from nst.errors import OptionError

__all__ = [
    "FORMAT",
    "JOB",
    "differences",
    "job_kind",
    "reached",
    "read_job",
    "refuse_foreign_folder",
    "try_writing",
    "versions",
]

JOB = "job.json"
FORMAT = 1


def read_job(store: Store, kind: str | None = None) -> dict[str, Any]:
    """The stored `job.json`.

    Args:
        kind: None: photographs are stylized.

    Raises:
        UsageError: there is no job, or one of another kind or another version of this program.
    """
    record = _read(store)
    found = record.get("kind")
    if found != kind:
        known = {
            None: "stylizes photographs",
            "train cyclegan": "trains a CycleGAN; resume, status and report know it",
        }
        raise UsageError(f"{store.url} holds a job of another kind: it {known.get(found, found)}")
    return record


def job_kind(store: Store) -> str | None:
    """None: photographs are stylized. Raises UsageError as `read_job`."""
    kind: str | None = _read(store).get("kind")
    return kind


def _read(store: Store) -> dict[str, Any]:
    try:
        record = json.loads(store.read(JOB))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{store.url} is no job: it has no {JOB}") from error
    except ValueError as error:
        raise UsageError(f"{store.url}/{JOB} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise UsageError(f"{store.url}/{JOB} is damaged: it is no table")
    if record.get("format") != FORMAT:
        raise UsageError(f"{store.url}/{JOB} has format {record.get('format')!r}; this program reads {FORMAT}")
    return cast(dict[str, Any], record)


def differences(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A line for every value that two tables do not share."""
    lines = []
    for name in sorted({*stored, *now}):
        before, after = stored.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before!r} in the folder, {after!r} asked for")
    return lines


@contextmanager
def reached(store: Store, problem: str = "cannot be reached") -> Iterator[None]:
    """A store that cannot even be asked is the user's to mend."""
    try:
        yield
    except NotADirectoryError as error:
        raise OptionError("output", store.url, reason="is a file") from error
    except (FileExistsError, FileNotFoundError) as error:
        if not is_lasting(error):
            raise
        raise OptionError("output", store.url, reason=f"{problem}: {error}") from error
    except OSError as error:
        raise OptionError("output", store.url, reason=f"{problem}: {error.strerror or error}") from error


def try_writing(store: Store) -> tuple[str, ...]:
    """Find out whether the store honors create-only writes; what the user should know about it."""
    with reached(store, "cannot be written"):
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
    foreign = [name for name in names if name != ".tmp"]
    if foreign and JOB not in names:
        raise OptionError(
            "output",
            store.url,
            reason=f"is not empty and no job: it holds {foreign[0]!r}; choose a new folder",
        )


def versions() -> dict[str, str]:
    """Of what this program computes with."""
    names = ("nst", "torch", "torchvision", "ray", "pillow", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
