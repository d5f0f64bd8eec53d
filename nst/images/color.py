"""Pictures of any mode and profile to 8-bit sRGB. Loads no torch."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from nst.errors import DecodeError

__all__ = ["srgb_profile", "to_rgb"]


@cache
def srgb_profile() -> bytes:
    """The ICC profile of what `read_photo` gives; always the same bytes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes.fromhex("07d0 0001 0001 0000 0000 0000")  # when it was made: 1 January 2000
    return bytes(profile)


def to_rgb(image: Image.Image) -> tuple[Image.Image, Image.Image | None, bool]:
    """Any mode to 8-bit sRGB, alpha if there is any, and whether a profile was skipped."""
    profile = image.info.get("icc_profile")
    alpha: Image.Image | None = None
    if image.mode.startswith("I;16"):  # 16-bit gray; Pillow's convert() would clip it
        values, transparent = np.asarray(image), image.info.get("transparency")
        if transparent is not None:
            alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        image = Image.fromarray((values.astype(np.float64) / 257.0).round().clip(0, 255).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DecodeError("pictures of 32 bits per channel have no agreed white; convert to 8 or 16 bits first")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
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
            target, here = ImageCms.createProfile("sRGB"), image.mode == "RGB"  # copies are not for nothing
            found = ImageCms.profileToProfile(image, source, target, outputMode="RGB", inPlace=here)
            return found or image, False
        except (ImageCms.PyCMSError, OSError, ValueError):
            skipped = True  # it cannot be read, or is for another mode: every viewer ignores it
    return image if image.mode == "RGB" else image.convert("RGB"), skipped
