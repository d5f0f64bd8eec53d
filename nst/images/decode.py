"""Picture files to upright 8-bit sRGB. The one place that knows file formats. Loads no torch."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from nst import check
from nst.errors import DecodeError, ImageTooLarge
from nst.images.cicp import adobe_rgb_profile, cicp_of, cicp_profile
from nst.images.color import to_rgb
from nst.images.cut_png import completed_png
from nst.images.exif import KeepExif, kept_exif, says_adobe_rgb
from nst.images.headers import ReadAt, picture_size
from nst.images.jp2 import jp2_profile
from nst.images.jpeg import ENDINGS, closed, end_of, has_gain_map
from nst.images.kinds import HEAD_BYTES, kind_of_head
from nst.images.raw import RawFile, developed
from nst.images.tiff import is_tiff, main_page, page_picture

__all__ = [
    "MAX_PIXELS",
    "AlphaMode",
    "Photograph",
    "Truncated",
    "open_photo",
    "optional_formats",
    "read_photo",
    "refuse_bomb",
    "scaled_size",
]

AlphaMode: TypeAlias = Literal["composite", "keep"]
Truncated: TypeAlias = Literal["fail", "keep"]
MAX_PIXELS = 200_000_000
"""Pixels of a file at most, unless another limit is given."""

# Only formats that photographs come in. A closed list: some of Pillow's other readers start foreign programs.
_READABLE = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "AVIF", "HEIF", "JPEG2000", "JXL")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph and what its picture may keep of it."""

    image: Image.Image
    """Upright, in sRGB; mode RGB."""
    alpha: Image.Image | None = None
    """Mode L, of the same size, if it was to be kept and there is one. `image` is not composited then."""
    exif: bytes = b""
    """What is kept of it, ready to be saved; without orientation."""
    frames: int = 1
    """Frames of an animation, or pages of a TIFF; `image` is the first."""
    marks: tuple[str, ...] = ()
    """What is odd about its file though the picture is right: `no_end_marker`, of a JPEG that has all pixels;
    `gain_map`, of one whose base picture is taken; `profile_skipped`, of colors taken for sRGB because their
    profile is broken or for another kind of picture; `shrunk`, of one that was larger than `max_side_px`;
    `truncated`, of one that lacks pixels at its end."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, across and down, if the file says so."""


