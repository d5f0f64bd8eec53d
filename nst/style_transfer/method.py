"""Neural style transfer by optimization of the pixels (Gatys, Ecker, Bethge 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
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
from nst.memory import history_bytes
from nst.ops.precision import resolved
from nst.style_transfer.color import luminance
from nst.style_transfer.losses import StyleLossName
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions, PaintingPlan, PreserveColor, Start
from nst.style_transfer.pictures import check_styles, picture_names, style_assets, styles_of
from nst.style_transfer.presets import left_out, suitable
from nst.style_transfer.stylizer import Canvas, StyleTransferStylizer
from nst.style_transfer.targets import Picture
from nst.style_transfer.warm_start import build_fast, fast_assets
from nst.stylizer import LATER, AssetRef, Assets, StyledStylizer, select

__all__ = ["Canvas", "StyleTransfer", "StyleTransferStylizer"]

_MOST_KEPT = 8
"""Style pictures that are kept as they are decoded; of more, each is decoded when it is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleTransfer:
    """Match the photograph's content and the style picture's Gram matrices in a feature network.

    Options left at None take the preset's value; once made, a description has none left but `learning_rate`
    and the digests.
    """

    style: str | tuple[str, ...]
    """Path or URL of the style picture, or a list of several; in a job also of a folder of them. A photograph
    that has a `style` in the manifest, a picture's name without its folder and suffix, gets that one; others
    get all of them, blended."""
    style_sha256: str | tuple[str, ...] | None = None
    """Digest that the style picture must have; of several, a list."""
    style_blend: tuple[float, ...] | None = None
    """Weight of each of several style pictures, relative to the others; None: all alike."""
    style_masks: tuple[str, ...] | None = None
    """Pictures that say where each style picture is painted: where they are white. Each is stretched to the
    photograph."""
    network: str | None = None
    """Feature network: embedded, which comes with this package, vgg19, vgg16, resnet50, or googlenet. None:
    vgg19 if `preset`, or anything of the weights, is given and is not embedded's, else embedded."""
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
    """Layers of the content loss, and the weight of each within it."""
    style_layers: dict[str, float] | None = None
    """Layers of the style loss, and the weight of each within it."""
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
    """What Gram matrices are divided by: `hw`, the number of positions, or `chw`, that of elements."""
    loss_scale: LossScale | None = None
    """Scale of the losses. `mean`: mean squares; `paper`: the sums and factors of the paper's equations 1 and
    4; `relative`: mean squares over the target's own."""
    normalize_gradients: bool = False
    """Whether the gradient of each loss, at its layer, is divided by its L1 norm, and multiplied by the loss's
    weight."""
    pooling: Pooling | None = None
    """What the VGGs pool with: `max`, `average`, or `l2`."""
    rescale_pooling: bool = False
    """Whether what `average` or `l2` pooling gives is multiplied, so that deeper layers see activations of
    about the size that maximum pooling would give, for which they were trained."""
    style_scale: float = 1.0
    """Long side of the style picture relative to the photograph's; above 1 for larger strokes."""
    style_side_px: int | None = None
    """Long side of the style picture in pixels, whatever the photograph's; in place of `style_scale`."""
    border_px: int | None = None
    """Pixels that are mirrored around the photograph at each size, at most an eighth of its short side, painted
    and cut off: what networks make of a border is not seen."""
    preserve_color: PreserveColor = "none"
    """How the photograph's colors are kept. `luminance` paints its luminance only, `match` first gives the
    style pictures its colors' mean and covariance, `original` paints in color and takes the photograph's chroma
    at the end; `none` keeps none."""
    init: Start = "photo"
    """Where the optimization starts: from the `photo`, from uniform `noise`, from `gray` with a trace of noise,
    from `init_picture`, or, with `feed_forward`, from what the network of the method feed_forward paints, where
    that has a lower loss than the photograph; then coarse scales are left out."""
    init_picture: str | None = None
    """Path or URL of the picture that the optimization starts from; stretched to each photograph."""
    init_weights: str = field(default="embedded", metadata=LATER)
    """Path or URL of the network of `init = "feed_forward"`: what a training ended with; or `embedded`, the one
    that comes with nst."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """The optimizer: `lbfgs`, with a history per photograph, or `adam`."""
    learning_rate: float | None = None
    """The optimizer's learning rate. None: 1 for L-BFGS, 0.02 (of the range [0, 1]) for Adam."""
    history_size: int = 100
    """Curvature pairs that L-BFGS keeps. Each costs two photographs of float32: 100 at 512 x 512 are 630 MB, at
    12 megapixels 29 GB. Three tenths of a GPU's memory, or of a worker's, is their limit."""
    coarse_scales: tuple[float, ...] | None = None
    """Smaller sizes of the photograph to go through first, e.g. [0.25, 0.5]; each starts from the last. Where a
    side would have less than 8 pixels, they are left out: nothing of the photograph would be left."""
    coarse_steps: int | None = None
    """Evaluations of loss and gradient at each of `coarse_scales`. None: the preset's; if `steps` is given, as
    many as that is of the preset's."""
    steps: int | None = None
    """Evaluations of loss and gradient at the photograph's own size."""
    stop_tolerance: float = 0.0
    """Share of itself by which the loss must fall over 20 evaluations, or a scale ends early. 0: it does
    not."""
    average_iterates: float = 0.0
    """Decay of an exponential average of the pictures on the way, at each size, which takes the place of the
    best of them: the noise of single steps, mostly Adam's, is averaged out. 0: the best picture."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of activations. `bfloat16`: faster where the hardware has it, slower elsewhere; Gram matrices,
    losses and optimizer stay float32, and the last `refine_steps` at the photograph's own size are computed in
    float32, as all are once steps are smaller than bfloat16 resolves. `auto`: `bfloat16` on each machine that
    has it; pictures of machines with and without it differ in details. `float32` on GPUs: convolutions round
    what they multiply to 10 bits (TF32); NVIDIA_TF32_OVERRIDE=0 in the environment forbids it."""
    refine_steps: int = 10
    """Evaluations in float32 at the end, if the others are `bfloat16`."""
    pass_memory_mb: int | None = None
    """Memory in MB of one pass through a VGG or the embedded network. Larger photographs are computed in tiles,
    with the same result; smaller ones share passes up to this. None: half of a GPU's memory, or of the
    machine's what a worker's threads are of its cores, and 2 GB at least."""
    deterministic: bool = True
    """Whether no byte of a picture depends on what else is in work. False: photographs share passes on GPUs."""
    cuda_graphs: bool = field(default=False, metadata=LATER)
    """Whether a GPU records what it computes of a photograph of up to 2^20 pixels, and is told it at once: the
    smaller the photograph, the faster. Not with shared passes or tiles. `nst doctor` tries it."""
    fused_relu: bool = field(default=False, metadata=LATER)
    """Whether NVIDIA's GPUs compute each convolution of a VGG and its ReLU at once. `nst doctor` tries it."""
    curve: bool = False
    """Whether the losses of every evaluation are kept."""
    frame_every: int = 0
    """Evaluations from one intermediate picture that is kept to the next; 0: none are kept."""

    def __post_init__(self) -> None:
        if self.network is None:
            given = {self.preset, self.weights, self.weights_sha256, self.weights_convention} - {None}
            embedded = not given or "embedded" in given
            object.__setattr__(self, "network", "embedded" if embedded else "vgg19")
        check.one_of("network", self.network, NETWORKS)
        self._fill_in()
        self._check_loss()
        self._check_styles()
        self._check_painting()
        self._weights()

    def _fill_in(self) -> None:
        """Set the options that were left out: weights and preset to what suits the network, the others to the
        preset's."""
        if self.weights is None:
            object.__setattr__(self, "weights", default_weights(self._network))
        if self.preset is None:
            object.__setattr__(self, "preset", suitable(self.weights, self._network))
        given = {option.name: getattr(self, option.name) for option in fields(self)}
        for name, value in left_out(given).items():
            object.__setattr__(self, name, value)

    @property
    def _network(self) -> str:
        assert self.network is not None  # filled in
        return self.network

    def _check_loss(self) -> None:
        for option in ("content_layers", "style_layers"):
            check.layer_weights(option, getattr(self, option))
            check_layers(option, self._network, getattr(self, option))
        check.one_of("style_loss", self.style_loss, get_args(StyleLossName))
        check.one_of("gram_normalization", self.gram_normalization, get_args(GramNormalization))
        if self.style_loss == "wasserstein" and self.gram_normalization != "hw":
            reason = "goes with style_loss = 'gram'"
            raise OptionError("gram_normalization", self.gram_normalization, choices=("hw",), reason=reason)
        check.one_of("loss_scale", self.loss_scale, get_args(LossScale))
        assert self.pooling is not None
        check_pooling(self._network, self.pooling)
        if self.rescale_pooling and self.pooling == "max":
            raise OptionError("rescale_pooling", True, reason="goes with pooling = 'average' or 'l2'")
        for option in ("content_weight", "style_weight", "tv_weight"):
            check.at_least(option, getattr(self, option), 0)
        if self.pass_memory_mb is not None:
            check.at_least("pass_memory_mb", self.pass_memory_mb, 1)
            if self._network not in VGG_BLOCKS:
                reason = f"only {', '.join(VGG_BLOCKS)} can be computed in tiles"
                raise OptionError("pass_memory_mb", self.pass_memory_mb, reason=reason)

    def _check_painting(self) -> None:
        check.one_of("init", self.init, get_args(Start))
        if (self.init == "picture") != (self.init_picture is not None):
            raise OptionError("init_picture", self.init_picture, reason="goes with init = 'picture'")
        check.one_of("preserve_color", self.preserve_color, get_args(PreserveColor))
        check.one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        check.one_of("optimizer", self.optimizer, ("lbfgs", "adam"))
        for option in ("steps", "coarse_steps", "history_size"):
            check.at_least(option, getattr(self, option), 1)
        for option in ("refine_steps", "frame_every", "border_px"):
            check.at_least(option, getattr(self, option), 0)
        for scale in self.coarse_scales or ():
            if not 0 < scale < 1:
                raise OptionError(
                    "coarse_scales", list(self.coarse_scales or ()), reason="each is between 0 and 1"
                )
        for option in ("average_iterates", "stop_tolerance"):
            if not 0 <= getattr(self, option) < 1:
                raise OptionError(option, getattr(self, option), reason="is from 0 to below 1")
        if self.learning_rate is not None:
            check.above_zero("learning_rate", self.learning_rate)

    def _weights(self) -> AssetRef | None:
        assert self.weights is not None
        return weights_asset(self._network, self.weights, self.weights_sha256, self.weights_convention)

    def _check_styles(self) -> None:
        check_styles(self)
        check.above_zero("style_scale", self.style_scale)
        if self.style_side_px is not None:
            check.at_least("style_side_px", self.style_side_px, 1)
            if self.style_scale != 1.0:
                reason = f"says the style's size, and so does style_scale = {self.style_scale}"
                raise OptionError("style_side_px", self.style_side_px, reason=reason)

    @property
    def schedule(self) -> tuple[tuple[float, int], ...]:
        """Sizes relative to the photograph's own, coarse to fine, and evaluations at each."""
        return select(PaintingPlan, self).scales

    def kept_bytes(self, pixels: int, device: torch.device) -> int:
        """Memory of the optimizer: of L-BFGS, two float32 pictures for each curvature pair."""
        pairs = min(self.history_size, max(number for _, number in self.schedule))
        pair = 2 * 3 * 4 * pixels
        return pair if self.optimizer == "adam" else max(pair, min(pairs * pair, history_bytes(device)))

    def assets(self) -> list[AssetRef]:
        found = style_assets(self)
        if self.init_picture is not None:
            found.append(AssetRef(option="init_picture", url=self.init_picture, kind="image"))
        found += fast_assets(self)
        weights = self._weights()
        return found if weights is None else [*found, weights]

    def notes(self, assets: Assets) -> list[str]:
        if self.weights == "seeded":
            return [f"{self._network} is seeded, not pretrained: its features are random"]
        return weights_notes(self._network, self._weights(), self.weights_convention, assets)

    def style_names(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return picture_names(self)

    def check_style(self, assets: Assets) -> None:
        """Any picture is a style."""

    def build(self, assets: Assets, device: torch.device) -> StyleTransferStylizer:
        read = [partial(decode_image, assets[url]) for url in styles_of(self)]
        state, convention = read_weights(self._network, self._weights(), self.weights_convention, assets)
        masks = self.style_masks
        return self.build_from(
            [*(each() for each in read[:_MOST_KEPT]), *read[_MOST_KEPT:]],
            state,
            device,
            convention=convention,
            masks=None if masks is None else [luminance(decode_image(assets[url]))[:1] for url in masks],
            init=None if self.init_picture is None else decode_image(assets[self.init_picture]),
            fast=build_fast(self, assets, device),
        )

    def build_from(
        self,
        styles: Sequence[Picture],
        state: Mapping[str, Tensor] | None,
        device: torch.device,
        *,
        convention: str | None = None,
        masks: Sequence[Tensor] | None = None,
        init: Tensor | None = None,
        fast: StyledStylizer | None = None,
    ) -> StyleTransferStylizer:
        """Build as `build` does, from style pictures (3, H, W) or what gives them, a state dict (None: seeded)
        of `convention` (None: as the option says), masks (1, H, W) and a picture (3, H, W) to start from.

        Raises:
            OptionError: masks or a picture without their option, or it without them; too few `pass_memory_mb`.
        """
        assert self.content_layers is not None
        assert self.style_layers is not None
        assert self.pooling is not None
        for option, value, given in (
            ("style_masks", self.style_masks, masks),
            ("init_picture", self.init_picture, init),
            ("init", self.init if self.init == "feed_forward" else None, fast),
        ):
            if (value is None) != (given is None):
                raise OptionError(option, value, reason="must come with its pictures, and they with it")
        network = build_features(
            self._network,
            [*self.content_layers, *self.style_layers],
            state=state,
            pooling=self.pooling,
            rescale_pooling=self.rescale_pooling,
            convention=convention or self.weights_convention,
            unit_activations=self.loss_scale == "relative",
            fused_relu=self.fused_relu,
        ).to(device)
        bounded = device if self._network in VGG_BLOCKS else None
        options = select(
            ObjectiveOptions,
            self,
            share_passes=not self.deterministic and device.type != "cpu",
            max_pass_pixels=max_pass_pixels(network, self.pass_memory_mb, bounded),
        )
        names = picture_names(self)
        named = {name: each for name, each in zip(names, styles, strict=False) if names.count(name) == 1}
        objective = StyleObjective(network, styles, options, masks=masks, named=named)
        plan = select(PaintingPlan, self, precision=resolved(self.precision, device))
        return StyleTransferStylizer(plan, objective, init, fast)
