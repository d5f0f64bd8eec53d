"""Style pictures that come with the package, rendered by itself.

`python -m nst.styles` renders them anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

__all__ = ["PREFIX", "STYLES", "style_bytes"]

PREFIX = "nst:style/"
"""What is put before a style's name where places of pictures are asked for."""

STYLES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "swirls": ("brush_strokes", 0),
        "etching": ("hatching", 2),
        "woodcut": ("hatching", 8),
        "print": ("hatching", 5),
        "rose": ("hatching", 9),
        "cutouts": ("dead_leaves", 6),
        "fiesta": ("dead_leaves", 4),
        "spray": ("fractal", 2),
        "glass": ("voronoi_mosaic", 1),
        "mosaic": ("voronoi_mosaic", 4),
        "jewels": ("voronoi_mosaic", 7),
        "terrazzo": ("voronoi_mosaic", 8),
    }
)
"""Names of the styles: the function of `nst.synthetic` that renders each, and its seed."""


def style_bytes(place: str) -> bytes:
    """The JPEG of a style at `PREFIX` and its name. Raises FileNotFoundError: there is none."""
    name = place.removeprefix(PREFIX)
    if name not in STYLES:
        raise FileNotFoundError(f"{place}: the styles are {', '.join(STYLES)}")
    return (resources.files("nst.styles") / f"{name}.jpg").read_bytes()
