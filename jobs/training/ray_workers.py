"""The workers of a training, as Ray Train starts them."""

from __future__ import annotations

import logging
import math
import os
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import ray
import ray.exceptions
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from jobs.errors import WorkersBroken
from jobs.pools.children import signals_blocked
from jobs.training.job import TrainJob
from jobs.training.loop import LoopSetup, train
from jobs.training.spec import TrainResources

__all__ = ["has_room", "nodes_now", "trainer_of"]

_WAIT_S = 1800
"""How long a worker waits for the others, at least; torch's own default."""


def trainer_of(job: TrainJob, folder: str) -> TorchTrainer:
    """What starts workers, which go on with the training, and is told when they fail.

    Args:
        folder: for notes that Ray Train makes for itself.
    """
    own = job.file.resources
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(own.start_timeout_s)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    workers: Any = own.max_workers
    if own.min_workers < own.max_workers:
        workers = (own.min_workers, own.max_workers)
    return TorchTrainer(
        _train_worker,
        train_loop_config={"setup": LoopSetup.of(job)},
        torch_config=TorchConfig(
            backend=own.backend or ("nccl" if own.num_gpus else "gloo"),
            # One that waits for another's photograph is not to be the first to fail.
            timeout_s=max(_WAIT_S, math.ceil(2 * own.timeout_s)),
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=bool(own.num_gpus), resources_per_worker=_needs(own)
        ),
        run_config=ray.train.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=folder,
            # `Failures` has its say, also of workers that cannot start, which Ray would try without end.
            # Announced losses of nodes are no failures, and Ray gets over any number.
            failure_config=ray.train.FailureConfig(
                max_failures=0,
                controller_failure_limit=0,  # type: ignore[call-arg]  # of Ray Train v2, which types do not know
            ),
        ),
    )


def nodes_now() -> list[dict[str, Any]]:
    """What Ray tells of the cluster's nodes. Raises WorkersBroken: it does not answer."""
    try:
        found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    except (ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
        raise WorkersBroken(f"the Ray cluster does not answer: {type(error).__name__}: {error}") from error
    return found


def has_room(own: TrainResources, nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a cluster of these nodes has what the fewest workers need, if nobody else used it."""
    room = 0
    for node in nodes:
        there = node["Resources"] if node["Alive"] else {}
        room += int(min(there.get(name, 0.0) / need for name, need in _needs(own).items()) + 1e-6)
    return room >= own.min_workers


def _needs(own: TrainResources) -> dict[str, float]:
    """What a worker does, by Ray's names."""
    return {"CPU": own.num_cpus, **({"GPU": own.num_gpus} if own.num_gpus else {})}


def _train_worker(config: Mapping[str, Any]) -> None:
    """In each worker, with torch's default group set up."""
    context = ray.train.get_context()
    # As of methods, see `begin_cuda`: covariances that are rounded to TF32 are none.
    torch.set_float32_matmul_precision("highest")
    with signals_blocked():  # those who load photographs, too
        train(config["setup"], context.get_world_rank(), context.get_world_size(), get_device())
