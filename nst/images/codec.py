"""Pictures as tensors (3, H, W), RGB (sRGB): float32 in [0, 1], or levels, which are uint8."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nst.check import at_least, at_most
from nst.errors import OptionError
from nst.images.color import srgb_profile
from nst.images.decode import MAX_PIXELS, AlphaMode, Truncated, read_photo
from nst.images.exif import KeepExif
from nst.images.lossless import png_16, tiff
from nst.stylizer import row_bands

__all__ = [
    "AnimationFormat",
    "BitDepth",
    "DecodedPhoto",
    "ImageFormat",
    "as_float",
    "border_width",
    "check_sides",
    "decode_image",
    "decode_photo",
    "encode_animation",
    "encode_image",
    "is_finite",
    "levels_of",
    "mirrored",
    "picture_of",
    "picture_tensor",
    "reduced",
    "resize_image",
    "without_border",
]

ImageFormat = Literal["jpeg", "png", "webp", "avif", "tiff"]
BitDepth = Literal[8, 16]
AnimationFormat = Literal["gif", "webp"]
_LONGEST_PX = {"jpeg": 65_500, "webp": 16_383, "avif": 65_536}  # of a side; others take any
_MOST_AT_ONCE = 32
"""How many times a GPU shrinks a side at once."""


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """A photograph and what its picture may keep of it."""

    levels: Tensor
    """uint8 (3, H, W), sRGB."""
    opacity: Tensor | None = None
    """uint8 (H, W), its alpha channel, if it was to be kept and there is one; for `encode_image`."""
    exif: bytes = b""
    """EXIF data that the picture keeps, for `encode_image`."""
    frames: int = 1
    """Frames of an animation, or pages of a TIFF; `levels` are the first's."""
    marks: tuple[str, ...] = ()
    """What is odd about its file though the picture is right; see `nst.images.decode.Photograph`."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, across and down, if the file says so; for `encode_image`."""

    @property
    def image(self) -> Tensor:
        """The same as float32 in [0, 1], made anew."""
        return as_float(self.levels)

    @property
    def alpha(self) -> Tensor | None:
        """Its opacity as float32 in [0, 1], made anew."""
        return None if self.opacity is None else as_float(self.opacity)

    def without_levels(self) -> DecodedPhoto:
        """What its picture may keep of it, alone: (3, 0, 0)."""
        return replace(self, levels=self.levels.new_empty(3, 0, 0))


