"""RAW files of cameras, developed by LibRaw where the extra `raw` is installed."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from nst.errors import DecodeError, ImageTooLarge

__all__ = ["RawFile", "developed"]


class RawFile(DecodeError):
    """What is in the file is a camera's RAW data, beside previews that are not taken for the photograph.

    Its one argument is the camera's maker, as the file says, or empty.
    """

    def __str__(self) -> str:
        maker = f" ({self.args[0]})" if self.args[0] else ""
        return (
            f"a RAW file of a camera{maker}: pip install 'nst[raw]' reads such, or develop it to TIFF or JPEG "
            "first; the preview within is not taken for the photograph"
        )


def developed(data: bytes, raw: RawFile, *, max_side_px: int | None, max_pixels: int) -> Image.Image:
    """Develop a RAW file with its camera's white balance: mode RGB, sRGB, upright, its EXIF with it.

    Args:
        raw: what is raised if it cannot be developed here.

    Raises:
        DecodeError: the extra is not installed, LibRaw does not know the camera, or the file is damaged.
        ImageTooLarge: it has more than `max_pixels`; nothing was developed.
    """
    try:
        import rawpy
    except ImportError:
        raise DecodeError(str(raw)) from None
    try:
        with rawpy.imread(io.BytesIO(data)) as file:
            width, height = file.sizes.width, file.sizes.height
            if width * height > max_pixels:
                raise ImageTooLarge(f"{width} x {height} pixels: more than the limit of {max_pixels}")
            # A quarter of the work where the picture is to be much smaller; the Lanczos filter keeps its room.
            half = max_side_px is not None and max(width, height) >= 4 * max_side_px
            levels = file.postprocess(use_camera_wb=True, output_bps=8, half_size=half)
    except rawpy.LibRawError as error:
        raise DecodeError(f"a RAW file of a camera that cannot be developed: {error}") from error
    picture = Image.fromarray(np.ascontiguousarray(levels))
    exif = picture.getexif()
    try:
        exif.load(data)
    except Exception:  # noqa: BLE001  other makers' own layouts, or damaged: a photograph without EXIF
        exif.clear()
    exif.pop(274, None)  # it is upright
    return picture
