"""Which of a photograph's EXIF its picture keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from PIL import ExifTags, Image
from PIL.ExifTags import Base

__all__ = ["KeepExif", "kept_exif", "says_adobe_rgb"]

KeepExif: TypeAlias = Literal["none", "basic", "all"]

_MOST_BYTES = 65_000  # what a JPEG can hold

# fmt: off
_BASIC = frozenset((
    Base.ImageDescription, Base.Artist, Base.Copyright,
    Base.Make, Base.Model, Base.LensMake, Base.LensModel,
    Base.DateTime, Base.DateTimeOriginal, Base.DateTimeDigitized,
    Base.OffsetTime, Base.OffsetTimeOriginal, Base.OffsetTimeDigitized,
    Base.SubsecTime, Base.SubsecTimeOriginal, Base.SubsecTimeDigitized,
    Base.ExposureTime, Base.FNumber, Base.ISOSpeedRatings, Base.FocalLength, Base.FocalLengthIn35mmFilm,
))
# What is true of the photograph's file and not of the picture: its layout, orientation, thumbnails, colors.
# A maker's notes are lost because they point to places in the file.
_STALE = frozenset((
    Base.ImageWidth, Base.ImageLength, Base.BitsPerSample, Base.Compression, Base.PhotometricInterpretation,
    Base.FillOrder, Base.StripOffsets, Base.Orientation, Base.SamplesPerPixel, Base.RowsPerStrip,
    Base.StripByteCounts, Base.PlanarConfiguration, Base.TransferFunction, Base.Predictor, Base.WhitePoint,
    Base.PrimaryChromaticities, Base.ColorMap, Base.TileWidth, Base.TileLength, Base.TileOffsets,
    Base.TileByteCounts, Base.SubIFDs, Base.ExtraSamples, Base.SampleFormat, Base.JPEGTables,
    Base.JpegIFOffset, Base.JpegIFByteCount, Base.YCbCrCoefficients, Base.YCbCrSubSampling,
    Base.YCbCrPositioning, Base.ReferenceBlackWhite, Base.XMLPacket, Base.IPTCNAA, Base.ImageResources,
    Base.InterColorProfile, Base.ExifOffset, Base.GPSInfo, Base.ExifInteroperabilityOffset, Base.MakerNote,
    Base.MakerNoteSafety, Base.ColorSpace, Base.Gamma, Base.ExifImageWidth, Base.ExifImageHeight,
    Base.ComponentsConfiguration, Base.CompressedBitsPerPixel, Base.FocalPlaneXResolution,
    Base.FocalPlaneYResolution, Base.FocalPlaneResolutionUnit, Base.XResolution, Base.YResolution,
    Base.ResolutionUnit,
))
# fmt: on


def kept_exif(image: Image.Image, keep: KeepExif) -> bytes:
    """The EXIF that a picture made of `image` keeps, ready to be saved; empty if that is nothing.

    `basic`: description, author, copyright, camera and lens, dates, exposure. `all`: the place and the rest
    too, but for what is not true of the picture; if that is more than a JPEG can hold, `basic`.
    """
    if keep == "none":
        return b""
    try:
        source = image.getexif()
        camera = source.get_ifd(ExifTags.IFD.Exif)
        place = source.get_ifd(ExifTags.IFD.GPSInfo) if keep == "all" else {}
    except Exception:  # noqa: BLE001  damaged EXIF does not make a damaged photograph
        return b""
    kept = Image.Exif()
    kept.update(_wanted(source, keep))
    for ifd, tags in ((ExifTags.IFD.Exif, _wanted(camera, keep)), (ExifTags.IFD.GPSInfo, _writable(place))):
        if tags:
            kept[ifd] = tags
    if not kept:
        return b""
    try:
        data = kept.tobytes()
    except Exception:  # noqa: BLE001  values that can be written alone, but not where they are
        data = None
    if data is None or len(data) > _MOST_BYTES:
        return kept_exif(image, "basic" if keep == "all" else "none")
    return data


def says_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF says that the colors are those of Adobe RGB: cameras that are set to it write no profile but
    what DCF calls its optional file, R03 (CIPA DC-009). Some programs give the color space 2."""
    try:
        source = image.getexif()
        space = source.get_ifd(ExifTags.IFD.Exif).get(Base.ColorSpace)
        if space != 65535:  # "uncalibrated"
            return bool(space == 2)
        return source.get_ifd(ExifTags.IFD.Interop)[1][:3] in ("R03", b"R03")
    except Exception:  # noqa: BLE001  it does not say, or is damaged
        return False


def _wanted(tags: Mapping[int, Any], keep: KeepExif) -> dict[int, Any]:
    return _writable(
        {tag: value for tag, value in tags.items() if (tag in _BASIC if keep == "basic" else tag not in _STALE)}
    )


def _writable(tags: Mapping[int, Any]) -> dict[int, Any]:
    """Those whose values, which cameras and editors get wrong in many ways, can be written again."""
    good = {}
    for tag, value in tags.items():
        alone = Image.Exif()
        alone[tag] = value
        try:
            alone.tobytes()
        except Exception:  # noqa: BLE001  whatever a wrong value leads the writer to
            continue
        good[tag] = value
    return good
