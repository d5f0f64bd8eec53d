"""The samples of a TIFF's picture as levels of 8 bits: what black, white and the colors are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from nst.images.tiff_samples import Layout, Samples, number, numbers

__all__ = ["picture_of"]

_ROWS = 256
"""That are worked on at once, so that floats of a large picture need little room."""
# CIE XYZ under D50 to linear sRGB: Bradford's adaptation to D65 and sRGB's primaries (IEC 61966-2-1).
_D50 = (0.9642, 1.0, 0.8249)
_XYZ_TO_SRGB = np.array(
    [
        [3.13418636, -1.61720896, -0.49069406],
        [-0.9787485, 1.9161301, 0.0334334],
        [0.07196393, -0.22899387, 1.40575373],
    ]
)


def picture_of(samples: Samples, tags: ImageFileDirectory_v2, layout: Layout) -> Image.Image:
    """Mode L, LA, RGB, RGBA or CMYK, of samples (height, width, samples). CIELAB and YCbCr become RGB.

    Raises:
        DecodeError: no agreed meaning; floats beyond [0, 1], for example.
    """
    if layout.alpha != "none" and layout.photometric not in (0, 1, 2, 3):
        raise layout.unknown()
    if layout.alpha == "multiplied" and layout.photometric not in (1, 2):
        raise layout.unknown()
    if layout.photometric == 5 and number(tags, 332, 1) != 1:
        raise layout.unknown("inks other than CMYK")
    if layout.kind == 3 and 34675 in tags:
        raise layout.unknown("floats with a color profile, which have more than 8 bits can hold")
    palette = _palette(tags, layout) if layout.photometric == 3 else None
    out = []
    for top in range(0, layout.height, _ROWS):
        part = samples[top : top + _ROWS]
        if layout.kind == 3 and not bool(((part >= 0) & (part <= 1)).all()):
            raise layout.unknown("values beyond [0, 1] have no agreed white")
        if palette is not None:
            colors = palette[part[..., 0]]
        elif layout.photometric == 6:
            colors = _from_ycbcr(part[..., :3], tags, layout)
        elif layout.photometric in (8, 9):
            colors = _from_lab(part[..., :3], layout)
        else:
            colors = _levels(_without_alpha(part, layout), layout)
            if layout.photometric == 0:
                colors = 255 - colors
        if layout.alpha != "none":
            at = layout.alpha_at
            colors = np.concatenate([colors, _levels(part[..., at : at + 1], layout)], axis=2)
        out.append(colors)
    levels = np.concatenate(out)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "CMYK" if layout.photometric == 5 else "RGBA"}[levels.shape[2]]
    return Image.frombytes(mode, (layout.width, layout.height), np.ascontiguousarray(levels).tobytes())


def _levels(values: Samples, layout: Layout) -> npt.NDArray[np.uint8]:
    if layout.kind == 1 and layout.bits == 8:
        return values
    if layout.kind == 1 and layout.bits == 16 and layout.photometric == 2 and layout.alpha == "none":
        return (values >> 8).astype(np.uint8)  # as Pillow does, also for PNG: one photograph, one picture
    white = 1 if layout.kind == 3 else 2**layout.bits - 1
    return (values.astype(np.float64) * (255 / white)).round().astype(np.uint8)


def _without_alpha(part: Samples, layout: Layout) -> Samples:
    """The colors, of which alpha is divided out; black where nothing is seen."""
    colors = part[..., : layout.colors]
    if layout.alpha != "multiplied":
        return colors
    alpha = part[..., layout.alpha_at :][..., :1].astype(np.float64)
    white = 1 if layout.kind == 3 else 2**layout.bits - 1
    straight = np.divide(colors * float(white), alpha, out=np.zeros(colors.shape), where=alpha > 0).clip(
        0, white
    )
    return (straight if layout.kind == 3 else straight.round()).astype(part.dtype)


def _palette(tags: ImageFileDirectory_v2, layout: Layout) -> npt.NDArray[np.uint8]:
    table = np.array(numbers(tags, 320), np.uint16)
    if layout.kind != 1 or layout.bits not in (1, 2, 4, 8, 16) or len(table) != 3 << layout.bits:
        raise layout.unknown(f"a palette of {len(table) // 3} colors")
    high = table if table.max() < 256 else table >> 8  # some programs write levels of 8 bits
    return high.astype(np.uint8).reshape(3, -1).T


def _from_ycbcr(values: Samples, tags: ImageFileDirectory_v2, layout: Layout) -> npt.NDArray[np.uint8]:
    """TIFF 6.0, 20 and 21."""
    if layout.kind != 1 or layout.bits != 8:
        raise layout.unknown()
    red, green, blue = (float(each) for each in numbers(tags, 529) or (0.299, 0.587, 0.114))
    range_of = np.array([float(each) for each in numbers(tags, 532) or (0, 255, 128, 255, 128, 255)]).reshape(
        3, 2
    )
    black, white = range_of[:, 0], range_of[:, 1]
    y, cb, cr = np.moveaxis((values - black) * (np.array([255, 127, 127]) / (white - black)), 2, 0)
    r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
    g = (y - red * r - blue * b) / green
    return np.stack([r, g, b], axis=2).round().clip(0, 255).astype(np.uint8)


def _from_lab(values: Samples, layout: Layout) -> npt.NDArray[np.uint8]:
    """CIE 1976 under D50; a* and b* are signed in CIELAB, and counted from the middle in ICCLAB."""
    if layout.kind == 3 or layout.bits not in (8, 16):
        raise layout.unknown()
    scale = 2 ** (layout.bits - 8)
    top = 255 * scale + (scale - 1 if layout.photometric == 8 else 0)
    signed = values[..., 1:].astype(np.float64)
    if layout.photometric == 8:
        signed -= 256 * scale * (signed >= 128 * scale)
    else:
        signed -= 128 * scale
    y = (values[..., 0] * (100 / top) + 16) / 116
    f = np.stack([y + signed[..., 0] / (500 * scale), y, y - signed[..., 1] / (200 * scale)], axis=2)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _D50
    light = (xyz @ _XYZ_TO_SRGB.T).clip(0, 1)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    levels: npt.NDArray[np.uint8] = (255 * srgb).round().astype(np.uint8)
    return levels
