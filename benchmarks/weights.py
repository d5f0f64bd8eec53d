"""Real weights for benchmarks, where there are some."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from torch import Tensor

from nst.features import read_state_dict

__all__ = ["add_weights", "read_weights"]


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The option `--weights`; left out, the file that NST_PRETRAINED names, where it is there."""
    named = os.environ.get("NST_PRETRAINED")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        default=named if named and Path(named).is_file() else None,
        help="a state dict of VGG16 or VGG19 (.safetensors, .pth); default: calibrated random parameters",
    )


def read_weights(file: str) -> tuple[str, dict[str, Tensor]]:
    """The network's name, and its parameters."""
    state = read_state_dict(Path(file).read_bytes())
    return ("vgg19" if "features.34.weight" in state else "vgg16"), state
