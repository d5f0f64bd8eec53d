"""The names of the layers, generated from the architectures. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from nst.errors import OptionError

__all__ = ["LOGITS", "NETWORKS", "VGG_BLOCKS", "VGG_CHANNELS", "check_layers", "layer_names"]

NETWORKS = ("embedded", "vgg19", "vgg16", "resnet50", "googlenet")

LOGITS = "logits"
"""The classifier's output, (N, 1000), as a layer; of published networks."""

# Convolutions in each block, and their channels. Simonyan and Zisserman 2015, configurations D and E; the
# embedded network, our own, is VGG16 as far as relu5_2, and narrower.
VGG_BLOCKS = {"embedded": (2, 2, 3, 3, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
VGG_CHANNELS = {
    "embedded": (32, 64, 128, 192, 128),
    "vgg16": (64, 128, 256, 512, 512),
    "vgg19": (64, 128, 256, 512, 512),
}

# He et al. 2016: bottleneck blocks in each of the four stages.
_RESNET50_BLOCKS = (3, 4, 6, 3)
# Szegedy et al. 2015, in the order in which they run.
# fmt: off
_GOOGLENET = (
    "conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3", "inception4a",
    "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4", "inception5a", "inception5b",
)
# fmt: on


@cache
def layer_names(network: str) -> tuple[str, ...]:
    """The layers of `network`, shallow to deep.

    `conv1_1`, `relu1_1`, ..., `pool5` for the VGGs and the embedded network, torchvision's module names for
    the others.

    Raises:
        OptionError: unknown network.
    """
    if network in VGG_BLOCKS:
        names: list[str] = []
        for block, convolutions in enumerate(VGG_BLOCKS[network], start=1):
            for index in range(1, convolutions + 1):
                names += [f"conv{block}_{index}", f"relu{block}_{index}"]
            names.append(f"pool{block}")
        return tuple(names)
    if network == "resnet50":
        names = ["conv1", "bn1", "relu", "maxpool"]
        for stage, blocks in enumerate(_RESNET50_BLOCKS, start=1):
            names += [f"layer{stage}.{index}" for index in range(blocks)]
            names.append(f"layer{stage}")  # the stage's output: the same tensor as its last block's
        return tuple(names)
    if network == "googlenet":
        return tuple(_GOOGLENET)
    raise OptionError("network", network, choices=NETWORKS)


def check_layers(option: str, network: str, layers: Iterable[str], *, logits: bool = False) -> None:
    """Raise `OptionError` for the first of `layers` that `network` does not have; `LOGITS` only if allowed."""
    choices = layer_names(network)
    if logits and network != "embedded":
        choices = (*choices, LOGITS)
    for layer in layers:
        if layer not in choices:
            raise OptionError(option, layer, choices=choices, reason=f"{network} has no such layer")
