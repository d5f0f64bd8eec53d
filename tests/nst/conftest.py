"""What tests of the library share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from torch import Tensor

from nst.features.layers import VGG_CHANNELS
from nst.losses import gram_matrix


@pytest.fixture(scope="module")
def narrow_vggs() -> Iterator[None]:
    """VGGs of a quarter of the channels, for what does not depend on their number: a sixteenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for network in ("vgg16", "vgg19"):
            patch.setitem(VGG_CHANNELS, network, tuple(width // 4 for width in VGG_CHANNELS[network]))
        yield


@pytest.fixture(scope="module", autouse=True)
def _same_on_each_machine() -> Iterator[None]:
    """Style transfer that is not told its precision computes in float32, whatever the machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "nst.style_transfer.method.resolved",
            lambda precision, _: "float32" if precision == "auto" else precision,
        )
        yield


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Tensor]]:
    """Has a module's Gram matrices kept: given its name, the list of them."""

    def of(module: str) -> list[Tensor]:
        seen: list[Tensor] = []

        def kept(features: Tensor) -> Tensor:
            seen.append(gram_matrix(features))
            return seen[-1]

        monkeypatch.setattr(f"{module}.gram_matrix", kept)
        return seen

    return of
