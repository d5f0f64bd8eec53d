"""What the commands that work do with their options: open or reopen a job, and run it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from jobs.cli.arguments import LogFormat
from jobs.cli.growing import Growth, grown
from jobs.cli.running import execute, lease_options, tell_notes
from jobs.console.log_events import LogEvent
from jobs.console.text import counted, printable_lines
from jobs.errors import EXIT_UNFINISHED, exit_code_of
from jobs.stores.filesystems import absolute_url
from jobs.stores.store import open_store
from nst.errors import NstError, OptionError

if TYPE_CHECKING:
    from jobs.driver.job import Job
    from jobs.spec import JobFile
    from jobs.stores.filesystems import StorageOptions
    from jobs.stores.store import Store

__all__ = [
    "begin",
    "begin_file",
    "begin_later",
    "begin_quickly",
    "errors",
    "open_at",
    "place_now",
    "reopen_at",
    "resources",
    "storage_of",
    "store_at",
    "tables_of",
    "without_output",
]


@contextmanager
def errors(log_format: LogFormat = "text") -> Iterator[None]:
    """Turn an error into one message and the right exit code; no traceback for what is not our fault. That
    nobody reads the output any more is no error."""
    from jobs.console.outlet import lasting_output

    with lasting_output():
        try:
            yield
        except NstError as error:
            _say_error(str(error), log_format)
            raise typer.Exit(exit_code_of(error)) from None
        except OSError as error:
            places = [each for each in getattr(error, "__notes__", ()) if each not in str(error)]
            where = "".join(f"{place}: " for place in places[:1])
            _say_error(f"{where}{type(error).__name__}: {error}", log_format)
            raise typer.Exit(EXIT_UNFINISHED) from None


def _say_error(text: str, log_format: LogFormat) -> None:
    if log_format == "json":
        from jobs.console.json_log import JsonLog

        JsonLog(None, sys.stdout).emit(LogEvent(event="error", level="error", text=text))
    else:
        print(printable_lines(f"error: {text}"), file=sys.stderr)


def store_at(out: str, overrides: Sequence[str] | None) -> Store:
    """The store at OUT, reached as `--set storage.NAME=VALUE` says."""
    return open_at(out, tables_of(overrides, ("storage",)))


def storage_of(overrides: Sequence[str]) -> StorageOptions:
    """How stores are reached, as `--set storage.NAME=VALUE` says."""
    from jobs.spec import storage_from_table

    return storage_from_table(tables_of(overrides, ("storage",)).get("storage", {}))


def open_at(out: str, tables: Mapping[str, Any]) -> Store:
    """The store at OUT, reached as the table `storage` says."""
    from jobs.spec import storage_from_table

    return open_store(absolute_url(out, Path.cwd()), storage_from_table(tables.get("storage", {})))


def tables_of(overrides: Sequence[str] | None, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Tables with what --set says of a job that is begun, or, of `storage` alone, of how places are reached.

    Raises:
        OptionError: an option is not of an allowed table.
    """
    from jobs.config.tables import apply_overrides

    table = apply_overrides({}, overrides or ())
    for name, value in table.items():
        if name not in allowed or not isinstance(value, dict):
            choices = [f"{each}.*" for each in allowed]
            goes_on = "resources" in allowed
            reason = "is fixed once a job is begun" if goes_on else "is not what --set takes in this command"
            raise OptionError(name, value, choices=choices, reason=reason)
    return table


