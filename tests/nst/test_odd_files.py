"""Odd files whose picture is all there, and those whose picture is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from nst.errors import DecodeError
from nst.images.codec import decode_photo
from nst.images.decode import open_photo, read_photo
from tests.conftest import encoded, picture

KINDS = {
    "baseline": {},
    "odd size, subsampled": {"quality": 80},
    "not subsampled": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
}


def jpeg(kind: str, mode: str = "RGB") -> bytes:
    width, height = (91, 67) if "odd" in kind else (96, 64)
    return encoded(picture(5, width, height).convert(mode), "JPEG", **KINDS[kind])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [None, 24])
def test_a_jpeg_that_lacks_its_end_marker_only_is_whole(kind: str, mode: str, side: int | None) -> None:
    data = jpeg(kind, mode)
    assert data.endswith(b"\xff\xd9")
    for shorter in (data[:-2], data[:-1], data[:-2] + bytes(100)):
        photo = read_photo(shorter, max_side_px=side)
        assert np.array_equal(np.asarray(photo.image), np.asarray(open_photo(data, max_side_px=side)))
        assert photo.marks == ("no_end_marker",)
    assert decode_photo(data[:-2]).marks == ("no_end_marker",)
    assert read_photo(data).marks == ()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_lacks_pixels_is_refused(kind: str, mode: str) -> None:
    data = jpeg(kind, mode)
    for missing in (8, 16, 64, 300, len(data) // 3):
        with pytest.raises(DecodeError, match="damaged"):
            open_photo(data[:-missing])


def test_a_progressive_jpeg_that_lacks_a_scan_is_refused() -> None:
    """Each cut is where a scan ends, so that no pixel seems to be missing; the picture is a blurred one."""
    data = jpeg("progressive")
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 5
    for start in starts[1:]:
        with pytest.raises(DecodeError):
            open_photo(data[:start])


def test_what_follows_the_picture_is_not_looked_at() -> None:
    """Motion photos are JPEGs with a film behind; some phones leave zeros there."""
    plain = jpeg("baseline")
    for more in (bytes(5000), b"\0\0\0\x18ftypmp42" + bytes(3000), plain, b"\xff", plain[: len(plain) // 2]):
        photo = read_photo(plain + more)
        assert np.array_equal(np.asarray(photo.image), np.asarray(open_photo(plain)))
        assert photo.marks == ()


def test_an_mpo_is_its_first_picture_even_if_the_second_is_cut() -> None:
    out = io.BytesIO()
    first, second = picture(1), picture(2)
    first.save(out, "MPO", save_all=True, append_images=[second], quality=95)
    data = out.getvalue()
    expected = np.asarray(Image.open(io.BytesIO(encoded(first, "JPEG", quality=95))))
    for shorter in (data, data[:-2], data[:-200]):
        assert np.array_equal(np.asarray(open_photo(shorter)), expected)


def test_of_a_gain_map_the_base_picture_is_taken_and_that_is_said() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"/></x:xmpmeta>'
    base = picture(1)
    data = encoded(base, "JPEG", quality=95, xmp=xmp) + encoded(picture(2), "JPEG")
    photo = read_photo(data)
    assert np.array_equal(np.asarray(photo.image), np.asarray(open_photo(encoded(base, "JPEG", quality=95))))
    assert photo.marks == ("gain_map",)
