"""What a training is: its spec says WHAT is trained, the rest HOW. From TOML, to JSON.

The names within the tables are those of the field's public implementation. Importing this loads torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from jobs.errors import UsageError
from jobs.spec import apply_overrides, parse_table, storage_from_table
from jobs.stores.filesystems import STANDARD_STORAGE, StorageOptions
from jobs.training.what import (
    StylesSpec,
    TrainSpec,
    collections_of,
    is_modulated,
    many_styles_of,
    place_of,
    two_domains_of,
)
from nst import check
from nst.cyclegan.training import CycleGANOptions
from nst.errors import OptionError
from nst.features import NETWORKS, default_weights, layer_names, weights_asset, weights_notes
from nst.features.conventions import check_convention
from nst.gan.parallel import DDPOptions, Share
from nst.gan.sampling import Preprocessing
from nst.gan.schedule import Schedule
from nst.stylizer import AssetRef, Assets

__all__ = [
    "HOW",
    "TABLES",
    "EvaluationSpec",
    "LogSpec",
    "StylesSpec",
    "TrainFile",
    "TrainResources",
    "TrainSpec",
    "read_train_file",
    "train_fingerprint",
    "train_from_table",
    "train_to_table",
]

HOW = ("output", "resources", "storage", "log", "evaluation", "ddp")
"""Parts of a job file on which no trained number depends, but for rounding."""


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

    def __post_init__(self) -> None:
        for option in ("metrics_every", "checkpoint_every", "keep_checkpoints", "samples"):
            check.at_least(option, getattr(self, option), 1)
        check.at_least("samples_every", self.samples_every, 0)


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
    """Whose activations' means over positions are compared. None: the deepest."""
    photos: int = 256
    """Of each collection: the first ones."""
    directions: int = 12
    """Of many styles, so many at most: those from the first style to the others, and then those to it."""
    num_cpus: float = 0.0
    """That Ray sets aside for it; 0: it runs beside the workers."""

    def __post_init__(self) -> None:
        check.at_least("every", self.every, 0)
        check.one_of("network", self.network, NETWORKS)
        if self.weights is None:
            object.__setattr__(self, "weights", default_weights(self.network))
        if self.layer is None:
            object.__setattr__(self, "layer", layer_names(self.network)[-1])
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
    num_gpus: int = 0
    """GPUs of each worker, 0 or 1."""
    loader_workers: int = 1
    """Processes per worker that read and decode photographs ahead; 0: none, the worker does."""
    backend: Literal["gloo", "nccl"] | None = None
    """By which workers talk. None: nccl between GPUs, else gloo."""
    max_failures: int = 3
    """So many times in a row, with no new checkpoint between, workers are started again after an error, a
    death, or the loss of a node; -1: as often as it takes. Announced losses of nodes do not count."""
    start_timeout_s: float = 900.0
    """Workers have this long to start."""
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
        for option in ("num_cpus", "start_timeout_s", "grace_s"):
            check.above_zero(option, getattr(self, option))
        if self.num_gpus not in (0, 1):
            raise OptionError("num_gpus", self.num_gpus, choices=("0", "1"), reason="each worker has its own")
        if self.backend == "nccl" and not self.num_gpus:
            raise OptionError("backend", self.backend, choices=("gloo",), reason="talks between GPUs only")
        if self.min_workers > self.max_workers:
            reason = f"more than max_workers = {self.max_workers}"
            raise OptionError("min_workers", self.min_workers, reason=reason)

    @property
    def threads(self) -> int:
        """Of computation, per worker."""
        return max(1, math.ceil(self.num_cpus))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainFile:
    """A training as its user wrote it, resolved."""

    spec: TrainSpec | StylesSpec
    log: LogSpec = field(default_factory=LogSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    resources: TrainResources = field(default_factory=TrainResources)
    ddp: DDPOptions = field(default_factory=DDPOptions)
    storage: StorageOptions = STANDARD_STORAGE


TABLES: Mapping[str, type[Any]] = {
    "model": CycleGANOptions,
    "data": Preprocessing,
    "schedule": Schedule,
    "log": LogSpec,
    "evaluation": EvaluationSpec,
    "resources": TrainResources,
    "ddp": DDPOptions,
}
"""Of a job file, by name; and `storage`."""


def read_train_file(path: Path, overrides: Sequence[str] = ()) -> TrainFile:
    """Read a TOML job file of a training. Relative paths are taken from the file's folder.

    Raises:
        UsageError: the file is missing or is no TOML.
        OptionError: an option is unknown, missing, or has a value that it cannot take.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"job file {str(path)!r}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"job file {str(path)!r} is not valid TOML: {error}") from error
    return train_from_table(apply_overrides(table, overrides), path.resolve().parent)


def train_from_table(table: Mapping[str, Any], base: Path) -> TrainFile:
    """Resolve a job file's table; see `read_train_file`."""
    choices = ("a", "b", "styles", "output", *_NUMBERS, *TABLES, "storage")
    for name, value in table.items():
        if name not in choices:
            raise OptionError(name, value, choices=choices, reason="unknown option")
        if (name in TABLES or name in ("styles", "storage")) and not isinstance(value, Mapping):
            raise OptionError(name, value, reason=f"must be a table: [{name}]")
    model = table.get("model", {})
    modulated = is_modulated(model)
    collections = collections_of(table, modulated, base)
    output = place_of("output", table.get("output"), base)
    numbers: dict[str, Any] = {}
    for name, least in _NUMBERS.items():
        value = table.get(name, getattr(_DEFAULTS, name))
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
            raise OptionError(name, value, reason=f"must be a whole number from {least} to 2^63 - 1")
        numbers[name] = value
    parts = {
        name: parse_table(kind, table.get(name, {}), name) for name, kind in TABLES.items() if name != "model"
    }
    what: dict[str, Any] = {
        "output": output,
        **numbers,
        **{name: parts.pop(name) for name in ("data", "schedule")},
    }
    spec: TrainSpec | StylesSpec
    if modulated:
        spec = StylesSpec(styles=collections, model=many_styles_of(model, tuple(collections)), **what)
    else:
        spec = TrainSpec(a=collections["a"], b=collections["b"], model=two_domains_of(model), **what)
    file = TrainFile(spec=spec, **parts, storage=storage_from_table(table.get("storage", {})))
    _check_together(file)
    return file


def _check_together(file: TrainFile) -> None:
    spec = file.spec
    try:
        spec.check_data()
    except OptionError as error:
        raise error.within("data") from error
    Share(spec.batch_size, 0, file.resources.max_workers)
    if not spec.data.square and spec.batch_size > file.resources.min_workers:
        reason = "images of several sizes make no batch; data.preprocess can crop them"
        raise OptionError("batch_size", spec.batch_size, reason=reason)


_DEFAULTS = TrainSpec(a="", b="", output="")
_NUMBERS = {"seed": 0, "batch_size": 1, "max_pixels": 1}
"""And the least that each may be."""


def train_to_table(file: TrainFile) -> dict[str, Any]:
    """The inverse of `train_from_table`, of JSON types only."""
    parts = {item.name: getattr(file, item.name) for item in dataclasses.fields(file) if item.name != "spec"}
    table = {
        **file.spec.table(),
        **{name: dataclasses.asdict(part) for name, part in parts.items()},
    }
    return cast(dict[str, Any], json.loads(json.dumps(table)))


def train_fingerprint(table: Mapping[str, Any], manifests: Mapping[str, str]) -> str:
    """Digest of all that the trained numbers depend on: the resolved job but for `HOW`, and the digests of its
    manifests."""
    what = {name: value for name, value in table.items() if name not in HOW}
    text = json.dumps({"train": what, "manifests": manifests}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
