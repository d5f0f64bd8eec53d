"""DeepDream through the real VGG16."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from nst.deepdream.method import DeepDream
from nst.stylizer import Stylized
from tests.pretrained.test_style_transfer import photograph

pytestmark = [pytest.mark.pretrained, pytest.mark.timeout(900)]


def test_objectives_of_a_few_steps(vgg16: Mapping[str, Tensor]) -> None:
    """The default layer becomes stronger, as much as when this was written."""
    method = DeepDream(network="vgg16", weights="file", octaves=2, steps=4, curve=True)
    it = method.build_from(vgg16, torch.device("cpu"))
    (outcome,) = it([photograph(128)], [torch.Generator().manual_seed(0)])
    assert isinstance(outcome, Stylized), outcome
    found = [value / outcome.curve["objective"][0] for value in outcome.curve["objective"]]
    print(found)
    assert found[3] > 1.5
    assert found[7] > found[4]
    assert found == pytest.approx(OBJECTIVES, rel=0.02)


OBJECTIVES = [1.0, 0.83652, 2.07524, 3.53351, 5.30761, 6.51026, 10.3651, 16.7609]
