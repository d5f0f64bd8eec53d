"""Photographs as people have them: upright, and of the color that they should have, to CIEDE2000 below 2."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from nst.errors import DecodeError
from nst.images.codec import decode_photo, encode_image
from nst.images.decode import open_photo, read_photo
from tests import charts
from tests.charts import COLORS, chart, color_error
from tests.conftest import encoded

Golden = tuple[bytes, NDArray[np.generic]]
"""A file, and the sRGB picture (64, 96, 3) that it must become, 0 to 255."""

GRAYS = np.linspace(12, 245, 24).round().astype(np.uint8)[:, None]
INKS = (np.arange(24)[:, None] * (1, 5, 7, 11) // (1, 2, 3, 8) % 4 * (85, 85, 85, 85)).astype(np.uint8)
INKS[:, 3] //= 3
INKS[:, 3] *= INKS[:, 3] == 85  # some patches with black
ADOBE = charts.rgb_profile(charts.ADOBE_XY, charts.adobe_to_light)
P3 = charts.rgb_profile(charts.P3_XY, charts.srgb_to_light)
EXACT, FINE = {"lossless": True}, {"quality": 97, "subsampling": 0}


def rgb(format: str, expected: NDArray[np.generic] | None = None, **options: object) -> Golden:
    picture = chart()
    return encoded(Image.fromarray(picture), format, **options), picture if expected is None else expected


def gray(format: str, levels: NDArray[np.generic] = GRAYS, **options: object) -> Golden:
    return encoded(Image.fromarray(chart(GRAYS)[..., 0]), format, **options), chart(levels.repeat(3, axis=1))


def tagged(format: str, space: str, **options: object) -> Golden:
    primaries, curve = {
        "adobe": (charts.ADOBE_XY, charts.adobe_to_light),
        "p3": (charts.P3_XY, charts.srgb_to_light),
        "srgb": (charts.SRGB_XY, charts.srgb_to_light),
    }[space]
    expected = chart(charts.in_srgb(COLORS, primaries, curve))
    return rgb(format, expected, icc_profile=charts.rgb_profile(primaries, curve), **options)


def palette(format: str, **options: object) -> Golden:
    image = Image.fromarray(chart(np.arange(24, dtype=np.uint8)[:, None])[..., 0], mode="P")
    image.putpalette(COLORS.tobytes())
    return encoded(image, format, **options), chart()


def transparent(format: str, mode: str = "RGBA", **options: object) -> Golden:
    """Over white; the expected colors by the definition of `over`."""
    alpha = (np.arange(24)[:, None] % 3 * 127).astype(np.uint8)
    colors = COLORS if mode == "RGBA" else GRAYS
    over = (colors * (alpha / 255.0) + 255 * (1 - alpha / 255.0)).repeat(1 if mode == "RGBA" else 3, axis=1)
    data = encoded(Image.fromarray(chart(np.hstack([colors, alpha])), mode=mode), format, **options)
    return data, chart(over)


def see_through_palette(format: str) -> Golden:
    image = Image.open(io.BytesIO(palette("PNG")[0]))
    data = encoded(image, format, transparency=7)
    expected = COLORS.copy()
    expected[7] = 255
    return data, chart(expected)


def animated(format: str, **options: object) -> Golden:
    first, later = Image.fromarray(chart()), Image.fromarray(chart()[:, ::-1].copy())
    return encoded(first, format, save_all=True, append_images=[later, later.rotate(180)], **options), chart()


def cmyk(format: str, *, profile: bool = False, **options: object) -> Golden:
    if profile:
        expected = charts.xyz_d50_to_srgb(charts.ink_to_xyz(INKS / 255))
        options["icc_profile"] = charts.cmyk_profile()
    else:  # no profile: what all viewers do
        expected = (255.0 - INKS[:, :3]) * (255.0 - INKS[:, 3:]) / 255
    return encoded(Image.fromarray(chart(INKS), mode="CMYK"), format, **options), chart(expected)


def sixteen(channels: int) -> Golden:
    colors = GRAYS if channels < 3 else COLORS
    levels = colors.astype(np.uint16) * 257 + 100  # not just 8 bits twice
    if channels in (2, 4):
        levels = np.hstack([levels, np.full((24, 1), 65535, np.uint16)])
    return charts.png_16(chart(levels)), chart(colors.repeat(3 if channels < 3 else 1, axis=1))


def sixteen_tiff() -> Golden:
    levels = chart(GRAYS)[..., 0].astype(np.uint16) * 257
    return encoded(Image.fromarray(levels), "TIFF"), chart(GRAYS.repeat(3, axis=1))


def black_and_white() -> Golden:
    bits = (np.arange(24)[:, None] % 5 % 2 * 255).astype(np.uint8)
    image = Image.fromarray(chart(bits)[..., 0]).convert("1", dither=Image.Dither.NONE)
    return encoded(image, "PNG"), chart(bits.repeat(3, axis=1))


def lab() -> Golden:
    light = charts.srgb_to_light(COLORS / 255) @ charts.to_xyz(charts.SRGB_XY).T
    values = charts.xyz_to_lab(light @ charts.adaptation(charts._xyz(charts.D65_XY), charts.D50).T)
    levels = np.round(values * (2.55, 1, 1)).astype(np.int16).astype(np.uint8)  # TIFF 6.0: a* and b* are signed
    return encoded(Image.fromarray(chart(levels), mode="LAB"), "TIFF"), chart()


def gray_with_rgb_profile() -> Golden:
    levels = charts.in_srgb(GRAYS.repeat(3, axis=1), charts.ADOBE_XY, lambda value: value)
    profile = charts.rgb_profile(charts.ADOBE_XY, lambda value: value)
    return gray("PNG", icc_profile=profile)[0], chart(levels)


def gray_profile(format: str, **options: object) -> Golden:
    levels = 255 * charts.light_to_srgb((GRAYS / 255) ** 1.8)
    return gray(format, levels, icc_profile=charts.gray_profile(lambda value: value**1.8), **options)


def heic(space: str | None) -> Golden:
    pillow_heif.register_heif_opener()
    return rgb("HEIF", quality=95) if space is None else tagged("HEIF", space, quality=95)


GOLDEN: dict[str, Callable[[], Golden]] = {
    "jpeg": lambda: rgb("JPEG", **FINE),
    "jpeg progressive": lambda: rgb("JPEG", progressive=True, **FINE),
    "jpeg subsampled": lambda: rgb("JPEG", quality=90),
    "jpeg gray": lambda: gray("JPEG", quality=97),
    "jpeg CMYK of Adobe": lambda: cmyk("JPEG", quality=97),
    "jpeg CMYK with profile": lambda: cmyk("JPEG", profile=True, quality=97),
    "jpeg Adobe RGB": lambda: tagged("JPEG", "adobe", **FINE),
    "jpeg Display P3": lambda: tagged("JPEG", "p3", **FINE),
    "jpeg gray profile": lambda: gray_profile("JPEG", quality=97),
    "mpo": lambda: animated("MPO", **FINE),
    "png": lambda: rgb("PNG"),
    "png sRGB": lambda: tagged("PNG", "srgb"),
    "png Adobe RGB": lambda: tagged("PNG", "adobe"),
    "png Display P3": lambda: tagged("PNG", "p3"),
    "png gray": lambda: gray("PNG"),
    "png gray profile": lambda: gray_profile("PNG"),
    "png gray, RGB profile": gray_with_rgb_profile,
    "png 1 bit": black_and_white,
    "png palette": lambda: palette("PNG"),
    "png palette Display P3": lambda: (palette("PNG", icc_profile=P3)[0], tagged("PNG", "p3")[1]),
    "png palette, transparent": lambda: see_through_palette("PNG"),
    "png 16 bit gray": lambda: sixteen(1),
    "png 16 bit gray, alpha": lambda: sixteen(2),
    "png 16 bit": lambda: sixteen(3),
    "png 16 bit, alpha": lambda: sixteen(4),
    "png alpha": lambda: transparent("PNG"),
    "png gray alpha": lambda: transparent("PNG", "LA"),
    "png animated": lambda: animated("PNG"),
    "gif": lambda: palette("GIF"),
    "gif transparent": lambda: see_through_palette("GIF"),
    "gif animated": lambda: animated("GIF"),
    "bmp": lambda: rgb("BMP"),
    "tiff": lambda: rgb("TIFF", compression="tiff_lzw"),
    "tiff Adobe RGB": lambda: tagged("TIFF", "adobe"),
    "tiff CMYK": lambda: cmyk("TIFF"),
    "tiff CMYK with profile": lambda: cmyk("TIFF", profile=True),
    "tiff LAB": lab,
    "tiff 16 bit gray": sixteen_tiff,
    "tiff of pages": lambda: animated("TIFF"),
    "webp": lambda: rgb("WEBP", quality=97),
    "webp lossless Display P3": lambda: tagged("WEBP", "p3", **EXACT),
    "webp alpha": lambda: transparent("WEBP", **EXACT),
    "webp animated": lambda: animated("WEBP", **EXACT),
    "avif": lambda: rgb("AVIF", quality=97, subsampling="4:4:4"),
    "avif Adobe RGB": lambda: tagged("AVIF", "adobe", quality=97, subsampling="4:4:4"),
    "avif alpha": lambda: transparent("AVIF", quality=97, subsampling="4:4:4"),
    "avif animated": lambda: animated("AVIF", quality=97, subsampling="4:4:4"),
    "heic": lambda: heic(None),
    "heic Display P3": lambda: heic("p3"),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_has_the_right_color(kind: str, record_property: Callable[[str, object], None]) -> None:
    data, expected = GOLDEN[kind]()
    image = open_photo(data)
    assert image.mode == "RGB"
    error = color_error(np.asarray(image), expected)
    record_property("ciede2000", error)
    print(f"{kind}: CIEDE2000 {error:.2f}")
    assert error < 2


@pytest.mark.parametrize("space", ["adobe", "p3"])
def test_the_profiles_matter(space: str) -> None:
    """That the golden set can fail: the same pictures without their profiles are of other colors."""
    assert color_error(chart(), tagged("PNG", space)[1]) > 3


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_is_upright(format: str, orientation: int) -> None:
    """EXIF 2.32, 4.6.4: which side of the stored picture is the top, and which the left."""
    if format == "HEIF":
        pillow_heif.register_heif_opener()
    upright = chart()
    turned = upright.transpose(1, 0, 2)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    subsampling = {"JPEG": {"subsampling": 0}, "AVIF": {"subsampling": "4:4:4"}}.get(format, {})
    data = encoded(image, format, exif=exif.tobytes(), quality=97, **subsampling)
    assert color_error(np.asarray(open_photo(data)), upright) < 2
    small = decode_photo(data, max_side_px=48, keep_exif="all")
    assert small.image.shape == (3, 32, 48)
    again = Image.open(io.BytesIO(encode_image(small.image, exif=small.exif)))
    assert 0x0112 not in again.getexif(), "orientation is reset: the picture is upright now"


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        ("gif animated", 3),
        ("png animated", 3),
        ("webp animated", 3),
        ("avif animated", 3),
        ("tiff of pages", 3),
        ("mpo", 1),
        ("gif", 1),
        ("jpeg", 1),
    ],
)
def test_says_how_many_frames_there_are(kind: str, frames: int) -> None:
    assert decode_photo(GOLDEN[kind]()[0]).frames == frames


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "tiff"])
def test_what_comes_out_is_tagged_as_srgb(format: str) -> None:
    """Read with the profile written here, not with the one under test, it has the colors that went in."""
    photo = decode_photo(tagged("PNG", "p3")[0])
    data = encode_image(photo.image, format=format, quality=97)  # type: ignore[arg-type]
    written = Image.open(io.BytesIO(data))
    profile = written.info["icc_profile"]
    assert profile[16:20] == b"RGB "
    assert color_error(np.asarray(written.convert("RGB")), tagged("PNG", "p3")[1]) < 2
    other_reader = Image.open(io.BytesIO(rgb("PNG", icc_profile=bytes(profile[:-1]) + b"\1")[0]))
    assert color_error(np.asarray(open_photo(encoded(other_reader, "PNG"))), chart()) < 0.5, "it says sRGB"


@pytest.mark.parametrize("format", ["png", "webp", "avif", "tiff"])
def test_alpha_is_kept_if_asked_for(format: str) -> None:
    """A disk cut out of black garbage, shrunk: its edge keeps its own color and no halo."""
    y, x = np.mgrid[:128, :128] - 63.5
    inside = np.hypot(x, y) < 50
    levels = np.zeros((128, 128, 4), np.uint8)
    levels[inside] = (200, 40, 90, 255)
    data = encoded(Image.fromarray(levels), "PNG")
    photo = decode_photo(data, max_side_px=32, alpha="keep", background=(0, 1, 0))
    assert photo.alpha is not None
    assert photo.alpha.shape == (32, 32)
    assert float(photo.alpha.mean()) == pytest.approx(inside.mean(), abs=0.01)
    assert photo.image[:, 0, 0].tolist() == [0, 1, 0]
    colored = photo.image[:, photo.alpha > 0.5] * 255
    assert float((colored.T - colored.new_tensor([200, 40, 90])).abs().max()) < 18, "Lanczos rings a little"
    again = decode_photo(
        encode_image(photo.image, format=format, quality=95, alpha=photo.alpha),  # type: ignore[arg-type]
        alpha="keep",
    )
    assert again.alpha is not None
    assert float((again.alpha - photo.alpha).abs().max()) < 0.02
    assert decode_photo(data).alpha is None
    assert decode_photo(encoded(Image.fromarray(chart()), "PNG"), alpha="keep").alpha is None


def test_extreme_shapes() -> None:
    dot = encoded(Image.new("RGB", (1, 1), (10, 200, 30)), "PNG")
    assert np.asarray(open_photo(dot, max_side_px=512)).tolist() == [[[10, 200, 30]]]
    for format in ("PNG", "JPEG"):
        strip = encoded(Image.new("RGB", (30_000, 8), (10, 200, 30)), format)
        assert open_photo(strip).size == (30_000, 8)
        assert open_photo(strip, max_side_px=512).size == (512, 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_make_a_damaged_photograph() -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        data = rgb("JPEG", **FINE)[0]
        segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
        photo = read_photo(data[:2] + segment + data[2:], keep_exif="all")
        assert color_error(np.asarray(photo.image), chart()) < 2
        assert photo.exif == b""
    for format in ("PNG", "WEBP"):
        photo = read_photo(rgb(format, exif=b"Exif\0\0garbage", **EXACT)[0], keep_exif="all")
        assert color_error(np.asarray(photo.image), chart()) < 2
        assert photo.exif == b""


def test_thirty_two_bits_are_refused_with_their_reason() -> None:
    for mode, level in (("F", 255), ("I", 0)):
        with pytest.raises(DecodeError, match=r"gray, 1 x 32 bits"):
            open_photo(encoded(Image.new(mode, (9, 9), level), "TIFF"))


def test_heic_without_its_plugin_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nst.images.decode._readable_here", lambda: ("JPEG", "PNG", "AVIF"))
    data = b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf" + bytes(100)
    with pytest.raises(DecodeError, match="pip install pillow-heif"):
        open_photo(data)