def decode_image(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Decode a photograph, upright, in sRGB and composited: float32 (3, H, W) in [0, 1].

    Arguments and errors are those of `nst.images.decode.read_photo`, and TypeError: `data` is a path, say.
    """
    if not isinstance(data, bytes):
        raise TypeError(
            f"data must be the bytes of a file, as Path.read_bytes() gives, not {type(data).__name__}"
        )
    return decode_photo(data, max_side_px=max_side_px, max_pixels=max_pixels, background=background).image


def decode_photo(
    data: bytes,
    *,
    max_side_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    alpha: AlphaMode = "composite",
    keep_exif: KeepExif = "none",
    truncated: Truncated = "fail",
) -> DecodedPhoto:
    """Decode a photograph, with what its picture may keep. Arguments, errors: `images.decode.read_photo`."""
    photo = read_photo(
        data,
        max_side_px=max_side_px,
        max_pixels=max_pixels,
        background=background,
        alpha=alpha,
        keep_exif=keep_exif,
        truncated=truncated,
    )
    return DecodedPhoto(
        _levels(photo.image),
        None if photo.alpha is None else torch.from_numpy(np.array(photo.alpha)),
        photo.exif,
        photo.frames,
        photo.marks,
        photo.dpi,
    )


def picture_tensor(picture: Image.Image | npt.NDArray[np.uint8]) -> Tensor:
    """An RGB picture of 8 bits, (H, W, 3) if it is an array, as float32 (3, H, W) in [0, 1]."""
    return as_float(torch.from_numpy(np.array(np.asarray(picture).transpose(2, 0, 1), order="C")))


def _levels(picture: Image.Image) -> Tensor:
    """uint8 (3, H, W). Some rows at a time: as an array, Pillow would have it three times for a moment."""
    levels = np.empty((3, picture.height, picture.width), np.uint8)
    for rows in row_bands(picture.height, picture.width):
        band = picture.crop((0, rows.start, picture.width, rows.stop))
        levels[:, rows] = np.asarray(band).transpose(2, 0, 1)
    return torch.from_numpy(levels)


def as_float(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Levels of uint8 as numbers of `dtype` in [0, 1]; what is floating point is brought to `dtype`."""
    return image.to(dtype) if image.is_floating_point() else image.to(dtype).div_(255)


def levels_of(image: Tensor) -> Tensor:
    """Numbers in [0, 1] as levels of uint8, the nearest."""
    return (image * 255).round_().to(torch.uint8)


def is_finite(image: Tensor) -> bool:
    """Whether no value of it is infinite or no number. Takes no memory, as `image.isfinite()` does."""
    return not image.is_floating_point() or bool(torch.stack(image.aminmax()).isfinite().all())


def encode_image(
    image: Tensor,
    *,
    format: ImageFormat = "jpeg",
    bit_depth: BitDepth = 8,
    quality: int = 95,
    alpha: Tensor | None = None,
    exif: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """Encode (3, H, W), in [0, 1] or uint8, rounded to `bit_depth`, tagged as sRGB, without chroma subsampling.

    Equal input, equal bytes.

    Args:
        bit_depth: per channel; 16 for PNG and TIFF only.
        quality: 1 to 100, of JPEG, WebP and AVIF; ignored for the others, which lose nothing.
        alpha: (h, w) in [0, 1] or uint8, brought to the size of `image`; not for JPEG.
        exif: written as it is.
        dpi: pixels per inch, across and down, each above 1 and below 65536; JPEG, PNG and TIFF say it.

    Raises:
        OptionError: unknown format, bit depth or quality, or a format that cannot have it, alpha or this size.
        ValueError: not a finite (3, H, W) tensor.
    """
    if format not in get_args(ImageFormat):
        raise OptionError("format", format, choices=get_args(ImageFormat))
    if bit_depth not in get_args(BitDepth):
        raise OptionError("bit_depth", bit_depth, choices=map(str, get_args(BitDepth)))
    if bit_depth == 16 and format not in ("png", "tiff"):
        raise OptionError("format", format, choices=("png", "tiff"), reason="cannot have 16 bits")
    if alpha is not None and format == "jpeg":
        raise OptionError("format", format, choices=("png", "webp", "avif", "tiff"), reason="cannot have alpha")
    at_least("quality", quality, 1)
    at_most("quality", quality, 100)
    if image.ndim != 3 or image.shape[0] != 3 or not is_finite(image):
        raise ValueError(f"expected a finite (3, H, W) tensor, got {tuple(image.shape)}")
    check_sides(format, image)
    planes = [image.detach().to("cpu")]
    if alpha is not None:
        plane = alpha[None].detach().to("cpu")
        same = plane.shape[1:] == image.shape[1:]
        planes.append(plane if same else resize_image(as_float(plane), (image.shape[1], image.shape[2])))
    if format == "tiff":
        return tiff(_quantized(planes, bit_depth), icc_profile=srgb_profile(), exif=exif, dpi=dpi)
    if bit_depth == 16:
        return png_16(_quantized(planes, bit_depth), icc_profile=srgb_profile(), exif=exif, dpi=dpi)
    picture, out = _pillow(planes), io.BytesIO()
    all_tags = {"icc_profile": srgb_profile(), "exif": exif, "dpi": dpi}
    tags: dict[str, Any] = {name: value for name, value in all_tags.items() if value}
    if format == "jpeg":
        picture.save(out, "JPEG", quality=quality, subsampling=0, **tags)
    elif format == "png":
        picture.save(out, "PNG", compress_level=6, **tags)
    elif format == "webp":
        picture.save(out, "WEBP", quality=quality, method=4, **tags)
    else:
        picture.save(out, "AVIF", quality=quality, subsampling="4:4:4", max_threads=1, **tags)
    return out.getvalue()


def check_sides(format: ImageFormat, image: Tensor) -> None:
    """Raises OptionError: (3, H, W) is too long for its format."""
    height, width = image.shape[1:]
    able = [it for it in get_args(ImageFormat) if max(height, width) <= _LONGEST_PX.get(it, height + width)]
    if format not in able:
        raise OptionError("format", format, choices=able, reason=f"cannot have {width} x {height} pixels")


def encode_animation(
    images: Sequence[Tensor],
    *,
    format: AnimationFormat = "gif",
    frames_per_second: float = 10.0,
    quality: int = 95,
) -> bytes:
    """Encode (3, h, w) in [0, 1] as one file that plays them in order, for ever, at the size of the last.

    Args:
        frames_per_second: GIF counts hundredths of a second.
        quality: 1 to 100, of WebP; GIF has 256 colors per picture.

    Raises:
        OptionError: unknown format.
        ValueError: no image.
    """
    if format not in get_args(AnimationFormat):
        raise OptionError("format", format, choices=get_args(AnimationFormat))
    if not images:
        raise ValueError("an animation has at least one picture")
    size = (images[-1].shape[1], images[-1].shape[2])
    first, *others = (_pillow([resize_image(as_float(image.detach().cpu()), size)]) for image in images)
    out = io.BytesIO()
    first.save(
        out,
        format.upper(),
        save_all=True,
        append_images=others,
        duration=round(1000 / frames_per_second),
        loop=0,
        **({"quality": quality, "method": 4} if format == "webp" else {}),
    )
    return out.getvalue()


def picture_of(image: Tensor) -> Image.Image:
    """(3, H, W), in [0, 1] or uint8, as an RGB picture of 8 bits: the way back from `picture_tensor`."""
    return _pillow([image.detach().to("cpu")])


def _pillow(planes: Sequence[Tensor]) -> Image.Image:
    """Three channels, or these and alpha, each (c, H, W), as a picture of 8 bits; made some rows at a time, so
    that it is not there as an array as well."""
    _, height, width = planes[0].shape
    picture = Image.new("RGB" if len(planes) == 1 else "RGBA", (width, height))
    for rows in row_bands(height, width):
        picture.paste(Image.fromarray(_quantized([each[:, rows] for each in planes], 8)), (0, rows.start))
    return picture


def _quantized(planes: Sequence[Tensor], bit_depth: BitDepth) -> npt.NDArray[Any]:
    """(H, W, C) of uint8 or uint16, from several (c, H, W) on the CPU, in [0, 1] or uint8."""
    _, height, width = planes[0].shape
    channels = sum(len(each) for each in planes)
    levels = np.empty((height, width, channels), np.uint8 if bit_depth == 8 else np.uint16)
    for rows in row_bands(height, width):
        bands = [_rounded(each[:, rows], bit_depth) for each in planes]
        levels[rows] = torch.cat(bands).permute(1, 2, 0).numpy()
    return levels


def _rounded(image: Tensor, bit_depth: BitDepth) -> Tensor:
    if bit_depth == 8 and image.dtype == torch.uint8:
        return image
    return as_float(image).clamp(0, 1).mul_(2**bit_depth - 1).round_()


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample (3, H, W) or (N, 3, H, W) to `size` (height, width): bilinear, antialiased when shrinking."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image if image.ndim == 4 else image[None]
    if image.device.type != "cpu":
        batch = _not_too_large(batch, size)
    resized = F.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized if image.ndim == 4 else resized[0]


def _not_too_large(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) at sides that a GPU shrinks to `size` at once: what it adds up for a pixel must fit into the
    memory that its threads share, which ends at some 60 times. What is larger is averaged first."""
    height, width = (min(side, _MOST_AT_ONCE * at) for side, at in zip(batch.shape[-2:], size, strict=True))
    return batch if (height, width) == batch.shape[-2:] else F.adaptive_avg_pool2d(batch, (height, width))


def reduced(photo: Tensor, side_px: int | None, dtype: torch.dtype | None = None) -> Tensor:
    """The photograph, (3, H, W) in [0, 1] or uint8, at most this long; in [0, 1] and of this type, or of its
    own. A large one is brought to it some rows at a time."""
    dtype = dtype or (photo.dtype if photo.is_floating_point() else torch.float32)
    height, width = photo.shape[-2:]
    if side_px is None or max(height, width) <= side_px:
        return as_float(photo, dtype)
    scale = side_px / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    narrow = photo.new_empty(3, height, size[1], dtype=dtype)
    for rows in row_bands(height, width):
        band = as_float(photo[:, rows], dtype)
        narrow[:, rows] = resize_image(band, (band.shape[1], size[1]))
    return resize_image(narrow, size)


def border_width(size: tuple[int, int], border_px: int) -> int:
    """How many pixels `mirrored` adds on each side of a picture of `size`: at most an eighth of its short side,
    so that small ones are not mostly border."""
    return min(border_px, min(size) // 8)


def mirrored(image: Tensor, border_px: int) -> Tensor:
    """(C, H, W) with a border of `border_width` pixels that mirrors it, its edges not repeated."""
    border = border_width((image.shape[-2], image.shape[-1]), border_px)
    return F.pad(image[None], (border,) * 4, mode="reflect")[0] if border else image


def without_border(image: Tensor, border_px: int, size: tuple[int, int]) -> Tensor:
    """What `mirrored` was given: (C, *size)."""
    border = border_width(size, border_px)
    return image[..., border : border + size[0], border : border + size[1]]
