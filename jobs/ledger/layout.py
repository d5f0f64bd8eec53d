"""Where everything of a job lies in its folder, and whose file it is.

    job.json                            what the job is: written once, before any work
    manifest.parquet                    its photographs, listed once
    images/<key>.jpg                    a picture, under the name of its photograph
    curves/<key>.parquet                what the method measured on the way to it, if it records that
    frames/<key>/00050.jpg              pictures on the way, if the method gives any
    frames/<key>/animation.gif          the same as one file, if that is asked for
    results/shard-00017.parquet         the receipt: one row per photograph of the shard; published last
    journal/shard-00017/g0-5e1f0c-00000.jsonl   results as they came, so that a killed shard does not begin anew
    lease-000017.json                   who works on the job now
    adapted/5e1f0c8a9b7d3f24.safetensors   what the network learned on them: see `jobs.ledger.adapted`
    report.html                         the contact sheet, if it was asked for
    parts/0001/job.json                 and the rest, of photographs that came later: see `jobs.ledger.parts`
    marks.json                          what a person thinks of the pictures: see `jobs.ledger.marks`
    .tmp/                               what is being written; also what killed processes left

Paths are relative to the folder, with `/`. A training's folder has `job.json`, leases, the report and `.tmp/`
in common with this one; the rest of it is told by `jobs.training.layout`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from jobs.stores.store import TEMPORARY

if TYPE_CHECKING:
    from jobs.spec import ImageSpec

__all__ = [
    "ADAPTED",
    "CURVES",
    "JOB",
    "JOURNAL",
    "MANIFEST",
    "MARKS",
    "PARTS",
    "PREVIEW",
    "REPORT",
    "RESULTS",
    "SHARED",
    "AdaptedFile",
    "CommonFile",
    "JournalFile",
    "LeaseFile",
    "PhotoFile",
    "Place",
    "ReceiptFile",
    "adapted_path",
    "animation_path",
    "curve_path",
    "frame_path",
    "is_listing",
    "journal_folder",
    "journal_path",
    "lease_path",
    "listing_path",
    "part_folder",
    "part_path",
    "picture_path",
    "place_of",
    "receipt_path",
    "shard_of_journal",
]

JOB = "job.json"
MANIFEST = "manifest.parquet"
REPORT = "report.html"
MARKS = "marks.json"
RESULTS, JOURNAL, IMAGES, CURVES, FRAMES = "results", "journal", "images", "curves", "frames"
ADAPTED = "adapted"
PARTS = "parts"
SHARED = (IMAGES, CURVES, FRAMES)
"""Folders of what is made from photographs; a part of new ones has them in common with the job."""
PREVIEW = "preview.json"
"""No job's: it says that a folder is a preview's, of which no job takes pictures for photographs."""

_LEASE = re.compile(r"lease-([0-9]+)\.json")
_ADAPTED = re.compile(rf"{ADAPTED}/([0-9a-f]{{16}}\.safetensors|checkpoint\.pt|(?:progress|loading)\.json)")
_RECEIPT = re.compile(rf"{RESULTS}/shard-([0-9]+)\.parquet")
_LISTING = re.compile(r"listing-[0-9a-f]{16}-[0-9]+\.parquet")
_PART = re.compile(rf"{PARTS}/([0-9]{{4,}})/(.+)", re.DOTALL)
_JOURNAL_FOLDER = re.compile(rf"{JOURNAL}/shard-([0-9]+)")
_JOURNAL_NAME = re.compile(r"g([0-9]+)-[0-9a-f]+-[0-9]+\.jsonl")


# Of the job


@dataclass(frozen=True, slots=True)
class CommonFile:
    """A file that a job has one of, or what is on its way to be one."""

    role: Literal["record", "manifest", "report", "marks", "temporary"]


@dataclass(frozen=True, slots=True)
class AdaptedFile:
    """A file of the network that learned on the job's photographs."""

    weights: bool
    """Whether it is what came out, and not what is needed on the way."""


_COMMON = {
    JOB: CommonFile("record"),
    MANIFEST: CommonFile("manifest"),
    REPORT: CommonFile("report"),
    MARKS: CommonFile("marks"),
}


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """The lease of the holder with this number."""

    generation: int


def lease_path(generation: int) -> str:
    """Where the lease of a generation is."""
    return f"lease-{generation:06d}.json"


def adapted_path(fingerprint: str) -> str:
    """Where the weights are that the network of the job with this fingerprint has learned."""
    return f"{ADAPTED}/{fingerprint[:16]}.safetensors"


# Of a part


def part_folder(number: int) -> str:
    """Where a part is; they are numbered from 1."""
    return f"{PARTS}/{number:04d}"


