"""The samples of a TIFF's picture, out of strips or tiles, packed or in planes, compressed or not."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from nst.errors import DecodeError
from nst.images.lossless import directory_bytes

__all__ = ["Layout", "Samples", "layout_of", "number", "numbers", "samples_of"]

Samples: TypeAlias = npt.NDArray[Any]

_BY_BYTES = (1, 5, 8, 32773, 32946, 34925, 50000)
"""None, LZW, deflate, PackBits, deflate, LZMA, Zstandard: what they hold is bytes, whatever these mean."""
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}
_PHOTOMETRICS = {
    0: "gray (white is zero)", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr",
    8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
_COMPRESSIONS = {
    1: "not compressed", 2: "fax", 3: "fax", 4: "fax", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "deflate",
    32773: "PackBits", 32946: "deflate", 34712: "JPEG 2000", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL",
}  # fmt: skip
_KINDS = {1: "integers", 2: "signed integers", 3: "floats"}
_LARGEST = (1 << 32) - (1 << 26)
"""Bytes that fit into a TIFF of the classic form, with room for its directory."""
_LARGEST_TILE = 1 << 24
"""Pixels that tiles may have beyond their picture, so that a small file cannot take all memory."""
_MOST_SAMPLES = 8
"""The most that a pixel may have."""
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def numbers(tags: ImageFileDirectory_v2, tag: int) -> tuple[Any, ...]:
    """A tag's values; empty if it is not there."""
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def number(tags: ImageFileDirectory_v2, tag: int, default: int) -> int:
    """A tag's first value, a whole number."""
    found = numbers(tags, tag)
    return int(found[0]) if found else default


@dataclass(frozen=True, slots=True)
class Layout:
    """How a picture lies in its file, checked to be one that is known."""

    width: int
    height: int
    photometric: int
    bits: int
    """The size of each sample."""
    kind: int
    """1: unsigned, 2: signed, 3: float."""
    samples: int
    """How many a pixel has, colors first."""
    colors: int
    alpha: Literal["none", "straight", "multiplied"]
    alpha_at: int
    """Which sample alpha is, if there is one."""
    planar: bool
    compression: int
    predictor: int
    order: str
    """`<` or `>`, as numpy has it."""
    subsampling: tuple[int, int]
    """How many pixels across and down share their color, in YCbCr."""

    def __str__(self) -> str:
        space = _PHOTOMETRICS.get(self.photometric, f"photometric interpretation {self.photometric}")
        compression = _COMPRESSIONS.get(self.compression, f"compression {self.compression}")
        alpha = {"none": "", "straight": ", with alpha", "multiplied": ", alpha multiplied in"}[self.alpha]
        planes = ", in planes" if self.planar else ""
        kind = _KINDS.get(self.kind, f"sample format {self.kind}")
        return f"{space}, {self.samples} x {self.bits} bits ({kind}){alpha}{planes}, {compression}"

    def unknown(self, why: str = "") -> DecodeError:
        """What is to be raised if this layout cannot be read."""
        return DecodeError(f"a TIFF that is not read here: {self}{': ' if why else ''}{why}")


def layout_of(tags: ImageFileDirectory_v2) -> Layout:
    """How the picture lies that a directory describes.

    Raises:
        DecodeError: the directory contradicts itself, or says too little.
    """
    photometric, compression = number(tags, 262, 0), number(tags, 259, 1)
    bits, kinds = numbers(tags, 258) or (1,), numbers(tags, 339) or (1,)
    samples = number(tags, 277, 3 if compression in (6, 7) and photometric in (2, 6) else 1)
    colors = _COLORS.get(photometric, samples)
    extra = numbers(tags, 338)[: max(0, samples - colors)]
    if not extra and photometric == 2 and samples == 4:
        extra = (2,)  # many programs forget to say so
    alpha_at = next((colors + place for place, what in enumerate(extra) if what in (1, 2, 999)), 0)
    layout = Layout(
        width=number(tags, 256, 0),
        height=number(tags, 257, 0),
        photometric=photometric,
        bits=bits[0],
        kind=1 if kinds[0] == 4 else kinds[0],  # 4: "undefined"
        samples=samples,
        colors=colors,
        alpha="none" if not alpha_at else "multiplied" if extra[alpha_at - colors] == 1 else "straight",
        alpha_at=alpha_at,
        planar=number(tags, 284, 1) == 2 and samples > 1,
        compression=compression,
        predictor=number(tags, 317, 1),
        order="<" if tags.prefix == b"II" else ">",
        subsampling=_subsampling(tags) if photometric == 6 else (1, 1),
    )
    if layout.width < 1 or layout.height < 1:
        raise DecodeError(f"a TIFF of {layout.width} x {layout.height} pixels")
    if samples > _MOST_SAMPLES:
        raise layout.unknown("too many samples per pixel")
    if samples < colors or samples - colors > len(extra):
        raise layout.unknown(f"{samples} samples per pixel, and it does not say what they are")
    if len({*bits[:samples]}) > 1 or len({*kinds[:samples]}) > 1:
        raise layout.unknown("samples of different bits")
    return layout


