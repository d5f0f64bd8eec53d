"""DeepDream (Mordvintsev, Olah, Tyka 2015): amplify what a network sees in a photograph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from nst import check
from nst.deepdream.objective import DreamObjective, parse_term
from nst.deepdream.stylizer import DeepDreamStylizer, Dream, DreamPlan
from nst.errors import OptionError
from nst.features import (
    LOGITS,
    NETWORKS,
    build_features,
    check_layers,
    default_weights,
    read_weights,
    weights_asset,
    weights_notes,
)
from nst.features.networks import Pooling, check_pooling, own_pooling
from nst.features.tiles import max_pass_pixels
from nst.images.codec import decode_image, reduced
from nst.ops import ReLUBackward
from nst.stylizer import LATER, AssetRef, Assets, select

__all__ = ["DeepDream", "DeepDreamStylizer", "Dream"]

_DEFAULT_LAYER = {
    "embedded": "relu5_1",
    "vgg16": "relu5_1",
    "vgg19": "relu4_4",
    "resnet50": "layer3",
    "googlenet": "inception4c",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepDream:
    """Gradient ascent on a network's activations, from small octaves to large."""

    network: str = "resnet50"
    """Feature network: vgg19, vgg16, resnet50, googlenet, or embedded, which comes with this package."""
    weights: str | None = None
    """`embedded`, `imagenet`, of vgg16 also `imagenet_features`, `seeded`, or the path or URL of a state dict
    (.safetensors, .pth). None: those that come with the embedded network, `imagenet` for the others."""
    weights_sha256: str | None = None
    """Digest that the weights file must have."""
    weights_convention: str | None = None
    """What the weights of a VGG want as input: `torchvision` (normalized), `caffe` (BGR, 0..255, as the
    original ones) or `caffe_rgb`. None: recognized, and said."""
    layers: dict[str, float] | None = None
    """What is amplified, and its weight: a `layer`, one channel of it as `layer:channel` (of the embedded
    network's ReLUs a mixture of its channels), or a class as `logits:number`. None: a middle layer of the
    network."""
    guide: str | None = None
    """Path or URL of a picture: what the layers see in it is what appears."""
    guide_sha256: str | None = None
    """Digest that the guide must have."""
    guide_side_px: int = 1024
    """Long side in pixels to which the guide is shrunk, if it is larger."""
    pooling: Pooling | None = None
    """What the VGGs and the embedded network pool with: `max`, `average`, or `l2`. None: what they were trained
    with, `average` of the embedded network and `max` of the others."""
    octaves: int = 4
    """Number of sizes that the photograph is dreamed at, the largest being its own."""
    octave_scale: float = 1.4
    """Ratio of one octave's size to the next."""
    steps: int = 10
    """Steps of gradient ascent per octave."""
    step_size: float = 1.5 / 255
    """Mean change of a pixel per step, of the range [0, 1]."""
    jitter_px: int = 32
    """Most pixels by which the image is rolled before each step, and back after."""
    border_px: int = 0
    """Pixels that are mirrored around the photograph at each octave, at most an eighth of its short side,
    dreamed on and cut off."""
    gradient_blur_px: float = 0.0
    """Standard deviation of a Gaussian that smooths the gradient; 0: none."""
    relu_backward: ReLUBackward = "standard"
    """What the network's ReLUs let back through: `standard`, `guided` and `deconv` (less noise), or
    `redirected` (for channels that nothing in the photograph excites yet)."""
    redirected_steps: int = 16
    """Steps for which ReLUs are `redirected`, if they are; after these they are `standard`."""
    zoom_frames: int = 0
    """Frames of a zoom into the dream, after the first, which is the dream itself: each is the last one,
    enlarged and dreamed on. They are kept in memory until they are saved: 100 of 1024 x 1024 are 1.3 GB."""
    zoom: float = 1.05
    """Enlargement from one frame to the next."""
    precision: Literal["float32", "bfloat16"] = field(default="float32", metadata=LATER)
    """Precision of activations. `bfloat16`: faster on GPUs and on CPUs that have it. Each step rounds anew, so
    that the dream has other details of the same kind. The picture and the objective stay float32."""
    pass_memory_mb: int | None = None
    """Memory in MB for activations and gradients of one pass through the network. Larger photographs are
    computed in tiles, with the same result; only with `standard` ReLUs and without `logits`. None: half of a
    GPU's memory, or of the machine's what a worker's threads are of its cores, and 2 GB at least."""
    deterministic: bool = field(default=True, metadata=LATER)
    """Whether each photograph is computed alone on GPUs, so that no byte of its picture depends on what else is
    in work. Else those of one size share passes, which is faster for small ones."""
    cuda_graphs: bool = field(default=False, metadata=LATER)
    """Whether a GPU records what it computes of an octave of up to 2^20 pixels, and is told it at once: the
    smaller the photograph, the faster. `nst doctor` tries it."""
    curve: bool = False
    """Whether the objective of every step is kept."""

    def __post_init__(self) -> None:
        check.one_of("network", self.network, NETWORKS)
        if self.weights is None:
            object.__setattr__(self, "weights", default_weights(self.network))
        if self.layers is None:
            object.__setattr__(self, "layers", {_DEFAULT_LAYER[self.network]: 1.0})
        assert self.layers is not None
        check.layer_weights("layers", self.layers)
        check_layers("layers", self.network, self._layers(), logits=True)
        if self.weights == "imagenet_features" and LOGITS in self._layers():
            raise OptionError("layers", LOGITS, reason="imagenet_features have no classifier")
        check.at_least("guide_side_px", self.guide_side_px, 1)
        if self.guide is None and self.guide_sha256 is not None:
            raise OptionError("guide_sha256", self.guide_sha256, reason="there is no guide")
        if self.guide is not None:
            for name in self.layers:
                if ":" in name or name == LOGITS:
                    raise OptionError("layers", name, reason="a guide goes with whole layers")
        if self.pooling is None:
            object.__setattr__(self, "pooling", own_pooling(self.network))
        assert self.pooling is not None
        check_pooling(self.network, self.pooling)
        for option, least in (("octaves", 1), ("steps", 1), ("redirected_steps", 1)):
            check.at_least(option, getattr(self, option), least)
        for option in ("jitter_px", "border_px", "gradient_blur_px", "zoom_frames"):
            check.at_least(option, getattr(self, option), 0)
        check.above_zero("step_size", self.step_size)
        for option in ("octave_scale", "zoom"):
            if not (math.isfinite(getattr(self, option)) and getattr(self, option) > 1):
                raise OptionError(option, getattr(self, option), reason="must be a finite number above 1")
        check.one_of("relu_backward", self.relu_backward, get_args(ReLUBackward))
        check.one_of("precision", self.precision, ("float32", "bfloat16"))
        if self.pass_memory_mb is not None:
            check.at_least("pass_memory_mb", self.pass_memory_mb, 1)
            if LOGITS in self._layers() or self.relu_backward != "standard":
                reason = "logits and ReLUs other than standard need all of a photograph, which a tile has not"
                raise OptionError("pass_memory_mb", self.pass_memory_mb, reason=reason)
        self._weights()

    def _layers(self) -> list[str]:
        assert self.layers is not None
        return [parse_term(name)[0] for name in self.layers]

    def _weights(self) -> AssetRef | None:
        assert self.weights is not None
        return weights_asset(self.network, self.weights, self.weights_sha256, self.weights_convention)

    @property
    def schedule(self) -> tuple[tuple[float, int], ...]:
        """Octaves relative to the photograph, small to large, and steps at each; of a zoom, for every frame."""
        octaves = ((self.octave_scale**-octave, self.steps) for octave in reversed(range(self.octaves)))
        return tuple(octaves) * (1 + self.zoom_frames)

    def kept_bytes(self, pixels: int, device: torch.device) -> int:  # noqa: ARG002
        """Memory of the frames of a zoom, float32 pictures."""
        return 3 * 4 * self.zoom_frames * pixels

    def assets(self) -> list[AssetRef]:
        found = []
        if self.guide is not None:
            found.append(AssetRef(option="guide", url=self.guide, kind="image", sha256=self.guide_sha256))
        weights = self._weights()
        return found if weights is None else [*found, weights]

    def notes(self, assets: Assets) -> list[str]:
        if self.weights == "seeded":
            return [f"{self.network} is seeded, not pretrained: it dreams of patterns, not of things"]
        return weights_notes(self.network, self._weights(), self.weights_convention, assets)

    def build(self, assets: Assets, device: torch.device) -> DeepDreamStylizer:
        state, convention = read_weights(self.network, self._weights(), self.weights_convention, assets)
        guide = None
        if self.guide is not None:
            guide = decode_image(assets[self.guide])
        return self.build_from(state, device, convention=convention, guide=guide)

    def build_from(
        self,
        state: Mapping[str, Tensor] | None,
        device: torch.device,
        *,
        convention: str | None = None,
        guide: Tensor | None = None,
    ) -> DeepDreamStylizer:
        """Build as `build` does, from a state dict (None: seeded) and a guide (3, h, w). `convention` is the
        state dict's; None: as `weights_convention` says.

        Raises:
            OptionError: a guide without its option, or that without it; a layer has no such channel; or
                `pass_memory_mb` is too small.
            ImageTooSmall: the guide vanishes before the deepest layer.
        """
        assert self.layers is not None
        if (self.guide is None) != (guide is None):
            raise OptionError("guide", self.guide, reason="must come with its picture, and that with it")
        network = build_features(
            self.network,
            self._layers(),
            state=state,
            pooling=self.pooling,
            convention=convention or self.weights_convention,
        ).to(device)
        in_tiles = self.relu_backward == "standard"
        objective = DreamObjective(
            network.in_precision(torch.bfloat16) if self.precision == "bfloat16" else network,
            self.layers,
            guide=None if guide is None else reduced(guide, self.guide_side_px),
            max_pass_pixels=max_pass_pixels(network, self.pass_memory_mb, device if in_tiles else None),
        )
        return DeepDreamStylizer(select(DreamPlan, self), objective)
