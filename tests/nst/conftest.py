"""What tests of the library share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nst.features.embedded.exemplar import ExemplarTask, render_patches
from tests.conftest import picture


@pytest.fixture(scope="session")
def patches() -> torch.Tensor:
    """uint8 (48, 3, 128, 128), as the embedded network is trained on."""
    photographs = [np.asarray(picture(seed, 200, 150)) for seed in range(3)]
    return render_patches(photographs, ExemplarTask(patches=48))
