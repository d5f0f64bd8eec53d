"""Where a job's objects are, and whose file is at a path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jobs.ledger.layout
import jobs.training.layout
from jobs.ledger.layout import (
    JOB,
    MANIFEST,
    MARKS,
    REPORT,
    CommonFile,
    JournalFile,
    LeaseFile,
    PhotoFile,
    Place,
    ReceiptFile,
    animation_path,
    curve_path,
    frame_path,
    journal_path,
    lease_path,
    part_path,
    picture_path,
    place_of,
    receipt_path,
)
from jobs.spec import ImageSpec

JPEG = ImageSpec(animation="gif")
PNG = ImageSpec(format="png")
TIFF = ImageSpec(format="tiff", bit_depth=16)
WEBP = ImageSpec(format="webp", animation="webp")


@pytest.mark.parametrize(
    ("path", "where", "image", "place"),
    [
        (JOB, "job.json", PNG, CommonFile("record")),
        (MANIFEST, "manifest.parquet", PNG, CommonFile("manifest")),
        (REPORT, "report.html", PNG, CommonFile("report")),
        (MARKS, "marks.json", PNG, CommonFile("marks")),
        (".tmp/host-1-0af", ".tmp/host-1-0af", PNG, CommonFile("temporary")),
        (lease_path(17), "lease-000017.json", PNG, LeaseFile(17)),
        (lease_path(10**7), "lease-10000000.json", PNG, LeaseFile(10**7)),
        (receipt_path(17), "results/shard-00017.parquet", PNG, ReceiptFile(17)),
        (receipt_path(123456), "results/shard-123456.parquet", PNG, ReceiptFile(123456)),
        (journal_path(3, 2, "0af", 5), "journal/shard-00003/g2-0af-00005.jsonl", PNG, JournalFile(3, 2)),
        (picture_path("a/b", TIFF), "images/a/b.tif", TIFF, PhotoFile("a/b", "picture")),
        (picture_path("a.b\n", JPEG), "images/a.b\n.jpg", JPEG, PhotoFile("a.b\n", "picture")),
        (curve_path("a/b"), "curves/a/b.parquet", PNG, PhotoFile("a/b", "curve")),
        (frame_path("a/b", 7, PNG), "frames/a/b/00007.png", PNG, PhotoFile("a/b", "frame")),
        (frame_path("00001", 123456, TIFF), "frames/00001/123456.tif", TIFF, PhotoFile("00001", "frame")),
        (animation_path("a", WEBP), "frames/a/animation.webp", WEBP, PhotoFile("a", "animation")),
    ],
)
def test_each_file_is_where_it_was_and_is_known_again(
    path: str, where: str, image: ImageSpec, place: Place
) -> None:
    assert path == where
    assert place_of(path, image) == place
    assert place_of(path) == (None if isinstance(place, PhotoFile) else place)


@pytest.mark.parametrize(
    "path",
    [
        *("", "Job.json", "x/job.json", "report.html/a", "tmp/a", ".tmp", "lease-1.json", "lease-0000001.json"),
        *(
            "lease-000001.json\n",
            "results/shard-1.parquet",
            "results/shard-000017.parquet",
            "results/x/shard-00001.parquet",
        ),
        *("results/shard-00017.parquet\n", "results/shard-0001\u0661.parquet", "shard-00017.parquet"),
        *("journal/shard-00001", "journal/shard-1/g0-a-00000.jsonl", "journal/shard-00001/g0-x-00000.jsonl"),
        *("journal/shard-00001/g0-a-00000.json", "journal/x/shard-00001/g0-a-00000.jsonl", "g0-a-00000.jsonl"),
        *("images/a.jpg", "images/.png", "curves/a.png", "x/a.png", "frames/a/animation.png"),
        *("frames/a.png", "frames/00001.png", "frames/a/1.png", "frames/a/012345.png", "frames/a/00001.jpg"),
        *("frames/a/00001.png/b", "frames/a/animation.gif"),
    ],
)
def test_what_no_job_of_ours_wrote_is_nobodys(path: str) -> None:
    assert place_of(path, PNG) is None


def tree(text: str) -> list[str]:
    """Paths of the indented lines with an explanation."""
    return [
        found[1] for line in text.splitlines() if (found := re.fullmatch(r" +([\w.<][^ ]*) {2,}\S.*", line))
    ]


def within(path: str) -> str:
    """The path within the part that it is in, if it is in one."""
    found = part_path(path)
    return path if found is None else found[1]


def test_the_tree_is_what_the_code_does() -> None:
    """The one in the module's text, line by line; and no line is missing."""
    shown = tree(jobs.ledger.layout.__doc__ or "")
    places = [place_of(within(path).replace(".tmp/", ".tmp/x"), JPEG) for path in shown]
    assert None not in places, list(zip(shown, places, strict=True))
    roles = {getattr(place, "role", type(place).__name__) for place in places}
    common, made = (
        ("record", "manifest", "report", "marks", "temporary"),
        ("picture", "curve", "frame", "animation"),
    )
    assert roles == {*common, *made, "AdaptedFile", "LeaseFile", "ReceiptFile", "JournalFile"}


def test_so_is_a_trainings() -> None:
    at = jobs.training.layout
    paths = {
        at.manifest_path("<collection>"),
        *(at.checkpoint_path(1000), at.generator_path(1000), at.evaluation_path(1000), at.sample_path(1000)),
        *(at.metrics_path(100), at.METRICS, at.events_path(100), at.skipped_path("<name>")),
        *(at.COMPARED, at.GENERATOR, at.DONE, at.STOP, JOB, at.change_path(1), at.snapshot_path(1000)),
        at.late_events_path(100, 0, "samples", 90),
    }
    assert paths == set(tree(at.__doc__ or ""))


def test_the_readers_are_shown_nothing_else() -> None:
    """Every tree of a job's folder in the texts has files that the code knows."""
    root = Path(__file__).parents[2]
    found = []
    for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        for block in path.read_text().split("```")[1::2]:
            if re.search(r"^ *job\.json ", block, re.MULTILINE) and "results/" in block:
                found += tree(block)
    assert "manifest.parquet" in found
    for path in found:
        example = re.sub(r"/(\.\.\.)?$", "/g0-0af-00000.jsonl" if "journal" in path else "/x", path)
        assert place_of(within(example), JPEG) is not None, path
