"""Picture files to upright 8-bit sRGB. The one place that knows file formats. Loads no torch."""

from __future__ import annotations

import io
from typing import cast

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from nst.errors import DecodeError, ImageTooLarge

__all__ = ["open_photo", "scaled_size"]

# Only formats that photographs come in. A closed list: some of Pillow's other readers start foreign programs.
_READABLE = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")


def open_photo(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = 200_000_000,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Image.Image:
    """Decode a photograph as people have them: upright, in sRGB, without alpha; mode RGB.

    EXIF orientation is applied; an embedded ICC profile is converted to sRGB; transparency is composited
    over `background` (RGB in [0, 1]); gray, palette, CMYK and 16-bit pictures become RGB; of an animation the
    first frame is taken. The picture is shrunk (Lanczos), never enlarged, to at most `max_side_px` on its long
    side.

    Raises:
        ImageTooLarge: the header promises more than `max_pixels`; nothing was decoded.
        DecodeError: not a picture, an unknown format, or a damaged file.
    """
    if not data:
        raise DecodeError("the file is empty (0 bytes)")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_readable_here())
        width, height = image.size
        if width * height > max_pixels:
            raise ImageTooLarge(f"{width} x {height} pixels: more than the limit of {max_pixels}")
        if max_side_px is not None:
            small = scaled_size(height, width, max_side_px)
            # JPEG can skip most of the work of decoding; twice the target leaves the Lanczos filter its room.
            image.draft(None, (2 * small[1], 2 * small[0]))
        image.load()
        image = _to_rgb(ImageOps.exif_transpose(image), background)
        if max_side_px is not None:
            height, width = scaled_size(image.height, image.width, max_side_px)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
    except ImageTooLarge:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(str(error)) from error
    except UnidentifiedImageError as error:
        raise DecodeError(f"not a picture in a known format ({_what_it_looks_like(data)})") from error
    except Exception as error:
        # Pillow's readers raise whatever a damaged byte leads them to; each of these means: a damaged file.
        raise DecodeError(f"damaged picture: {type(error).__name__}: {error}") from error
    return image


def scaled_size(height: int, width: int, max_side_px: int) -> tuple[int, int]:
    """(height, width) shrunk so that the long side is at most `max_side_px`; never less than one pixel."""
    long = max(height, width)
    if long <= max_side_px:
        return height, width
    return max(1, round(height * max_side_px / long)), max(1, round(width * max_side_px / long))


def _readable_here() -> list[str]:
    Image.init()
    return [name for name in _READABLE if name in Image.OPEN]


def _to_rgb(image: Image.Image, background: tuple[float, float, float]) -> Image.Image:
    """Any mode to 8-bit sRGB."""
    profile = image.info.get("icc_profile")
    if image.mode in (
        "I;16",
        "I;16B",
        "I;16L",
        "I;16N",
        "I",
    ):  # 16-bit gray; Pillow's convert() would clip it
        image = Image.fromarray(
            (np.asarray(image).astype(np.float64) / 257.0).round().clip(0, 255).astype(np.uint8)
        )
    elif image.mode == "F":
        raise DecodeError("floating-point pictures have no agreed white; convert to 8 or 16 bits first")
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
    image = _to_srgb(image, profile)
    if alpha is not None:
        levels = tuple(round(255 * value) for value in background)
        image = Image.composite(image, Image.new("RGB", image.size, levels), alpha)
    return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            return cast(Image.Image, converted)
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a profile that cannot be read, or is for another mode, is ignored, as every viewer does
    return image.convert("RGB")


def _what_it_looks_like(data: bytes) -> str:
    head = data[:64].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it looks like a web page or XML"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:64]):
        return "it looks like text"
    return f"first bytes {data[:8].hex(' ')}"
