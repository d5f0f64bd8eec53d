"""Whether there is room for a training's workers, and whether they have GPUs."""

from __future__ import annotations

from dataclasses import replace

from jobs.pools.capacity import cluster_address, refuse_too_much, room_for, this_machine, without_gpus
from jobs.spec import Resources
from jobs.training.spec import TrainFile, TrainResources
from nst.errors import OptionError

__all__ = ["check_room", "fitted", "with_gpus"]


def fitted(file: TrainFile) -> tuple[TrainFile, list[str]]:
    """A training that is to begin, for good on GPUs or on CPUs, and what its user should know of that.

    Raises:
        OptionError: there is no cluster at the address, or this machine does not have what workers need.
    """
    own, notes = file.resources, []
    if own.num_gpus is None:
        there = room_for(Resources(pool="ray", address=own.address))
        notes = without_gpus(there)
        file = _on(file, int(there.gpus >= own.min_workers))
    check_room(file.resources)
    return file, notes


def with_gpus(file: TrainFile, begun_with: int) -> TrainFile:
    """A training that goes on, on what it was begun with.

    Raises:
        OptionError: it is to be on another.
    """
    asked = file.resources.num_gpus
    if asked is None:
        return _on(file, begun_with)
    if bool(asked) != bool(begun_with):
        reason = f"the training was begun with {begun_with}: GPUs and CPUs round differently"
        raise OptionError("resources.num_gpus", asked, reason=reason)
    return file


def _on(file: TrainFile, gpus: int) -> TrainFile:
    try:
        return replace(file, resources=replace(file.resources, num_gpus=gpus))
    except OptionError as error:  # a way to talk that CPUs do not have
        raise error.within("resources") from error


def check_room(own: TrainResources) -> None:
    """Raises OptionError: Ray is to be started on this machine, which does not have what workers need."""
    if cluster_address(own.address) is None:
        wanted = {"num_cpus": own.num_cpus * own.min_workers, "num_gpus": (own.num_gpus or 0) * own.min_workers}
        refuse_too_much(this_machine(), wanted)
