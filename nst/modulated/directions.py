"""Losses of many styles, by direction and by style. Loads no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

__all__ = ["direction_means", "style_means"]


def direction_means(losses: Mapping[str, float]) -> dict[str, float]:
    """The means of `train_step`'s losses, or of their means over steps or processes, of each direction over its
    own images: `gan_photo_to_ukiyo-e`, ... Directions without an image are left out."""
    found = {}
    for name, share in losses.items():
        kind, _, direction = name.partition("_")
        if kind == "images" and share > 0:
            of = (f"{each}_{direction}" for each in ("gan", "cycle"))
            found.update({each: losses[each] / share for each in of})
    return found


def style_means(losses: Mapping[str, float]) -> dict[str, float]:
    """The means, as of `direction_means`, of each style: `D_ukiyo-e` over the images that are translated to it,
    `identity_ukiyo-e`, if there is one, over those of it."""
    shares: Counter[str] = Counter()
    for name, share in losses.items():
        kind, _, direction = name.partition("_")
        if kind == "images":
            source, _, target = direction.partition("_to_")
            shares[f"D_{target}"] += share  # type: ignore[assignment]
            shares[f"identity_{source}"] += share  # type: ignore[assignment]
    return {name: losses[name] / share for name, share in shares.items() if name in losses and share > 0}
