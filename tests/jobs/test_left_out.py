"""Which files of a folder are photographs, what is left out, and that it is said."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from jobs.config.listing import ListingOptions
from jobs.ledger.left_out import LeftOut
from jobs.ledger.listing import PHOTO_EXTENSIONS, list_photos
from nst.errors import OptionError
from nst.images.kinds import HEAD_BYTES, kind_of_head
from tests.conftest import encoded, picture

JPEG, PNG = encoded(picture(1)), encoded(picture(2), "PNG")
JOB = json.dumps({"format": 1, "fingerprint": "f", "job": {}}).encode()


def put(root: Path, *names: str, data: bytes = JPEG) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def listed(source: object, **options: Any) -> tuple[list[str], LeftOut]:
    """Keys, and what was left out."""
    found = LeftOut()
    given = [str(each) for each in source] if isinstance(source, list) else str(source)
    return [photo.key for photo in list_photos(given, options=ListingOptions(**options), left_out=found)], found


# By content


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_a_picture_is_known_by_its_first_bytes(format: str) -> None:
    assert kind_of_head(encoded(picture(1), format)[:HEAD_BYTES]) is not None


@pytest.mark.parametrize(
    "head",
    [b"", b"BMW is a maker of cars, and this is a text", b"RIFF\0\0\0\0WAVEfmt ", b"\0\0\0\x18ftypmp42", b"II"],
)
def test_what_only_looks_a_little_like_one_is_none(head: bytes) -> None:
    assert kind_of_head(head) is None


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"FUJIFILMCCD-RAW 0201", "RAW"),
        (b"\0\0\0\x18ftypcrx ", "RAW"),
        (b"IIU\0\x18\0\0\0", "RAW"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x1cftypheic", "HEIC"),
    ],
)
def test_formats_that_pillow_does_not_write(head: bytes, kind: str) -> None:
    assert kind_of_head(head) == kind


def test_files_are_known_by_extension_or_else_by_content(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "noextension", "IMG_0001.JPG_large", "b.dng", "c.pjpeg", "d.jxl", "e.jp2", "f.CR2")
    put(tmp_path, "sub/wrong.dat", data=PNG)
    put(tmp_path, "notes.txt", "a.xmp", "sub/b.xmp", "film.mov", "README", "g.bin", data=b"milk, bread")
    put(tmp_path, "empty", data=b"")
    found, left_out = listed(tmp_path)
    assert found == ["IMG_0001", "a", "b", "c", "d", "e", "f", "noextension", "sub/wrong"]
    assert left_out.count == 7
    assert left_out.notes() == (
        "left out: 7 (2 .xmp, 2 without extension, 1 .bin, 1 .mov, 1 .txt): "
        "no photographs, by their names and first bytes",
    )
    assert set(left_out.names()) == {
        "notes.txt", "a.xmp", "sub/b.xmp", "film.mov", "README", "g.bin", "empty",
    }  # fmt: skip


def test_ten_are_named_and_all_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", *(f"{number:02}.txt" for number in range(25)))
    _, left_out = listed(tmp_path)
    assert [*left_out.names()] == [*(f"{number:02}.txt" for number in range(10)), "... and 15 more"]
    assert "25 .txt" in left_out.notes()[0]


def test_names_that_no_terminal_shows_can_be_recorded(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    open(bytes(tmp_path) + b"/\xff\n.txt", "wb").close()
    _, left_out = listed(tmp_path)
    assert [*left_out.names()] == ["\ufffd\ufffd.txt"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe")
    assert listed(tmp_path)[0] == ["a"]


def test_a_file_that_may_not_be_looked_into_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg", "secret")
    real = open

    def denied(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **options)

    monkeypatch.setattr("builtins.open", denied)
    found, left_out = listed(tmp_path)
    assert (found, left_out.count) == (["a"], 1)


def test_of_a_bucket_only_what_is_unknown_is_looked_into_sixteen_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = fsspec.filesystem("memory")
    for number in range(40):
        memory.pipe_file(f"/looks/{number:02}", JPEG if number % 2 else b"no")
        memory.pipe_file(f"/looks/{number:02}.jpg", JPEG)
        memory.pipe_file(f"/looks/{number:02}.xmp", b"<x/>")
    real, lock, read, now, most = type(memory).cat_file, threading.Lock(), [], 0, 0

    def cat_file(self: object, path: str, start: int | None = None, end: int | None = None) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            read.append((path, start, end))
        time.sleep(0.02)
        with lock:
            now -= 1
        return bytes(real(self, path, start=start, end=end))

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    found, left_out = listed("memory://looks")
    assert len(found) == 60
    assert left_out.count == 60
    assert sorted(path for path, _, _ in read) == [f"/looks/{number:02}" for number in range(40)]
    assert {(start, end) for _, start, end in read} == {(0, HEAD_BYTES)}
    assert 2 <= most <= 16


# Junk

HIDDEN = (
    ".DS_Store",
    "._a.jpg",
    ".hidden.jpg",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "sub/Picasa.ini",
    "MVI_1.THM",
    "half.jpg.part",
    "half.jpg.crdownload",
    "b.jpg~",
    ".thumbnails/normal/a.jpg",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "sub/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/holiday/._a.jpg",
    "Lightroom Previews.lrdata/1/a.jpg",
    "Photos Library.photoslibrary/resources/derivatives/a.jpg",
    "#recycle/a.jpg",
    "$RECYCLE.BIN/a.jpg",
    ".git/a.jpg",
    "SYNOPHOTO_THUMB_M.jpg",
)


def test_thumbnails_and_helpers_of_programs_are_no_photographs(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "sub/b.jpg", "Photos Library.photoslibrary/originals/0/c.jpg", *HIDDEN)
    put(tmp_path, "desktop.ini.jpg")
    found, left_out = listed(tmp_path)
    assert found == ["a", "desktop.ini", "Photos Library.photoslibrary/originals/0/c", "sub/b"]
    assert left_out.count == len(HIDDEN)
    (note,) = left_out.notes()
    assert note.startswith(f"left out: {len(HIDDEN)} (2 @eaDir/, 1 ")
    assert note.endswith("thumbnails and other helpers of programs; hidden = true takes them")
    taken, left = listed(tmp_path, hidden=True)
    pictures = {name for name in HIDDEN if Path(name).suffix in PHOTO_EXTENSIONS}
    assert len(taken) >= 4 + len(pictures)
    assert left.count < 6


def test_hidden_prefixes_of_a_bucket_are_left_out_too() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.jpg", ".thumbs/a.jpg", "@eaDir/a.jpg", "b/.c.jpg"):
        memory.pipe_file(f"/hidden-prefixes/{name}", JPEG)
    found, left_out = listed("memory://hidden-prefixes")
    assert (found, left_out.count) == (["a"], 3)


@pytest.mark.parametrize("place", ["painted", "deep/er/painted"])
def test_other_jobs_below_are_left_out(tmp_path: Path, place: str) -> None:
    put(tmp_path, "a.jpg", f"{place}/images/a.jpg", f"{place}/frames/a/00050.jpg")
    put(tmp_path, f"{place}/job.json", data=JOB)
    put(tmp_path, "mine/b.jpg", "mine/images/c.jpg")
    put(tmp_path, "mine/job.json", data=b'{"title": "my holiday"}')
    found, left_out = listed(tmp_path)
    assert found == ["a", "mine/b", "mine/images/c"]
    assert (
        "left out: 1 (1 painted/): folders of other jobs and of previews; hidden = true takes them"
        in left_out.notes()
    )
    assert f"{place}/images/a" in listed(tmp_path, hidden=True)[0]
    assert listed(tmp_path / place)[0] == ["frames/a/00050", "images/a"], "asked for by its name"


def test_the_jobs_own_folder_is_not_worth_a_word(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "out/images/a.jpg")
    put(tmp_path, "out/job.json", data=JOB)
    left_out = LeftOut()
    found = list_photos(str(tmp_path), exclude=f"{tmp_path}/out", left_out=left_out)
    assert [photo.key for photo in found] == ["a"]
    assert left_out.count == 0
    assert [*list_photos(f"{tmp_path}/out/images", exclude=f"{tmp_path}/out")] == []


def test_links_to_folders_are_said(tmp_path: Path) -> None:
    put(tmp_path, "in/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    found, left_out = listed(tmp_path / "in")
    assert found == ["a"]
    assert left_out.notes() == ("left out: 2 (1 link/, 1 loop/): links to folders, which are not followed",)


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (["*.png"], ["a", "s/a", "s/raw/c", "t/raw/d"]),
        (["raw"], ["a", "b", "s/a"]),
        (["raw/"], ["a", "b", "s/a"]),
        (["s/*"], ["a", "b", "t/raw/d"]),
        (["**/raw"], ["a", "b", "s/a"]),
        (["t/**/*.jpg", "/a.jpg"], ["b", "s/a", "s/raw/c"]),
        (["nothing"], ["a", "b", "s/a", "s/raw/c", "t/raw/d"]),
    ],
    ids=str,
)
def test_exclude(tmp_path: Path, globs: list[str], expected: list[str]) -> None:
    put(tmp_path, "a.jpg", "b.png", "s/a.jpg", "s/raw/c.jpg", "t/raw/d.jpg")
    found, left_out = listed(tmp_path, exclude=tuple(globs))
    assert found == expected
    assert (left_out.count > 0) == (len(expected) < 5)
    assert all(note.endswith("as `exclude` says") for note in left_out.notes())


def test_what_is_excluded_by_its_very_name_is_so_whatever_it_looks_like(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "Rome [2019]/b.jpg", "s/Rome [2019]/c.jpg", "s/d[1].jpg", "s/d1.jpg")
    for glob, expected in (
        ("Rome [2019]", ["a", "s/d1", "s/d[1]"]),
        ("s/Rome [2019]", ["Rome [2019]/b", "a", "s/d1", "s/d[1]"]),
        ("d[1].jpg", ["Rome [2019]/b", "a", "s/Rome [2019]/c"]),
    ):
        assert sorted(listed(tmp_path, exclude=(glob,))[0]) == expected


def test_a_glob_tells_of_nothing_that_it_does_not_name(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "._a.jpg", ".git/x.jpg", "sub/.thumbs/x.jpg", "sub/b.jpg")
    put(tmp_path, "notes.txt", data=b"-")
    for pattern, expected, names in (
        ("*.jpg", ["a"], ["._a.jpg"]),
        ("*", ["a"], ["._a.jpg", "notes.txt"]),
        ("s*/*.jpg", ["sub/b"], []),
        ("sub/**/*.jpg", ["b"], [".thumbs/"]),
    ):
        found, left_out = listed(f"{tmp_path}/{pattern}")
        assert (found, [*left_out.names()]) == (expected, names), pattern


# Files


def test_a_single_file(tmp_path: Path) -> None:
    put(tmp_path, "a b.jpg", "noextension")
    (photo,) = list_photos(str(tmp_path / "a b.jpg"))
    assert (photo.key, photo.url, photo.size_bytes) == ("a b", f"{tmp_path}/a b.jpg", len(JPEG))
    assert listed(tmp_path / "noextension")[0] == ["noextension"]
    put(tmp_path, "notes.txt", data=b"-")
    found, left_out = listed(tmp_path / "notes.txt")
    assert (found, left_out.count) == ([], 1)


def test_several_files_have_the_keys_that_their_folder_gives(tmp_path: Path) -> None:
    put(tmp_path, "in/a.jpg", "in/a.png", "in/sub/b.jpg", "in/sub/c?.jpg", "in/deep/er/d.jpg", "other/e.jpg")
    put(tmp_path, "in/notes.txt", data=b"-")
    every = sorted(path for path in (tmp_path / "in").rglob("*") if path.is_file())
    found, left_out = listed([*every, every[0]])
    assert found == listed(tmp_path / "in")[0]
    assert left_out.count == 1
    mixed, _ = listed(
        [tmp_path / "in/sub", tmp_path / "in/a.jpg", tmp_path / "in/sub/b.jpg", tmp_path / "other"]
    )
    assert mixed == ["in/a", "in/sub/b", "in/sub/c%3F", "other/e"]


def test_several_files_of_a_bucket() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("x/a.jpg", "x/y/b.jpg"):
        memory.pipe_file(f"/several/{name}", JPEG)
    photos = [*list_photos(["memory://several/x/a.jpg", "memory://several/x/y/b.jpg"])]
    assert [(photo.key, photo.url) for photo in photos] == [
        ("a", "memory://several/x/a.jpg"),
        ("y/b", "memory://several/x/y/b.jpg"),
    ]


def test_what_cannot_be_among_several(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    put(tmp_path, "list.csv", data=b"url\na.jpg\n")
    for other, said in (
        ("list.csv", "is a manifest, which stands alone"),
        ("none.jpg", "there is no such folder or file"),
        ("*.jpg", "there is no such folder or file"),
    ):
        with pytest.raises(OptionError, match=said):
            list_photos([str(tmp_path / "a.jpg"), str(tmp_path / other)])
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/mixed/a.jpg", JPEG)
    with pytest.raises(OptionError, match="lies in another store"):
        list_photos([str(tmp_path / "a.jpg"), "memory://mixed/a.jpg"])


# Tables


def test_a_table_may_have_other_columns_and_separators(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file;key\na.jpg;one\n")
    assert listed(tmp_path / "list.csv", url_column="file", separator=";")[0] == ["one"]
    (tmp_path / "list.tsv").write_text("url\tkey\na, b.jpg\ttwo\n")
    (photo,) = list_photos(str(tmp_path / "list.tsv"))
    assert (photo.key, photo.url) == ("two", f"{tmp_path}/a, b.jpg")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"separator": ";;"}, "separator = ';;': must be one character"),
        ({"separator": "\n"}, "separator"),
        ({"url_column": ""}, "url_column = ''"),
        ({"exclude": ("*.png", "/")}, "exclude"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ListingOptions(**options)
