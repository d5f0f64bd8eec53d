"""What a training is: its spec says WHAT is trained, the rest HOW.

The names within the tables are those of the field's public implementation. Importing this loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from jobs.stores.filesystems import STANDARD_STORAGE, StorageOptions, option_place
from jobs.training.recipes.recipe import Recipe
from nst import check
from nst.errors import OptionError
from nst.features import NETWORKS, default_weights, layer_names, weights_asset, weights_notes
from nst.features.conventions import check_convention
from nst.features.weights import is_place
from nst.gan.parallel import DDPOptions
from nst.gan.sampling import Preprocessing
from nst.gan.schedule import Schedule
from nst.gan.starting import Sides
from nst.stylizer import LATER, AssetRef, Assets

__all__ = ["EvaluationSpec", "InitSpec", "LogSpec", "TrainFile", "TrainResources", "TrainSpec"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InitSpec:
    """Weights that the networks begin with, instead of random ones."""

    weights: str | tuple[str, ...] = ()
    """Path or URL of a file, or a list of them: what a training ended with, a snapshot or a checkpoint of one,
    or a .pth of the public implementation of CycleGAN, whose name says the network that it is of, as in
    latest_net_G_A.pth."""
    networks: Sides = "generator"
    """Networks that begin with the weights: `generator`, which stands for all generators, `discriminator`,
    likewise, or `both`."""
    strict: bool = True
    """Whether each of these networks must be in the files, and fit. `false`: layers are taken whose names and
    shapes fit, those of styles by the styles' names, and the notes of the job say which were not."""

    def __post_init__(self) -> None:
        check.one_of("networks", self.networks, get_args(Sides))
        if not self.weights and (self.networks != "generator" or not self.strict):
            raise OptionError(
                "weights", self.weights, reason="the other options of this table are of no use without"
            )

    @property
    def places(self) -> tuple[str, ...]:
        """Paths or URLs of the files, in order."""
        return (self.weights,) if isinstance(self.weights, str) else self.weights

    def assets(self) -> list[AssetRef]:
        alone = isinstance(self.weights, str)
        names = ["weights" if alone else f"weights[{place}]" for place in range(len(self.places))]
        return [
            AssetRef(option=name, url=url, kind="weights") for name, url in zip(names, self.places, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSpec:
    """What is written on the way. Every interval is in steps; 0: never, but at the end."""

    metrics_every: int = 100
    """Losses of all steps since are published."""
    checkpoint_every: int = 1000
    """All that is needed to go on is published."""
    keep_checkpoints: int = 2
    """Older ones are removed."""
    samples_every: int = 1000
    """Translations of the first photographs are published as one picture."""
    samples: int = 4
    """Photographs of each collection in it."""
    keep_every: int | str = 0
    """Steps after which the generators are published and kept for good, in `snapshots`; `epoch`: at the end of
    every epoch; 0: never."""

    def __post_init__(self) -> None:
        for option in ("metrics_every", "checkpoint_every", "keep_checkpoints", "samples"):
            check.at_least(option, getattr(self, option), 1)
        check.at_least("samples_every", self.samples_every, 0)
        if isinstance(self.keep_every, int):
            check.at_least("keep_every", self.keep_every, 0)
        elif self.keep_every != "epoch":
            raise OptionError("keep_every", self.keep_every, choices=("epoch", "a number of steps"))

    def keeps(self, step: int, *, ends: bool) -> bool:
        """Whether the generators are kept as they are after a step.

        Args:
            ends: the step ends an epoch.
        """
        if isinstance(self.keep_every, str):
            return ends
        return self.keep_every > 0 and step % self.keep_every == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSpec:
    """Distances of the translated photographs to those of the other collection, found beside the training."""

    every: int = 0
    """Steps; 0: never."""
    metric: Literal["fid", "kid"] = "fid"
    """By which the best generators are chosen: the mean over both directions. Both are found."""
    keep: Literal["best", "last"] = "best"
    """Which generators the training ends with, if it evaluates."""
    network: str = "embedded"
    """Feature network: vgg19, vgg16, resnet50, googlenet, or embedded."""
    weights: str | None = None
    """Of it, as those of the other methods."""
    weights_sha256: str | None = None
    """Digest that the weights file must have."""
    weights_convention: str | None = None
    """What the weights of a VGG want as input, as that of the other methods."""
    layer: str | None = None
    """Whose activations' means over positions are compared. None: the deepest; `relu5_2` of the embedded
    network."""
    photos: int = 256
    """Of each collection: the first ones."""
    held_out: dict[str, str] | None = field(default=None, metadata=LATER)
    """Photographs that are not trained on, by the collection in whose place they are compared: { a = "testA",
    b = "testB" } of a CycleGAN. Others are compared by those that are trained on."""
    directions: int = 12
    """Of many styles, so many at most: those from the first style to the others, and then those to it."""
    num_cpus: float = 0.0
    """That Ray sets aside for it; 0: it runs beside the workers, on a thread, two at once at most."""

    def __post_init__(self) -> None:
        check.at_least("every", self.every, 0)
        check.one_of("network", self.network, NETWORKS)
        if self.weights is None:
            object.__setattr__(self, "weights", default_weights(self.network))
        if self.layer is None:
            deepest = "relu5_2" if self.network == "embedded" else layer_names(self.network)[-1]
            object.__setattr__(self, "layer", deepest)
        check.one_of("layer", self.layer, layer_names(self.network))
        check_convention(self.network, self.weights_convention)
        check.at_least("photos", self.photos, 2)
        check.at_least("directions", self.directions, 1)
        check.at_least("num_cpus", self.num_cpus, 0)

    def asset(self) -> AssetRef | None:
        """The file of its weights, if there is one and it is to be done at all."""
        assert self.weights is not None
        if not self.every:
            return None
        return weights_asset(self.network, self.weights, self.weights_sha256, self.weights_convention)

    def with_places(self, base: Path, collections: Mapping[str, str]) -> EvaluationSpec:
        """The same with absolute places, relative ones being taken from `base`.

        Raises:
            OptionError, of the table `evaluation`: one of `held_out` is of no collection, or no place, or the
            weights' URL has a secret in it.
        """
        for name, place in (self.held_out or {}).items():
            if name not in collections:
                raise OptionError(f"evaluation.held_out.{name}", place, choices=collections)
        places = {
            name: option_place(f"evaluation.held_out.{name}", place, base)
            for name, place in (self.held_out or {}).items()
        }
        weights = self.weights
        assert weights is not None
        if is_place(weights):
            weights = option_place("evaluation.weights", weights, base)
        return replace(self, held_out=places or None, weights=weights)

    def assets(self) -> list[AssetRef]:
        ref = self.asset()
        return [] if ref is None else [ref]

    def notes(self, assets: Assets) -> list[str]:
        """What the user should know of its weights."""
        return weights_notes(self.network, self.asset(), self.weights_convention, assets)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResources:
    """How the work is spread."""

    address: str | None = None
    """Of a running Ray cluster; None: RAY_ADDRESS if that is set, else Ray is started here."""
    min_workers: int = 1
    """Training begins and goes on with as few."""
    max_workers: int = 1
    """And uses as many, as they come."""
    num_cpus: float = 1.0
    """CPUs of each worker; its threads of computation are this, rounded up."""
    num_gpus: int | None = None
    """GPUs of each worker, 0 or 1. None: 1 if the machine, or the cluster, has one for each of `min_workers`
    when the training is begun, else 0; the training keeps to that."""
    loader_workers: int = 1
    """Processes per worker that read and decode photographs ahead; 0: none, the worker does."""
    backend: Literal["gloo", "nccl"] | None = None
    """By which workers talk. None: nccl between GPUs, else gloo."""
    max_failures: int = 3
    """So many times in a row, with no new checkpoint between, workers are started again after an error, a
    death, or the loss of a node; -1: as often as it takes. Announced losses of nodes do not count."""
    timeout_s: float = field(default=600.0, metadata=LATER)
    """Time that one photograph may take to be read and decoded. Then the process that does it is ended, and
    workers are started again; a step that fails of it three times in a row ends the training."""
    start_timeout_s: float = 900.0
    """Time without room for `min_workers` in the cluster, or that they take to start, after which the training
    gives up."""
    grace_s: float = 60.0
    """When stopped, the step in work and its checkpoint have this long."""

    def __post_init__(self) -> None:
        for option, least in (
            ("min_workers", 1),
            ("max_workers", 1),
            ("loader_workers", 0),
            ("max_failures", -1),
        ):
            check.at_least(option, getattr(self, option), least)
        for option in ("num_cpus", "timeout_s", "start_timeout_s", "grace_s"):
            check.above_zero(option, getattr(self, option))
        if self.num_gpus not in (None, 0, 1):
            raise OptionError("num_gpus", self.num_gpus, choices=("0", "1"), reason="each worker has its own")
        if self.backend == "nccl" and self.num_gpus == 0:
            raise OptionError("backend", self.backend, choices=("gloo",), reason="talks between GPUs only")
        if self.min_workers > self.max_workers:
            reason = f"more than max_workers = {self.max_workers}"
            raise OptionError("min_workers", self.min_workers, reason=reason)

    @property
    def threads(self) -> int:
        """Of computation, per worker."""
        return max(1, math.ceil(self.num_cpus))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec:
    """What is trained: everything that the numbers depend on, and where they go."""

    kind: str
    """Name of the recipe."""
    recipe: Recipe
    output: str
    """The job's folder or bucket prefix."""
    seed: int = 0
    """What parameters, orders, crops, and all else that is drawn depend on."""
    batch_size: int = 1
    """Samples per step, over all workers."""
    max_pixels: int = 200_000_000
    """Photographs with more are left out."""
    data: Preprocessing = field(default_factory=Preprocessing)
    schedule: Schedule = field(default_factory=Schedule)
    init: InitSpec = field(default_factory=InitSpec)

    @property
    def collections(self) -> Mapping[str, str]:
        """Places of photographs by the collection's name, in order."""
        return self.recipe.collections


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainFile:
    """A training as its user wrote it, resolved."""

    spec: TrainSpec
    log: LogSpec = field(default_factory=LogSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    resources: TrainResources = field(default_factory=TrainResources)
    ddp: DDPOptions = field(default_factory=DDPOptions)
    storage: StorageOptions = STANDARD_STORAGE
