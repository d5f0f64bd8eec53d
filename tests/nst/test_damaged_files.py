"""A thousand damaged pictures: each is decoded or refused with a typed error, none comes out blank."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from nst.errors import DecodeError, ImageTooLarge
from nst.images.decode import open_photo
from tests.conftest import encoded, picture

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "progressive")
EACH = 125


def whole(format: str, seed: int) -> bytes:
    if format == "progressive":
        return encoded(picture(seed, 90, 60), "JPEG", progressive=True)
    return encoded(picture(seed, 90, 60), format)


def flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 20)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def edit_header(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(min(64, len(data)))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])


def scramble(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.randint(1, 200))
    data[start:end] = chance.randbytes(end - start)


def cut_out(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randint(1, 200)]


@pytest.mark.parametrize("format", FORMATS)
def test_is_decoded_or_refused(format: str) -> None:
    """125 of each format. The limit on pixels is small, so that no edited size can cost much."""
    outcomes = {"decoded": 0, "refused": 0}
    for seed in range(EACH):
        chance = random.Random(f"{format} {seed}")
        data = bytearray(whole(format, seed % 5))
        chance.choice([flip, truncate, edit_header, scramble, cut_out])(data, chance)
        began = time.process_time()
        try:
            image = open_photo(bytes(data), max_pixels=4_000_000)
        except (DecodeError, ImageTooLarge):
            outcomes["refused"] += 1
        else:
            assert image.mode == "RGB"
            levels = np.asarray(image)
            assert levels.min() < levels.max(), f"{format} {seed}: blank, {image.size}"
            outcomes["decoded"] += 1
        assert time.process_time() - began < 10, f"{format} {seed}"
    assert outcomes["refused"] > 5
    assert outcomes["decoded"] > 5 or format == "PNG"  # whose every chunk has a checksum


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_cut_in_half_is_refused(format: str) -> None:
    """Never a picture with a gray lower half."""
    data = whole(format, 1)
    with pytest.raises(DecodeError):
        open_photo(data[: len(data) // 2])
