"""One generator for many styles, and the discriminator that goes with it.

The generator is CycleGAN's ResNet (Zhu et al. 2017) up to its blocks; these, and what follows, are
modulated by the latent of the wanted style (Karras et al. 2020, "Analyzing and improving the image quality of
StyleGAN"). That a mapping gives latents, and a discriminator has one output per style, is of StarGAN v2
(Choi et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst import check
from nst.errors import OptionError
from nst.gan.bands import Bands
from nst.gan.layers import Norm, normalization
from nst.ops.blur import Blur
from nst.ops.equalized import Border, Equalized, EqualizedConv2d, EqualizedLinear, PixelNorm
from nst.ops.modulated import Form, ModulatedConv2d

__all__ = ["ModulatedGenerator", "StyleDiscriminator", "check_styles"]


def check_styles(styles: Sequence[str]) -> None:
    """Raises OptionError: fewer than two, or one twice, or a name that is empty or has `_to_` in it, which
    names of directions have."""
    if len(styles) < 2:
        raise OptionError("styles", list(styles), reason="at least two are needed")
    for style in styles:
        if not style or list(styles).count(style) > 1:
            raise OptionError("styles", list(styles), reason="names must differ and not be empty")
        if "_to_" in style:
            raise OptionError("styles", list(styles), reason=f"{style!r} has `_to_` in it")


class ModulatedGenerator(nn.Module):
    """(N, image_channels, H, W) in [-1, 1] to the same, in a style; H and W are multiples of 4, from 8.

    Args:
        styles: names; by convention the first is "photo".
        channels: of the first layer.
        blocks: modulated residual blocks, at a quarter of the image's sides.
        latent: length of embeddings and latents.
        mapping_layers: from a style's embedding to its latent; 0: the embedding is the latent.
        pixel_norm: of embeddings, before the mapping.
        norm: of the encoder; the modulated convolutions are normalized by their weights.
        padding, form: as of `ModulatedConv2d`.

    Raises:
        OptionError: unknown norm, padding or form, a size that is too low, or styles that `check_styles`
            refuses.
    """

    def __init__(
        self,
        styles: Sequence[str],
        *,
        channels: int = 64,
        blocks: int = 6,
        latent: int = 64,
        mapping_layers: int = 2,
        pixel_norm: bool = True,
        norm: Norm = "instance",
        padding: Border = "reflect",
        form: Form = "scaled",
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_styles(styles)
        self.pixel_bytes, self.mirrored = 32 * channels, channels if padding == "reflect" else 0
        check.at_least("channels", channels, 1)
        check.at_least("blocks", blocks, 0)
        check.at_least("latent", latent, 1)
        check.at_least("mapping_layers", mapping_layers, 0)
        check.one_of("norm", norm, get_args(Norm))
        check.one_of("padding", padding, get_args(Border))
        check.one_of("form", form, get_args(Form))
        self.styles = tuple(styles)
        self.embedding = _Embedding(len(styles), latent)
        mapping: list[nn.Module] = [PixelNorm()] if pixel_norm else []
        for _ in range(mapping_layers):
            mapping += [EqualizedLinear(latent, latent), _Leaky()]
        self.mapping = nn.Sequential(*mapping)
        wide = 4 * channels
        encoder: list[nn.Module] = [EqualizedConv2d(image_channels, channels, 7, padding=padding)]
        encoder += [normalization(norm, channels), nn.ReLU(inplace=True)]
        for before in (channels, 2 * channels):
            encoder += [Blur(), EqualizedConv2d(before, 2 * before, stride=2, padding=padding)]
            encoder += [normalization(norm, 2 * before), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*encoder)
        self.blocks = nn.ModuleList(_Block(wide, latent, padding, form) for _ in range(blocks))
        self.ups = nn.ModuleList(
            ModulatedConv2d(before, before // 2, latent, up=True, padding=padding, form=form)
            for before in (wide, wide // 2)
        )
        self.to_image = ModulatedConv2d(channels, image_channels, latent, 1, form=form)

    def latents(self, styles: Tensor) -> Tensor:
        """Indices (N,) to latents (N, latent).

        Raises:
            ValueError: they are not indices of styles.
        """
        found: Tensor = self.mapping(self.embedding(_indices(styles, len(self.styles))))
        return found

    def blend(self, weights: Mapping[str, float]) -> Tensor:
        """The latent (1, latent) between styles: the mean of theirs by these weights, whatever their sum.

        Raises:
            OptionError: an unknown style, a weight that is negative or not finite, or all of them are 0.
        """
        for style, weight in weights.items():
            if style not in self.styles:
                raise OptionError(f"styles.{style}", weight, choices=self.styles, reason="unknown style")
            check.at_least(f"styles.{style}", weight, 0)
        total = sum(weights.values())
        check.above_zero("the sum of the styles' weights", total)
        device = self.embedding.weight.device
        latents = self.latents(torch.tensor([self.styles.index(style) for style in weights], device=device))
        shares = latents.new_tensor([weight / total for weight in weights.values()])
        return (shares[:, None] * latents).sum(0, keepdim=True)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """
        Args:
            style: indices of styles (N,), or latents (N, latent), or one latent (1, latent) for all.

        Raises:
            ValueError: it is none of these.
        """
        if not style.is_floating_point():
            if style.shape != x.shape[:1]:
                raise ValueError(f"indices of styles are {tuple(style.shape)}, expected ({x.shape[0]},)")
            style = self.latents(style)
        x = self.encoder(x)
        for block in self.blocks:
            x = block(x, style)
        return self._enlarged(x, style)

    def _enlarged(self, x: Tensor, style: Tensor) -> Tensor:
        for up in self.ups:
            x = _leaky(up(x, style))
        return self.to_image(x, style).tanh()  # type: ignore[no-any-return]

    def in_bands(self, bands: Bands, x: Tensor, style: Tensor) -> Tensor:
        """What `forward` gives for one image and its latent, but for rounding; one activation is kept whole, at
        a quarter of the image's sides."""
        *layers, norm, relu = self.encoder
        kept = bands.apply(layers, x, margin=12, step=4)
        kept = bands.apply([norm, relu], kept, into=kept)
        for block in self.blocks:
            kept = bands.apply([partial(block, latents=style)], kept, margin=2, into=kept)
        return bands.apply([partial(self._enlarged, style=style)], kept, margin=3, up=4)


