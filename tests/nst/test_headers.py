"""How many pixels a file promises, without reading it."""

from __future__ import annotations

import io
import random
import time

import pytest
from PIL import Image

from nst.errors import ImageTooLarge
from nst.images.decode import open_photo
from nst.images.headers import picture_size
from tests.bombs import BOMBS, SIDE
from tests.conftest import encoded, picture
from tests.nst.test_golden import GOLDEN


def size_of(data: bytes) -> tuple[int, int] | None:
    return picture_size(lambda start, length: data[start : start + length])


@pytest.mark.parametrize("kind", GOLDEN)
def test_is_what_pillow_says(kind: str) -> None:
    data, _ = GOLDEN[kind]()
    assert size_of(data) == Image.open(io.BytesIO(data)).size


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_unread(kind: str) -> None:
    data = BOMBS[kind]()
    read = 0

    def read_at(start: int, length: int) -> bytes:
        nonlocal read
        read += length
        return data[start : start + length]

    open_photo(encoded(Image.new("RGB", (2, 2)), "PNG"))  # finds Pillow's plugins
    began = time.thread_time()
    size = picture_size(read_at)
    with pytest.raises(ImageTooLarge, match="more than the limit of 200000000"):
        open_photo(data)
    assert time.thread_time() - began < 0.05
    assert size is not None
    assert size in ((SIDE, SIDE), (0x3FFF, 0x3FFF), (0x4000, 0x4000))
    assert read < 10_000


def test_never_raises_and_never_reads_much() -> None:
    """Whatever the bytes are, at most 4096 looks of a few bytes each; a TIFF's directory is one of them."""
    for seed in range(600):
        chance = random.Random(seed)
        format = chance.choice(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
        data = bytearray(encoded(picture(seed % 3, 20, 14), format))
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(chance.choice([len(data), min(64, len(data))]))] = chance.randrange(256)
        del data[chance.randint(0, len(data)) :]
        looks: list[int] = []

        def read_at(start: int, length: int, data: bytes = bytes(data), looks: list[int] = looks) -> bytes:
            looks.append(length)
            return data[start : start + length]

        size = picture_size(read_at)
        assert size is None or min(size) >= 0
        assert len(looks) <= 4098
        assert sum(looks) < 200_000


@pytest.mark.parametrize(
    "head", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"MM\0+" + b"\xff" * 28]
)
def test_what_says_nothing(head: bytes) -> None:
    assert size_of(head) is None
    assert size_of(b"\xff\xd8" + b"\xff" * 100_000) is None
    assert size_of(b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 100_000) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe0\0\2" * 100_000,
        b"\xff\xd8" + b"\xff" * 100_000,
        b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 100_000,
        b"\0\0\0\x08ftyp" + b"\0\0\0\x01free" + bytes(100),
    ],
)
def test_the_search_ends(data: bytes) -> None:
    looks = 0

    def read_at(start: int, length: int) -> bytes:
        nonlocal looks
        looks += 1
        return data[start : start + length]

    assert picture_size(read_at) is None
    assert looks <= 4097
