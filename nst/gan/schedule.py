"""Learning rates over a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch.optim import Optimizer

from nst import check

__all__ = ["Policy", "Schedule", "Scheduler"]

Policy = Literal["linear", "step", "plateau", "cosine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long is trained, and with which learning rates. The names are those of the public implementation."""

    n_epochs: int = 100
    """Epochs with the first learning rate."""
    n_epochs_decay: int = 100
    """Epochs after these, over which the learning rate falls to 0 if the policy is `linear`."""
    lr_policy: Policy = "linear"
    """How the learning rate falls: `linear`; `step`: a tenth of it after every lr_decay_iters epochs;
    `plateau`: a fifth of it when the generators' losses do not fall by 1 % within five epochs; `cosine`: over
    all epochs to 0, along half a cosine."""
    lr_decay_iters: int = 50
    """Epochs from one fall of the learning rate to the next, if the policy is `step`."""
    steps_per_epoch: int | None = None
    """Steps of an epoch. None: until every photograph of the larger collection was seen."""

    def __post_init__(self) -> None:
        check.at_least("n_epochs", self.n_epochs, 0)
        check.at_least("n_epochs_decay", self.n_epochs_decay, 0)
        check.at_least("n_epochs + n_epochs_decay", self.epochs, 1)
        check.one_of("lr_policy", self.lr_policy, get_args(Policy))
        check.at_least("lr_decay_iters", self.lr_decay_iters, 1)
        if self.steps_per_epoch is not None:
            check.at_least("steps_per_epoch", self.steps_per_epoch, 1)

    @property
    def epochs(self) -> int:
        return self.n_epochs + self.n_epochs_decay

    def epoch_steps(self, photos: int, batch_size: int) -> int:
        """Steps of an epoch.

        Args:
            photos: how many are in the larger collection.
        """
        return self.steps_per_epoch or math.ceil(photos / batch_size)


class Scheduler:
    """Sets the learning rates of optimizers, epoch by epoch. A function of the epoch, but for `plateau`, whose
    memory can be saved."""

    _PATIENCE, _THRESHOLD = 5, 0.01

    def __init__(self, schedule: Schedule, optimizers: list[Optimizer]) -> None:
        self._schedule = schedule
        self._optimizers = optimizers
        self._first = [float(group["lr"]) for group in self._groups()]
        self._drops, self._best, self._waited = 0, math.inf, 0

    def begin(self, epoch: int) -> None:
        """Set the rates of this epoch, counted from 0."""
        factor = self.factor(epoch)
        for group, first in zip(self._groups(), self._first, strict=True):
            group["lr"] = first * factor

    def _groups(self) -> list[dict[str, Any]]:
        """Loading an optimizer's state replaces them."""
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def factor(self, epoch: int) -> float:
        """What the first learning rate is multiplied by in this epoch."""
        schedule = self._schedule
        if schedule.lr_policy == "linear":
            return 1 - max(0, epoch + 1 - schedule.n_epochs) / (schedule.n_epochs_decay + 1)
        if schedule.lr_policy == "step":
            return float(0.1 ** (epoch // schedule.lr_decay_iters))
        if schedule.lr_policy == "cosine":
            return (1 + math.cos(math.pi * epoch / schedule.epochs)) / 2
        return float(0.2**self._drops)

    def end(self, loss: float) -> None:
        """An epoch is over.

        Args:
            loss: mean of the generators' losses.
        """
        # Of losses below 0, as those of wgangp and hinge may be, what is 1 % lower is further from it.
        share = 1 - math.copysign(self._THRESHOLD, self._best)
        if loss < share * self._best:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited > self._PATIENCE:
            self._drops, self._waited = self._drops + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"drops": self._drops, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._drops, self._best, self._waited = state["drops"], state["best"], state["waited"]
