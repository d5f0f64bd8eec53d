"""What becomes of a photograph: one result row each, and the Parquet receipts that hold them."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.ledger.parquet import DAMAGED_PARQUET, parquet_bytes, read_parquet

__all__ = [
    "HALF_A_LEVEL",
    "SCHEMA",
    "STATUSES",
    "Result",
    "Status",
    "Tally",
    "add_up",
    "image_seed",
    "read_receipt",
    "receipt_table",
    "receipt_tally",
    "results_digest",
    "results_table",
    "tally",
    "total",
    "write_receipt",
]

Status = Literal["ok", "failed", "quarantined"]
STATUSES: tuple[Status, ...] = get_args(Status)
HALF_A_LEVEL = 0.5 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One photograph's result row. Times are seconds of the attempt that counted."""

    row: int
    """The photograph's place in the manifest."""
    key: str
    url: str
    status: Status
    error_type: str | None = None
    error: str | None = None
    output: str | None = None
    """Path of the picture below the job's folder."""
    width: int | None = None
    height: int | None = None
    source_sha256: str | None = None
    output_sha256: str | None = None
    seed: int = 0
    attempts: int = 1
    """Calls in which the photograph may have been in work, this one included."""
    retries: int = 0
    """Calls of the store for this photograph that had to be made again."""
    load_s: float | None = None
    compute_s: float | None = None
    save_s: float | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    """What the method measured, e.g. its final losses, or `change`: the mean absolute difference of the picture
    from its photograph, in [0, 1]."""
    worker_host: str = ""
    worker_pid: int = 0
    finished_at: float = 0.0
    """Seconds since the epoch, UTC."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(table: Mapping[str, Any]) -> Result:
        """The inverse of `to_json`; what later versions of this program may have added is left out."""
        return Result(**{name: table[name] for name in SCHEMA.names if name in table})


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows, counted."""

    counts: Mapping[Status, int]
    compared: int = 0
    """Pictures whose `stats` tell their `change`."""
    unchanged: int = 0
    """Those of them that are as their photographs: it is below half a level of 8 bits."""

    @property
    def without_picture(self) -> int:
        """Rows that failed or were quarantined."""
        return sum(number for status, number in self.counts.items() if status != "ok")

    @staticmethod
    def from_json(meta: Mapping[str, Any]) -> Tally:
        """As a receipt's metadata has it; older ones have counts alone, of rows without `change`."""
        return Tally(meta["counts"], meta.get("compared", 0), meta.get("unchanged", 0))


def tally(results: Iterable[Result]) -> Tally:
    """Count `results`."""
    results = list(results)
    changes = [each.stats["change"] for each in results if each.status == "ok" and "change" in each.stats]
    counts = total([Counter(result.status for result in results)])
    return Tally(counts, len(changes), sum(change < HALF_A_LEVEL for change in changes))


def add_up(tallies: Iterable[Tally]) -> Tally:
    """All of them as one."""
    each = list(tallies)
    compared, unchanged = (sum(getattr(one, name) for one in each) for name in ("compared", "unchanged"))
    return Tally(total(one.counts for one in each), compared, unchanged)


def image_seed(job_seed: int, key: str) -> int:
    """A photograph's own seed: depends on the job's and on its key, on nothing else."""
    digest = hashlib.sha256(f"{job_seed}\0{key}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error", pa.string()),
        pa.field("output", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("source_sha256", pa.string()),
        pa.field("output_sha256", pa.string()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("retries", pa.int32(), nullable=False),
        pa.field("load_s", pa.float64()),
        pa.field("compute_s", pa.float64()),
        pa.field("save_s", pa.float64()),
        pa.field("stats", pa.map_(pa.string(), pa.float64())),
        pa.field("worker_host", pa.string()),
        pa.field("worker_pid", pa.int32()),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
    ]
)


def write_receipt(
    results: Sequence[Result], *, shard: int, generation: int, fingerprint: str, adapted: str | None = None
) -> bytes:
    """A shard's receipt: Parquet bytes, rows in manifest order, the counts in its metadata.

    Args:
        adapted: digest of the weights that the job's network had learned.

    Raises:
        ValueError: a row occurs twice.
    """
    ordered = sorted(results, key=lambda result: result.row)
    if len({result.row for result in ordered}) != len(ordered):
        raise ValueError(f"shard {shard}: a row has two results")
    meta = {
        "shard": shard,
        "generation": generation,
        "fingerprint": fingerprint,
        **({} if adapted is None else {"adapted": adapted}),
        **asdict(tally(ordered)),
        "digest": results_digest(ordered),
    }
    return parquet_bytes(results_table(ordered).replace_schema_metadata({"nst": json.dumps(meta)}))


def results_table(results: Sequence[Result]) -> pa.Table:
    """`results` in columns, by `SCHEMA`."""
    columns: dict[str, list[Any]] = {
        name: [getattr(result, name) for result in results] for name in SCHEMA.names
    }
    columns["stats"] = [list(result.stats.items()) for result in results]
    columns["finished_at"] = [round(result.finished_at * 1e6) for result in results]
    return pa.table(columns, schema=SCHEMA)


def results_digest(results: Sequence[Result]) -> str:
    """SHA-256 over all that the rows say, in their order; times to the microsecond, as a receipt holds them."""
    digest = hashlib.sha256()
    for result in results:
        row = {**result.to_json(), "finished_at": round(result.finished_at * 1e6)}
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def read_receipt(data: bytes) -> tuple[list[Result], dict[str, Any]]:
    """A receipt's rows and its metadata.

    Raises:
        ValueError: not a receipt, or a damaged one.
    """
    table, meta = receipt_table(data)
    place = SCHEMA.get_field_index("finished_at")  # as a number: of a time pyarrow would ask pandas
    table = table.set_column(place, "finished_at", table["finished_at"].cast(pa.int64()))
    return [_result(record) for record in table.to_pylist()], meta


def receipt_table(data: bytes) -> tuple[pa.Table, dict[str, Any]]:
    """A receipt's rows in columns, by `SCHEMA`, and its metadata.

    Raises:
        ValueError: not a receipt, or a damaged one.
    """
    try:
        found = read_parquet(data)
        meta = json.loads(found.schema.metadata[b"nst"])
        columns = [
            found.column(field.name).cast(field.type)
            if field.name in found.column_names  # an older receipt lacks some
            else pa.nulls(len(found), field.type)
            for field in SCHEMA
        ]
        table = pa.Table.from_arrays(columns, schema=SCHEMA)
    except DAMAGED_PARQUET as error:
        raise ValueError(f"not a receipt: {error}") from error
    return table, meta


def receipt_tally(data: bytes) -> Tally:
    """A receipt's rows, counted, from its footer.

    Raises:
        ValueError: not a receipt, or a damaged one.
    """
    try:
        return Tally.from_json(_meta(data))
    except DAMAGED_PARQUET as error:
        raise ValueError(f"not a receipt: {error}") from error


def _meta(data: bytes) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(pq.read_metadata(io.BytesIO(data)).metadata[b"nst"]))


def _result(record: dict[str, Any]) -> Result:
    finished_us, stats = record.pop("finished_at"), dict(record.pop("stats") or [])
    return Result(**record, stats=stats, finished_at=(finished_us or 0) / 1e6)


def total(counts: Iterable[Mapping[Status, int]]) -> dict[Status, int]:
    """Sum of counts by status, every status present."""
    sums = Counter[Status]()
    for each in counts:
        sums.update(each)
    return {status: sums[status] for status in STATUSES}
