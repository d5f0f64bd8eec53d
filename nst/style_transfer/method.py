"""Neural style transfer by optimization of the pixels (Gatys, Ecker, Bethge 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nst import check
from nst.errors import OptionError
from nst.features import (
    NETWORKS,
    build_features,
    check_layers,
    default_weights,
    read_weights,
    weights_asset,
    weights_notes,
)
from nst.features.layers import VGG_BLOCKS
from nst.features.networks import Pooling, check_pooling
from nst.features.tiles import max_pass_pixels
from nst.images.codec import decode_image
from nst.losses import GramNormalization, LossScale
from nst.style_transfer.color import luminance
from nst.style_transfer.losses import StyleLossName
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.presets import PRESETS
from nst.style_transfer.stylizer import Canvas, StyleTransferStylizer
from nst.style_transfer.targets import PreserveColor
from nst.stylizer import AssetRef, Assets

__all__ = ["Canvas", "StyleTransfer", "StyleTransferStylizer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleTransfer:
    """Match the photograph's content and the style picture's Gram matrices in a feature network.

    Options left at None take the preset's value; once made, a description has none left but `learning_rate`
    and the digests.
    """

    style: str | tuple[str, ...]
    """Path or URL of the style picture, or a list of several; in a job also of a folder of them."""
    style_sha256: str | tuple[str, ...] | None = None
    """Digest that the style picture must have; of several, a list."""
    style_blend: tuple[float, ...] | None = None
    """Weight of each of several style pictures, relative to the others; None: all alike."""
    style_masks: tuple[str, ...] | None = None
    """A picture for each style picture: it is painted where that is white. Stretched to each photograph."""
    network: str = "vgg19"
    """Feature network: vgg19, vgg16, resnet50, googlenet, or embedded, which comes with this package."""
    weights: str | None = None
    """`embedded`, `imagenet`, of vgg16 also `imagenet_features`, `seeded`, or the path or URL of a state dict
    (.safetensors, .pth). None: those that come with the embedded network, `imagenet` for the others."""
    weights_sha256: str | None = None
    """Digest that the weights file must have."""
    weights_convention: str | None = None
    """What the weights of a VGG want as input: `torchvision` (normalized), `caffe` (BGR, 0..255, as the
    original ones) or `caffe_rgb`. None: recognized, and said."""
    preset: str | None = None
    """Where options left out come from: `pretrained`, `gatys` (the paper), `tutorial`, `embedded`, for the
    network of that name, or `seeded`, for random weights. None: what suits network and weights, for the VGGs
    `pretrained`."""
    content_layers: dict[str, float] | None = None
    """Layer to its weight within the content loss."""
    style_layers: dict[str, float] | None = None
    """Layer to its weight within the style loss."""
    content_weight: float | None = None
    """Weight of the content loss."""
    style_weight: float | None = None
    """Weight of the style loss."""
    tv_weight: float = 0.0
    """Weight of the picture's total variation; more is smoother."""
    style_loss: StyleLossName | None = None
    """What of the style's activations is matched: `gram`, their Gram matrices, or `wasserstein`, their mean and
    covariance by the Wasserstein-2 distance."""
    gram_normalization: GramNormalization | None = None
    """Divide Gram matrices by `hw` or `chw`."""
    loss_scale: LossScale | None = None
    """`mean`: mean squares; `paper`: the sums and factors of the paper's equations 1 and 4; `relative`: mean
    squares over the target's own."""
    normalize_gradients: bool = False
    """Divide the gradient of each loss, at its layer, by its L1 norm, and multiply it by the loss's weight."""
    pooling: Pooling | None = None
    """What the VGGs pool with: `max`, `average`, or `l2`."""
    rescale_pooling: bool = False
    """Multiply what `average` or `l2` pooling gives, so that deeper layers see activations of about the size
    that maximum pooling would give, for which they were trained."""
    style_scale: float = 1.0
    """Long side of the style picture relative to the photograph's; above 1 for larger strokes."""
    style_side_px: int | None = None
    """Long side of the style picture in pixels, whatever the photograph's; in place of `style_scale`."""
    border_px: int | None = None
    """Pixels that are mirrored around the photograph at each size, at most an eighth of its short side, painted
    and cut off: what networks make of a border is not seen."""
    preserve_color: PreserveColor = "none"
    """Keep the photograph's colors: `luminance` paints its luminance only, `match` first gives the style
    pictures its colors' mean and covariance, `original` paints in color and takes the photograph's chroma at
    the end."""
    init: Literal["photo", "noise", "gray", "picture"] = "photo"
    """Where the optimization starts: from the `photo`, from uniform `noise`, from `gray` with a trace of noise,
    or from `init_picture`."""
    init_picture: str | None = None
    """Path or URL; stretched to each photograph."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """`lbfgs`, with a history per photograph, or `adam`."""
    learning_rate: float | None = None
    """None: 1 for L-BFGS, 0.02 (of the range [0, 1]) for Adam."""
    history_size: int = 100
    """Curvature pairs that L-BFGS keeps. Each costs two photographs of float32: 100 at 512 x 512 are 630 MB."""
    coarse_scales: tuple[float, ...] | None = None
    """Smaller sizes of the photograph to go through first, e.g. [0.25, 0.5]; each starts from the last. Where a
    side would have less than 8 pixels, they are left out: nothing of the photograph would be left."""
    coarse_steps: int | None = None
    """Evaluations of loss and gradient at each of `coarse_scales`."""
    steps: int | None = None
    """Evaluations of loss and gradient at the photograph's own size."""
    stop_tolerance: float = 0.0
    """A scale ends early when the loss fell by less than this share of itself over the last 20 evaluations."""
    average_iterates: float = 0.0
    """Decay of an exponential average of the pictures on the way, at each size, which takes the place of the
    best of them: the noise of single steps, mostly Adam's, is averaged out. 0: the best picture."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of activations. `bfloat16`: several times faster on GPUs and on CPUs with AMX; Gram matrices, losses and
    optimizer stay float32, and the last `refine_steps` at the photograph's own size are computed in float32.
    Where steps become smaller than bfloat16 resolves, it goes on in float32 at once."""
    refine_steps: int = 10
    """With `bfloat16`: evaluations in float32 at the end."""
    pass_memory_mb: int | None = None
    """For activations and gradients of one pass through the network (VGGs only). Larger photographs are
    computed in tiles, with the same result; smaller ones share passes up to this. None: no limit."""
    deterministic: bool = True
    """No byte of a picture depends on what else is in work. False: photographs share passes on GPUs."""
    curve: bool = False
    """Keep the losses of every evaluation."""
    frame_every: int = 0
    """Keep an intermediate picture after every so many evaluations; 0: none."""

    def __post_init__(self) -> None:
        check.one_of("network", self.network, NETWORKS)
        if self.weights is None:
            object.__setattr__(self, "weights", default_weights(self.network))
        if self.preset is None:
            seeded, embedded = self.weights == "seeded", self.network == "embedded"
            preset = "seeded" if seeded else "embedded" if embedded else "pretrained"
            object.__setattr__(self, "preset", preset)
        assert self.preset is not None
        check.one_of("preset", self.preset, PRESETS)
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                if name == "pooling" and self.network not in VGG_BLOCKS:
                    value = "max"  # the other networks' own
                object.__setattr__(self, name, dict(value) if isinstance(value, Mapping) else value)
        for option in ("content_layers", "style_layers"):
            check.layer_weights(option, getattr(self, option))
            check_layers(option, self.network, getattr(self, option))
        check.one_of("style_loss", self.style_loss, get_args(StyleLossName))
        check.one_of("gram_normalization", self.gram_normalization, get_args(GramNormalization))
        if self.style_loss == "wasserstein" and self.gram_normalization != "hw":
            reason = "goes with style_loss = 'gram'"
            raise OptionError("gram_normalization", self.gram_normalization, choices=("hw",), reason=reason)
        check.one_of("loss_scale", self.loss_scale, get_args(LossScale))
        assert self.pooling is not None
        check_pooling(self.network, self.pooling)
        if self.rescale_pooling and self.pooling == "max":
            raise OptionError("rescale_pooling", True, reason="goes with pooling = 'average' or 'l2'")
        check.one_of("init", self.init, ("photo", "noise", "gray", "picture"))
        if (self.init == "picture") != (self.init_picture is not None):
            raise OptionError("init_picture", self.init_picture, reason="goes with init = 'picture'")
        check.one_of("preserve_color", self.preserve_color, get_args(PreserveColor))
        check.one_of("precision", self.precision, ("float32", "bfloat16"))
        self._check_styles()
        check.one_of("optimizer", self.optimizer, ("lbfgs", "adam"))
        for option in ("content_weight", "style_weight", "tv_weight"):
            check.at_least(option, getattr(self, option), 0)
        assert self.steps is not None
        check.at_least("steps", self.steps, 1)
        assert self.coarse_steps is not None
        check.at_least("coarse_steps", self.coarse_steps, 1)
        assert self.coarse_scales is not None
        for scale in self.coarse_scales:
            if not 0 < scale < 1:
                raise OptionError("coarse_scales", list(self.coarse_scales), reason="each is between 0 and 1")
        check.at_least("history_size", self.history_size, 1)
        check.at_least("refine_steps", self.refine_steps, 0)
        check.at_least("frame_every", self.frame_every, 0)
        if not 0 <= self.average_iterates < 1:
            raise OptionError("average_iterates", self.average_iterates, reason="is from 0 to below 1")
        if not 0 <= self.stop_tolerance < 1:
            raise OptionError("stop_tolerance", self.stop_tolerance, reason="is from 0 to below 1")
        if self.pass_memory_mb is not None:
            check.at_least("pass_memory_mb", self.pass_memory_mb, 1)
            if self.network not in VGG_BLOCKS:
                reason = f"only {', '.join(VGG_BLOCKS)} can be computed in tiles"
                raise OptionError("pass_memory_mb", self.pass_memory_mb, reason=reason)
        check.above_zero("style_scale", self.style_scale)
        if self.style_side_px is not None:
            check.at_least("style_side_px", self.style_side_px, 1)
            if self.style_scale != 1.0:
                reason = f"says the style's size, and so does style_scale = {self.style_scale}"
                raise OptionError("style_side_px", self.style_side_px, reason=reason)
        assert self.border_px is not None
        check.at_least("border_px", self.border_px, 0)
        if self.learning_rate is not None:
            check.above_zero("learning_rate", self.learning_rate)
        self._weights()

    def _weights(self) -> AssetRef | None:
        assert self.weights is not None
        return weights_asset(self.network, self.weights, self.weights_sha256, self.weights_convention)

    def _check_styles(self) -> None:
        count = len(self._styles())
        if count == 0:
            raise OptionError("style", self.style, reason="at least one picture is needed")
        for option, entries in (
            ("style_blend", self.style_blend),
            ("style_masks", self.style_masks),
            ("style_sha256", self._digests()),
        ):
            if entries is not None and len(entries) != count:
                reason = f"must have one entry for each of {count} style pictures"
                raise OptionError(option, getattr(self, option), reason=reason)
        for index, weight in enumerate(self.style_blend or ()):
            check.above_zero(f"style_blend[{index}]", weight)

    def _styles(self) -> tuple[str, ...]:
        return (self.style,) if isinstance(self.style, str) else tuple(self.style)

    def _digests(self) -> tuple[str | None, ...]:
        if self.style_sha256 is None:
            return (None,) * len(self._styles())
        return (self.style_sha256,) if isinstance(self.style_sha256, str) else tuple(self.style_sha256)

    def assets(self) -> list[AssetRef]:
        styles = zip(_names("style", self.style), self._styles(), self._digests(), strict=True)
        found = [
            AssetRef(option=option, url=url, kind="image", sha256=digest) for option, url, digest in styles
        ]
        masks = self.style_masks or ()
        for option, url in zip(_names("style_masks", masks), masks, strict=True):
            found.append(AssetRef(option=option, url=url, kind="image"))
        if self.init_picture is not None:
            found.append(AssetRef(option="init_picture", url=self.init_picture, kind="image"))
        weights = self._weights()
        return found if weights is None else [*found, weights]

    def notes(self, assets: Assets) -> list[str]:
        if self.weights == "seeded":
            return [f"{self.network} is seeded, not pretrained: its features are random"]
        return weights_notes(self.network, self._weights(), self.weights_convention, assets)

    def build(self, assets: Assets, device: torch.device) -> StyleTransferStylizer:
        state, convention = read_weights(self.network, self._weights(), self.weights_convention, assets)
        masks = self.style_masks
        return self.build_from(
            [decode_image(assets[url]) for url in self._styles()],
            state,
            device,
            convention=convention,
            masks=None if masks is None else [luminance(decode_image(assets[url]))[:1] for url in masks],
            init=None if self.init_picture is None else decode_image(assets[self.init_picture]),
        )

    def build_from(
        self,
        styles: Sequence[Tensor],
        state: Mapping[str, Tensor] | None,
        device: torch.device,
        *,
        convention: str | None = None,
        masks: Sequence[Tensor] | None = None,
        init: Tensor | None = None,
    ) -> StyleTransferStylizer:
        """As `build`, from style pictures (3, H, W), a state dict (None: seeded), masks (1, H, W) and a picture
        (3, H, W) to start from. `convention` is the state dict's; None: as `weights_convention` says.

        Raises:
            OptionError: masks or a picture to start from are given without their option, or it without them; or
                `pass_memory_mb` is too small.
        """
        assert self.content_layers is not None
        assert self.style_layers is not None
        assert self.content_weight is not None
        assert self.style_weight is not None
        assert self.style_loss is not None
        assert self.gram_normalization is not None
        assert self.loss_scale is not None
        assert self.pooling is not None
        for option, value, given in (
            ("style_masks", self.style_masks, masks),
            ("init_picture", self.init_picture, init),
        ):
            if (value is None) != (given is None):
                raise OptionError(option, value, reason="must come with its pictures, and they with it")
        layers = [*self.content_layers, *self.style_layers]
        network = build_features(
            self.network,
            layers,
            state=state,
            pooling=self.pooling,
            rescale_pooling=self.rescale_pooling,
            convention=convention or self.weights_convention,
            unit_activations=self.loss_scale == "relative" and self.weights != "embedded",
        ).to(device)
        objective = StyleObjective(
            network,
            styles,
            content_layers=self.content_layers,
            style_layers=self.style_layers,
            content_weight=self.content_weight,
            style_weight=self.style_weight,
            tv_weight=self.tv_weight,
            style_loss=self.style_loss,
            gram_normalization=self.gram_normalization,
            loss_scale=self.loss_scale,
            style_scale=self.style_scale,
            style_side_px=self.style_side_px,
            blend=self.style_blend,
            masks=masks,
            normalize_gradients=self.normalize_gradients,
            preserve_color=self.preserve_color,
            share_passes=not self.deterministic and device.type != "cpu",
            max_pass_pixels=max_pass_pixels(network, self.pass_memory_mb),
        )
        return StyleTransferStylizer(self, objective, init)


def _names(option: str, value: str | Sequence[str]) -> list[str]:
    """What its pictures are called in messages."""
    return [option] if isinstance(value, str) else [f"{option}[{index}]" for index in range(len(value))]