def resources(
    pool: str | None, address: str | None, workers: int | None, *, training: bool = False
) -> list[str]:
    """The short options as what --set would take.

    Raises:
        OptionError: an address of a cluster, for a pool that is on none.
    """
    if address is not None and not training:
        if pool == "local":
            raise OptionError("--address", address, reason="is of a Ray cluster; --pool local uses none")
        pool = "ray"
    given = {"pool": pool, "address": address, "max_workers": workers}
    return [f"resources.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]


def begin_quickly(
    photos: list[str],
    out: str,
    tables: Mapping[str, Any],
    size: int | None,
    overrides: list[str],
    dry_run: bool,
    wait: bool,
    log_format: LogFormat,
    growth: Growth,
) -> None:
    """Begin a job that is said in arguments, not in a file."""
    from jobs.config.tables import apply_overrides

    table: dict[str, Any] = {"photos": without_output(photos, out), "output": out, **tables}
    if size is not None:
        table["image"] = {**table.get("image", {}), "max_side_px": size}
    begin_table(apply_overrides(table, overrides), Path.cwd(), dry_run, wait, log_format, growth)


def without_output(photos: list[str], out: str) -> list[str]:
    """The places of photographs: `holiday/*` is also the output within, if it is there already."""
    own = absolute_url(out, Path.cwd())
    return [each for each in photos if absolute_url(each, Path.cwd()) != own] if len(photos) > 1 else photos


def begin_file(
    path: Path,
    overrides: Sequence[str],
    dry_run: bool,
    growth: Growth,
    *,
    wait: bool,
    log_format: LogFormat,
) -> None:
    """Run the job in a file, or go on with it; with `dry_run` show it, and write nothing."""
    from jobs.config.tables import apply_overrides, read_toml

    table = apply_overrides(read_toml(path), overrides)
    begin_table(table, path.resolve().parent, dry_run, wait, log_format, growth)


def begin_table(
    table: Mapping[str, Any], base: Path, dry_run: bool, wait: bool, log_format: LogFormat, growth: Growth
) -> None:
    """Do as `begin` with the job in a table. Local workers import torch while the job is planned.

    Whether there will be some is not asked of `pool_kind`, which imports torch to count GPUs.
    """
    from jobs.pools.capacity import cluster_address
    from jobs.pools.children import begin_warming
    from jobs.spec import job_from_table

    resources = table.get("resources")
    asked = resources if isinstance(resources, Mapping) else {}
    pool = asked.get("pool", "auto")
    if not dry_run and (pool == "local" or (pool == "auto" and cluster_address(asked.get("address")) is None)):
        begin_warming()
    begin(job_from_table(table, base), dry_run, wait=wait, log_format=log_format, growth=growth)


def begin(
    job_file: JobFile,
    dry_run: bool,
    *,
    leave: bool = True,
    wait: bool = False,
    log_format: LogFormat = "text",
    growth: Growth | None = None,
) -> None:
    """Run a job, or go on with it; with `dry_run` show it, and write nothing."""
    from jobs.driver.estimate import describe_cost, describe_evaluations
    from jobs.driver.job import create_or_open, plan

    if dry_run:
        planned = plan(job_file)
        print(json.dumps(planned.table, indent=2))
        print("".join(f"note: {note}\n" for note in planned.notes), end="")
        print("".join(f"left out: {name}\n" for name in planned.left_out.names()), end="")
        lines = [*describe_evaluations(job_file.spec.method), *describe_cost(planned)]
        print("".join(f"{line}\n" for line in lines), end="")
        what = "picture" if planned.job.spec.styles_per_photo == "all" else "photograph"
        rows, shards = counted(planned.manifest.rows, what), counted(planned.manifest.shards, "shard")
        print(f"{rows} in {shards}; nothing was written")
        return
    execute(
        lambda: (create_or_open(job_file), None),
        lambda job, log: grown(job, job_file, growth or Growth(), log, lease_options(log, wait)),
        leave=leave,
        wait=wait,
        log_format=log_format,
        later=growth is not None and not growth.new,
    )


def reopen_at(out: str, overrides: list[str], photos: str | None = None) -> Job:
    """The job at OUT, with other `resources` and `storage` as --set says, and its photographs where --photos
    says."""
    from jobs.driver.job import reopen

    tables = tables_of(overrides, ("resources", "storage"))
    return reopen(open_at(out, tables), overrides=tables, photos=place_now(photos))


def place_now(photos: str | None) -> str | None:
    """Where --photos says that a job's photographs are now, absolute."""
    return None if photos is None else absolute_url(photos, Path.cwd())


def begin_later(
    out: str,
    new: str,
    overrides: list[str],
    photos: str | None = None,
    *,
    wait: bool = False,
    log_format: LogFormat = "text",
) -> None:
    """Run a job as the one at OUT, in another folder, of the photographs that are not in it; or say that there
    are none."""
    from jobs.console.display import Display
    from jobs.console.json_log import JsonLog
    from jobs.driver.photos import has_photos, job_of_later_photos
    from jobs.ledger.begin_job import is_begun

    tables = tables_of(overrides, ("resources", "storage"))
    job_file = job_of_later_photos(open_at(out, tables), new, tables, photos=photos)
    if is_begun(open_store(job_file.spec.output, job_file.storage)) or has_photos(job_file):
        begin(job_file, dry_run=False, wait=wait, log_format=log_format, growth=Growth(new=False))
        return
    log = JsonLog(job_file.spec.output, sys.stdout) if log_format == "json" else Display(Console())
    with log:
        tell_notes(log, ["no photograph is new: there is nothing to do, and nothing was written"])
