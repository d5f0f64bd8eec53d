"""Four styles whose truth is known, learned unpaired: twelve directions, by one generator of 53,531 parameters.

A scene is a disc and three smaller squares, anywhere on a plain ground; a style is the colors of ground and
shapes. Training sees pictures of all styles, but never the same scene in two of them. The error of a direction
is the mean distance from the same scene in the wanted style, divided by that of the picture that was to be
translated: 1 is to do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nst.modulated.training import ManyStylesOptions, ManyStylesTraining, train_step
from nst.ops import Blur
from tests.nst.test_cyclegan_toy import SIDE, Sizes, drawn

STYLES = ("photo", "ink", "pastel", "night")
COLORS = torch.tensor(
    [
        [[0.7, 0.5, 0.1], [-0.7, -0.2, -0.4]],  # ground, shapes
        [[0.9, 0.8, 0.7], [-0.9, -0.8, -0.9]],
        [[0.3, 0.9, 0.9], [-0.3, -0.1, 0.4]],
        [[-0.3, -0.1, 0.7], [-0.8, -0.9, -0.5]],
    ]
)
# A fifth of a picture: where it is half, ground and shapes are hard to tell apart, and whether a seed learns is
# a matter of luck.
SIZES: Sizes = ((5.0, 7.0), (2.0, 3.5))
BATCH, UNSEEN = 4, 32
SEEDS = (0, 1, 2)


def painted(shapes: Tensor, styles: Tensor) -> Tensor:
    """Of (N, 1, SIDE, SIDE) in [0, 1] and (N,), pictures (N, 3, SIDE, SIDE) in [-1, 1]."""
    ground, color = COLORS[styles][..., None, None].unbind(1)
    return torch.lerp(ground.expand(-1, -1, SIDE, SIDE), color, shapes)


@dataclass(frozen=True, slots=True)
class Found:
    """Of a generator, over all directions, on scenes that training never saw."""

    error: float
    """Distance from the truth; 1: that of doing nothing."""
    shift: float
    """How far translating a picture that lies a pixel to the side is from moving its translation; 1: what the
    move itself changes, so that it is as far as not to follow it."""


@torch.no_grad()
def examined(generator: nn.Module) -> Found:
    shapes = drawn(UNSEEN, torch.Generator().manual_seed(99), SIZES)
    pictures = [painted(shapes, torch.full((UNSEEN,), style)) for style in range(len(STYLES))]
    missed = left = unfollowed = moved = 0.0
    rim = 6
    for a, source in enumerate(pictures):
        for b, truth in enumerate(pictures):
            if a == b:
                continue
            wanted = torch.full((UNSEEN,), b)
            missed += float((generator(source, wanted) - truth).abs().mean())
            left += float((source - truth).abs().mean())
            one, other = (
                generator(source[..., at : at + SIDE - 4], wanted)[..., rim:-rim, rim:-rim] for at in (0, 1)
            )
            unfollowed += float((one[..., 1:] - other[..., :-1]).abs().mean())
            moved += float((one[..., 1:] - one[..., :-1]).abs().mean())
    return Found(missed / left, unfollowed / moved)


def options(**changes: Any) -> ManyStylesOptions:
    given = {
        "generator_channels": 8,
        "blocks": 2,
        "latent": 16,
        "discriminator_channels": 16,
        "discriminator_layers": 2,
        "penalty_every": 4,
        "lambda_cycle": 1.0,
        "lambda_identity": 1.0,
        "discriminator_learning_rate": 1e-2,
        "ema_decay": 0.98,
        **changes,
    }
    return ManyStylesOptions(styles=STYLES, **given)


@cache
def trained(seed: int, *steps: int, without: str = "") -> tuple[Found, ...]:
    """After these steps, of the generator's average. `without`: `penalty`; `blur`, in both networks; `style`:
    those that the step is told are drawn at random; or nothing."""
    own = ManyStylesTraining(options(penalty="none") if without == "penalty" else options(), seed=seed)
    if without == "blur":
        for network in (own.G, own.D, own.averages["G"]):
            unblur(network)
    generator = torch.Generator().manual_seed(1000 + seed)
    found = []
    for step in range(1, max(steps) + 1):
        sources, targets = own.directions(BATCH)
        a, b = (painted(drawn(BATCH, generator, SIZES), styles) for styles in (sources, targets))
        if without == "style":
            sources, targets = torch.randint(len(STYLES), (2, BATCH), generator=generator)
        train_step(own, a, b, (sources, targets))
        if step in steps:
            found.append(examined(own.averages["G"]))
    return tuple(found)


def unblur(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Blur):
                setattr(parent, name, nn.Identity())


def test_the_generator_is_small() -> None:
    own = ManyStylesTraining(options())
    assert sum(parameter.numel() for parameter in own.G.parameters()) == 53_531


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_every_direction_is_learned(seed: int) -> None:
    early, late = trained(seed, 600, 1500)
    assert early.error <= 0.45
    assert late.error <= 0.35


@pytest.mark.slow
def test_shuffled_styles_are_not_learned() -> None:
    """Told others than those that the pictures have, it does nothing well."""
    (found,) = trained(1, 600, without="style")
    assert found.error > 0.6


@pytest.mark.slow
def test_without_r1_it_learns_less() -> None:
    """Of two seeds, each by a fifth or more: 0.18 and 0.19 were seen, against 0.15 with it."""
    for seed in (1, 2):
        (found,) = trained(seed, 600, without="penalty")
        assert found.error > 1.1 * trained(seed, 600, 1500)[0].error


@pytest.mark.slow
def test_without_blurs_it_follows_less() -> None:
    """Colors are learned as well without, even a little better. What blurs are there for (Zhang 2019) is that a
    translation moves with its picture: 0.66 and 0.59 were seen, against 0.39 and 0.37 with them."""
    for seed in (1, 2):
        (found,) = trained(seed, 600, without="blur")
        assert found.shift > 1.3 * trained(seed, 600, 1500)[0].shift
