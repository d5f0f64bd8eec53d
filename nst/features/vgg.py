"""The VGGs, and the embedded network, which is of their kind."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.features.conventions import Convention
from nst.features.layers import LOGITS, VGG_CHANNELS, layer_names
from nst.ops.conv_relu import conv_relu, has_conv_relu

__all__ = ["AS_MAXIMUM", "VGG", "Pooling", "pool", "read_out", "scale_to_unit_activations"]

Pooling = Literal["max", "average", "l2"]

# How many times as large activations are after maximum pooling, by their means, over the first four poolings
# of VGG16 with ImageNet's weights on six photographs: 1.3, 1.7, 1.8 and 2.1 times those of average pooling, and
# 1.2, 1.4, 1.5 and 1.6 times those of the root mean square. Geometric means.
AS_MAXIMUM: Mapping[Pooling, float] = {"max": 1.0, "average": 1.7, "l2": 1.43}


class VGG(nn.Module):
    """A VGG with torchvision's parameter names (`features.0.weight`, ...), its classifier only for logits.

    The embedded network has readouts besides (`readouts.relu1_1`, ...): matrices (C, C) that what is given out
    of a layer is multiplied by, and what the next layer sees is not. Inner products of what comes out are those
    that the network it was taught by would have there.

    Args:
        fused_relu: compute convolutions and their ReLUs together, where a GPU can.
    """

    def __init__(
        self,
        network: str,
        wanted: tuple[str, ...],
        pooling: Pooling,
        pooling_factor: float = 1.0,
        *,
        fused_relu: bool = False,
    ) -> None:
        super().__init__()
        names = (*layer_names(network), LOGITS)
        self.names = [name for name in names[: names.index(wanted[-1]) + 1] if name != LOGITS]
        self.network, self.wanted = network, wanted
        self.pooling, self.pooling_factor, self.fused_relu = pooling, pooling_factor, fused_relu
        # Keyed by torchvision's running index, which counts ReLUs and pools too.
        self.features = nn.ModuleDict()
        channels = 3
        for index, name in enumerate(self.names):
            if name.startswith("conv"):
                width = VGG_CHANNELS[network][int(name[4]) - 1]
                self.features[str(index)] = nn.Conv2d(channels, width, 3, padding=1)
                channels = width
        self.readouts = nn.ParameterDict(
            {
                name: nn.Parameter(torch.eye(VGG_CHANNELS[network][int(name[4]) - 1]))
                for name in self.wanted
                if network == "embedded" and name.startswith("relu")
            }
        )
        # In place, unless the convolution's own output is in use too.
        self.relu, self.relu_apart = nn.ReLU(inplace=True), nn.ReLU()
        if LOGITS in wanted:
            widths = (channels * 7 * 7, 4096, 4096, 1000)
            self.classifier = nn.ModuleDict(
                {str(3 * number): nn.Linear(*pair) for number, pair in enumerate(itertools.pairwise(widths))}
            )

    def forward(self, x: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Tensor]:
        """Activations by layer. With `sizes` of the photographs on a canvas: what a layer computes beyond them
        is set to zero, which is what the next convolution finds around a photograph that is alone."""
        found: dict[str, Tensor] = {}
        fused = False
        if sizes is not None:
            valid = _valid(sizes, x)
            x = x * valid
        for index, name in enumerate(self.names):
            if name.startswith("conv"):
                conv = self.features[str(index)]
                assert isinstance(conv, nn.Conv2d)
                fused = self._is_fused(index) and has_conv_relu(x, conv.weight, conv.bias)
                x = conv_relu(x, conv.weight, conv.bias) if fused else conv(x)
            elif fused:
                fused = False
            elif name.startswith("relu"):
                x = (self.relu_apart if self.names[index - 1] in self.wanted else self.relu)(x)
            else:
                x = pool(x, self.pooling)
                if self.pooling_factor != 1.0:
                    x = x * self.pooling_factor
                if sizes is not None:
                    sizes = [(height // 2, width // 2) for height, width in sizes]
                    valid = _valid(sizes, x)
            if sizes is not None and not name.startswith("relu"):  # which leaves zeros as they are
                x = x * valid
            if name in self.wanted:
                found[name] = x if name not in self.readouts else read_out(x, self.readouts[name])
        if LOGITS in self.wanted:
            x = F.adaptive_avg_pool2d(x, 7).flatten(1)
            first, second, last = self.classifier.values()
            found[LOGITS] = last(self.relu(second(self.relu(first(x)))))
        return found

    def _is_fused(self, index: int) -> bool:
        """Whether the ReLU of the convolution at `index` may be computed with it: it is there, and its input is
        nobody else's."""
        follows = index + 1 < len(self.names) and self.names[index + 1].startswith("relu")
        return self.fused_relu and follows and self.names[index] not in self.wanted

    @cached_property
    def bytes_per_pixel(self) -> float:
        """The field of that name in `Geometry`."""
        area, kept, largest, channels = 1, 0.0, 0.0, 3
        for name in self.names:
            if name.startswith("pool"):
                area *= 4
            elif name.startswith("conv"):
                channels = VGG_CHANNELS[self.network][int(name[4]) - 1]
            size = 4.0 * channels / area
            largest = max(largest, size)
            # The ReLU is in place; a maximum keeps 8 bytes of index for each of its 4.
            kept += 0.0 if name.startswith("conv") else 3 * size if name.startswith("pool") else size
            # A loss keeps a copy, from before the ReLU maybe; and both have gradients at the end.
            kept += 4 * size if name in self.wanted else 0.0
            kept += size if name in self.readouts else 0.0
        return kept + 3 * largest


@torch.no_grad()
def scale_to_unit_activations(body: VGG, inputs: Convention) -> None:
    """Scale the layers so that the mean activation behind each is one: in float64, with a fixed picture and
    maximum pooling, whatever the network is to pool with. A layer that is silent stays as it is."""
    picture = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    picture = F.interpolate(picture, size=(96, 96), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(each, dtype=torch.float64).view(1, 3, 1, 1) for each in (inputs.mean, inputs.std))
    x, scale = (picture - mean) / std, 1.0
    for index, name in enumerate(body.names):
        if name.startswith("conv"):
            layer = body.features[str(index)]
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            layer.weight.mul_(scale)
            x = layer(x).relu()
            scale = float(x.mean()) or 1.0
            x /= scale
            layer.weight.div_(scale)
            layer.bias.div_(scale)
        elif name.startswith("pool"):
            x = F.max_pool2d(x, 2)


def read_out(x: Tensor, matrix: Tensor) -> Tensor:
    """(N, C, H, W), multiplied by a matrix (C, C)."""
    return F.conv2d(x, matrix[:, :, None, None])


def _valid(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(N, 1, H, W): 1 where a photograph is, 0 beyond it."""
    mask = like.new_zeros(len(sizes), 1, *like.shape[-2:])
    for index, (height, width) in enumerate(sizes):
        mask[index, :, :height, :width] = 1
    return mask


def pool(x: Tensor, pooling: Pooling) -> Tensor:
    if pooling == "max":
        return F.max_pool2d(x, 2)
    if pooling == "average":
        return F.avg_pool2d(x, 2)
    # Henaff and Simoncelli 2016, by the root of the mean square. The root has no slope at zero: it stops short.
    return F.avg_pool2d(x.square(), 2).clamp_min(1e-12).sqrt()
