"""Real weights for benchmarks, where there are some."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from torch import nn

from nst.features import read_state_dict
from nst.features.layers import VGG_BLOCKS
from reference.style_transfer import vgg

__all__ = ["add_weights", "plain_vgg", "weights_name"]


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The option `--weights`; left out, the file that NST_PRETRAINED names, where it is there."""
    named = os.environ.get("NST_PRETRAINED")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        default=named if named and Path(named).is_file() else None,
        help="a state dict of VGG16 or VGG19 (.safetensors, .pth); default: calibrated random parameters",
    )


def weights_name(weights: str | None) -> str:
    """As a benchmark's last line has it."""
    return Path(weights).name if weights else "random"


def plain_vgg(weights: str | None) -> tuple[str, nn.Sequential]:
    """The network's name and its convolutional part with the parameters of the file `weights`, or with random
    ones."""
    if weights is None:
        return "vgg19", vgg(VGG_BLOCKS["vgg19"])
    state = read_state_dict(Path(weights).read_bytes())
    network = "vgg19" if "features.34.weight" in state else "vgg16"
    cnn = vgg(VGG_BLOCKS[network])
    cnn.load_state_dict({name: state[f"features.{name}"] for name in cnn.state_dict()})
    return network, cnn
