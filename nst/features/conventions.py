"""What VGG16 and VGG19 want as input, which their weights do not say: three conventions share keys and shapes.

torchvision trained its own on [0, 1], normalized. The ones by Simonyan and Zisserman 2015, which the papers on
style transfer used, were trained in Caffe, on pixels of 0..255 minus a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from nst import check
from nst.errors import OptionError

__all__ = ["CONVENTIONS", "Convention", "check_convention", "has_conventions", "recognized_convention"]


@dataclass(frozen=True, slots=True)
class Convention:
    """What makes an image, RGB in [0, 1], a network's input: (image - mean) / std, channel by channel."""

    said: str
    mean: tuple[float, float, float]
    """RGB, in [0, 1]: the color of the zeros that convolutions pad with."""
    std: tuple[float, float, float]
    """RGB."""
    bgr: bool = False
    """Whether the weights take the channels in this order."""


_PIXEL = (1 / 255, 1 / 255, 1 / 255)

CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "torchvision": Convention(
            "torchvision's convention (RGB, normalized)", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        ),
        # As the models' page in Caffe's zoo says: B, G, R minus 103.939, 116.779, 123.68.
        "caffe": Convention(
            "the original Caffe convention (BGR, 0..255)",
            (123.68 / 255, 116.779 / 255, 103.939 / 255),
            _PIXEL,
            bgr=True,
        ),
        # The same weights as torchvision publishes them, VGG16_Weights.IMAGENET1K_FEATURES; its mean.
        "caffe_rgb": Convention(
            "the original Caffe convention in RGB (0..255)", (0.48235, 0.45882, 0.40784), _PIXEL
        ),
    }
)
"""The conventions by the values of the option `weights_convention`."""

# How much more each of the 64 first filters answers red than blue, as in `recognized_convention`, times ten: of
# the VGG16 trained in Caffe. VGG19's began as the same filters (Simonyan and Zisserman 2015, section 3.1).
# fmt: off
_RED_OVER_BLUE = (
    0, -41, -1, 0, 3, -28, -1, 9, 6, -24, 0, 0, -3, -23, 1, 0, 31, 1, -11, 30, -15, 2, -42, -6, -18, -35, 0, 22,
    2, 39, -2, 3, 32, -2, 0, 0, -37, 1, -9, -23, 1, -5, 0, 3, -8, 0, 14, 0, 7, -15, -24, 0, 15, 10, -6, -15, -2,
    -7, 0, 35, 0, 2, 0, 2,
)
# fmt: on
_ALIKE = 0.8  # cosine from which on they are the same filters
_PIXELS = 16.0  # norm over bias up to which these take pixels


def has_conventions(network: str) -> bool:
    """Whether weights of `network` may be in each of `CONVENTIONS`; of the others, in torchvision's alone."""
    return network in ("vgg16", "vgg19")


def check_convention(network: str, convention: str | None) -> None:
    """Raise `OptionError` if it is none of `CONVENTIONS`, or given for a network that has but one."""
    if convention is None:
        return
    check.one_of("weights_convention", convention, CONVENTIONS)
    if not has_conventions(network):
        reason = f"goes with vgg16 and vgg19: weights of {network} have only one convention"
        raise OptionError("weights_convention", convention, reason=reason)


def recognized_convention(network: str, state: Mapping[str, Tensor]) -> str:
    """The convention of a state dict, one of `CONVENTIONS`: `torchvision`, unless its first layer is plainly
    that of the VGGs trained in Caffe, and takes pixels.

    These filters are known by their colors: how much more each answers red than blue, at unit norm, has a
    cosine to `_RED_OVER_BLUE` of 1.00 for VGG16 in RGB and of -1.00 in BGR (0.97 for the six filters of VGG19
    that are in print), and of 0.57 at most for 200,000 shuffles of these filters with random signs. That they
    take pixels is told by norm over bias, the median of the filters: 2.3 in BGR and 1.7 in RGB, each with its
    mean, and 108 for the same network in torchvision's convention. This alone would not do: torchvision's own
    VGG16, trained anew on normalized images, has about 5.

    No positive factor of a layer, or of a filter, changes either. Not recognized, and taken for torchvision's:
    filters in another order, a first layer trained anew, other networks trained on pixels.
    """
    weight, bias = state.get("features.0.weight"), state.get("features.0.bias")
    if not has_conventions(network) or weight is None or bias is None:
        return "torchvision"
    if weight.shape != (64, 3, 3, 3) or bias.shape != (64,):
        return "torchvision"
    weight, bias = (tensor.detach().to("cpu", torch.float64) for tensor in (weight, bias))
    sums = F.normalize(weight.flatten(1)).view(64, 3, 9).sum(2)
    known = torch.tensor(_RED_OVER_BLUE, dtype=torch.float64)
    likeness = float(F.cosine_similarity(sums[:, 0] - sums[:, 2], known, dim=0))
    ratio = float((weight.flatten(1).norm(dim=1) / bias.abs()).median())
    if not (abs(likeness) >= _ALIKE and ratio <= _PIXELS):  # nor where there are infinities or NaN
        return "torchvision"
    return "caffe_rgb" if likeness > 0 else "caffe"
