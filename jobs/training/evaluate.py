"""How good generators are, beside their training: FID and KID of translated photographs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from jobs.stores.store import open_store
from jobs.training.data import TrainingSet
from jobs.training.layout import evaluation_path, generator_path
from jobs.training.spec import TrainFile
from nst.features import FeatureNetwork, build_features, read_weights
from nst.gan.evaluation import frechet_distance, kernel_distance, pooled_features

__all__ = ["evaluate"]


def evaluate(
    file: TrainFile, urls: tuple[Any, ...], assets: Mapping[str, bytes], step: int
) -> dict[str, float]:
    """Compare translations of the first photographs with those of their target; publish the distances.

    Raises:
        OSError: there are no generators of this step, or nothing can be read or written.
    """
    own, spec = file.evaluation, file.spec
    store = open_store(spec.output, file.storage)
    weights = store.read(generator_path(step))
    state, convention = read_weights(own.network, own.asset(), own.weights_convention, assets)
    assert own.layer is not None
    network = build_features(own.network, [own.layer], state=state, convention=convention)
    photos = TrainingSet.of(spec, urls, file.storage)
    found: dict[str, float] = {}
    real: dict[str, Tensor] = {}
    for each in spec.recipe.translations(weights, own.directions):
        if each.target not in real:
            real[each.target] = _features(network, own.layer, _images(photos, each.target, own.photos))
        fakes = (each.translate(image[None])[0] for image in _images(photos, each.source, own.photos))
        features = _features(network, own.layer, fakes)
        found[f"fid_{each.name}"] = frechet_distance(features, real[each.target])
        found[f"kid_{each.name}"] = kernel_distance(features, real[each.target])
    store.publish(evaluation_path(step), json.dumps(found).encode())
    return found


@torch.no_grad()
def _features(network: FeatureNetwork, layer: str, images: Iterator[Tensor]) -> Tensor:
    return pooled_features(network, layer, images)


def _images(photos: TrainingSet, name: str, count: int) -> Iterator[Tensor]:
    """The first photographs of a collection, (3, h, w) in [0, 1]."""
    for image in photos.images(name, count):
        yield (image + 1) / 2