def part_path(path: str) -> tuple[int, str] | None:
    """The part that has the file at `path`, and the file's path within it; None: it is of no part."""
    found = _PART.fullmatch(path)
    if found is None or not path.startswith(f"{part_folder(int(found[1]))}/"):
        return None
    return int(found[1]), found[2]


def listing_path(sha256: str, shard_size: int) -> str:
    """Where the manifest of a part is until it is known that the part is to be this one."""
    return f"listing-{sha256[:16]}-{shard_size}.parquet"


def is_listing(path: str) -> bool:
    """Whether that is at `path`, within a part."""
    return _LISTING.fullmatch(path) is not None


# Of a shard


@dataclass(frozen=True, slots=True)
class ReceiptFile:
    """The receipt of a shard."""

    shard: int


@dataclass(frozen=True, slots=True)
class JournalFile:
    """A part of a shard's journal, and the retry that it is of."""

    shard: int
    generation: int


def receipt_path(shard: int) -> str:
    """Where the receipt of a shard is."""
    return f"{RESULTS}/shard-{shard:05d}.parquet"


def journal_folder(shard: int) -> str:
    """Where the parts of a shard's journal are."""
    return f"{JOURNAL}/shard-{shard:05d}"


def shard_of_journal(folder: str) -> int | None:
    """The shard whose journal is in `folder`; None: it is another folder."""
    found = _JOURNAL_FOLDER.fullmatch(folder)
    return int(found[1]) if found and folder == journal_folder(int(found[1])) else None


def journal_path(shard: int, generation: int, writer: str, number: int) -> str:
    """Where a part of a journal is.

    Args:
        writer: hexadecimal, of who wrote it; no two write the same part.
        number: how many the writer had written before.
    """
    return f"{journal_folder(shard)}/g{generation}-{writer}-{number:05d}.jsonl"


# Of a photograph


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A file that was made from the photograph with this key."""

    key: str
    role: Literal["picture", "curve", "frame", "animation"]


def picture_path(key: str, image: ImageSpec) -> str:
    """Where a photograph's picture is."""
    return f"{IMAGES}/{key}{image.extension}"


def curve_path(key: str) -> str:
    """Where the curve of a photograph is, if its method records one."""
    return f"{CURVES}/{key}.parquet"


def frame_path(key: str, number: int, image: ImageSpec) -> str:
    """Where an intermediate picture is, if the method gives any."""
    return f"{FRAMES}/{key}/{number:05d}{image.extension}"


def animation_path(key: str, image: ImageSpec) -> str:
    """Where the intermediate pictures are as one file."""
    return f"{FRAMES}/{key}/animation.{image.animation}"


# Whose file it is

Place: TypeAlias = CommonFile | AdaptedFile | LeaseFile | ReceiptFile | JournalFile | PhotoFile


def place_of(path: str, image: ImageSpec | None = None) -> Place | None:
    """Whose file is at `path`; None: no job has such a file.

    Args:
        image: how the job writes pictures. None: files of photographs are not told from foreign ones.
    """
    if path in _COMMON:
        return _COMMON[path]
    if path.startswith(f"{TEMPORARY}/"):
        return CommonFile("temporary")
    if found := _ADAPTED.fullmatch(path):
        return AdaptedFile(weights=found[1].endswith(".safetensors"))
    # A number that is not written as we write it is somebody else's.
    if (found := _LEASE.fullmatch(path)) and path == lease_path(int(found[1])):
        return LeaseFile(int(found[1]))
    if (found := _RECEIPT.fullmatch(path)) and path == receipt_path(int(found[1])):
        return ReceiptFile(int(found[1]))
    folder, _, name = path.rpartition("/")
    shard = shard_of_journal(folder)
    if shard is not None and (found := _JOURNAL_NAME.fullmatch(name)):
        return JournalFile(shard, int(found[1]))
    return None if image is None else _photo_file(path, image)


def _photo_file(path: str, image: ImageSpec) -> PhotoFile | None:
    end = re.escape(image.extension)
    number = "(?:[0-9]{5}|[1-9][0-9]{5,})"
    found = re.fullmatch(
        rf"{IMAGES}/(?P<picture>.+){end}|{CURVES}/(?P<curve>.+)\.parquet|{FRAMES}/(?P<frame>.+)/{number}{end}"
        rf"|{FRAMES}/(?P<animation>.+)/animation\.{image.animation}",
        path,
        re.DOTALL,
    )
    if found is None:
        return None
    role: Literal["picture", "curve", "frame", "animation"]
    for role in ("picture", "curve", "frame", "animation"):
        if found[role] is not None:
            return PhotoFile(found[role], role)
    return None