def open_photo(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Image.Image:
    """`read_photo` for the picture alone: upright, in sRGB, composited; mode RGB."""
    return read_photo(data, max_side_px=max_side_px, max_pixels=max_pixels, background=background).image


def read_photo(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    alpha: AlphaMode = "composite",
    keep_exif: KeepExif = "none",
    truncated: Truncated = "fail",
) -> Photograph:
    """Decode a photograph as people have them: upright, in sRGB, shrunk.

    EXIF orientation is applied; an embedded ICC profile is converted to sRGB; gray, palette, CMYK, LAB and
    16-bit pictures become RGB; of an animation the first frame is taken. The picture is shrunk (Lanczos), never
    enlarged, to at most `max_side_px` on its long side.

    Args:
        background: RGB in [0, 1], sRGB. Transparent pictures are composited over it; if their alpha is kept,
            only what is fully transparent takes its color.
        alpha: `keep` gives the alpha channel beside the picture.
        keep_exif: see `nst.images.exif.kept_exif`.
        truncated: `keep` takes a JPEG or PNG whose file ends too early, with a mark; what is missing is gray,
            black, or coarse.

    Raises:
        ImageTooLarge: the header promises more than `max_pixels`; nothing was decoded.
        DecodeError: not a picture, an unknown format, or a damaged file.
        OptionError: unknown `alpha`, `keep_exif` or `truncated`.
    """
    check.one_of("alpha", alpha, get_args(AlphaMode))
    check.one_of("keep_exif", keep_exif, get_args(KeepExif))
    check.one_of("truncated", truncated, get_args(Truncated))
    if not data:
        raise DecodeError("the file is empty (0 bytes)")
    refuse_bomb(lambda start, length: data[start : start + length], max_pixels)
    try:
        file, frames, marks = _loaded(data, max_side_px, max_pixels, truncated == "keep")
        image, opacity, skipped = to_rgb(_upright(file))
        marks = (*marks, "profile_skipped") if skipped else marks
        if opacity is not None and alpha == "composite":
            image, opacity = _over(image, opacity, background), None
        if max_side_px is not None and max(image.size) > max_side_px:
            marks = (*marks, "shrunk")
            image, opacity = _shrunk(image, opacity, max_side_px)
        if opacity is not None:  # what is fully transparent has no color of its own
            image = _over(image, opacity.point(lambda level: 255 if level else 0), background)
        return Photograph(image, opacity, kept_exif(file, keep_exif), frames, marks, _dpi(file))
    except (DecodeError, ImageTooLarge):
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(str(error)) from error
    except UnidentifiedImageError as error:
        raise DecodeError(f"not a picture in a known format ({_what_it_looks_like(data)})") from error
    except Exception as error:
        # Pillow's readers raise whatever a damaged byte leads them to; each of these means: a damaged file.
        raise DecodeError(f"damaged picture: {type(error).__name__}: {error}") from error


def _loaded(
    data: bytes, max_side_px: int | None, max_pixels: int, keep_cut: bool
) -> tuple[Image.Image, int, tuple[str, ...]]:
    """The picture as it lies in the file, not yet upright; how many frames there are; marks of `Photograph`."""
    try:
        if kind_of_head(data[:HEAD_BYTES]) == "RAW":
            raise RawFile("")
        if is_tiff(data):
            page = main_page(data)
            _check_pixels(page.size, max_pixels)
            return _in_camera_colors(page_picture(data, page)), page.frames, ()
    except RawFile as raw:
        return developed(data, raw, max_side_px=max_side_px, max_pixels=max_pixels), 1, ()
    file = _opened(data, max_side_px, max_pixels)
    if file.format in ("JPEG", "MPO"):
        file, marks = _loaded_jpeg(file, data, max_side_px, max_pixels, keep_cut)
        return _in_camera_colors(file), _frames(file), marks
    try:
        file.load()
        marks = ()
    except OSError:
        whole = completed_png(data) if keep_cut and file.format == "PNG" else None
        if whole is None:
            raise
        file, marks = _opened(whole, max_side_px, max_pixels), ("truncated",)
        file.load()
    _settle(file, data)
    return file, _frames(file), marks


def _loaded_jpeg(
    file: Image.Image, data: bytes, max_side_px: int | None, max_pixels: int, keep_cut: bool
) -> tuple[Image.Image, tuple[str, ...]]:
    end = end_of(data)
    marks: tuple[str, ...] = ("gain_map",) if has_gain_map(data) else ()
    try:
        file.load()
        return file, (*marks, "no_end_marker") if end == "open" else marks
    except OSError:
        if end == "marked" or (end == "early" and not keep_cut):
            raise
        if end == "open":
            ended = (_opened(data.rstrip(b"\xff") + ending, max_side_px, max_pixels) for ending in ENDINGS)
            file = next(ended)
            file.load()
            if all(file.tobytes() == other.tobytes() for other in ended):
                return file, (*marks, "no_end_marker")
            if not keep_cut:
                raise
    file = _opened(closed(data), max_side_px, max_pixels)
    file.load()
    return file, (*marks, "truncated")


def _opened(data: bytes, max_side_px: int | None, max_pixels: int) -> Image.Image:
    file = Image.open(io.BytesIO(data), formats=_readable_here())
    _check_pixels(file.size, max_pixels)
    if max_side_px is not None and file.format in ("JPEG", "MPO"):
        small = scaled_size(file.height, file.width, max_side_px)
        # JPEG can skip most of the work of decoding; twice the target leaves the Lanczos filter its room.
        file.draft(None, (2 * small[1], 2 * small[0]))
    return file


def _in_camera_colors(file: Image.Image) -> Image.Image:
    """The same, with a profile of what only its EXIF says."""
    if file.mode == "RGB" and not file.info.get("icc_profile") and says_adobe_rgb(file):
        file.info["icc_profile"] = adobe_rgb_profile()
    return file


def _settle(file: Image.Image, data: bytes) -> None:
    """Give the picture the profile that its file says elsewhere, and no orientation that does not count."""
    if file.format == "JXL":
        if getattr(file, "jpeg", False):  # within; all others are upright
            _in_camera_colors(file)
            return
        with suppress(Exception):  # damaged EXIF does not make a damaged photograph
            file.getexif().pop(274, None)
        return
    if file.format == "JPEG2000":
        if profile := jp2_profile(data):
            file.info["icc_profile"] = profile
        return
    if file.format == "PNG":
        _settle_transparency(file, data[24])
    numbers = cicp_of(data)
    if numbers is None or (
        file.format != "PNG" and "icc_profile" in file.info
    ):  # of PNG, numbers have precedence
        return
    file.info.pop("icc_profile", None)
    if profile := cicp_profile(*numbers):
        file.info["icc_profile"] = profile


def _settle_transparency(file: Image.Image, bits: int) -> None:
    """Give a PNG's transparent color as many bits as Pillow gives its pixels, which leaves that as it was."""
    color = file.info.get("transparency")
    if file.mode == "L" and bits in (2, 4) and isinstance(color, int):
        file.info["transparency"] = color * 255 // ((1 << bits) - 1)
    elif bits == 16 and isinstance(color, tuple):
        file.info["transparency"] = tuple(each >> 8 for each in color)


def refuse_bomb(read_at: ReadAt, max_pixels: int) -> None:
    """Refuse a file of too many pixels from some hundred bytes of it. One that does not say its size passes.

    Raises:
        ImageTooLarge: the header promises more than `max_pixels`.
    """
    size = picture_size(read_at)
    if size is not None:
        _check_pixels(size, max_pixels)


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLarge(f"{width} x {height} pixels: more than the limit of {max_pixels}")


def scaled_size(height: int, width: int, max_side_px: int) -> tuple[int, int]:
    """(height, width) shrunk so that the long side is at most `max_side_px`; never less than one pixel."""
    long = max(height, width)
    if long <= max_side_px:
        return height, width
    return max(1, round(height * max_side_px / long)), max(1, round(width * max_side_px / long))


@cache
def _readable_here() -> tuple[str, ...]:
    Image.init()
    try:  # its absence, as that of the extra `jxl`, is said when such a picture comes
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    with suppress(ImportError):
        from pillow_jxl import JpegXLImagePlugin  # which registers itself

        JpegXLImagePlugin.DECODE_THREADS = 0  # workers share the cores already
    return tuple(name for name in _READABLE if name in Image.OPEN)


def optional_formats() -> dict[str, bool]:
    """Formats that not every install reads, and whether this one does."""
    names = {"AVIF": "AVIF", "HEIC": "HEIF", "JPEG XL": "JXL"}
    here = {name: plugin in _readable_here() for name, plugin in names.items()}
    return {**here, "RAW": find_spec("rawpy") is not None}


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:  # noqa: BLE001  damaged EXIF does not make a damaged photograph
        return image
    return ImageOps.exif_transpose(image) if turned else image  # which would copy it


def _dpi(file: Image.Image) -> tuple[float, float] | None:
    """Of the upright picture; files say all kinds of things."""
    try:
        across, down = (float(value) for value in file.info["dpi"])
        turned = file.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # noqa: BLE001  none, or no numbers, or damaged EXIF
        return None
    if not (1 < across < 1 << 16 and 1 < down < 1 << 16):  # as JFIF can say it; Pillow: 1 where a TIFF does not
        return None
    return (down, across) if turned else (across, down)


def _frames(image: Image.Image) -> int:
    """An MPO's further pictures are previews and gain maps of the first."""
    if image.format == "MPO":
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001  a later frame is damaged, and not asked for
        return 1


def _over(image: Image.Image, alpha: Image.Image, background: tuple[float, float, float]) -> Image.Image:
    levels = tuple(round(255 * value) for value in background)
    return Image.composite(image, Image.new("RGB", image.size, levels), alpha)


def _shrunk(
    image: Image.Image, alpha: Image.Image | None, max_side_px: int
) -> tuple[Image.Image, Image.Image | None]:
    height, width = scaled_size(image.height, image.width, max_side_px)
    if alpha is None:
        return image.resize((width, height), Image.Resampling.LANCZOS), None
    # As RGBA, so that Pillow weighs the colors by their alpha.
    rgba = Image.merge("RGBA", (*image.split(), alpha)).resize((width, height), Image.Resampling.LANCZOS)
    return rgba.convert("RGB"), rgba.getchannel("A")


def _what_it_looks_like(data: bytes) -> str:
    if kind_of_head(data[:HEAD_BYTES]) == "JPEG XL":
        damaged = "JXL" in _readable_here()
        return "a damaged JPEG XL" if damaged else "JPEG XL needs a plugin: pip install 'nst[jxl]'"
    if data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in _HEIF_BRANDS):
        damaged = "HEIF" in _readable_here()
        return "a damaged HEIC" if damaged else "HEIC needs pillow-heif: pip install pillow-heif"
    head = data[:64].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it looks like a web page or XML"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:64]):
        return "it looks like text"
    return f"first bytes {data[:8].hex(' ')}"
