"""JPEG 2000, JPEG XL and cameras' RAW files: right, or refused with the name of the extra that reads them."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pillow_jxl  # noqa: F401  such files are written here
import pytest
import tifffile
from PIL import Image
from PIL.ExifTags import Base

from nst.errors import DecodeError, ImageTooLarge
from nst.images import decode
from nst.images.decode import open_photo, read_photo
from nst.images.headers import picture_size
from nst.images.raw import RawFile, developed
from tests import charts
from tests.charts import COLORS, chart, color_error
from tests.conftest import encoded


def size_of(data: bytes) -> tuple[int, int] | None:
    return picture_size(lambda start, length: data[start : start + length])


# JPEG 2000


@pytest.mark.parametrize("codestream", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_jpeg_2000(mode: str, codestream: bool) -> None:
    image = Image.fromarray(chart()).convert(mode)
    data = encoded(image, "JPEG2000", no_jp2=codestream)
    assert size_of(data) == (96, 64)
    expected = np.asarray(image.convert("RGB"))
    assert np.abs(np.asarray(open_photo(data)).astype(int) - expected).max() <= 1
    with pytest.raises(ImageTooLarge):
        open_photo(data, max_pixels=6000)


def test_a_jpeg_2000_that_is_cut_is_refused() -> None:
    data = encoded(Image.fromarray(chart()), "JPEG2000")
    for length in (len(data) // 2, len(data) - 20):
        with pytest.raises(DecodeError):
            open_photo(data[:length])


def with_colors(data: bytes, body: bytes) -> bytes:
    """A JP2 whose color specification is another one."""
    header, box = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    length = int.from_bytes(data[box : box + 4], "big")
    new = (8 + len(body)).to_bytes(4, "big") + b"colr" + body
    whole = int.from_bytes(data[header : header + 4], "big") + len(new) - length
    return data[:header] + whole.to_bytes(4, "big") + data[header + 4 : box] + new + data[box + length :]


def test_colors_of_a_jpeg_2000() -> None:
    data = encoded(Image.fromarray(chart()), "JPEG2000")
    profile = charts.rgb_profile(charts.ADOBE_XY, charts.adobe_to_light)
    expected = chart(charts.in_srgb(COLORS, charts.ADOBE_XY, charts.adobe_to_light))
    assert color_error(np.asarray(open_photo(with_colors(data, b"\2\0\0" + profile))), expected) < 2
    broken = read_photo(with_colors(data, b"\2\0\0" + b"no profile" * 30))
    assert broken.marks == ("profile_skipped",)
    with pytest.raises(DecodeError, match="color space 21"):
        open_photo(with_colors(data, b"\1\0\0\0\0\0\x15"))


# JPEG XL


@pytest.mark.parametrize(
    ("width", "height", "bits"),
    [
        (64, 64, [(1, 1), (7, 5), (1, 3)]),
        (256, 64, [(1, 1), (7, 5), (0, 3), (31, 5)]),
        (96, 64, [(1, 1), (7, 5), (4, 3)]),
        (6000, 4000, [(0, 1), (1, 2), (3999, 13), (4, 3)]),
        (300, 7, [(0, 1), (0, 2), (6, 9), (0, 3), (0, 2), (299, 9)]),
        (1 << 20, 1 << 20, [(0, 1), (3, 2), ((1 << 20) - 1, 30), (1, 3)]),
    ],
)
def test_the_size_of_a_jpeg_xl(width: int, height: int, bits: list[tuple[int, int]]) -> None:
    """SizeHeader of ISO 18181-1: values and their numbers of bits."""
    number = place = 0
    for value, count in bits:
        number |= value << place
        place += count
    stream = b"\xff\x0a" + number.to_bytes(12, "little") + bytes(20)
    assert size_of(stream) == (width, height)
    boxes = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
    assert size_of(boxes + (8 + len(stream)).to_bytes(4, "big") + b"jxlc" + stream) == (width, height)
    assert size_of(boxes + (12 + len(stream)).to_bytes(4, "big") + b"jxlp\0\0\0\0" + stream) == (width, height)
    with pytest.raises(ImageTooLarge):
        open_photo(stream, max_pixels=100)


@pytest.fixture
def without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither extra is installed."""
    for name in ("rawpy", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(decode, "_readable_here", lambda: ("JPEG", "PNG"))


@pytest.mark.usefixtures("without_plugins")
@pytest.mark.parametrize("head", [b"\xff\x0a\x41" + bytes(60), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60)])
def test_a_jpeg_xl_names_its_extra(head: bytes) -> None:
    with pytest.raises(DecodeError, match=r"JPEG XL needs a plugin: pip install 'nst\[jxl\]'"):
        open_photo(head)


