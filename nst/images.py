"""Bytes to tensors and back. The one place that knows file formats.

Everywhere else an image is float32 (3, H, W), RGB (sRGB) in [0, 1].
"""

from __future__ import annotations

import io
from typing import Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from nst.errors import DecodeError, ImageTooLarge, OptionError

__all__ = ["ImageFormat", "decode_image", "encode_image", "resize_image", "scaled_size"]

ImageFormat = Literal["jpeg", "png", "webp"]

# Only formats that photographs come in. A closed list: some of Pillow's other readers start foreign programs.
_READABLE = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")


def decode_image(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = 200_000_000,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Decode a photograph as people have them: upright, in sRGB, without alpha.

    EXIF orientation is applied; an embedded ICC profile is converted to sRGB; transparency is composited
    over `background` (RGB in [0, 1]); gray, palette, CMYK and 16-bit images become RGB; of an animation the
    first frame is taken. The image is shrunk (Lanczos), never enlarged, to at most `max_side_px` on its long
    side.

    Returns:
        float32 (3, H, W) in [0, 1].

    Raises:
        ImageTooLarge: the header promises more than `max_pixels`; nothing was decoded.
        DecodeError: not an image, an unknown format, or a damaged file.
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
            height, width = scaled_size(height=image.height, width=image.width, max_side_px=max_side_px)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.array(image, dtype=np.uint8)
    except ImageTooLarge:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(str(error)) from error
    except UnidentifiedImageError as error:
        raise DecodeError(f"not a picture in a known format ({_what_it_looks_like(data)})") from error
    # Pillow's readers raise whatever a damaged byte leads them to; each of these means: this file is damaged.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        KeyError,
        IndexError,
        TypeError,
        OverflowError,
    ) as error:
        raise DecodeError(f"damaged picture: {error}") from error
    except (MemoryError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise DecodeError(f"damaged picture: {type(error).__name__}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255.0).contiguous()


def encode_image(image: Tensor, *, format: ImageFormat = "jpeg", quality: int = 95) -> bytes:
    """Encode (3, H, W) in [0, 1], rounded to 8 bits, without chroma subsampling. Equal input, equal bytes.

    Args:
        quality: 1 to 100; ignored for PNG.

    Raises:
        OptionError: unknown format.
        ValueError: not a finite (3, H, W) tensor.
    """
    if format not in get_args(ImageFormat):
        raise OptionError("format", format, choices=get_args(ImageFormat))
    if image.ndim != 3 or image.shape[0] != 3 or not bool(torch.isfinite(image).all()):
        raise ValueError(f"expected a finite (3, H, W) tensor, got {tuple(image.shape)}")
    levels = image.detach().to("cpu", torch.float32).clamp(0, 1).mul(255).round().to(torch.uint8)
    picture = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy(), mode="RGB")
    out = io.BytesIO()
    if format == "jpeg":
        picture.save(out, "JPEG", quality=quality, subsampling=0)
    elif format == "png":
        picture.save(out, "PNG", compress_level=6)
    else:
        picture.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def scaled_size(height: int, width: int, max_side_px: int) -> tuple[int, int]:
    """(height, width) shrunk so that the long side is at most `max_side_px`; never less than one pixel."""
    long = max(height, width)
    if long <= max_side_px:
        return height, width
    return max(1, round(height * max_side_px / long)), max(1, round(width * max_side_px / long))


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample (3, H, W) or (N, 3, H, W) to `size` (height, width): bilinear, antialiased when shrinking."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image if image.ndim == 4 else image[None]
    resized = F.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized if image.ndim == 4 else resized[0]


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
    try:
        data[:64].decode("ascii")
    except UnicodeDecodeError:
        return f"first bytes {data[:8].hex(' ')}"
    return "it looks like text"
