"""The training step of one generator for many styles, written out."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.gan.sampling import style_pair
from nst.modulated.training import ManyStylesTraining

__all__ = ["plain_step"]


def plain_step(own: ManyStylesTraining, real_a: Tensor, real_b: Tensor, step: int) -> dict[str, Tensor]:
    """A step on real_a and real_b, (N, 3, H, W) in [-1, 1]: one image after the other, every use in a pass of
    its own."""
    options, G, D = own.options, own.G, own.D  # noqa: N806
    samples = range(step * len(real_a), (step + 1) * len(real_a))
    pairs = [style_pair(sample, len(options.styles), own.seed) for sample in samples]
    images = [
        (x[None], y[None], *map(torch.tensor, ([a], [b])))
        for x, y, (a, b) in zip(real_a, real_b, pairs, strict=True)
    ]
    as_real: dict[str, Callable[[Tensor], Tensor]] = {
        "lsgan": lambda v: (v - 1) ** 2,
        "vanilla": lambda v: F.softplus(-v),
        "hinge": lambda v: -v,
    }
    told: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "lsgan": lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
        "vanilla": lambda r, f: F.softplus(-r).mean() / 2 + F.softplus(f).mean() / 2,
        "hinge": lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(),
    }
    gan, cycle, identity, found, penalty = (torch.zeros((), dtype=torch.float64) for _ in range(5))
    for x, _, a, b in images:
        fake = G(x, b)
        gan = gan + as_real[options.gan_mode](D(fake, b)).mean() / len(images)
        cycle = cycle + options.lambda_cycle * (G(fake, a) - x).abs().mean() / len(images)
        if options.lambda_identity:
            weight = options.lambda_cycle * options.lambda_identity
            identity = identity + weight * (G(x, a) - x).abs().mean() / len(images)
    with torch.no_grad():
        fakes = [G(x, b) for x, _, _, b in images]
    own.optimizer_g.zero_grad()
    (gan + cycle + identity).backward()  # type: ignore[no-untyped-call]
    own.optimizer_g.step()
    for (_, y, _, b), fake in zip(images, fakes, strict=True):
        found = found + told[options.gan_mode](D(y, b), D(fake, b)) / len(images)
        if options.penalty == "r1" and step % options.penalty_every == 0:
            seen = y.clone().requires_grad_()
            (grad,) = torch.autograd.grad(D(seen, b).mean(), seen, create_graph=True)
            weight = options.penalty_every * options.penalty_weight / 2
            penalty = penalty + weight * grad.square().sum() / len(images)
    own.optimizer_d.zero_grad()
    (found + penalty).backward()  # type: ignore[no-untyped-call]
    own.optimizer_d.step()
    values = {"gan": gan, "cycle": cycle, "identity": identity, "D": found, "penalty": penalty}
    return {name: value.detach() for name, value in values.items()}
