"""The embedded network sees what VGG16 sees."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import nst
from jobs.demo import sample_photographs
from nst.features import FeatureNetwork, build_features, read_state_dict
from nst.features.weights import published_bytes
from nst.images.codec import picture_tensor
from nst.losses import gram_matrix
from nst.synthetic import brush_strokes

LAYERS = {"relu1_1": 0.1, "relu2_1": 0.1, "relu3_1": 0.15, "relu4_1": 0.25}
"""And by how much distances of Gram matrices there may be wrong."""


def pictures() -> list[Tensor]:
    names = ("astronaut.png", "chelsea.png", "coffee.png")
    photos = [nst.decode_image((sample_photographs() / name).read_bytes(), max_side_px=192) for name in names]
    return [*photos, picture_tensor(brush_strokes((192, 192), seed=5))]


@torch.no_grad()
def grams(network: FeatureNetwork, image: Tensor) -> dict[str, Tensor]:
    return {layer: gram_matrix(seen) for layer, seen in network(image[None]).items()}


def test_distances_of_gram_matrices_are_those_of_vgg16(vgg16: dict[str, Tensor]) -> None:
    """Relative to the size of one, in which nothing of the scale of either network is left. And activations are
    as large as VGG16's, to the next power of two."""
    teacher = build_features("vgg16", LAYERS, state=vgg16)
    own = build_features("embedded", LAYERS, state=read_state_dict(published_bytes("nst:embedded")))
    theirs, ours = ([grams(network, each) for each in pictures()] for network in (teacher, own))
    for layer, most in LAYERS.items():
        for first, second in itertools.combinations(range(len(ours)), 2):
            found, wanted = (
                float((each[first][layer] - each[second][layer]).norm() / each[second][layer].norm())
                for each in (ours, theirs)
            )
            assert found == pytest.approx(wanted, rel=most), layer
        assert 0.4 < float(ours[0][layer].norm() / theirs[0][layer].norm()) < 2.5, layer
