"""Pictures as tensors: float32 (3, H, W), RGB (sRGB) in [0, 1]."""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nst.errors import OptionError
from nst.photos import open_photo

__all__ = ["ImageFormat", "decode_image", "encode_image", "resize_image"]

ImageFormat = Literal["jpeg", "png", "webp", "avif"]


def decode_image(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = 200_000_000,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Decode a photograph, upright and in sRGB: float32 (3, H, W) in [0, 1].

    Arguments and errors are those of `nst.photos.open_photo`.
    """
    photo = open_photo(data, max_side_px=max_side_px, max_pixels=max_pixels, background=background)
    pixels = torch.from_numpy(np.array(photo, dtype=np.uint8))
    return pixels.permute(2, 0, 1).to(torch.float32).div_(255.0).contiguous()


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
    elif format == "webp":
        picture.save(out, "WEBP", quality=quality, method=4)
    else:
        picture.save(out, "AVIF", quality=quality, subsampling="4:4:4", max_threads=1)
    return out.getvalue()


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample (3, H, W) or (N, 3, H, W) to `size` (height, width): bilinear, antialiased when shrinking."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image if image.ndim == 4 else image[None]
    resized = F.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized if image.ndim == 4 else resized[0]
