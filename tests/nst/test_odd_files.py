"""Odd files whose picture is all there, and those whose picture is not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image

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
        assert photo.marks == ("no_end_marker",) + (() if side is None else ("shrunk",))
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
        pillow_heif.register_heif_opener()
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


def of_a_camera(format: str, space: int, index: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ColorSpace: space, ExifTags.IFD.Interop: {1: index}}
    options = {"quality": 97, "subsampling": 0, **options} if format == "JPEG" else options
    return encoded(Image.fromarray(chart()), format, exif=exif.tobytes(), **options)


@pytest.mark.parametrize(  # Pillow writes no index into TIFF
    ("format", "space", "index"), [("JPEG", 65535, "R03"), ("JPEG", 2, "R98"), ("TIFF", 2, "R98")]
)
def test_a_camera_that_is_set_to_adobe_rgb_says_so_in_exif_alone(format: str, space: int, index: str) -> None:
    photo = read_photo(of_a_camera(format, space, index))
    in_adobe = chart(charts.in_srgb(COLORS, charts.ADOBE_XY, charts.adobe_to_light))
    assert color_error(np.asarray(photo.image), in_adobe) < 2
    assert photo.marks == ()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_what_is_not_adobe_rgb_is_not_taken_for_it(format: str) -> None:
    for space, index in ((1, "R98"), (1, "R03"), (65535, "R98")):
        assert color_error(np.asarray(open_photo(of_a_camera(format, space, index))), chart()) < 2
    p3 = charts.rgb_profile(charts.P3_XY, charts.srgb_to_light)
    tagged = open_photo(of_a_camera(format, 65535, "R03", icc_profile=p3))
    assert (
        color_error(np.asarray(tagged), chart(charts.in_srgb(COLORS, charts.P3_XY, charts.srgb_to_light))) < 2
    )


# Files that end too early


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_lacks_pixels_can_be_kept(kind: str, mode: str) -> None:
    """Its upper part is as it was; a progressive one is whole and coarse."""
    data = jpeg(kind, mode)
    whole = np.asarray(open_photo(data)).astype(int)
    for missing in (16, 300, len(data) // 3):
        photo = read_photo(data[:-missing], truncated="keep")
        assert photo.marks == ("truncated",)
        assert photo.image.size == (whole.shape[1], whole.shape[0])
        assert np.abs(np.asarray(photo.image).astype(int) - whole)[:8].mean() < (
            6 if kind == "progressive" else 0.1
        )
    assert decode_photo(data[:-300], truncated="keep").marks == ("truncated",)


def test_a_progressive_jpeg_that_lacks_scans_can_be_kept() -> None:
    data = jpeg("progressive")
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    for start in starts[1:]:
        for cut in (start, start + 1, start + 5):
            assert read_photo(data[:cut], truncated="keep").marks == ("truncated",)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "I;16"])
def test_a_png_that_lacks_pixels_can_be_kept(mode: str, interlaced: bool) -> None:
    image = picture(5, 91, 67)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    data = adam7(image) if interlaced else encoded(image, "PNG", compress_level=1)
    whole = np.asarray(open_photo(data)).astype(int)
    assert read_photo(data, truncated="keep").marks == ()
    for left in (0.5, 0.8):
        cut = data[: int(len(data) * left)]
        with pytest.raises(DecodeError):
            open_photo(cut)
        photo = read_photo(cut, truncated="keep")
        assert photo.marks == ("truncated",)
        there = np.abs(np.asarray(photo.image).astype(int) - whole)
        assert photo.image.size == (91, 67)
        assert there[0, 0].max() == 0
        if not interlaced:
            assert there[:20].max() == 0
            assert there[-1].max() > 0


def adam7(image: Image.Image) -> bytes:
    """An interlaced PNG, which Pillow does not write: the seven passes one after the other."""
    plain = encoded(image, "PNG")
    head, chunks, place = b"", b"", 8
    while place < len(plain):
        length = int.from_bytes(plain[place : place + 4], "big")
        kind, whole = plain[place + 4 : place + 8], plain[place : place + 12 + length]
        if kind == b"IHDR":
            head = charts.png_chunk(b"IHDR", whole[8:20] + b"\1")
        elif kind not in (b"IDAT", b"IEND"):
            chunks += whole
        place += 12 + length
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    levels = np.asarray(image)
    rows = b""
    for x, y, across, down in passes:
        for row in levels[y::down, x::across]:
            packed = np.packbits(row) if row.dtype == bool else row.astype(row.dtype.newbyteorder(">"))
            rows += b"\0" + packed.tobytes()
    body = charts.png_chunk(b"IDAT", zlib.compress(rows, 1)) + charts.png_chunk(b"IEND", b"")
    return plain[:8] + head + chunks + body


@pytest.mark.parametrize("format", ["PNG", "GIF", "TIFF", "WEBP"])
def test_what_has_no_pixel_or_another_format_is_refused_still(format: str) -> None:
    data = encoded(picture(5, 91, 67), format)
    for length in (30, data.index(b"IDAT") + 4) if format == "PNG" else (30, 2 * len(data) // 3):
        with pytest.raises(DecodeError):
            read_photo(data[:length], truncated="keep")


def test_damage_is_not_kept() -> None:
    """`truncated` is about what is missing at the end, not about what is wrong within."""
    data = bytearray(encoded(picture(5, 91, 67), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DecodeError):
        read_photo(bytes(data), truncated="keep")


# Which way is up

ORIENTED = ("PNG", "WEBP", "TIFF", "JPEG", "MPO", "AVIF", "HEIF")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ORIENTED)
def test_orientation(format: str, orientation: int) -> None:
    """AVIF and HEIF say it by `irot` and `imir`, all others by EXIF."""
    if format == "HEIF":
        pillow_heif.register_heif_opener()
    upright = chart()
    stored = Image.fromarray(upright)
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    if orientation in inverse:
        stored = stored.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    lossy = {"quality": 97, "subsampling": "4:4:4"} if format in ("AVIF", "JPEG") else {"quality": 97}
    options = {"WEBP": {"lossless": True}, "HEIF": {"quality": 97, "chroma": 444}}.get(format, lossy)
    data = encoded(stored, format, exif=exif.tobytes(), **options)
    if format in ("AVIF", "HEIF") and orientation != 1:
        assert b"irot" in data or b"imir" in data
    photo = read_photo(data, keep_exif="all")
    assert photo.image.size == (96, 64)
    assert color_error(np.asarray(photo.image), upright) < 2
    kept = Image.Exif()
    kept.load(photo.exif)
    assert 274 not in kept, "the picture is upright"


def test_of_avif_the_file_has_the_last_word_about_orientation() -> None:
    """EXIF may say something else: by the standard (MIAF) it does not count."""
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(Image.fromarray(chart()), "AVIF", exif=exif, quality=97, subsampling="4:4:4")
    at = data.index(b"irot") + 4
    turned = data[:at] + b"\0" + data[at + 1 :]
    assert color_error(np.asarray(open_photo(turned)), chart()) < 2


# Alpha


@pytest.mark.parametrize("format", ["AVIF", "TIFF", "PNG", "WEBP"])
def test_alpha_over_the_background(format: str) -> None:
    """Premultiplied in AVIF and TIFF, straight in PNG and WebP: the same picture."""
    alpha = (np.arange(24)[:, None] % 3 * 127).astype(np.uint8)
    straight = chart(np.concatenate([COLORS, alpha], axis=1))
    opacity = chart(alpha).astype(float) / 255
    expected = straight[..., :3] * opacity + 255 * (1 - opacity)
    if format == "TIFF":
        pixels = np.concatenate([(straight[..., :3] * opacity).round(), straight[..., 3:]], axis=2)
        out = io.BytesIO()
        tifffile.imwrite(out, pixels.astype(np.uint8), photometric="rgb", extrasamples=["assocalpha"])
        data = out.getvalue()
    else:
        options = {
            "AVIF": {"quality": 100, "subsampling": "4:4:4", "alpha_premultiplied": True},
            "WEBP": {"lossless": True, "exact": True},
        }
        data = encoded(Image.fromarray(straight), format, **options.get(format, {}))
    photo = open_photo(data)
    assert color_error(np.asarray(photo), expected) < 2


# Profiles of gray


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_a_gray_profile_in_a_gray_file_counts(format: str) -> None:
    levels = np.linspace(12, 245, 24).round().astype(np.uint8)[:, None]
    photo = read_photo(
        profiled(format, Image.fromarray(chart(levels)[..., 0]), charts.gray_profile(lambda value: value))
    )
    expected = chart(charts.in_srgb(levels.repeat(3, axis=1), charts.SRGB_XY, lambda value: value))
    assert color_error(np.asarray(photo.image), expected) < 2
    assert photo.marks == ()


@pytest.mark.parametrize(
    ("bits", "color", "row", "transparent"),
    [
        (1, 0, bytes([0b01000000]), struct.pack(">H", 0)),
        (2, 0, bytes([0b00011011]), struct.pack(">H", 1)),
        (4, 0, bytes([0x05, 0xAF]), struct.pack(">H", 5)),
        (8, 0, bytes([0, 5, 10, 255]), struct.pack(">H", 5)),
        (16, 0, struct.pack(">4H", 256, 1285, 2570, 65535), struct.pack(">H", 1285)),
        (8, 2, bytes(range(12)), struct.pack(">3H", 3, 4, 5)),
        (16, 2, struct.pack(">12H", *range(0, 3072, 256)), struct.pack(">3H", 768, 1024, 1280)),
    ],
)
def test_a_pngs_transparent_color_is_found_at_any_depth(
    bits: int, color: int, row: bytes, transparent: bytes
) -> None:
    """Of four pixels the second is; of one bit all others. Pillow compares it with other levels or loses it."""
    header = struct.pack(">IIBBBBB", 4, 1, bits, color, 0, 0, 0)
    pixels = zlib.compress(b"\0" + row)
    chunks = ((b"IHDR", header), (b"tRNS", transparent), (b"IDAT", pixels), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(charts.png_chunk(*each) for each in chunks)
    photo = read_photo(data, alpha="keep")
    assert photo.alpha is not None
    seen = [0, 255, 0, 0] if bits == 1 else [255, 0, 255, 255]
    assert list(photo.alpha.tobytes()) == seen
    over_white = read_photo(data).image
    assert {over_white.getpixel((pixel, 0)) for pixel in range(4) if not seen[pixel]} == {(255, 255, 255)}
