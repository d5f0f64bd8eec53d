"""What `--style` may be."""

from __future__ import annotations

from pathlib import Path

from jobs.stores.filesystems import is_url
from nst.errors import OptionError
from nst.styles import PREFIX, STYLES

__all__ = ["style_place"]


def style_place(style: str) -> str:
    """The place of a style: of one that comes with this package, by its name, unless there is such a file.

    Raises:
        OptionError: it can be neither, nor a file or folder that is missing.
    """
    if is_url(style) or style.startswith(PREFIX) or Path(style).exists():
        return style
    if style in STYLES:
        return PREFIX + style
    if Path(style).suffix or "/" in style:
        return style  # reading it says what is wrong
    reason = "is neither a file nor a folder here, nor a style that comes with nst"
    raise OptionError("--style", style, choices=STYLES, reason=reason)
