"""Keeping a photograph's colors (Gatys, Bethge, Hertzmann, Shechtman 2016, "Preserving color in neural artistic
style transfer"). Pictures are (3, H, W), RGB."""

from __future__ import annotations

import torch
from torch import Tensor

from nst.ops.constant import constant

__all__ = ["luminance", "match_color", "match_luminance", "with_luminance"]

# NTSC 1953, the Y of YIQ that the paper uses.
_LUMA = (0.299, 0.587, 0.114)
_FLAT = 1e-5
"""Standard deviation below which a color direction of the style picture is left as it is: there is nothing in
it to be spread. A hundredth of a level of 8 bits."""


def luminance(image: Tensor) -> Tensor:
    """Gray of equal luminance, (3, H, W): the Y of YIQ in every channel."""
    weights = constant(_LUMA, image).view(3, 1, 1)
    return (image * weights).sum(0, keepdim=True).expand_as(image)


def with_luminance(photo: Tensor, painted: Tensor) -> Tensor:
    """The chroma (I and Q) of `photo` with the luminance of `painted`, within [0, 1].

    Adding the difference of luminance to all channels is what the way through YIQ and back comes to. A color
    that would leave the range is brought back towards gray of its luminance, which keeps luminance and hue,
    where clipping channel by channel would keep neither.
    """
    gray = luminance(painted)
    chroma = photo - luminance(photo)
    room = torch.where(chroma > 0, 1 - gray, gray) / chroma.abs().clamp_min(1e-12)
    share = room.amin(0, keepdim=True).clamp(0, 1)
    return (gray + share * chroma).clamp(0, 1)


def match_luminance(style: Tensor, photo: Tensor) -> Tensor:
    """The gray of `style`, shifted and scaled to the mean and standard deviation of `photo`'s: section 4.2."""
    source, target = luminance(style), luminance(photo)
    spread = source.std(correction=0)
    factor = torch.where(spread > _FLAT, target.std(correction=0) / spread, 1.0)
    return (source - source.mean()) * factor + target.mean()


def match_color(style: Tensor, photo: Tensor) -> Tensor:
    """`style` under the linear map of its colors that gives it the mean and the covariance of `photo`'s:
    section 4.1, the symmetric map of Image Analogies, Cov(photo)^(1/2) Cov(style)^(-1/2). It may leave [0, 1].
    """
    source, target = style.flatten(1).double(), photo.flatten(1).double()
    wanted = _power(_covariance(target), 0.5)
    whitening = _power(_covariance(source), -0.5)
    matched = wanted @ whitening @ (source - source.mean(1, keepdim=True)) + target.mean(1, keepdim=True)
    return matched.view_as(style).to(style)


def _covariance(colors: Tensor) -> Tensor:
    centered = colors - colors.mean(1, keepdim=True)
    return centered @ centered.T / colors.shape[1]


def _power(covariance: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    powers = torch.where(values > _FLAT**2, values.clamp_min(_FLAT**2) ** exponent, torch.zeros_like(values))
    power: Tensor = vectors @ (powers[:, None] * vectors.T)
    return power
