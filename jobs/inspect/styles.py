"""The pictures that a job was told to paint like, as its report shows them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from jobs.console.html import text
from jobs.ledger.job_record import RecordedAsset
from jobs.stores.filesystems import StorageOptions, read_url
from jobs.stores.moved import read_moved_along
from jobs.view.index import Part
from jobs.view.page import data_url
from nst.errors import NstError
from nst.images.decode import open_photo
from nst.styles import PREFIX, style_bytes

__all__ = ["style_figures"]

_OPTIONS = ("style", "guide", "reference", "init_picture")
"""Options of methods that name pictures."""
_MOST, _LARGE = 60, 6
_SIDES_PX = (480, 240)


def style_figures(parts: Sequence[Part], now: str) -> list[str]:
    """A `<figure>` for each of them, in order, and one that says how many more there are.

    Args:
        now: where the job is by now.
    """
    found: dict[tuple[str, str], tuple[str, str, StorageOptions]] = {}
    for part in parts:
        before = part.record.job.get("output", now)
        for option, asset in part.record.assets.items():
            name = option.partition("[")[0]
            if name in _OPTIONS:
                found.setdefault((asset.url, asset.sha256), (name, before, part.record.storage))
    side_px = _SIDES_PX[len(found) > _LARGE]
    figures = []
    for (url, sha256), (name, before, storage) in list(found.items())[:_MOST]:
        shown = url.removeprefix(PREFIX) if url.startswith(PREFIX) else PurePosixPath(url).name
        caption = shown if name == "style" else f"{name}: {shown}"
        try:
            picture = _picture(RecordedAsset(url, sha256), before, now, storage, side_px)
        except (OSError, NstError) as error:
            picture = f'<div class="gone">cannot be shown: {text(str(error))}</div>'
        figures.append(
            f'<figure title="{text(url)}">{picture}<figcaption>{text(caption)}</figcaption></figure>'
        )
    if len(found) > _MOST:
        figures.append(f"<figure><figcaption>and {len(found) - _MOST} more</figcaption></figure>")
    return figures


def _picture(asset: RecordedAsset, before: str, now: str, storage: StorageOptions, side_px: int) -> str:
    """Raises OSError, NstError: it is not there any more, or is another one."""
    url = asset.url
    if url.startswith(PREFIX):
        data = style_bytes(url)
    else:
        data = read_moved_along(url, before, now, partial(read_url, options=storage))
    if hashlib.sha256(data).hexdigest() != asset.sha256:
        raise OSError("it is another picture by now")
    out = io.BytesIO()
    open_photo(data, max_side_px=side_px).save(out, "WEBP", quality=82)
    return f'<img alt="" src="{data_url(out.getvalue(), "image/webp")}">'
