"""What tests of the library share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nst.features.embedded.exemplar import ExemplarTask, render_patches
from nst.features.layers import VGG_CHANNELS
from tests.conftest import picture


@pytest.fixture(scope="session")
def patches() -> torch.Tensor:
    """uint8 (48, 3, 128, 128), as the embedded network is trained on."""
    photographs = [np.asarray(picture(seed, 200, 150)) for seed in range(3)]
    return render_patches(photographs, ExemplarTask(patches=48))


@pytest.fixture(scope="module")
def narrow_vggs() -> Iterator[None]:
    """VGGs of a quarter of the channels, for what does not depend on their number: a sixteenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for network in ("vgg16", "vgg19"):
            patch.setitem(VGG_CHANNELS, network, tuple(width // 4 for width in VGG_CHANNELS[network]))
        yield
