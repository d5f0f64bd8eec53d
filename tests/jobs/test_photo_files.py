"""What becomes of photographs' files in a job: read or refused, and what their pictures keep of them."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from jobs.driver.job import Job, create_or_open
from jobs.driver.run import run
from jobs.errors import StoreError
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import Result
from jobs.spec import ImageSpec, job_from_table
from jobs.stores.filesystems import read_url
from jobs.stores.photo_files import HEAD_BYTES, read_photo_file
from nst.errors import ImageTooLarge, OptionError
from tests.bombs import BOMBS, PADDING, SIDE, large_photograph
from tests.conftest import encoded, picture
from tests.methods import REGISTRY

LIMIT = 200_000_000


def read_so_far() -> int:
    """Bytes that this thread has asked the kernel for."""
    fields = dict(line.split(": ") for line in Path("/proc/thread-self/io").read_text().splitlines())
    return int(fields["rchar"])


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_unread(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb.jpg"
    path.write_bytes(BOMBS[kind]())
    assert path.stat().st_size > 5 * HEAD_BYTES
    before = read_so_far()
    with pytest.raises(ImageTooLarge):
        read_photo_file(str(path), size_bytes=None, max_pixels=LIMIT)
    assert read_so_far() - before < 100_000


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How much each call to the store in memory gave."""
    memory = fsspec.filesystem("memory")
    real, sizes = type(memory).cat_file, []

    def cat_file(self: object, *args: Any, **options: Any) -> bytes:
        data: bytes = real(self, *args, **options)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    yield sizes
    memory.rm("/photo-files", recursive=True)


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_in_a_store_is_refused_unread(kind: str, fetched: list[int]) -> None:
    fsspec.filesystem("memory").pipe_file("/photo-files/bomb", BOMBS[kind]())
    with pytest.raises(ImageTooLarge):
        read_photo_file("memory://photo-files/bomb", size_bytes=5 * HEAD_BYTES, max_pixels=LIMIT)
    assert sum(fetched) < HEAD_BYTES // 2


def test_a_header_spread_over_the_file_is_not_followed_for_ever(fetched: list[int]) -> None:
    """300 segments of 64 kB before the size: the search ends after 1 MB, and decoding has the last word."""
    data = BOMBS["jpeg"]()
    data = data[:2] + 300 * (b"\xff\xe2\xff\xff" + bytes(65_533)) + data[2:]
    fsspec.filesystem("memory").pipe_file("/photo-files/long", data)
    assert read_photo_file("memory://photo-files/long", size_bytes=None, max_pixels=LIMIT) == data
    assert sum(fetched[:-1]) == HEAD_BYTES


def test_good_photographs_are_read_whole(tmp_path: Path, fetched: list[int]) -> None:
    small, large = encoded(picture(1)), large_photograph()
    assert len(large) > 2 * HEAD_BYTES
    for data in (small, large):
        (tmp_path / "a.jpg").write_bytes(data)
        fsspec.filesystem("memory").pipe_file("/photo-files/a", data)
        for url in (str(tmp_path / "a.jpg"), (tmp_path / "a.jpg").as_uri(), "memory://photo-files/a"):
            for size in (None, len(data)):
                assert read_photo_file(url, size_bytes=size, max_pixels=LIMIT) == data
    fetched.clear()
    fsspec.filesystem("memory").pipe_file("/photo-files/a", small)
    read_photo_file("memory://photo-files/a", size_bytes=len(small), max_pixels=LIMIT)
    assert fetched == [len(small)], "a small photograph is one call"


def test_a_store_that_cannot_read_parts_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends the beginning for whatever part it is asked for: here, a bomb's directory for another."""
    memory = fsspec.filesystem("memory")
    bomb = BOMBS["tiff"]()
    directory = bomb[16 + len(PADDING) :]
    data = bomb[:4] + (16_384 + 100).to_bytes(4, "little") + bytes(92) + directory
    data = data.ljust(16_384 + 100, b"\0") + directory.replace(SIDE.to_bytes(4, "little"), b"\1\0\0\0")
    memory.pipe_file("/photo-files/b", data)
    monkeypatch.setattr(type(memory), "cat_file", lambda _self, _path, **_options: data)
    assert read_photo_file("memory://photo-files/b", size_bytes=None, max_pixels=LIMIT) == data


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name, said in (
        ("pipe.jpg", "Not a file"),
        ("gone.jpg", "No such file"),
        ("loop.jpg", "symbolic links"),
        ("folder.jpg", "Is a directory"),
    ):
        with pytest.raises(OSError, match=said):
            read_photo_file(str(tmp_path / name), size_bytes=None, max_pixels=LIMIT)


