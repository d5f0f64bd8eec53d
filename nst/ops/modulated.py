"""Convolutions whose weights depend on a latent of each image (Karras et al. 2020, "Analyzing and improving the
image quality of StyleGAN", section 2.2)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst import check
from nst.errors import OptionError
from nst.ops.blur import Blur
from nst.ops.equalized import Border, Equalized, EqualizedLinear, at_least_float32, padded

__all__ = ["Form", "ModulatedConv2d"]

Form = Literal["grouped", "scaled"]
"""How an image's own weights are applied. The result is the same but for rounding.

- grouped: the weights of every image are made, and all are applied as the groups of one convolution.
- scaled: input and output are scaled around a convolution that all images share, which is faster and needs no
  weights per image.
"""
_EPS = 1e-8


class ModulatedConv2d(Equalized):
    """(N, inputs, H, W), (N, latent) to (N, outputs, H, W), or twice H and W.

    Of the weights w, image n has w' = w * s[n], along the inputs, where s = 1 + A(latents) and A is linear.
    They are demodulated: w' / sqrt(sum w'^2 + eps), a sum for each output, which keeps variance 1, unless the
    kernel is a single pixel, as at the end of a generator. Last a bias is added, which does not depend on the
    latent.

    Args:
        latent: length of the latents.
        kernel: odd.
        up: zoom by nearest neighbor, convolve, blur.
        padding: at the border, of the convolution; the blur mirrors, so that a constant stays one.

    Raises:
        OptionError: unknown form or padding, an even kernel, or a size below 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        latent: int,
        kernel: int = 3,
        *,
        form: Form = "scaled",
        up: bool = False,
        padding: Border = "reflect",
    ) -> None:
        super().__init__()
        check.at_least("inputs", inputs, 1)
        check.at_least("outputs", outputs, 1)
        check.at_least("latent", latent, 1)
        check.at_least("kernel", kernel, 1)
        if kernel % 2 == 0:
            raise OptionError("kernel", kernel, reason="must be odd")
        check.one_of("form", form, get_args(Form))
        check.one_of("padding", padding, get_args(Border))
        self.form, self.up, self.padding = form, up, padding
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.affine = EqualizedLinear(latent, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.blur = Blur() if up else None
        self.reset_parameters()

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """
        Args:
            latents: (N, latent), or (1, latent) for all images alike.

        Raises:
            ValueError: they are of another shape.
        """
        length = self.affine.weight.shape[1]
        if latents.ndim != 2 or latents.shape[1] != length or latents.shape[0] not in (1, x.shape[0]):
            wanted = f"({x.shape[0]}, {length}) or (1, {length})"
            raise ValueError(f"latents are {tuple(latents.shape)}: expected {wanted} for {x.shape[0]} images")
        # Small, and roots and sums of many squares are taken of them: not in half precision.
        with torch.autocast(x.device.type, enabled=False):
            scales = 1 + self.affine(latents.to(at_least_float32(self.weight).dtype))
        weight = at_least_float32(self.weight) * self.scale
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = padded(x, weight.shape[-1] // 2, self.padding)
        out = self._grouped(x, weight, scales) if self.form == "grouped" else self._scaled(x, weight, scales)
        if self.blur is not None:
            out = self.blur(out)
        return out + self.bias.to(out.dtype)[:, None, None]

    def _grouped(self, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
        weights = weight * scales.expand(x.shape[0], -1)[:, None, :, None, None]  # (N, outputs, inputs, k, k)
        if weight.shape[-1] > 1:
            weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + _EPS).rsqrt()
        joined = x.reshape(1, -1, *x.shape[-2:])  # not a view of an image in channels_last
        out = F.conv2d(joined, weights.flatten(0, 1).to(x.dtype), groups=x.shape[0])
        return out.reshape(x.shape[0], -1, *out.shape[-2:])

    def _scaled(self, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
        out = F.conv2d(x * scales.to(x.dtype)[..., None, None], weight.to(x.dtype))
        if weight.shape[-1] == 1:
            return out
        with torch.autocast(x.device.type, enabled=False):
            squares = scales.square() @ weight.square().sum((2, 3)).T  # (N, outputs)
            factors = (squares + _EPS).rsqrt()
        return out * factors.to(out.dtype)[..., None, None]
