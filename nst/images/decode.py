"""Picture files to upright 8-bit sRGB. The one place that knows file formats. Loads no torch."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from nst import check
from nst.errors import DecodeError, ImageTooLarge
from nst.images.cicp import cicp_of, cicp_profile
from nst.images.exif import KeepExif, kept_exif
from nst.images.headers import ReadAt, picture_size
from nst.images.jpeg import ENDINGS, end_of, has_gain_map
from nst.images.tiff import is_tiff, main_page, page_picture

__all__ = ["AlphaMode", "Photograph", "open_photo", "read_photo", "refuse_bomb", "scaled_size", "srgb_profile"]

AlphaMode: TypeAlias = Literal["composite", "keep"]

# Only formats that photographs come in. A closed list: some of Pillow's other readers start foreign programs.
_READABLE = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "AVIF", "HEIF")
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
    profile is broken or for another kind of picture; `shrunk`, of one that was larger than `max_side_px`."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, across and down, if the file says so."""


def open_photo(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = 200_000_000,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Image.Image:
    """`read_photo` for the picture alone: upright, in sRGB, composited; mode RGB."""
    return read_photo(data, max_side_px=max_side_px, max_pixels=max_pixels, background=background).image


def read_photo(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = 200_000_000,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    alpha: AlphaMode = "composite",
    keep_exif: KeepExif = "none",
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

    Raises:
        ImageTooLarge: the header promises more than `max_pixels`; nothing was decoded.
        DecodeError: not a picture, an unknown format, or a damaged file.
        OptionError: unknown `alpha` or `keep_exif`.
    """
    check.one_of("alpha", alpha, get_args(AlphaMode))
    check.one_of("keep_exif", keep_exif, get_args(KeepExif))
    if not data:
        raise DecodeError("the file is empty (0 bytes)")
    refuse_bomb(lambda start, length: data[start : start + length], max_pixels)
    try:
        file, frames, marks = _loaded(data, max_side_px, max_pixels)
        image, opacity, skipped = _to_rgb(_upright(file))
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


def _loaded(data: bytes, max_side_px: int | None, max_pixels: int) -> tuple[Image.Image, int, tuple[str, ...]]:
    """The picture as it lies in the file, not yet upright; how many frames there are; marks of `Photograph`."""
    if is_tiff(data):
        page = main_page(data)
        _check_pixels(page.size, max_pixels)
        return page_picture(data, page), page.frames, ()
    file = _opened(data, max_side_px, max_pixels)
    if file.format not in ("JPEG", "MPO"):
        file.load()
        _tell_colors(file, data)
        return file, _frames(file), ()
    end = end_of(data)
    marks: tuple[str, ...] = ("gain_map",) if has_gain_map(data) else ()
    if end == "open":
        marks = (*marks, "no_end_marker")
    try:
        file.load()
    except OSError:
        if end != "open":
            raise
        ended = (_opened(data.rstrip(b"\xff") + ending, max_side_px, max_pixels) for ending in ENDINGS)
        file = next(ended)
        file.load()
        if any(file.tobytes() != other.tobytes() for other in ended):
            raise
    return file, _frames(file), marks


def _opened(data: bytes, max_side_px: int | None, max_pixels: int) -> Image.Image:
    file = Image.open(io.BytesIO(data), formats=_readable_here())
    _check_pixels(file.size, max_pixels)
    if max_side_px is not None and file.format in ("JPEG", "MPO"):
        small = scaled_size(file.height, file.width, max_side_px)
        # JPEG can skip most of the work of decoding; twice the target leaves the Lanczos filter its room.
        file.draft(None, (2 * small[1], 2 * small[0]))
    return file


def _tell_colors(file: Image.Image, data: bytes) -> None:
    """Give the picture the profile that its file says by numbers."""
    numbers = cicp_of(data)
    if numbers is None or (
        file.format != "PNG" and "icc_profile" in file.info
    ):  # of PNG, numbers have precedence
        return
    file.info.pop("icc_profile", None)
    if profile := cicp_profile(*numbers):
        file.info["icc_profile"] = profile


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
def srgb_profile() -> bytes:
    """The ICC profile of what `read_photo` gives; always the same bytes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes.fromhex("07d0 0001 0001 0000 0000 0000")  # when it was made: 1 January 2000
    return bytes(profile)


@cache
def _readable_here() -> tuple[str, ...]:
    Image.init()
    try:
        import pillow_heif
    except ImportError:  # the extra `heic`: its absence is said when a HEIC comes
        pass
    else:
        pillow_heif.register_heif_opener()
    return tuple(name for name in _READABLE if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        image.getexif()
    except Exception:  # noqa: BLE001  damaged EXIF does not make a damaged photograph
        return image
    return ImageOps.exif_transpose(image)


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


def _to_rgb(image: Image.Image) -> tuple[Image.Image, Image.Image | None, bool]:
    """Any mode to 8-bit sRGB, alpha if there is any, and whether a profile was skipped."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):  # 16-bit gray; Pillow's convert() would clip it
        levels = (np.asarray(image).astype(np.float64) / 257.0).round().clip(0, 255).astype(np.uint8)
        image = Image.fromarray(levels)
    elif image.mode in ("I", "F"):
        raise DecodeError("pictures of 32 bits per channel have no agreed white; convert to 8 or 16 bits first")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    alpha: Image.Image | None = None
    if image.mode in ("LA", "RGBA", "La", "RGBa"):
        image = image.convert("RGBA" if image.mode in ("RGBA", "RGBa") else "LA")
        alpha = image.getchannel("A")
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    elif "transparency" in image.info and image.mode in ("L", "RGB", "1"):
        rgba = image.convert("RGBA")
        alpha, image = rgba.getchannel("A"), rgba.convert("RGB")
    image, skipped = _to_srgb(image, profile)
    return image, alpha, skipped


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """In sRGB, and whether its profile was skipped."""
    skipped = False
    if profile and profile != srgb_profile():
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode in ("1", "L", "YCbCr") and source.profile.xcolor_space.strip() == "RGB":
                image = image.convert("RGB")
            target = ImageCms.createProfile("sRGB")
            return cast(Image.Image, ImageCms.profileToProfile(image, source, target, outputMode="RGB")), False
        except (ImageCms.PyCMSError, OSError, ValueError):
            skipped = True  # it cannot be read, or is for another mode: every viewer ignores it
    return image.convert("RGB"), skipped


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
    if data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in _HEIF_BRANDS):
        damaged = "HEIF" in _readable_here()
        return "a damaged HEIC" if damaged else "HEIC needs a plugin: pip install 'nst[heic]'"
    head = data[:64].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it looks like a web page or XML"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:64]):
        return "it looks like text"
    return f"first bytes {data[:8].hex(' ')}"
