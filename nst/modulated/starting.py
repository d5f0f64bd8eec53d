"""Weights of a generator for many styles, and of its discriminator, for a training with other styles."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nst.gan.starting import States

__all__ = ["by_style"]


def by_style(
    states: States, known: Sequence[str], generator: nn.Module, discriminator: nn.Module, styles: Sequence[str]
) -> States:
    """State dicts in which what there is of each style is in the place of the style of this name; styles that
    are not known keep what the networks have of them.

    Args:
        states: of `G` and `D`, trained with the styles `known`.
        generator, discriminator: networks with the styles `styles`.
    """
    last = f"model.{len(discriminator.model) - 1}"  # type: ignore[arg-type]
    found = {name: dict(state) for name, state in states.items()}
    for name, network, keys in (
        ("G", generator, ["embedding.weight"]),
        ("D", discriminator, [f"{last}.weight", f"{last}.bias"]),
    ):
        own = network.state_dict()
        for key in keys:
            given = found.get(name, {}).get(key)
            if given is None or len(given) != len(known) or given.shape[1:] != own[key].shape[1:]:
                continue
            parts = own[key].clone()
            for place, style in enumerate(styles):
                if style in known:
                    parts[place] = given[known.index(style)]
            found[name][key] = parts
    return found