class StyleDiscriminator(nn.Module):
    """(N, image_channels, H, W) in [-1, 1], styles (N,) to maps of logits (N, 1, h, w): a PatchGAN (Isola et
    al. 2017) with a map for each of `count` styles, of which the asked one is picked.

    Args:
        layers: of stride 2, each after a blur (Zhang 2019, "Making convolutional networks shift-invariant
            again").
        norm: none by default: penalties on an image's gradient go badly with norms.
        blur: whether to.

    Raises:
        OptionError: unknown norm, or a size that is too low.
    """

    def __init__(
        self,
        count: int,
        *,
        channels: int = 64,
        layers: int = 3,
        norm: Norm = "none",
        blur: bool = True,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check.at_least("count", count, 1)
        check.at_least("channels", channels, 1)
        check.at_least("layers", layers, 1)
        check.one_of("norm", norm, get_args(Norm))
        self.count = count
        model: list[nn.Module] = []
        before = image_channels
        for layer in range(layers):
            after = channels * min(2**layer, 8)
            # Mirrored like the blur: a picture's frame is no sign of it being real.
            model += [*([Blur()] if blur else []), EqualizedConv2d(before, after, 4, stride=2)]
            model += [normalization(norm, after) if layer else nn.Identity(), _Leaky()]
            before = after
        after = channels * min(2**layers, 8)
        model += [EqualizedConv2d(before, after, 3), normalization(norm, after), _Leaky()]
        self.model = nn.Sequential(*model, EqualizedConv2d(after, count, 3))

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """
        Raises:
            ValueError: not one index of a style per image.
        """
        if styles.shape != x.shape[:1]:
            raise ValueError(f"indices of styles are {tuple(styles.shape)}, expected ({x.shape[0]},)")
        maps: Tensor = self.model(x)
        places = _indices(styles, self.count)[:, None, None, None].expand(-1, 1, *maps.shape[2:])
        return maps.gather(1, places)


class _Embedding(Equalized):
    """(N,) to (N, latent)."""

    def __init__(self, count: int, latent: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, latent))
        self.reset_parameters()

    def forward(self, styles: Tensor) -> Tensor:
        return F.embedding(styles, self.weight)


class _Block(nn.Module):
    """x and two convolutions of it, added; divided by the root of 2, so that the variance stays."""

    def __init__(self, width: int, latent: int, padding: Border, form: Form) -> None:
        super().__init__()
        self.first = ModulatedConv2d(width, width, latent, padding=padding, form=form)
        self.second = ModulatedConv2d(width, width, latent, padding=padding, form=form)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        found: Tensor = self.second(_leaky(self.first(x, latents)), latents)
        return (x + found) / math.sqrt(2)


class _Leaky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _leaky(x)


def _leaky(x: Tensor) -> Tensor:
    """Slope 0.2 below 0, times the root of 2, which keeps about the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _indices(styles: Tensor, count: int) -> Tensor:
    """`styles`, int64, if they are indices below `count`."""
    if styles.dtype not in (torch.int64, torch.int32) or styles.ndim != 1:
        found = f"{styles.dtype} {tuple(styles.shape)}"
        raise ValueError(f"indices of styles are {found}, expected (N,) of torch.int64")
    # On other devices the answer would be waited for, and a network that is exported has no answer yet.
    known = styles.device.type == "cpu" and not torch.compiler.is_compiling()
    if known and bool(((styles < 0) | (styles >= count)).any()):
        raise ValueError(f"indices of styles are {styles.tolist()}, expected 0 to {count - 1}")
    return styles.long()
