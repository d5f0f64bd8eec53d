"""Which EXIF a picture keeps."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from nst.errors import OptionError
from nst.images.codec import decode_photo, encode_image
from nst.images.exif import KeepExif
from tests.conftest import encoded, picture

MAIN: dict[int, Any] = {
    Base.Artist: "Ansel A.",
    Base.Copyright: "(c) A. A.",
    Base.ImageDescription: "Half Dome",
    Base.Make: "Hasselblad",
    Base.DateTime: "2024:05:06 07:08:09",
    Base.Orientation: 6,
    Base.XResolution: IFDRational(300, 1),
    Base.HostComputer: "my laptop",
}
CAMERA: dict[int, Any] = {
    Base.DateTimeOriginal: "2024:05:06 07:08:09",
    Base.FNumber: IFDRational(64, 1),
    Base.ExposureTime: IFDRational(1, 125),
    Base.ISOSpeedRatings: 50,
    Base.LensModel: "Planar 80",
    Base.BodySerialNumber: "SN-12345",
    Base.ExifImageWidth: 9999,
    Base.MakerNote: b"maker's secrets",
    Base.ColorSpace: 65535,
}
# What every TIFF says of itself in the same directory: size, bits, compression, strips, predictor, ICC profile.
TIFF_LAYOUT = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 34675}
PLACE: dict[int, Any] = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (IFDRational(37), IFDRational(44), IFDRational(46)),
}


def photograph(format: str = "JPEG", **more: Any) -> bytes:
    exif = Image.Exif()
    exif.update({**MAIN, **more.pop("main", {})})
    exif[IFD.Exif] = CAMERA
    exif[IFD.GPSInfo] = PLACE
    return encoded(picture(1), format, exif=exif.tobytes(), **more)


def kept(
    data: bytes, keep: KeepExif, format: str = "jpeg"
) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    """(main, camera, place) of the picture that comes out."""
    photo = decode_photo(data, keep_exif=keep)
    format, _, bits = format.partition(" ")
    out = encode_image(photo.image, format=format, bit_depth=int(bits or 8), exif=photo.exif)  # type: ignore[arg-type]
    exif = Image.open(io.BytesIO(out)).getexif()
    assert exif.get_ifd(IFD.IFD1) == {}, "no thumbnail of the photograph"
    own = TIFF_LAYOUT if format == "tiff" else set()
    main = {tag: value for tag, value in exif.items() if tag not in (IFD.Exif, IFD.GPSInfo, *own)}
    return main, dict(exif.get_ifd(IFD.Exif)), dict(exif.get_ifd(IFD.GPSInfo))


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("format", ["jpeg", "png", "png 16", "webp", "avif", "tiff", "tiff 16"])
def test_basic_keeps_author_camera_and_date(source: str, format: str) -> None:
    main, camera, place = kept(photograph(source), "basic", format)
    wanted = (Base.Artist, Base.Copyright, Base.ImageDescription, Base.Make, Base.DateTime)
    assert main == {tag: MAIN[tag] for tag in wanted}
    wanted = (Base.DateTimeOriginal, Base.FNumber, Base.ExposureTime, Base.ISOSpeedRatings, Base.LensModel)
    assert camera == {tag: CAMERA[tag] for tag in wanted}
    assert place == {}


@pytest.mark.parametrize("format", ["jpeg", "tiff"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_all_keeps_the_place_and_nothing_stale(source: str, format: str) -> None:
    main, camera, place = kept(photograph(source), "all", format)
    assert main == {
        tag: value for tag, value in MAIN.items() if tag not in (Base.Orientation, Base.XResolution)
    }
    gone = (Base.ExifImageWidth, Base.MakerNote, Base.ColorSpace)
    assert camera == {tag: value for tag, value in CAMERA.items() if tag not in gone}
    assert {tag: place[tag] for tag in PLACE} == PLACE


def test_none_keeps_nothing() -> None:
    data = photograph()
    assert decode_photo(data).exif == b""
    assert kept(data, "none") == ({}, {}, {})
    assert decode_photo(encoded(picture(1)), keep_exif="all").exif == b""
    with pytest.raises(OptionError, match="none, basic, all"):
        decode_photo(data, keep_exif="everything")  # type: ignore[arg-type]


def test_too_much_for_a_jpeg_becomes_basic() -> None:
    main, _, place = kept(photograph("PNG", main={Base.HostComputer: "x" * 70_000}), "all")
    assert main[Base.Artist] == "Ansel A."
    assert Base.HostComputer not in main
    assert place == {}
    assert kept(photograph("PNG", main={Base.ImageDescription: "x" * 70_000}), "all") == ({}, {}, {})


def test_a_value_that_cannot_be_written_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Image.Exif()
    odd.update({Base.Artist: "Ansel A.", Base.Make: object(), Base.Model: {1: 2}})
    monkeypatch.setattr("PIL.Image.Image.getexif", lambda _self: odd)
    data = decode_photo(encoded(picture(1)), keep_exif="basic").exif
    again = Image.Exif()
    again.load(data)
    assert again[Base.Artist] == "Ansel A."
    assert Base.Make not in again


def test_the_same_photograph_gives_the_same_bytes() -> None:
    data = photograph()
    assert decode_photo(data, keep_exif="all").exif == decode_photo(data, keep_exif="all").exif
