"""How good generators are, beside their training: FID and KID of translated photographs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from jobs.driver.assets import is_own, named_by_option
from jobs.errors import UsageError
from jobs.ledger.listing import list_photos
from jobs.stores.store import Store, open_store
from jobs.training.data import TrainingSet
from jobs.training.layout import COMPARED, evaluation_path, evaluation_steps, generator_path
from jobs.training.recipes import Recipe
from jobs.training.spec import EvaluationSpec, TrainFile
from nst.errors import OptionError, WeightsError
from nst.features import FeatureNetwork, build_features, read_weights
from nst.gan.evaluation import frechet_distance, kernel_distance, pooled_features

__all__ = [
    "check_evaluation",
    "check_eyes",
    "check_still_comparable",
    "evaluate",
    "evaluate_beside",
    "held_out",
]

_CPU = torch.device("cpu")
_SHARE = 0.1
"""Share of a GPU's memory, at most, of an evaluation beside the training, which may yet want more itself."""


def evaluate_beside(file: TrainFile, urls: tuple[Any, ...], assets: Mapping[str, bytes], step: int) -> None:
    """Do as `evaluate` beside the training: on a thread, or, where the training is on GPUs and one is in sight
    that has room and takes another process, on that, in seconds instead of minutes. The process is to end after
    it, since it keeps some of the GPU's memory."""
    torch.set_num_threads(1)
    if file.resources.num_gpus and torch.cuda.is_available():
        with suppress(RuntimeError):  # not all that lack memory raise torch's own error for it
            torch.cuda.set_per_process_memory_fraction(_SHARE)
            evaluate(file, urls, assets, step, torch.device("cuda"))
            return
        with suppress(RuntimeError):
            torch.cuda.empty_cache()  # which the training may need meanwhile
    evaluate(file, urls, assets, step)


def evaluate(
    file: TrainFile,
    urls: tuple[Any, ...],
    assets: Mapping[str, bytes],
    step: int,
    device: torch.device = _CPU,
) -> dict[str, float]:
    """Compare translations of the first photographs with those of their target, held-out ones where there are
    any; publish the distances.

    Args:
        device: where the networks compute.

    Raises:
        OSError: there are no generators of this step, or nothing can be read or written.
    """
    own, spec = file.evaluation, file.spec
    store = open_store(spec.output, file.storage)
    weights = store.read(generator_path(step))
    assert own.layer is not None
    network = _network(own, assets).to(device)
    photos = TrainingSet.of(spec, urls, file.storage, file.resources.timeout_s)
    photos = replace(photos, urls={**photos.urls, **held_out(file)})
    found: dict[str, float] = {}
    real: dict[str, Tensor] = {}
    for each in spec.recipe.translations(weights, own.directions, device):
        if each.target not in real:
            images = _images(photos, each.target, own.photos, device)
            real[each.target] = _features(network, own.layer, (each.shown(image[None])[0] for image in images))
        fakes = (each.translate(image[None])[0] for image in _images(photos, each.source, own.photos, device))
        features = _features(network, own.layer, fakes)
        found[f"fid_{each.name}"] = frechet_distance(features, real[each.target])
        found[f"kid_{each.name}"] = kernel_distance(features, real[each.target])
    store.publish(COMPARED, json.dumps(_compared_by(own)).encode())
    store.publish(evaluation_path(step), json.dumps(found).encode())
    return found


def _network(own: EvaluationSpec, assets: Mapping[str, bytes]) -> FeatureNetwork:
    state, convention = read_weights(own.network, own.asset(), own.weights_convention, assets)
    assert own.layer is not None
    # KID's kernel knows the scale of activations; those of the embedded network are large.
    unit = own.network == "embedded"
    return build_features(own.network, [own.layer], state=state, convention=convention, unit_activations=unit)


def check_eyes(own: EvaluationSpec, assets: Mapping[str, bytes]) -> None:
    """Raises OptionError, WeightsError: weights that are its user's do not fit the network that compares."""
    named = [*filter(is_own, own.assets())]
    if own.every and named:
        try:
            _network(own, assets)
        except WeightsError as error:
            raise named_by_option(error, named, "evaluation") from error


def _compared_by(own: EvaluationSpec) -> dict[str, Any]:
    """What distances compare by, besides the network's weights: see `starts.same_eyes`."""
    names = ("network", "weights_convention", "layer", "photos")
    return {**{name: getattr(own, name) for name in names}, "held_out": sorted(own.held_out or ())}


def check_still_comparable(file: TrainFile, store: Store) -> None:
    """Refuse to find distances that would be compared with others, of which the least decides.

    Raises:
        OptionError: an option is not what it was when the first ones were found; or as of `held_out`.
    """
    if not file.evaluation.every:
        return
    held_out(file)
    if not evaluation_steps(store) or not store.exists(COMPARED):
        return
    before = json.loads(store.read(COMPARED))
    for name, now in _compared_by(file.evaluation).items():
        if before.get(name, now) != now:
            reason = (
                f"there are distances that were found with {before[name]!r}, and others would not compare. "
                "--set evaluation.every=0 goes on without them"
            )
            raise OptionError(f"evaluation.{name}", now, reason=reason)


def check_evaluation(file: TrainFile, urls: Mapping[str, pa.ChunkedArray]) -> None:
    """Refuse what could not be compared.

    Args:
        urls: places of the photographs of each collection.

    Raises:
        OptionError: a collection has one photograph, and no others in its place; or some that are held out are
            trained on; or as of `held_out`.
    """
    others, every = held_out(file), file.evaluation.every
    compares = type(file.spec.recipe).translations is not Recipe.translations
    for name, own in urls.items():
        if every and compares and name not in others and len(own) < 2:
            reason = (
                f"{name} has {len(own)} photograph, and two are needed; evaluation.held_out may name others"
            )
            raise OptionError("evaluation.every", every, reason=reason)
        trained_on = own.filter(pc.is_in(own, pa.array(others.get(name, []), own.type)))
        if len(trained_on):
            said = f"{len(trained_on)} of its {len(others[name])} photographs are trained on, too"
            reason = f"{said}, as {trained_on[0]}; they must not be among those of {name}"
            place = (file.evaluation.held_out or {})[name]
            raise OptionError(f"evaluation.held_out.{name}", place, reason=reason)


def held_out(file: TrainFile) -> dict[str, list[str]]:
    """Places of the photographs that are compared but not trained on, by collection.

    Raises:
        OptionError: there are none at a place that `evaluation.held_out` names.
    """
    found = {}
    for name, place in (file.evaluation.held_out or {}).items():
        try:
            found[name] = [
                photo.url for photo in list_photos(place, exclude=file.spec.output, storage=file.storage)
            ]
            if len(found[name]) < 2:
                raise UsageError(f"two photographs are needed, and there are {len(found[name])}")
        except (OptionError, UsageError) as error:
            reason = (error.reason or str(error)) if isinstance(error, OptionError) else str(error)
            raise OptionError(f"evaluation.held_out.{name}", place, reason=reason) from error
    return found


@torch.no_grad()
def _features(network: FeatureNetwork, layer: str, images: Iterator[Tensor]) -> Tensor:
    return pooled_features(network, layer, images)


def _images(photos: TrainingSet, name: str, count: int, device: torch.device) -> Iterator[Tensor]:
    """The first photographs of a collection, (3, h, w) in [0, 1]."""
    for image in photos.images(name, count):
        yield ((image + 1) / 2).to(device)
