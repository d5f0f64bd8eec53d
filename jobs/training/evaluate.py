"""How good generators are, beside their training: FID and KID of translated photographs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from jobs.storage import open_store
from jobs.training.data import Pairs
from jobs.training.layout import evaluation_path, generator_path
from jobs.training.spec import TrainFile
from nst.cyclegan.method import CycleGAN, CycleGANStylizer, Direction
from nst.cyclegan.networks import size_multiple
from nst.cyclegan.samples import Domain, stream
from nst.evaluation import frechet_distance, kernel_distance, pooled_features
from nst.features import FeatureNetwork, build_features, read_state_dict

__all__ = ["evaluate"]


def evaluate(
    file: TrainFile, urls: tuple[Any, Any], assets: Mapping[str, bytes], step: int
) -> dict[str, float]:
    """Compare translations of the first photographs with those of the other collection; publish the distances.

    Raises:
        OSError: there are no generators of this step, or nothing can be read or written.
    """
    own, spec = file.evaluation, file.spec
    store = open_store(spec.output, file.storage)
    weights = store.read(generator_path(step))
    state = next((read_state_dict(data) for data in assets.values()), None)
    assert own.layer is not None
    network = build_features(own.network, [own.layer], state=state)
    multiple = size_multiple(spec.model.generator)
    pairs = Pairs(*urls, spec.output, spec.seed, spec.data, multiple, spec.max_pixels, file.storage)
    found: dict[str, float] = {}
    real = {domain: _features(network, own.layer, _images(pairs, domain, own.photos)) for domain in ("A", "B")}
    sides: tuple[tuple[Direction, Domain, Domain], ...] = (("A2B", "A", "B"), ("B2A", "B", "A"))
    for direction, source, target in sides:
        stylizer = CycleGAN(weights="", direction=direction).build({"": weights}, torch.device("cpu"))
        fakes = _translated(stylizer, _images(pairs, source, own.photos))
        features = _features(network, own.layer, fakes)
        found[f"fid_{direction}"] = frechet_distance(features, real[target])
        found[f"kid_{direction}"] = kernel_distance(features, real[target])
    store.publish(evaluation_path(step), json.dumps(found).encode())
    return found


@torch.no_grad()
def _features(network: FeatureNetwork, layer: str, images: Iterator[Tensor]) -> Tensor:
    return pooled_features(network, layer, images)


def _images(pairs: Pairs, domain: Domain, photos: int) -> Iterator[Tensor]:
    """The first photographs of a collection, (3, h, w) in [0, 1], cropped always alike."""
    place, urls = 0, pairs.a if domain == "A" else pairs.b
    for number in range(min(photos, len(urls))):
        photo, place = pairs.readable(domain, place)
        yield (pairs.preprocessing(photo, stream(0, domain, -1 - number), pairs.multiple) + 1) / 2


def _translated(stylizer: CycleGANStylizer, images: Iterator[Tensor]) -> Iterator[Tensor]:
    for image in images:
        yield stylizer.translate(image[None])[0]
