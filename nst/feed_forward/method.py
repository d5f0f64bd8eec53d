"""Any style in one pass, by a trained network, as a method of the batch runner."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import PurePosixPath
from typing import Any, get_args

import safetensors.torch
import torch
from torch import Tensor

from nst import check
from nst.errors import OptionError, WeightsError
from nst.features.weights import read_metadata
from nst.feed_forward.networks import Painter, PainterConfig
from nst.feed_forward.stylizer import FeedForwardPlan, FeedForwardStylizer, Look, Precision
from nst.gan.layers import load_published
from nst.gan.starting import read_states
from nst.images.codec import decode_image, resize_image
from nst.style_transfer.color import luminance
from nst.style_transfer.options import PreserveColor
from nst.style_transfer.pictures import check_styles, names_of, style_assets, styles_of
from nst.stylizer import AssetRef, Assets, select

__all__ = ["SHIPPED", "FeedForward", "painter_config", "painter_file", "read_painter"]

SHIPPED = "nst:painter"
"""The network that comes with this package."""

_CONFIG = "nst.painter"
_LEAST_STYLE_PX = 8
"""Short side of the smallest style picture whose activations have moments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedForward:
    """Paint photographs in the style of any picture, in one pass through a trained network."""

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
    style_side_px: int = 512
    """Long side of the style pictures as the network sees them, in pixels; more for larger strokes. Smaller
    pictures are seen as they are."""
    strength: float = 1.0
    """Strength of the style, from 0, the photograph, to 1."""
    preserve_color: PreserveColor = "none"
    """How the photograph's colors are kept. `luminance` paints its luminance only, `match` first gives the
    style pictures its colors' mean and covariance, `original` paints in color and takes the photograph's chroma
    at the end; `none` keeps none."""
    stroke_side_px: int | None = 1536
    """Long side in pixels at which larger photographs are painted, so that strokes have a size relative to the
    photograph, whose fine detail is added to the picture at full size. None: all are painted at their own
    size."""
    reference: str | None = None
    """Picture from which all photographs take what the network normalizes by, so that frames of one scene do
    not flicker: the first frame. None: each is its own."""
    weights: str = "embedded"
    """Path or URL of the network: what a training of this kind ended with, a snapshot, or a checkpoint; or
    `embedded`, the one that comes with nst."""
    weights_sha256: str | None = None
    """Digest that the weights file must have."""
    precision: Precision = "float32"
    """Precision in which photographs are painted: `float32`, or `bfloat16`, which is faster on GPUs and on CPUs
    that have it, and slower on others."""
    pass_memory_mb: int | None = 250
    """Memory in MB for activations of one pass. Larger photographs are painted in tiles, with the same result.
    None: no limit."""

    def __post_init__(self) -> None:
        check_styles(self)
        if not 0 <= self.strength <= 1:
            raise OptionError("strength", self.strength, reason="is from 0 to 1")
        check.one_of("preserve_color", self.preserve_color, get_args(PreserveColor))
        check.one_of("precision", self.precision, get_args(Precision))
        check.at_least("style_side_px", self.style_side_px, _LEAST_STYLE_PX)
        for option in ("stroke_side_px", "pass_memory_mb"):
            if getattr(self, option) is not None:
                check.at_least(option, getattr(self, option), 1)

    def _named(self) -> list[tuple[str, str]]:
        """Style pictures by what messages call them."""
        return list(zip(names_of("style", self.style), styles_of(self), strict=True))

    @property
    def _weights(self) -> AssetRef:
        url = SHIPPED if self.weights == "embedded" else self.weights
        return AssetRef(option="weights", url=url, kind="weights", sha256=self.weights_sha256)

    def assets(self) -> list[AssetRef]:
        found = style_assets(self)
        if self.reference is not None:
            found.append(AssetRef(option="reference", url=self.reference, kind="image"))
        return [*found, self._weights]

    def notes(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return []

    def check_style(self, assets: Assets) -> None:
        for option, url in self._named():
            self._picture(option, assets[url])

    def build(self, assets: Assets, device: torch.device) -> FeedForwardStylizer:
        """Raises OptionError: a style picture is too small."""
        self.check_style(assets)
        painter = read_painter(assets[self._weights.url], self.weights)
        named = self._named()
        pictures = [partial(self._picture, option, assets[url]) for option, url in named]
        blend = self.style_blend or (1.0,) * len(pictures)
        shares = [weight / sum(blend) for weight in blend]
        default: list[tuple[Look, Tensor | None]] = [(Look(pictures, shares), None)]
        if self.style_masks is not None:
            masks = [luminance(decode_image(assets[url]))[:1] for url in self.style_masks]
            default = [
                (Look([picture], [1.0]), share * mask.to(device))
                for picture, share, mask in zip(pictures, shares, masks, strict=True)
            ]
        names = [PurePosixPath(url).stem for _, url in named]
        looks = {
            name: Look([picture], [1.0])
            for name, picture in zip(names, pictures, strict=True)
            if names.count(name) == 1
        }
        reference = None if self.reference is None else decode_image(assets[self.reference])
        plan = select(FeedForwardPlan, self)
        return FeedForwardStylizer(plan, painter.to(device), looks, default, reference=reference)

    def _picture(self, option: str, data: bytes) -> Tensor:
        """A style picture as the network sees it, (3, h, w)."""
        picture = decode_image(data)
        height, width = picture.shape[1:]
        if min(height, width) < _LEAST_STYLE_PX:
            reason = f"is {width} x {height} pixels, and must have {_LEAST_STYLE_PX} at least each way"
            raise OptionError(option, dict(self._named())[option], reason=reason)
        scale = min(1.0, self.style_side_px / max(height, width))
        size = [max(_LEAST_STYLE_PX, round(side * scale)) for side in (height, width)]
        return resize_image(picture, (size[0], size[1]))


def painter_file(painter: Painter) -> bytes:
    """The bytes of a .safetensors with it, in float16, and its shape. Equal input, equal bytes."""
    tensors = {
        f"painter.{name}": tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in painter.state_dict().items()
    }
    return safetensors.torch.save(tensors, metadata=painter_config(painter))


def painter_config(painter: Painter) -> dict[str, str]:
    """The shape of a painter, as its file says it."""
    return {_CONFIG: json.dumps(asdict(painter.config), sort_keys=True)}


def read_painter(data: bytes, name: str) -> Painter:
    """The network of a file that `painter_file` wrote, or of a checkpoint, in the precision of the file.

    Raises:
        WeightsError: it is none.
    """
    text = read_metadata(data).get(_CONFIG)
    if text is None:
        raise WeightsError(f"{name} is no painter: it does not say its shape")
    try:
        values = json.loads(text)
        known: dict[str, Any] = {item.name: int(values[item.name]) for item in fields(PainterConfig)}
        painter = Painter(PainterConfig(**known))
    except (ValueError, TypeError, KeyError, OptionError) as error:
        raise WeightsError(f"the shape in {name} is not one of a painter: {error}") from error
    state = read_states({name: data}, ["painter", "sight"]).get("painter", {})
    load_published(painter, {key: value.half().float() for key, value in state.items()})
    return painter