@pytest.mark.parametrize("container", [False, True])
def test_jpeg_xl(container: bool) -> None:
    for mode in ("RGB", "L", "RGBA"):
        image = Image.fromarray(chart()).convert(mode)
        data = encoded(image, "JXL", lossless=True, use_container=container)
        assert size_of(data) == (96, 64)
        assert np.array_equal(np.asarray(open_photo(data)), np.asarray(image.convert("RGB")))
        with pytest.raises(DecodeError):
            open_photo(data[: len(data) // 2])
    exif = Image.Exif()
    exif[274] = 6
    turned = encoded(Image.fromarray(chart()), "JXL", lossless=True, exif=exif.tobytes())
    assert np.array_equal(np.asarray(open_photo(turned)), chart()), (
        "as the standard says: EXIF does not turn it"
    )


def test_a_jpeg_within_a_jpeg_xl(tmp_path: Path) -> None:
    """Which can be had back as it was, with its profile and orientation."""
    exif = Image.Exif()
    exif[274] = 6
    profile = charts.rgb_profile(charts.ADOBE_XY, charts.adobe_to_light)
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(chart()), quality=97, exif=exif.tobytes(), icc_profile=profile))
    with Image.open(path) as image:
        data = encoded(image, "JXL", lossless_jpeg=True)
    assert np.array_equal(np.asarray(open_photo(data)), np.asarray(open_photo(path.read_bytes())))


# RAW


def dng(width: int = 96, height: int = 64, orientation: int = 1) -> bytes:
    """A camera's mosaic in DNG: red in the left half, blue in the right, brighter below."""
    light = np.zeros((height, width, 3))
    light[:, : width // 2, 0] = light[:, width // 2 :, 2] = 1
    light *= np.linspace(0.2, 0.9, height)[:, None, None]
    mosaic = np.empty((height, width), np.uint16)
    for y, x, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[y::2, x::2] = (light[y::2, x::2, channel] * 60000).astype(np.uint16)
    one = [10000, 10000]
    to_camera = np.linalg.inv(charts.to_xyz(charts.SRGB_XY))
    matrix = [each for value in to_camera.ravel() for each in (round(value * 10000), 10000)]
    tags: list[tuple[Any, ...]] = [
        (271, "s", 0, "ACME", True),
        (272, "s", 0, "One", True),
        (274, "H", 1, orientation, True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes((0, 1, 1, 2)), True),
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),
        (50708, "s", 0, "ACME One", True),
        (50717, "I", 1, 65535, True),
        (50721, "2i", 9, matrix, True),
        (50728, "2I", 3, one * 3, True),
        (50778, "H", 1, 21, True),
    ]
    out = io.BytesIO()
    tifffile.imwrite(out, mosaic, photometric=32803, extratags=tags, metadata=None, software=False)
    return out.getvalue()


@pytest.mark.usefixtures("without_plugins")
@pytest.mark.parametrize("kind", ["DNG", "RAF", "CR3", "RW2"])
def test_a_raw_file_names_its_extra(kind: str) -> None:
    data = {
        "DNG": dng(),
        "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(200),
        "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(200),
        "RW2": b"IIU\0\x18\0\0\0" + bytes(200),
    }[kind]
    with pytest.raises(DecodeError, match=r"a RAW file of a camera.*pip install 'nst\[raw\]'") as caught:
        open_photo(data)
    assert type(caught.value) is DecodeError
    assert ("(ACME)" in str(caught.value)) == (kind == "DNG")


@pytest.mark.parametrize("side", [None, 20])
def test_a_raw_file_is_developed(side: int | None) -> None:
    photo = read_photo(dng(), max_side_px=side, keep_exif="basic")
    levels = np.asarray(photo.image).astype(int)
    height, width, _ = levels.shape
    assert (width, height) == ((96, 64) if side is None else (20, 13))
    left, right = levels[:, : width // 3], levels[:, -(width // 3) :]
    assert left[..., 0].mean() > 100 + left[..., 1:].mean()
    assert right[..., 2].mean() > 100 + right[..., :2].mean()
    assert levels[-4:].mean() > levels[:4].mean() + 20
    kept = Image.Exif()
    kept.load(photo.exif)
    assert kept[Base.Make] == "ACME"
    with pytest.raises(ImageTooLarge):
        open_photo(dng(), max_pixels=6000)


def test_a_raw_file_is_upright_once() -> None:
    photo = read_photo(dng(orientation=6), keep_exif="all")
    levels = np.asarray(photo.image).astype(int)
    assert photo.image.size == (64, 96)
    assert levels[:30, :, 0].mean() > 100 + levels[:30, :, 2].mean(), "what was left is above"
    kept = Image.Exif()
    kept.load(photo.exif)
    assert 274 not in kept


def test_a_raw_file_that_is_cut_is_refused() -> None:
    with pytest.raises(DecodeError):
        open_photo(dng()[:5000])


def test_a_raw_file_of_too_many_pixels_is_not_developed() -> None:
    """Those whose header does not say how many: the reader of RAW files does."""
    with pytest.raises(ImageTooLarge, match="96 x 64"):
        developed(dng(), RawFile("ACME"), max_side_px=None, max_pixels=6000)
