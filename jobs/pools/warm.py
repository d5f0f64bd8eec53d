"""What a worker's process is forked from: all is imported, and a first photograph was decoded, since that finds
Pillow's plugins and makes color profiles. Starts no threads."""

from __future__ import annotations

import io

from PIL import Image

import jobs.worker.worker  # noqa: F401
from nst.images.codec import decode_image, encode_image

__all__ = ["warm_up"]


def warm_up() -> None:
    """Decode and encode a picture."""
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "JPEG")
    encode_image(decode_image(out.getvalue()))


warm_up()
