"""What `styles` of a job file and `--style` may be.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from jobs.stores.filesystems import absolute_url, is_url
from nst.errors import OptionError
from nst.styles import PREFIX, STYLES

__all__ = [
    "PerPhoto",
    "StyleOptions",
    "method_in_styles",
    "said_as_styles",
    "style_place",
    "takes_pictures",
]

PerPhoto: TypeAlias = Literal["all", "one"]
_OF_ALL = ("style_blend", "style_masks")
"""Options that make one style of several pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleOptions:
    """Styles of single photographs."""

    styles: str | tuple[str, ...] | None = None
    """Styles that photographs are painted in: a folder of pictures, or a list of pictures, folders, and names
    of styles that come with nst. They stand in place of `method.style`. None: `method.style` is for all."""
    styles_per_photo: Literal["all", "one"] | None = None
    """How many of `styles`, or of those that the network was trained for, each photograph is painted in: `all`,
    whose pictures have the key STYLE/KEY, or `one`, which is drawn by the digest of `seed` and its key. A
    `style` in the manifest goes before. None: `all`, if there are `styles`."""

    def __post_init__(self) -> None:
        if self.styles is not None and not all([self.styles, *self.styles]):
            reason = "must be a folder of pictures, or a list of pictures and names of styles"
            raise OptionError("styles", self.styles, reason=reason)


def style_place(style: str, base: Path | None = None, option: str = "--style") -> str:
    """The place of a style: of one that comes with this package, by its name, unless there is such a file.

    Args:
        base: the folder that relative paths are taken from; None: the current one.
        option: what names it, for error messages.

    Raises:
        OptionError: it can be neither, nor a file or folder that is missing.
    """
    if not style.strip():  # it would be the current folder, with all that is in it
        reason = "a picture, a folder of them or the name of a style is required"
        raise OptionError(option, style, choices=STYLES, reason=reason)
    if is_url(style) or style.startswith(PREFIX) or Path(absolute_url(style, base or Path.cwd())).exists():
        return style
    if style in STYLES:
        return PREFIX + style
    if Path(style).suffix or "/" in style:
        return style  # reading it says what is wrong
    reason = "is neither a file nor a folder here, nor a style that comes with nst"
    raise OptionError(option, style, choices=STYLES, reason=reason)


def takes_pictures(method: type[Any]) -> bool:
    """Whether a method's `style` may be a list of pictures."""
    return any(item.name == "style" and "tuple" in str(item.type) for item in fields(cast(Any, method)))


def method_in_styles(
    options: StyleOptions, method: Mapping[str, Any], base: Path, registry: Mapping[str, type[Any]]
) -> tuple[Mapping[str, Any], PerPhoto | None]:
    """The table `method` of a job file with the pictures that `styles` names as its `style`, and how many of
    them each photograph gets; None: no styles of single photographs are asked for.

    Raises:
        OptionError: `styles` names none, or does not go with the method or its options.
    """
    styles, per_photo, kind = options.styles, options.styles_per_photo, method.get("kind")
    if (styles is None and per_photo is None) or not isinstance(kind, str) or kind not in registry:
        return method, per_photo  # what is wrong with it is said by whoever makes the method
    pictures = takes_pictures(registry[kind])
    if styles is None:
        if pictures and method.get("style") is not None:
            reason = "goes with styles: the pictures of method.style are to be named there"
            raise OptionError("styles_per_photo", per_photo, reason=reason)
        return method, per_photo
    if not pictures:
        others = " or ".join(repr(name) for name, cls in registry.items() if takes_pictures(cls))
        reason = f"method.kind = {kind!r} takes no pictures of styles; method.kind = {others} does"
        raise OptionError("styles", styles, reason=reason)
    for option in ("style", *_OF_ALL):
        if method.get(option) is not None:
            reason = "does not go with styles: each picture is in one of these"
            raise OptionError(f"method.{option}", method[option], reason=reason)
    given = [styles] if isinstance(styles, str) else styles
    places = [style_place(each, base, f"styles[{index}]") for index, each in enumerate(given)]
    return {**method, "style": places}, per_photo or "all"


@contextmanager
def said_as_styles(per_photo: PerPhoto | None) -> Iterator[None]:
    """Within it, errors of the pictures in `method.style` call them `styles`, as a job file with these does."""
    try:
        yield
    except OptionError as error:
        option, bracket, place = error.option.partition("[")
        if per_photo is None or option != "method.style":
            raise
        named = f"styles{bracket}{place}"
        raise OptionError(named, error.value, choices=error.choices, reason=error.reason) from error
