"""What generators and discriminators are trained by, each a function that gives a scalar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from nst import check
from nst.errors import OptionError
from nst.gan.layers import Norm

__all__ = [
    "GANMode",
    "Penalty",
    "check_penalty",
    "discriminator_loss",
    "discriminator_losses",
    "generator_loss",
    "generator_losses",
    "gradient_penalty",
    "mixed",
]

GANMode = Literal["lsgan", "vanilla", "wgangp", "hinge"]
Penalty = Literal["none", "wgangp", "r1", "zero_centered"]


def generator_loss(mode: GANMode, fake: Tensor) -> Tensor:
    """How far the discriminator's logits of fakes, any shape, are from those of real pictures.

    `lsgan`: least squares (Mao et al. 2017). `vanilla`: the non-saturating one (Goodfellow et al. 2014).
    `wgangp`: the critic's mean (Arjovsky et al. 2017). `hinge`: Lim and Ye 2017.

    Raises:
        OptionError: unknown mode.
    """
    return generator_losses(mode, fake).mean()


def generator_losses(mode: GANMode, fake: Tensor) -> Tensor:
    """The losses of each logit, of which `generator_loss` is the mean."""
    check.one_of("gan_mode", mode, get_args(GANMode))
    if mode == "lsgan":
        return (fake - 1).square()
    return F.softplus(-fake) if mode == "vanilla" else -fake


def discriminator_loss(mode: GANMode, real: Tensor, fake: Tensor) -> Tensor:
    """How badly the logits of real pictures and of fakes are told apart: half the sum of both for `lsgan` and
    `vanilla`, as in the paper's code, the plain sum for the others.

    Raises:
        OptionError: unknown mode.
    """
    of_real, of_fake = discriminator_losses(mode, real, fake)
    return of_real.mean() + of_fake.mean()


def discriminator_losses(mode: GANMode, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of each logit of real pictures, and of fakes; `discriminator_loss` is the sum of their
    means."""
    check.one_of("gan_mode", mode, get_args(GANMode))
    if mode == "lsgan":
        return (real - 1).square() / 2, fake.square() / 2
    if mode == "vanilla":
        return F.softplus(-real) / 2, F.softplus(fake) / 2
    if mode == "hinge":
        return F.relu(1 - real), F.relu(1 + fake)
    return -real, fake


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], images: Tensor, kind: Penalty) -> Tensor:
    """Mean over the images of a penalty on g, the gradient of an image's summed logits with respect to it.

    `wgangp`: (|g| - 1)^2, for `mixed` images (Gulrajani et al. 2017). `r1`: |g|^2, for real images
    (Mescheder et al. 2018). `zero_centered`: |g|^2, for `mixed` images (Thanh-Tung et al. 2019).

    Logits of one image must not depend on other images, which batch norm does not grant. The result is
    connected to every parameter of the discriminator, so that data-parallel training finds all of them.

    Args:
        images: (N, C, H, W); detached first.

    Raises:
        OptionError: unknown kind, or `none`.
    """
    check.one_of("penalty", kind, get_args(Penalty)[1:])
    x = images.detach().requires_grad_()
    logits = discriminator(x)
    (grads,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    squares = grads.flatten(1).square().sum(1)
    # The root has no slope at zero: it stops short.
    penalty = (squares.clamp_min(1e-16).sqrt() - 1).square() if kind == "wgangp" else squares
    # The biases of the last layer have no part in the gradient.
    return penalty.mean() + 0 * logits.sum()


def mixed(real: Tensor, fake: Tensor, places: Tensor) -> Tensor:
    """Images on the lines between pairs of (N, C, H, W), at `places` (N, 1, 1, 1): from 0, real, to 1, fake."""
    return torch.lerp(real, fake, places.to(real, non_blocking=True))


def check_penalty(penalty: Penalty, norm: Norm) -> None:
    """Refuse a penalty per image on a discriminator with a norm through which images see each other.

    Raises:
        OptionError: unknown penalty, or one together with batch norm.
    """
    check.one_of("penalty", penalty, get_args(Penalty))
    if penalty != "none" and norm == "batch":
        reason = "with batch norm an image's gradient depends on the other images"
        raise OptionError("penalty", penalty, choices=("none",), reason=reason)
