"""What `nst stylize` makes of --quality and --style."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from jobs.cli.work import without_output
from jobs.config.listing import ListingOptions
from jobs.config.styles import style_place
from jobs.config.tables import apply_overrides
from nst.errors import OptionError
from nst.methods import METHODS

__all__ = ["Quality", "first_photo", "stylize_table"]

Quality: TypeAlias = Literal["draft", "adapted", "best"]
_KINDS: Mapping[Quality, str] = {
    "draft": "feed_forward",
    "adapted": "feed_forward",
    "best": "style_transfer",
}
_ADAPT_STEPS = 600


def stylize_table(
    styles: Sequence[str],
    quality: Quality | None,
    overrides: Sequence[str],
    *,
    first_frame: str | None,
    weights: str | None = None,
    each_in: Sequence[str] = (),
) -> dict[str, Any]:
    """The tables `method` and `image` of a job, and its `styles`.

    Args:
        styles: what all photographs are painted in, blended.
        quality: None: `draft`, unless an option is set that only `best` has.
        overrides: what --set says.
        first_frame: that of a sequence.
        weights: the network's; None: those that come along.
        each_in: styles in each of which every photograph is painted, instead.

    Raises:
        OptionError: there is neither a style nor a network of one; a style is neither a file, nor a folder, nor
            one that comes with this package; or a sequence, a network or an option is not to be had in this
            quality.
    """
    chosen = quality or ("best" if _only_in("best", overrides) else "draft")
    _refuse_options_of_another(chosen, overrides, said=quality is not None)
    places = [style_place(style) for style in styles]
    if places and each_in:
        reason = "does not go with --styles, in each of which every photograph is painted"
        raise OptionError("--style", places[0], reason=reason)
    if not places and not each_in and (weights is None or chosen != "draft"):
        raise OptionError("--style", None, reason="a picture is required")
    method: dict[str, Any] = {"kind": _KINDS[chosen]}
    top: dict[str, Any] = {}
    if places:
        method["style"] = places[0] if len(places) == 1 else places
    if each_in:
        top["styles"] = [style_place(style, option="--styles") for style in each_in]
    if chosen == "best":
        if first_frame is not None:
            raise OptionError("--sequence", True, reason="goes with --quality draft or adapted")
        if weights is not None:
            raise OptionError("--weights", weights, reason="goes with --quality draft or adapted")
        return {**top, "method": method}
    if weights is not None:
        method["weights"] = weights
    if chosen == "adapted":
        method["adapt_steps"] = _ADAPT_STEPS
    if first_frame is not None:
        method["reference"] = first_frame
    return {**top, "method": method, "image": {"max_side_px": 0}}


def first_photo(photos: list[str], out: str, overrides: Sequence[str]) -> str:
    """The first photograph that there is, in the order of a job at `out`.

    Args:
        overrides: what --set says, also of which files are photographs.

    Raises:
        OptionError, UsageError: there is none.
    """
    from jobs.driver.photos import listed
    from jobs.ledger.left_out import LeftOut
    from jobs.spec import job_from_table

    which = ("resources", "storage", *(item.name for item in fields(ListingOptions)))
    given = [each for each in overrides if re.split("[.=]", each, maxsplit=1)[0].strip() in which]
    table = {"photos": without_output(photos, out), "output": out, "method": {"kind": "feed_forward"}}
    job = job_from_table(apply_overrides(table, given), Path.cwd())
    first = next(listed(job.spec, job.storage, LeftOut()), None)
    if first is None:
        raise OptionError("photos", photos[0], reason="there is no photograph")
    return first.url


def _refuse_options_of_another(chosen: Quality, overrides: Sequence[str], *, said: bool) -> None:
    other: Quality = "draft" if chosen == "best" else "best"
    for override in _only_in(other, overrides):
        reason = "goes with --quality best" if other == "best" else "goes with --quality draft or adapted"
        if not said:
            reason += f", and {_only_in(chosen, overrides)[0]!r} with {chosen}"
        raise OptionError("--set", override, reason=reason)


def _only_in(quality: Quality, overrides: Sequence[str]) -> list[str]:
    """What --set has of options that only this one has of a network and optimization."""
    names = [each.partition("=")[0].strip() for each in overrides]
    if "method.kind" in names or not any(name.startswith("method.") for name in names):
        return []
    draft, best = (
        {item.name for item in fields(cast(Any, METHODS[_KINDS[kind]]))} for kind in ("draft", "best")
    )
    only = best - draft if quality == "best" else draft - best
    return [
        override
        for name, override in zip(names, overrides, strict=True)
        if name.startswith("method.") and name.removeprefix("method.").partition(".")[0] in only
    ]
