"""Odd files whose picture is all there, and those whose picture is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from nst.errors import DecodeError
from nst.images.codec import decode_photo
from nst.images.decode import open_photo, read_photo
from tests import charts
from tests.charts import COLORS, chart, color_error
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


# Colors by numbers (CICP)

BT2020_XY = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
BY_NUMBERS = {
    (12, 13): (charts.P3_XY, charts.srgb_to_light),
    (9, 13): (BT2020_XY, charts.srgb_to_light),
    (9, 14): (BT2020_XY, charts.srgb_to_light),
    (12, 4): (charts.P3_XY, lambda value: value**2.2),
    (1, 8): (charts.SRGB_XY, lambda value: value),
    (1, 13): (charts.SRGB_XY, charts.srgb_to_light),
    (2, 2): (charts.SRGB_XY, charts.srgb_to_light),
    (1, 1): (charts.SRGB_XY, charts.srgb_to_light),
}


def by_numbers(format: str, primaries: int, transfer: int, **options: object) -> bytes:
    image = Image.fromarray(chart())
    if format == "PNG":
        data = encoded(image, "PNG", **options)
        return data[:33] + charts.png_chunk(b"cICP", bytes([primaries, transfer, 0, 1])) + data[33:]
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
        data = encoded(image, format, quality=97, chroma=444)
    else:
        data = encoded(image, format, quality=97, subsampling="4:4:4", **options)
    assert data.count(b"colrnclx") == 1
    at = data.index(b"colrnclx") + 8
    return data[:at] + primaries.to_bytes(2, "big") + transfer.to_bytes(2, "big") + data[at + 4 :]


@pytest.mark.parametrize("format", ["PNG", "AVIF", "HEIF"])
@pytest.mark.parametrize("numbers", BY_NUMBERS, ids=str)
def test_colors_by_numbers(format: str, numbers: tuple[int, int]) -> None:
    expected = chart(charts.in_srgb(COLORS, *BY_NUMBERS[numbers]))
    found = np.asarray(open_photo(by_numbers(format, *numbers)))
    assert color_error(found, expected) < 2
    if format == "PNG":
        assert np.abs(found.astype(float) - expected.clip(0, 255)).max() < 1.6, (
            "one level, and one of a matrix in fixed point"
        )


@pytest.mark.parametrize("format", ["PNG", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("primaries", "transfer", "said"),
    [
        (9, 16, "PQ"),
        (9, 18, "HLG"),
        (1, 16, "PQ"),
        (22, 13, "primaries 22"),
        (1, 9, "transfer characteristics 9"),
    ],
)
def test_colors_that_are_not_read_are_refused(format: str, primaries: int, transfer: int, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        open_photo(by_numbers(format, primaries, transfer))


def test_numbers_go_before_profiles_in_png_and_after_them_in_avif() -> None:
    adobe = charts.rgb_profile(charts.ADOBE_XY, charts.adobe_to_light)
    p3 = chart(charts.in_srgb(COLORS, charts.P3_XY, charts.srgb_to_light))
    assert color_error(np.asarray(open_photo(by_numbers("PNG", 12, 13, icc_profile=adobe))), p3) < 1
    data = by_numbers("AVIF", 12, 13)
    tagged = encoded(Image.fromarray(chart()), "AVIF", quality=97, subsampling="4:4:4", icc_profile=adobe)
    in_adobe = chart(charts.in_srgb(COLORS, charts.ADOBE_XY, charts.adobe_to_light))
    assert color_error(np.asarray(open_photo(tagged)), in_adobe) < 2
    assert color_error(np.asarray(open_photo(data)), p3) < 2


# Profiles


def profiled(format: str, image: Image.Image, profile: bytes) -> bytes:
    return encoded(image, format, icc_profile=profile)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("kind", ["garbage", "cut", "gray in RGB", "CMYK in RGB"])
def test_a_profile_that_does_not_fit_is_skipped_and_that_is_said(format: str, kind: str) -> None:
    good = charts.rgb_profile(charts.ADOBE_XY, charts.adobe_to_light)
    profile = {
        "garbage": b"no profile at all" * 20,
        "cut": good[:200],
        "gray in RGB": charts.gray_profile(lambda value: value**1.8),
        "CMYK in RGB": charts.cmyk_profile(),
    }[kind]
    image = Image.fromarray(chart())
    photo = read_photo(profiled(format, image, profile))
    assert np.array_equal(np.asarray(photo.image), np.asarray(open_photo(encoded(image, format))))
    assert photo.marks == ("profile_skipped",)
    assert read_photo(profiled(format, image, good)).marks == ()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_an_rgb_profile_in_a_gray_file_counts(format: str) -> None:
    levels = np.linspace(12, 245, 24).round().astype(np.uint8)[:, None]
    linear = charts.rgb_profile(charts.SRGB_XY, lambda value: value)
    photo = read_photo(profiled(format, Image.fromarray(chart(levels)[..., 0]), linear))
    expected = chart(charts.in_srgb(levels.repeat(3, axis=1), charts.SRGB_XY, lambda value: value))
    assert color_error(np.asarray(photo.image), expected) < 2
    assert photo.marks == ()
