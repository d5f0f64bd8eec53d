"""Four styles whose truth is known, learned unpaired: every direction, by one generator of 53,531 parameters.

A scene is a disc or two and a bar on a ground, in even light; a style is the colors of these three. Training
sees pictures of all styles, but never the same scene in two of them. The error of a direction is the mean
distance from the same scene in the wanted style, divided by that of the picture that was to be translated: 1 is
to do nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nst.cyclegan.many_styles import ManyStylesOptions, ManyStylesTraining, train_step
from nst.ops import Blur

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STYLES = ("photo", "ink", "pastel", "night")
COLORS = torch.tensor(
    [
        [[0.7, 0.5, 0.0], [-0.7, -0.1, 0.3], [0.2, -0.8, -0.7]],  # ground, disc, bar
        [[0.9, 0.8, 0.7], [-0.3, -0.3, -0.2], [-0.9, -0.8, -0.9]],
        [[0.2, 0.8, 0.9], [0.8, 0.1, 0.4], [0.0, -0.2, 0.6]],
        [[-0.3, -0.1, 0.7], [-0.7, -0.3, -0.5], [-0.1, -0.9, -0.8]],
    ]
)
SIDE = 32
BATCH = 8
SEEDS = (0, 1, 2)
Scenes = tuple[Tensor, Tensor, Tensor]


def scenes(count: int, generator: torch.Generator) -> Scenes:
    """How much of a pixel is of a disc, and of a bar, and how light it is: (count, 1, SIDE, SIDE) each."""
    places = torch.arange(SIDE) + 0.5
    y, x = places[:, None], places[None, :]
    draws = torch.rand(10, count, 1, 1, 1, generator=generator)

    def disc(across: Tensor, down: Tensor, size: Tensor) -> Tensor:
        distance = ((x - across * SIDE).square() + (y - down * SIDE).square()).sqrt()
        return (0.5 + 4 + 5 * size - distance).clamp(0, 1)

    discs = 1 - (1 - disc(*draws[0:3])) * (1 - disc(*draws[3:6]))
    bar = (0.5 + 1.5 + 1.5 * draws[7] - (x - 4 - draws[6] * (SIDE - 8)).abs()).clamp(0, 1).expand_as(discs)
    slope = (x / SIDE - 0.5) * (2 * draws[8] - 1) + (y / SIDE - 0.5) * (2 * draws[9] - 1)
    return discs, bar, 0.9 + 0.09 * slope


def drawn(of: Scenes, styles: Tensor) -> Tensor:
    """(N, 3, SIDE, SIDE) in [-1, 1]"""
    discs, bar, light = of
    ground, of_disc, of_bar = COLORS[styles][..., None, None].unbind(1)
    picture = torch.lerp(torch.lerp(ground.expand(-1, -1, SIDE, SIDE), of_bar, bar), of_disc, discs)
    return ((picture + 1) * light - 1).clamp(-1, 1)


@torch.no_grad()
def error(generator: nn.Module) -> float:
    """Over all directions, of scenes that training never saw."""
    count = 48
    of = scenes(count, torch.Generator().manual_seed(99))
    pictures = [drawn(of, torch.full((count,), style)) for style in range(len(STYLES))]
    missed = left = 0.0
    for a, source in enumerate(pictures):
        for b, truth in enumerate(pictures):
            if a != b:
                found = generator(source, torch.full((count,), b))
                missed += float((found - truth).abs().mean())
                left += float((source - truth).abs().mean())
    return missed / left


@torch.no_grad()
def shift_error(generator: nn.Module) -> float:
    """How far translating a picture that lies a pixel to the side is from moving its translation, divided by
    what the move changes: 1 is as far as not to follow it at all."""
    count, rim = 48, 6
    of = scenes(count, torch.Generator().manual_seed(98))
    missed = moved = 0.0
    for a in range(len(STYLES)):
        source = drawn(of, torch.full((count,), a))
        for b in range(len(STYLES)):
            if a != b:
                one, other = (
                    generator(source[..., at : at + SIDE - 4], torch.full((count,), b)) for at in (0, 1)
                )
                one, other = one[..., rim:-rim, rim:-rim], other[..., rim:-rim, rim:-rim]
                missed += float((one[..., 1:] - other[..., :-1]).abs().mean())
                moved += float((one[..., 1:] - one[..., :-1]).abs().mean())
    return missed / moved


def options(**changes: Any) -> ManyStylesOptions:
    given = {
        "generator_channels": 8,
        "blocks": 2,
        "latent": 16,
        "discriminator_channels": 32,
        "discriminator_layers": 2,
        "gan_mode": "hinge",
        "penalty_weight": 2 * 0.003 * 64**2,  # of maps of 64 logits
        "penalty_every": 4,
        "lambda_cycle": 1.0,
        "lambda_identity": 1.0,
        "discriminator_learning_rate": 4e-3,
        "ema_decay": 0.98,
        **changes,
    }
    return ManyStylesOptions(styles=STYLES, **given)


@cache
def errors(seed: int, *steps: int, without: str = "") -> tuple[tuple[float, float], ...]:
    """After these steps, of the generator's average: `error`, `shift_error`."""
    own = ManyStylesTraining(options(), seed=seed)
    if without == "blur":
        for network in (own.G, own.D, own.averages["G"]):
            unblur(network)
    generator = torch.Generator().manual_seed(1000 + seed)
    found = []
    for step in range(1, max(steps) + 1):
        sources, targets = own.directions(BATCH)
        a, b = drawn(scenes(BATCH, generator), sources), drawn(scenes(BATCH, generator), targets)
        if without == "style":
            targets = targets[torch.randperm(BATCH, generator=generator)]
        train_step(own, a, b, (sources, targets))
        if step in steps:
            found.append((error(own.averages["G"]), shift_error(own.averages["G"])))
    return tuple(found)


def unblur(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Blur):
                setattr(parent, name, nn.Identity())


def test_the_generator_is_small() -> None:
    own = ManyStylesTraining(options())
    assert sum(parameter.numel() for parameter in own.G.parameters()) == 53_531


@pytest.mark.parametrize("seed", SEEDS)
def test_every_direction_is_learned(seed: int) -> None:
    """After 600 steps 0.236, 0.476 and 0.231 were seen, and after 1200, which take two minutes of one thread,
    0.179, 0.319 and 0.172."""
    (early, _), (late, _) = errors(seed, 600, 1500)
    print(f"seed {seed}: {early:.3f} after 600 steps, {late:.3f} after 1500")
    assert early <= 0.5
    assert late <= 0.35


def test_with_styles_shuffled_nothing_is_learned() -> None:
    """0.858 against 0.595 was seen."""
    ((shuffled, _),), ((whole, _),) = errors(1, 200, without="style"), errors(1, 200)
    assert shuffled > 0.75 > whole


def test_without_blurs_a_shift_is_not_followed() -> None:
    """1.155 against 0.777 was seen. The colors themselves are learned no worse without."""
    ((_, aliased),), ((_, smooth),) = errors(1, 200, without="blur"), errors(1, 200)
    assert aliased > 1.0 > smooth
