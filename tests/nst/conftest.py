"""What tests of the library share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nst.features.layers import VGG_CHANNELS


@pytest.fixture(scope="module")
def narrow_vggs() -> Iterator[None]:
    """VGGs of a quarter of the channels, for what does not depend on their number: a sixteenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for network in ("vgg16", "vgg19"):
            patch.setitem(VGG_CHANNELS, network, tuple(width // 4 for width in VGG_CHANNELS[network]))
        yield