def _subsampling(tags: ImageFileDirectory_v2) -> tuple[int, int]:
    across, down = (*numbers(tags, 530), 2, 2)[:2] if 530 in tags else (2, 2)
    return int(across), int(down)


def samples_of(data: bytes, tags: ImageFileDirectory_v2, layout: Layout) -> Samples:
    """Every sample: (height, width, samples), of the smallest type that holds it; YCbCr not subsampled.

    Raises:
        DecodeError: damaged, or a layout that is not known.
    """
    known = {1: (1, 2, 4, 8, 12, 16, 32), 3: (16, 32, 64)}.get(layout.kind, ())
    if layout.photometric not in _COLORS or layout.compression not in _BY_BYTES or layout.bits not in known:
        raise layout.unknown()
    if layout.predictor not in ((1, 2) if layout.kind == 1 else (1, 2, 3)):
        raise layout.unknown(f"predictor {layout.predictor}")
    if layout.predictor != 1 and (layout.bits < 8 or layout.bits == 12 or layout.compression in (1, 32773)):
        # Without a compression that knows predictors, libtiff ignores them and tifffile does not.
        raise layout.unknown(f"with predictor {layout.predictor}")
    if layout.subsampling != (1, 1):
        return _subsampled(data, tags, layout)
    planes, each = (layout.samples, 1) if layout.planar else (1, layout.samples)
    tiled = 324 in tags
    across = number(tags, 322, 0) if tiled else layout.width
    down = number(tags, 323, 0) if tiled else min(number(tags, 278, layout.height), layout.height)
    if across < 1 or down < 1:
        raise DecodeError("a damaged TIFF: strips or tiles without a size")
    columns, rows = -(-layout.width // across), -(-layout.height // down)
    if tiled and columns * across * rows * down > 4 * layout.width * layout.height + _LARGEST_TILE:
        raise layout.unknown(f"tiles of {across} x {down} pixels")
    row_bytes = -(-across * each * layout.bits // 8)
    found = []
    for plane in range(planes):
        segments = slice(plane * columns * rows, (plane + 1) * columns * rows)
        height = columns * rows * down if tiled else layout.height
        raw = _bytes_of(data, tags, layout, segments, row_bytes, down, height)
        values = _values(raw, layout, across, each)
        if tiled:
            values = values.reshape(rows, columns, down, across, each).swapaxes(1, 2)
            values = values.reshape(rows * down, columns * across, each)[: layout.height, : layout.width]
        found.append(values)
    return found[0] if planes == 1 else np.concatenate(found, axis=2)


def _bytes_of(
    data: bytes,
    tags: ImageFileDirectory_v2,
    layout: Layout,
    segments: slice,
    row_bytes: int,
    rows: int,
    height: int,
) -> npt.NDArray[np.uint8]:
    """Strips or tiles below each other, not compressed: (height, row_bytes)."""
    tiled = 324 in tags
    places = numbers(tags, 324 if tiled else 273)[segments]
    if len(places) != -(-height // rows) or 0 in places:
        raise DecodeError("a damaged TIFF: strips or tiles are missing")
    if layout.compression == 1:
        sizes = [row_bytes * min(rows, height - rows * at) for at in range(len(places))]
    else:
        sizes = list(numbers(tags, 325 if tiled else 279)[segments]) or [len(data) - place for place in places]
    parts = [data[place : place + size] for place, size in zip(places, sizes, strict=True)]
    if any(len(part) != size or not size for part, size in zip(parts, sizes, strict=True)):
        raise DecodeError("a damaged TIFF: it ends before its picture does")
    if number(tags, 266, 1) == 2:  # the lowest bit first
        parts = [part.translate(_BITS_REVERSED) for part in parts]
    raw = b"".join(parts)
    if layout.compression == 1:
        return np.frombuffer(raw, np.uint8).reshape(height, row_bytes)
    return _inflated(raw, [len(part) for part in parts], layout.compression, row_bytes, rows, height)


def _inflated(
    raw: bytes, sizes: list[int], compression: int, row_bytes: int, rows: int, height: int
) -> npt.NDArray[np.uint8]:
    """Bytes that were compressed: read by libtiff as a gray picture, each byte a pixel."""
    if len(raw) > _LARGEST:
        raise DecodeError("a TIFF of more than 4 GB, compressed")
    directory = ImageFileDirectory_v2()
    directory[TiffImagePlugin.IMAGEWIDTH] = row_bytes
    directory[TiffImagePlugin.IMAGELENGTH] = height
    directory[TiffImagePlugin.BITSPERSAMPLE] = 8
    directory[TiffImagePlugin.COMPRESSION] = compression
    directory[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1
    directory[TiffImagePlugin.SAMPLESPERPIXEL] = 1
    directory[TiffImagePlugin.ROWSPERSTRIP] = rows
    file = io.BytesIO(directory_bytes(directory, sizes) + raw)
    return np.asarray(TiffImagePlugin.TiffImageFile(file))


def _values(raw: npt.NDArray[np.uint8], layout: Layout, across: int, samples: int) -> Samples:
    """Rows of bytes as samples: (rows, across, samples); differences are added up."""
    rows, bits = len(raw), layout.bits
    if bits < 8:
        wide = np.unpackbits(raw, axis=1) if bits == 1 else _parts(raw, bits)
        return wide[:, : across * samples].reshape(rows, across, samples)
    if bits == 12:  # two in three bytes
        padded = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 3))).astype(np.uint16).reshape(rows, -1, 3)
        high = padded[..., 0] << 4 | padded[..., 1] >> 4
        low = (padded[..., 1] & 15) << 8 | padded[..., 2]
        return (
            np.stack([high, low], axis=2)
            .reshape(rows, -1)[:, : across * samples]
            .reshape(rows, across, samples)
        )
    size, order = bits // 8, layout.order
    kind = "f" if layout.kind == 3 else "u"
    if layout.predictor == 3:  # differences of bytes, the highest of all samples first (Adobe's note 3 on TIFF)
        summed = np.cumsum(raw.reshape(rows, -1, samples), axis=1, dtype=np.uint8)
        raw, order = np.ascontiguousarray(summed.reshape(rows, size, -1).swapaxes(1, 2)).reshape(rows, -1), ">"
    values = raw.view(f"{order}u{size}").reshape(rows, across, samples)
    values = values.astype(f"u{size}", copy=False)
    if layout.predictor == 2:
        values = np.cumsum(values, axis=1, dtype=values.dtype)
    return values.view(f"{kind}{size}")


def _parts(raw: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """The halves or quarters of bytes, the highest first."""
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return ((raw[:, :, None] >> shifts) & ((1 << bits) - 1)).astype(np.uint8).reshape(len(raw), -1)


def _subsampled(data: bytes, tags: ImageFileDirectory_v2, layout: Layout) -> Samples:
    """YCbCr in units of `across` x `down` lights and one color (TIFF 6.0, 21); the color is repeated."""
    across, down = layout.subsampling
    plain = layout.bits == 8 and layout.samples == 3 and layout.predictor == 1 and not layout.planar
    if not plain or 324 in tags or across not in (1, 2, 4) or down not in (1, 2, 4):
        raise layout.unknown(f"{across} x {down} pixels share a color")
    columns, unit = -(-layout.width // across), across * down + 2
    strip = min(number(tags, 278, layout.height), layout.height)
    if strip < layout.height and strip % down:
        raise layout.unknown(f"strips of {strip} rows of which {down} share a color")
    rows = -(-layout.height // down)
    raw = _bytes_of(data, tags, layout, slice(None), columns * unit, -(-strip // down), rows)
    units = raw.reshape(rows, columns, unit)
    light = units[..., :-2].reshape(rows, columns, down, across).swapaxes(1, 2).reshape(rows * down, -1)
    colors = units[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
    return np.concatenate([light[..., None], colors], axis=2)[: layout.height, : layout.width]
