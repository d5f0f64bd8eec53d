"""What became of one photograph, told from what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from jobs.errors import UsageError
from jobs.ledger.job_record import read_job
from jobs.ledger.layout import curve_path, picture_path
from jobs.ledger.manifest import Row
from jobs.ledger.parts import below, manifest_of, other_options, parts_of, path_below
from jobs.ledger.receipts import Ledger, journal_parts, read_journal_part
from jobs.ledger.results import Result
from jobs.stores.filesystems import absolute_url
from jobs.stores.store import Store

__all__ = ["explain"]

_ALIKE = 3
"""Keys that are named where there is none as asked for."""


def explain(store: Store, photo: str) -> Iterator[str]:
    """What became of one photograph, line by line: its row, its journal, its result; and those of each part
    that it is in.

    Args:
        photo: its key, its path or URL, its file name, or the path of its picture.

    Raises:
        UsageError: there is no job, no such photograph in it, or several of this name.
    """
    record = read_job(store)
    for part, shard, row in _find_rows(store, photo):
        its = read_job(part)
        if its.part is not None:
            options = "".join(f", {name} = {now!r}" for name, now in other_options(record, its).items())
            what = "added later" if its.part == "new" else "done again"
            yield f"{what}, in {part.place('').rstrip('/')}, begun {its.created}{options}"
        yield from _told_of(part, shard, row)


def _told_of(store: Store, shard: int, row: Row) -> Iterator[str]:
    key = row.key
    yield f"{row.key}: row {row.index}, in shard {shard}, from {row.url}"
    for path, part in journal_parts(store, shard):
        try:
            records = read_journal_part(store.read(path))
        except ValueError as error:
            yield f"{path_below(store, path)} is damaged and counts as not there: {error}"
            continue
        for record in records:
            if record["event"] == "death" and record["row"] == row.index:
                yield f"{_time(record['at'])}  a worker that ran it alone was gone: {record['cause']}"
            elif record["event"] == "result" and record["result"]["row"] == row.index:
                result = below(store, Result.from_json(record["result"]))
                yield from _told(result, f"journal, generation {part.generation}")
    try:
        results, meta = Ledger(store).receipt(shard)
    except FileNotFoundError:
        yield "its shard is not finished"
    else:
        for result in results:
            if result.row == row.index:
                yield from _told(below(store, result), f"receipt, generation {meta['generation']}")
    if store.exists(curve_path(key)):
        yield f"curve: {path_below(store, curve_path(key))}"


def _find_rows(store: Store, photo: str) -> list[tuple[Store, int, Row]]:
    """Rows of a photograph, in the order of parts. A key goes before a path, and that before a file name.

    Raises:
        UsageError: see `explain`.
    """
    place = absolute_url(photo, Path.cwd())
    by_key: list[tuple[Store, int, Row]] = []
    by_path: list[tuple[Store, int, Row]] = []
    by_name: list[tuple[Store, int, Row]] = []
    alike: list[str] = []
    for part in parts_of(store):
        image, manifest = read_job(part).image, manifest_of(part)
        for shard in range(manifest.shards):
            for row in manifest.shard(shard):
                if row.key == photo:
                    by_key.append((part, shard, row))
                elif place in (row.url, part.place(picture_path(row.key, image))):
                    by_path.append((part, shard, row))
                elif row.url.rpartition("/")[2] == photo:
                    by_name.append((part, shard, row))
                elif len(alike) < _ALIKE and row.key.rpartition("/")[2].partition(".")[0] == photo:
                    alike.append(row.key)
    found = by_key or by_path or by_name
    if not found:
        few = ", ".join(map(repr, dict.fromkeys(alike)))
        like = f", such as {few}" if few else ""
        raise UsageError(f"{store.url} has no photograph {photo!r}; keys are paths without extension{like}")
    keys = list(dict.fromkeys(row.key for _, _, row in found))
    if len(keys) > 1:
        few = ", ".join(map(repr, keys[:3]))
        raise UsageError(f"{store.url} has {len(keys)} photographs {photo!r}; tell them apart by key: {few}")
    return found


def _told(result: Result, where: str) -> Iterable[str]:
    yield f"{_time(result.finished_at)}  {result.status} ({where}), attempt {result.attempts}"
    if result.worker_host:
        yield f"  worker: process {result.worker_pid} on {result.worker_host}"
    if result.error is not None:
        yield f"  {result.error_type}: {result.error}"
    if result.output is not None:
        yield f"  picture: {result.output}, {result.width}x{result.height}, SHA-256 {result.output_sha256}"
    spans = {"load": result.load_s, "compute": result.compute_s, "save": result.save_s}
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in spans.items() if seconds is not None)
    if told:
        yield f"  {told}"
    if result.stats:
        stats = ", ".join(f"{name} {value:.5g}" for name, value in result.stats.items())
        yield f"  {stats}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "-"
