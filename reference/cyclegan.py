"""CycleGAN's training step as the public implementation has it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.cyclegan.training import CycleGANTraining
from nst.gan.losses import gradient_penalty, mixed

__all__ = ["plain_step"]


def plain_step(training: CycleGANTraining, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
    """A step on real_a and real_b, (N, 3, H, W) in [-1, 1]: the public implementation's order, one pass for
    each image and use, gradients for everybody."""
    own = training.options
    G_A, G_B, D_A, D_B = training.G_A, training.G_B, training.D_A, training.D_B  # noqa: N806
    to: Callable[[Tensor, float], Tensor] = {
        "lsgan": lambda x, label: F.mse_loss(x, torch.full_like(x, label)),
        "vanilla": lambda x, label: F.binary_cross_entropy_with_logits(x, torch.full_like(x, label)),
        "wgangp": lambda x, label: -x.mean() if label else x.mean(),
        "hinge": lambda x, label: F.relu(1 - x).mean() if label else F.relu(1 + x).mean(),
    }[own.gan_mode]
    fake_b, fake_a = G_A(real_a), G_B(real_b)
    back_a, back_b = G_B(fake_b), G_A(fake_a)
    for_generator = to if own.gan_mode in ("lsgan", "vanilla") else (lambda x, _: -x.mean())
    losses = {
        "gan_A": for_generator(D_A(fake_b), 1.0),
        "gan_B": for_generator(D_B(fake_a), 1.0),
        "cycle_A": (back_a - real_a).abs().mean() * own.lambda_a,
        "cycle_B": (back_b - real_b).abs().mean() * own.lambda_b,
    }
    if own.lambda_identity:
        losses["identity_A"] = (G_A(real_b) - real_b).abs().mean() * own.lambda_b * own.lambda_identity
        losses["identity_B"] = (G_B(real_a) - real_a).abs().mean() * own.lambda_a * own.lambda_identity
    training.optimizer_g.zero_grad()
    sum(losses.values(), torch.zeros(())).backward()
    training.optimizer_g.step()
    training.optimizer_d.zero_grad()
    half = 0.5 if own.gan_mode in ("lsgan", "vanilla") else 1.0
    for name, D, real, fake, pool in (  # noqa: N806
        ("A", D_A, real_b, fake_b, training.pool_b),
        ("B", D_B, real_a, fake_a, training.pool_a),
    ):
        earlier = pool.query(fake)
        losses[f"D_{name}"] = half * (to(D(real), 1.0) + to(D(earlier.detach()), 0.0))
        total = losses[f"D_{name}"]
        if own.penalty not in (None, "none"):
            seen = real
            if own.penalty != "r1":
                places = torch.rand((len(real), 1, 1, 1), generator=training.generator, dtype=torch.float64)
                seen = mixed(real, earlier, places)
            losses[f"penalty_{name}"] = own.penalty_weight * gradient_penalty(D, seen, own.penalty)
            total = total + losses[f"penalty_{name}"]
        total.backward()
    training.optimizer_d.step()
    return {name: loss.detach() for name, loss in losses.items()}
