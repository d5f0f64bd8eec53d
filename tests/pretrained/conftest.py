"""The real VGG16 of ImageNet, for tests of what random weights cannot show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch import Tensor

from nst.features import read_state_dict

_DEFAULT = Path(__file__).parents[3] / "shared/data/vgg16_features.safetensors"


@pytest.fixture(scope="session")
def vgg16_file() -> Path:
    """Its convolutions, in torchvision's convention; the environment variable NST_PRETRAINED says where."""
    path = Path(os.environ.get("NST_PRETRAINED") or _DEFAULT)
    if not path.is_file():
        pytest.skip(f"{path} is not there; NST_PRETRAINED names a state dict of VGG16 (.safetensors, .pth)")
    return path


@pytest.fixture(scope="session")
def vgg16(vgg16_file: Path) -> dict[str, Tensor]:
    """Its state dict, shared by all tests: not to be changed."""
    return read_state_dict(vgg16_file.read_bytes())
