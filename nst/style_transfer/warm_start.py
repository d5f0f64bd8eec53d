"""What optimization starts from with `init = "feed_forward"`: what a network paints in one pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch

from nst.errors import OptionError
from nst.methods import METHODS
from nst.style_transfer.pictures import StylePictures
from nst.stylizer import AssetRef, Assets, StyledMethod, StyledStylizer

__all__ = ["WarmStart", "build_fast", "fast_assets"]


class WarmStart(StylePictures, Protocol):
    """The options of a method that may start so."""

    @property
    def init(self) -> str: ...
    @property
    def init_weights(self) -> str: ...


def fast_assets(options: WarmStart) -> list[AssetRef]:
    """The files that it needs besides the style pictures."""
    fast = _method(options)
    refs = [] if fast is None else fast.assets()
    return [replace(ref, option="init_weights") for ref in refs if ref.kind == "weights"]


def build_fast(options: WarmStart, assets: Assets, device: torch.device) -> StyledStylizer | None:
    """What paints in one pass; None: nothing is to.

    Raises:
        OptionError: the network is one of one style.
        WeightsError: it is none.
    """
    fast = _method(options)
    if fast is None:
        return None
    try:
        return fast.build(assets, device)
    except OptionError as error:
        if error.option == "style" and "one style" in str(error.reason):
            reason = "is a network of one style, and not of any"
            raise OptionError("init_weights", options.init_weights, reason=reason) from error
        raise


def _method(options: WarmStart) -> StyledMethod | None:
    if options.init != "feed_forward":
        return None
    fast: Any = METHODS["feed_forward"]  # by its name: it builds on this package
    made: StyledMethod = fast(
        style=options.style,
        style_blend=options.style_blend,
        style_masks=options.style_masks,
        weights=options.init_weights,
        precision="float32",
    )
    return made
