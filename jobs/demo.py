"""The demonstration: public-domain photographs, a style picture rendered here, and three methods, offline."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.errors import UsageError
from jobs.spec import JobFile, job_from_table
from jobs.stores.store import LocalStore
from nst.synthetic import brush_strokes

__all__ = ["demo_jobs", "sample_photographs"]

# Photographs in scikit-image's wheel, all public domain or CC0 (see the docstrings of skimage.data).
_PHOTOS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg")
_SLOW = ("astronaut.png", "chelsea.png", "coffee.png")
"""Those that the methods paint which take their time, at this long side in pixels."""
_SIDE_PX = 320


def demo_jobs(folder: Path, pool: str) -> list[JobFile]:
    """Put photographs and a style picture into `folder`, and give the jobs to run: all photographs in one pass,
    at their own size; some by optimization; and some dreamed.

    Raises:
        UsageError: scikit-image, which brings the photographs, is not installed.
    """
    store = LocalStore(str(folder))
    source = sample_photographs()
    for name in _PHOTOS:
        place = f"photos/{Path(name).stem}.jpg"
        if not store.exists(place):
            store.publish(place, _jpeg(Image.open(source / name).convert("RGB")))
    if not store.exists("style.png"):
        out = io.BytesIO()
        Image.fromarray(np.asarray(brush_strokes((512, 512), seed=0))).save(out, "PNG")
        store.publish("style.png", out.getvalue())
    store.clean()
    resources = {"pool": pool, "max_workers": 2}
    some = {
        "photos": [f"photos/{Path(name).stem}.jpg" for name in _SLOW],
        "image": {"max_side_px": _SIDE_PX},
        "resources": resources,
    }
    painted = {"kind": "feed_forward", "style": "style.png"}
    stylized = {"kind": "style_transfer", "style": "style.png", "network": "embedded"}
    dreamed = {"kind": "deepdream", "network": "embedded", "gradient_blur_px": 0.7}
    tables = (
        {
            "photos": "photos",
            "output": "painted",
            "method": painted,
            "image": {"max_side_px": 0},
            "resources": resources,
        },
        {"output": "stylized", "method": stylized, **some},
        {"output": "dreamed", "method": dreamed, **some},
    )
    return [job_from_table(table, folder) for table in tables]


def sample_photographs() -> Path:
    """The folder of the photographs in scikit-image's wheel.

    Raises:
        UsageError: scikit-image is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise UsageError("the photographs come with scikit-image: pip install 'nst[demo]'")
    return Path(found.origin).parent / "data"


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()
