"""Styles of single photographs: all of a job's, one that is drawn, or one of a photograph's own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from jobs.config.styles import PerPhoto, takes_pictures
from jobs.console.text import counted
from jobs.driver.assets import Asset, by_url
from jobs.errors import UsageError
from jobs.ledger.folders import Photo
from jobs.ledger.names import folded, safe_part
from jobs.spec import StylizeSpec
from nst.errors import OptionError

if TYPE_CHECKING:
    from nst.stylizer import Method, StyledMethod

__all__ = ["InStyles", "check_style", "in_one_style", "photograph_key", "refuse_styles", "takes_styles"]

_NAMED = 10


def takes_styles(method: Method) -> bool:
    """Whether each photograph may have a style of its own."""
    from nst.stylizer import StyledMethod  # which loads torch; making the method did, too

    return isinstance(method, StyledMethod)


def check_style(method: Method, assets: Iterable[Asset]) -> None:
    """Check the job's style; those of single photographs are the business of their rows."""
    from nst.stylizer import StyledMethod

    assert isinstance(method, StyledMethod)
    try:
        method.check_style(by_url(assets))
    except OptionError as error:
        raise error.within("method") from error


def refuse_styles(photos: Iterable[Photo], kind: str) -> None:
    """Refuse photographs with styles, for a method that takes none: who gave them expects them to come out so.

    Raises:
        UsageError: one has a style.
    """
    for photo in photos:
        if photo.style is not None:
            raise UsageError(
                f"{photo.key!r} has the style {photo.style!r} in the manifest, but method.kind = {kind!r} "
                f'takes none for each photograph, as kind = "feed_forward" does; leave out the column `style`'
            )


def photograph_key(key: str, per_photo: PerPhoto | None) -> str:
    """A photograph's own key, of the key of its picture in a job with these `styles_per_photo`."""
    return key.partition("/")[2] if per_photo == "all" else key


def in_one_style(spec: StylizeSpec) -> Method:
    """The method with the first of its styles, where photographs get single ones: what a picture takes does not
    depend on which."""
    method: Any = spec.method
    if spec.styles_per_photo is None or not takes_pictures(type(method)) or method.style is None:
        return spec.method
    return cast("Method", replace(method, style=method.style[:1], style_sha256=None))


class InStyles:
    """Makes a job's photographs its pictures to be, each with its key and style.

    Raises:
        OptionError: the method knows no styles, or two that are called the same.
    """

    def __init__(self, spec: StylizeSpec, assets: Sequence[Asset]) -> None:
        self._spec, self._per_photo = spec, spec.styles_per_photo
        self._takes = takes_styles(spec.method)
        self._folders = {} if self._per_photo is None else _folders(spec, assets)
        self._ordered = sorted(self._folders)
        self._photographs = self._pictures = 0
        self._assets = assets
        self._known: Collection[str] | None = self._folders or None
        self._unknown = Counter[str]()

    def __call__(self, photos: Iterable[Photo]) -> Iterator[Photo]:
        """The pictures of `photos`, those of a photograph one after the other.

        Raises:
            UsageError: one has a style, and the method takes none for each photograph.
        """
        for photo in photos:
            if not self._takes:
                refuse_styles([photo], self._spec.kind)
            elif photo.style is not None and photo.style not in self._names():
                self._unknown[photo.style] += 1
            self._photographs += 1
            for picture in self._of(photo):
                self._pictures += 1
                yield picture

    def _names(self) -> Collection[str]:
        """Names of the styles that there are, which may be those of a file of weights."""
        if self._known is None:
            self._known = cast("StyledMethod", self._spec.method).style_names(by_url(self._assets))
        return self._known

    def _of(self, photo: Photo) -> Iterator[Photo]:
        if self._per_photo == "all":
            for style in self._folders if photo.style is None else (photo.style,):
                folder = self._folders.get(style) or safe_part(style)
                yield replace(photo, key=f"{folder}/{photo.key}", style=style)
        elif self._per_photo == "one" and photo.style is None:
            text = f"{self._spec.seed}/{photo.key}".encode("utf-8", "surrogateescape")
            number = int.from_bytes(hashlib.sha256(text).digest()[-8:], "big")
            yield replace(photo, style=self._ordered[number % len(self._ordered)])
        else:
            yield photo

    def notes(self) -> list[str]:
        """What there is to say of what was listed."""
        return [*self._counts(), *self._failing()]

    def _failing(self) -> Iterator[str]:
        """What will become of photographs in styles that there are not, before they fail."""
        if self._unknown:
            several = counted(self._unknown.total(), "photograph")
            there = f"there are {_some(self._names())}" if self._names() else "the network has one style only"
            yield f"{several} will fail, of unknown styles: {_some(self._unknown)}; {there}"

    def _counts(self) -> list[str]:
        photographs, styles = counted(self._photographs, "photograph"), counted(len(self._folders), "style")
        if self._per_photo is None:
            return []
        if self._per_photo == "one":
            return [f"{photographs}, each in one of {styles}"]
        own = "" if self._pictures == self._photographs * len(self._folders) else ", but for some in their own"
        return [f"{photographs} x {styles}{own} = {self._pictures} pictures"]


def _some(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    first = ", ".join(map(repr, sorted(names)[:_NAMED]))
    return f"{first} and {len(names) - _NAMED} more" if len(names) > _NAMED else first


def _folders(spec: StylizeSpec, assets: Sequence[Asset]) -> Mapping[str, str]:
    """The names of the styles, and what the keys of their pictures begin with."""
    from nst.stylizer import StyledMethod

    option, per_photo = "styles_per_photo", spec.styles_per_photo
    if not isinstance(spec.method, StyledMethod):
        reason = f"method.kind = {spec.kind!r} takes no style for each photograph"
        raise OptionError(option, per_photo, reason=reason)
    names = spec.method.style_names(by_url(assets))
    if not names:
        raise OptionError(option, per_photo, reason="there are none: the network has a single style")
    pictures = [asset.url for asset in assets if asset.option.partition("[")[0] == "style"]
    places = pictures or names
    first: dict[str, int] = {}
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        if pictures:
            option, per_photo = f"styles[{index}]", place  # type: ignore[assignment]
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise OptionError(option, per_photo, reason=f"its name, {name!r}, is no text")
        before = first.setdefault(folded(safe_part(name)), index)
        if before != index:
            reason = (
                f"is called {name!r}, as is {places[before]!r}, whatever the case and Unicode's forms; "
                f"pictures are found by the names of their styles: rename one"
            )
            raise OptionError(option, per_photo, reason=reason)
    return {name: safe_part(name) for name in names}
