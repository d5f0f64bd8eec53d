"""Style pictures as methods' options say them: one or several, with digests, weights and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Protocol

from nst import check
from nst.errors import OptionError
from nst.stylizer import AssetRef

__all__ = ["StylePictures", "check_styles", "names_of", "picture_names", "style_assets", "styles_of"]

OneOrMore = str | tuple[str, ...]


class StylePictures(Protocol):
    """The options of a method with style pictures."""

    @property
    def style(self) -> OneOrMore | None: ...
    @property
    def style_sha256(self) -> OneOrMore | None: ...
    @property
    def style_blend(self) -> tuple[float, ...] | None: ...
    @property
    def style_masks(self) -> tuple[str, ...] | None: ...


def check_styles(method: StylePictures) -> None:
    """Raises OptionError: there is no picture, another number of weights, masks or digests, or no weight."""
    count = len(styles_of(method))
    if count == 0 and method.style is not None:
        raise OptionError("style", method.style, reason="at least one picture is needed")
    for option, entries in (
        ("style_blend", method.style_blend),
        ("style_masks", method.style_masks),
        ("style_sha256", _digests(method)),
    ):
        if entries is not None and len(entries) != count:
            reason = f"must have one entry for each of {count} style pictures"
            raise OptionError(option, getattr(method, option), reason=reason)
    for index, weight in enumerate(method.style_blend or ()):
        check.above_zero(f"style_blend[{index}]", weight)


def styles_of(method: StylePictures) -> tuple[str, ...]:
    """Places of the style pictures, in order."""
    if method.style is None:
        return ()
    return (method.style,) if isinstance(method.style, str) else tuple(method.style)


def picture_names(method: StylePictures) -> list[str]:
    """What photographs ask for each of the style pictures by: its name without folder and suffix."""
    return [PurePosixPath(url).stem for url in styles_of(method)]


def style_assets(method: StylePictures) -> list[AssetRef]:
    """The style pictures and their masks."""
    styles = zip(
        names_of("style", () if method.style is None else method.style),
        styles_of(method),
        _digests(method),
        strict=True,
    )
    found = [AssetRef(option=option, url=url, kind="image", sha256=digest) for option, url, digest in styles]
    masks = method.style_masks or ()
    for option, url in zip(names_of("style_masks", masks), masks, strict=True):
        found.append(AssetRef(option=option, url=url, kind="image"))
    return found


def names_of(option: str, value: str | Sequence[str]) -> list[str]:
    """What its pictures are called in messages."""
    return [option] if isinstance(value, str) else [f"{option}[{index}]" for index in range(len(value))]


def _digests(method: StylePictures) -> tuple[str | None, ...]:
    given = method.style_sha256
    if given is None:
        return (None,) * len(styles_of(method))
    return (given,) if isinstance(given, str) else tuple(given)
