"""What a worker's process is forked from: all is imported, and what takes long for the first time was done.
Starts no threads."""

from __future__ import annotations

import contextlib
import gc
import io

from PIL import Image

import jobs.worker.worker  # noqa: F401
from jobs.ledger.job_record import JobRecord
from jobs.ledger.results import write_receipt
from nst.images.codec import decode_image, encode_image

__all__ = ["warm_up"]


def warm_up() -> None:
    """Decode and encode a picture, which finds Pillow's plugins and makes color profiles; write a receipt, for
    which pyarrow imports pandas, where there is one; and try to read a job's record, for which pydantic
    compiles what one is."""
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "JPEG")
    encode_image(decode_image(out.getvalue()))
    write_receipt([], shard=0, generation=0, fingerprint="")
    with contextlib.suppress(ValueError):
        JobRecord.from_json({"manifest": {}})


warm_up()
gc.freeze()  # children share what there is, and need not look through it