def test_a_disk_that_is_away_is_no_fault_of_a_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is where it was mounted, or its folders do not answer. Others that are there say that it is."""

    def read(name: str) -> bytes:
        return read_photo_file(str(tmp_path / name), size_bytes=None, max_pixels=LIMIT)

    (tmp_path / "disk").mkdir()
    for name in ("disk/a.jpg", "disk/deeper/still/a.jpg"):
        with pytest.raises(StoreError, match=f"nothing in {tmp_path}/disk: is a disk to be mounted there"):
            read(name)
    (tmp_path / "disk/b.jpg").write_bytes(b"data")
    for name in ("disk/a.jpg", "disk/deeper/still/a.jpg", "disk/b.jpg/a.jpg"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            read(name)
    assert read("disk/b.jpg") == b"data"

    def away(folder: Path) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", str(folder))

    monkeypatch.setattr(os, "scandir", away)
    with pytest.raises(StoreError, match=f"{tmp_path}/disk does not answer: Transport endpoint"):
        read("disk/a.jpg")


# Whole jobs


def job_of(folder: Path, photos: str, **image: Any) -> Job:
    table = {
        "photos": photos,
        "output": "out",
        "method": {"kind": "stub"},
        "image": image,
        "resources": {"pool": "local", "max_workers": 1},
    }
    return create_or_open(job_from_table(table, folder, REGISTRY), REGISTRY)


def results(folder: Path, photos: str, **image: Any) -> dict[str, Result]:
    job = job_of(folder, photos, **image)
    run(job)
    ledger = Ledger(job.store)
    return {result.key: result for shard in ledger.done() for result in ledger.receipt(shard)[0]}


def test_every_kind_of_file_is_one_row(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "deeper").mkdir(parents=True)
    frames = [picture(seed) for seed in range(4)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    good = encoded(picture(1))
    bytes_of = {
        "animated.gif": out.getvalue(),
        "deeper/wrong extension.png": good,
        "dot.jpg": encoded(Image.new("RGB", (1, 1))),
        "strip.jpg": encoded(Image.new("RGB", (30_000, 8))),
        "truncated.jpg": good[: len(good) * 2 // 3],
        "truncated-progressive.jpg": encoded(picture(1), progressive=True)[:-200],
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><title>404</title>",
        "bomb.jpg": BOMBS["jpeg"](),
    }
    for name, data in bytes_of.items():
        (photos / name).write_bytes(data)
    (photos / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (photos / "folder.jpg").mkdir()
    lines = [{"url": str(path), "key": str(path.relative_to(photos))} for path in photos.rglob("*.*")]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = results(tmp_path, "list.jsonl")
    errors = {
        key: (result.error_type, result.error) for key, result in found.items() if result.status == "failed"
    }
    assert {key: error for key, (error, _) in errors.items()} == {
        "truncated.jpg": "DecodeError",
        "truncated-progressive.jpg": "DecodeError",
        "empty.jpg": "DecodeError",
        "page.jpg": "DecodeError",
        "bomb.jpg": "ImageTooLarge",
        "dangling.jpg": "FileNotFoundError",
        "folder.jpg": "IsADirectoryError",
    }
    assert "web page" in str(errors["page.jpg"])
    assert "0 bytes" in str(errors["empty.jpg"])
    assert "60000 x 60000" in str(errors["bomb.jpg"])
    assert found["animated.gif"].stats["frames"] == 4
    assert "frames" not in found["dot.jpg"].stats
    assert (found["strip.jpg"].width, found["strip.jpg"].height) == (512, 1)
    assert found["deeper/wrong extension.png"].output == "images/deeper/wrong extension.png.jpg"
    assert found["dot.jpg"].source_sha256 is not None
    assert found["truncated.jpg"].source_sha256 is not None


def test_a_job_whose_disk_is_away_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """No row says that its photograph is gone."""
    (tmp_path / "photos").mkdir()
    for number in range(5):
        (tmp_path / f"photos/{number}.jpg").write_bytes(encoded(picture(number)))
    job = job_of(tmp_path, "photos")
    (tmp_path / "photos").rename(tmp_path / "unmounted")
    (tmp_path / "photos").mkdir()
    summary = run(job)
    assert "is a disk to be mounted there?" in str(summary.error)
    assert (summary.exit_code, Ledger(job.store).done()) == (4, set())
    (tmp_path / "photos").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "photos")
    assert {key: result.status for key, result in results(tmp_path, "photos").items()} == dict.fromkeys(
        "01234", "ok"
    )


def test_pictures_keep_what_they_should(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[Base.Copyright], exif[Base.Orientation] = "(c) me", 6
    levels = np.dstack([np.asarray(picture(1)), np.full((32, 48), 77, np.uint8)])
    Image.fromarray(levels).save(tmp_path / "photos/a.png", exif=exif)
    found = results(tmp_path, "photos", alpha="keep", format="webp", keep_exif="basic")
    with Image.open(tmp_path / "out" / str(found["a"].output)) as image:
        assert (image.format, image.mode, image.size) == ("WEBP", "RGBA", (32, 48))
        assert image.getexif().get(Base.Copyright) == "(c) me"
        assert Base.Orientation not in image.getexif()
        assert image.info["icc_profile"][12:20] == b"mntrRGB "
        assert set(np.asarray(image)[..., 3].ravel().tolist()) == {77}


def test_options_that_contradict() -> None:
    with pytest.raises(OptionError, match=r"alpha = 'keep': JPEG has no transparency; format may be png"):
        ImageSpec(alpha="keep")
    assert ImageSpec(alpha="keep", format="png").keep_exif == "basic"
    table = {"photos": "a", "output": "b", "method": {"kind": "stub"}, "image": {"keep_exif": "some"}}
    with pytest.raises(OptionError, match=r"image.keep_exif = 'some'.*none, basic, all"):
        job_from_table(table, Path("/"), REGISTRY)


def test_reading_the_whole_is_reading_the_url(tmp_path: Path) -> None:
    odd = bytes(tmp_path) + b"/\xff 100%.jpg"
    with open(odd, "wb") as file:
        file.write(b"data")
    url = "file://" + "".join(f"%{byte:02X}" if byte > 126 or byte in b" %" else chr(byte) for byte in odd)
    assert read_photo_file(url, size_bytes=4, max_pixels=LIMIT) == read_url(url) == b"data"
