"""Neural style transfer and DeepDream on tensors.

    import nst
    from pathlib import Path

    photo, style = (nst.decode_image(Path(p).read_bytes(), max_side_px=512) for p in ("a.jpg", "b.jpg"))
    for step in nst.stylize(photo, style, steps=200):
        print(step.evaluations, step.losses["loss"])
    Path("out.png").write_bytes(nst.encode_image(step.image, format="png"))

Names are imported on first use: `import nst` alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nst.deepdream.method import DeepDream
    from nst.errors import (
        DecodeError,
        Diverged,
        ImageError,
        ImageTooLarge,
        ImageTooSmall,
        NstError,
        OptionError,
        WeightsError,
    )
    from nst.images.codec import decode_image, encode_image
    from nst.methods import METHODS
    from nst.notebook import Step, dream, stylize
    from nst.style_transfer.method import StyleTransfer
    from nst.stylizer import AssetRef, Assets, Method, Outcome, Stylized, Stylizer

__version__ = "0.1.0"

_PLACES = {
    "nst.deepdream.method": ["DeepDream"],
    "nst.errors": [
        "DecodeError",
        "Diverged",
        "ImageError",
        "ImageTooLarge",
        "ImageTooSmall",
        "NstError",
        "OptionError",
        "WeightsError",
    ],
    "nst.images.codec": ["decode_image", "encode_image"],
    "nst.methods": ["METHODS"],
    "nst.notebook": ["Step", "dream", "stylize"],
    "nst.style_transfer.method": ["StyleTransfer"],
    "nst.stylizer": ["AssetRef", "Assets", "Method", "Outcome", "Stylized", "Stylizer"],
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "METHODS",
    "AssetRef",
    "Assets",
    "DecodeError",
    "DeepDream",
    "Diverged",
    "ImageError",
    "ImageTooLarge",
    "ImageTooSmall",
    "Method",
    "NstError",
    "OptionError",
    "Outcome",
    "Step",
    "StyleTransfer",
    "Stylized",
    "Stylizer",
    "WeightsError",
    "decode_image",
    "dream",
    "encode_image",
    "stylize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nst' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
