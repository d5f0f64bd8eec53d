"""Files that Pillow cannot write: PNG of 16 bits per channel, and deflated TIFF with a camera's EXIF.

Levels are (H, W, 3), RGB, or (H, W, 4) with alpha that is not multiplied in. Equal input, equal bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin, TiffTags
from PIL.ExifTags import IFD
from PIL.TiffImagePlugin import ImageFileDirectory_v2

__all__ = ["directory_bytes", "png_16", "png_chunk", "tiff"]

_STRIP_BYTES = 1 << 18
"""Size of a TIFF's strips, before compression: readers of a part need not inflate the whole."""
_CHUNK_BYTES = 1 << 30
"""Most bytes of a PNG's chunk; the format has room for twice as many."""


def png_16(
    levels: npt.NDArray[np.uint16],
    *,
    icc_profile: bytes,
    exif: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """A PNG of 16 bits per channel.

    Args:
        exif: as `nst.images.exif.kept_exif` gives it; empty: none.
        dpi: pixels per inch, across and down.
    """
    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    pixels = zlib.compress(_filtered(levels), 6)
    chunks = [(b"IHDR", header), (b"iCCP", b"sRGB\0\0" + zlib.compress(icc_profile))]
    if dpi is not None:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(each / 0.0254) for each in dpi), 1)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", pixels[at : at + _CHUNK_BYTES]) for at in range(0, len(pixels), _CHUNK_BYTES)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in [*chunks, (b"IEND", b"")])


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _filtered(levels: npt.NDArray[np.uint16]) -> bytes:
    """Rows as bytes, each as its difference from its left neighbor (filter 1) or from the row above (filter 2),
    whichever is smaller, as the standard recommends (PNG 1.2, 9.6); modulo 256."""
    rows = levels.astype(">u2", order="C").view(np.uint8).reshape(len(levels), -1)
    pixel = 2 * levels.shape[2]
    left, up = rows.copy(), rows.copy()
    left[:, pixel:] -= rows[:, :-pixel]
    up[1:] -= rows[:-1]
    size_left, size_up = (np.abs(each.view(np.int8).astype(np.int16)).sum(1) for each in (left, up))
    best = (size_up < size_left)[:, None]
    return np.hstack([np.where(best, np.uint8(2), np.uint8(1)), np.where(best, up, left)]).tobytes()


def tiff(
    levels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
    *,
    icc_profile: bytes,
    exif: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """A TIFF of 8 or 16 bits per channel: deflated, with horizontal differences, in strips.

    Pillow's own writer of deflated TIFFs refuses EXIF, so only the directory is Pillow's here.

    Args:
        exif: as `nst.images.exif.kept_exif` gives it; empty: none.
        dpi: pixels per inch, across and down.
    """
    height, width, channels = levels.shape
    rows = max(1, _STRIP_BYTES // (width * channels * levels.itemsize))
    strips = [*_strips(levels, rows)]
    directory = ImageFileDirectory_v2()
    kept = Image.Exif()
    kept.load(exif)
    for tag, value in kept.items():
        directory[tag] = kept.get_ifd(tag) if tag in (IFD.Exif, IFD.GPSInfo) else value
    directory[TiffImagePlugin.IMAGEWIDTH] = width
    directory[TiffImagePlugin.IMAGELENGTH] = height
    directory[TiffImagePlugin.BITSPERSAMPLE] = (8 * levels.itemsize,) * channels
    directory[TiffImagePlugin.COMPRESSION] = 8  # deflate, as Adobe registered it
    directory[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 2  # RGB
    directory[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    directory[TiffImagePlugin.ROWSPERSTRIP] = rows
    directory[TiffImagePlugin.PLANAR_CONFIGURATION] = 1  # pixel by pixel
    directory[TiffImagePlugin.PREDICTOR] = 2
    directory[TiffImagePlugin.ICCPROFILE] = icc_profile
    if dpi is not None:
        directory[TiffImagePlugin.X_RESOLUTION], directory[TiffImagePlugin.Y_RESOLUTION] = dpi
        directory[TiffImagePlugin.RESOLUTION_UNIT] = 2  # inches
    if channels == 4:
        directory[TiffImagePlugin.EXTRASAMPLES] = 2  # alpha, not multiplied in
    return directory_bytes(directory, [len(strip) for strip in strips]) + b"".join(strips)


def directory_bytes(directory: ImageFileDirectory_v2, sizes: Sequence[int]) -> bytes:
    """A TIFF up to its strips, of so many bytes each, which come next."""
    directory.tagtype[TiffImagePlugin.STRIPBYTECOUNTS] = TiffTags.LONG
    directory[TiffImagePlugin.STRIPBYTECOUNTS] = tuple(sizes)
    # Counted from the directory's end: writing it adds where that is.
    directory[TiffImagePlugin.STRIPOFFSETS] = (0, *accumulate(sizes[:-1]))
    out = io.BytesIO()
    directory.save(out)
    return out.getvalue()


def _strips(levels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], rows: int) -> Iterator[bytes]:
    for top in range(0, len(levels), rows):
        strip = levels[top : top + rows]
        differences = np.hstack([strip[:, :1], strip[:, 1:] - strip[:, :-1]])  # modulo 256 or 65536
        yield zlib.compress(differences.astype(differences.dtype.newbyteorder("<")).tobytes(), 6)
