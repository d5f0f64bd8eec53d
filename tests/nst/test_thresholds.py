"""Lower thresholds: what they are, and that a network sees with them what it saw before."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nst.features import build_features, layer_names
from nst.features.embedded.exemplar import some_normalized
from nst.features.embedded.thresholds import SHARED, lower_thresholds

pytestmark = pytest.mark.slow

RELUS = [name for name in layer_names("embedded") if name.startswith("relu")]
CONVOLUTIONS = [name for name in layer_names("embedded") if name.startswith("conv")]


@pytest.fixture(scope="module")
def sparse() -> dict[str, torch.Tensor]:
    """Parameters of a network whose channels are silent on about half of the positions."""
    network = build_features("embedded", RELUS, seed=3, pooling="average")
    return dict(network.body.state_dict())


@pytest.fixture(scope="module")
def lowered(patches: torch.Tensor, sparse: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return lower_thresholds(sparse, some_normalized(patches, 24))


@pytest.fixture(scope="module")
def with_random(patches: torch.Tensor, sparse: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return lower_thresholds(sparse, some_normalized(patches, 24), random_channels=8, seed=1)


def test_lowered_thresholds_leave_channels_silent_where_they_should_be(
    patches: torch.Tensor, lowered: dict[str, torch.Tensor]
) -> None:
    """On the pictures it was fitted to."""
    network = build_features("embedded", RELUS, state=lowered, pooling="average")
    with torch.no_grad():
        features = network(patches[torch.linspace(0, 47, 24).long()].float() / 255)
    for layer, activations in features.items():
        silent = (activations == 0).float().mean((0, 2, 3))
        if layer == "relu1_1":
            wanted = torch.tensor([(0.05, 0.2, 0.4, 0.6, 0.8)[place % 5] for place in range(64)])
            assert torch.allclose(silent, wanted, atol=0.03)
        else:
            assert float(silent.max()) < 0.33, layer
        assert torch.allclose(activations.square().mean((0, 2, 3)), torch.tensor(1.0), atol=0.05), layer


def test_lowered_thresholds_keep_what_the_layers_see(
    patches: torch.Tensor, sparse: dict[str, torch.Tensor], lowered: dict[str, torch.Tensor]
) -> None:
    """On pictures it was not fitted to, up to each channel's unit and threshold."""
    fresh = patches[1:46:2].float() / 255
    with torch.no_grad():
        before, after = (
            build_features("embedded", CONVOLUTIONS, state=state, pooling="average")(fresh)
            for state in (sparse, lowered)
        )
    for layer in CONVOLUTIONS:
        pairs = (each[layer].transpose(0, 1).flatten(1) for each in (before, after))
        first, second = (each - each.mean(1, keepdim=True) for each in pairs)
        alike = F.cosine_similarity(first, second, dim=1)
        assert float(alike.median()) > (0.99 if layer in ("conv1_1", "conv1_2") else 0.8), layer


def test_random_channels_take_the_last_places_and_nothing_else_sees_them(
    patches: torch.Tensor, with_random: dict[str, torch.Tensor]
) -> None:
    raised = {name: value.clone() for name, value in with_random.items()}
    for layer in SHARED:
        raised[f"features.{layer_names('embedded').index(layer)}.bias"][-8:] += 1
    images = patches[1::2].float() / 255
    with torch.no_grad():
        before, after = (
            build_features("embedded", CONVOLUTIONS, state=state, pooling="average")(images)
            for state in (with_random, raised)
        )
    for layer in CONVOLUTIONS:
        changed = (after[layer] - before[layer]).abs().amax((0, 2, 3)) > 1e-3
        assert not changed[:-8].any(), layer
        assert bool(changed[-8:].all()) == (layer in SHARED), layer


def test_kept_channels_and_layers_after_them_see_what_they_saw(
    patches: torch.Tensor, sparse: dict[str, torch.Tensor], with_random: dict[str, torch.Tensor]
) -> None:
    """Each of the former channels of the deepest layer is told by the new network; of a layer with random
    channels, its own first ones are former channels."""
    fresh = patches[1:46:2].float() / 255
    with torch.no_grad():
        before, after = (
            build_features("embedded", CONVOLUTIONS, state=state, pooling="average")(fresh)
            for state in (sparse, with_random)
        )
    for layer in CONVOLUTIONS:
        first, second = (
            F.normalize(flat - flat.mean(1, keepdim=True), dim=1)
            for flat in (each[layer].transpose(0, 1).flatten(1) for each in (before, after))
        )
        count = len(second) - (8 if layer in SHARED else 0)
        alike = (second[:count] @ first.T).amax(1)
        assert float(alike.median()) > (0.99 if layer in ("conv1_1", "conv1_2") else 0.8), layer
