"""What trainings of generators against discriminators have in common, whatever their step."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nst.gan.parallel import DDPOptions, Share, distributed
from nst.gan.precision import Precision, parameter_dtype
from nst.gan.scaling import LossScale, descend
from nst.gan.starting import Sides, States, read_states, start_networks
from nst.images.codec import resize_image

__all__ = [
    "GANTraining",
    "cell_side",
    "evaluating",
    "follow",
    "frozen",
    "side_by_side",
    "warmed_decay",
]

_MANY = 1 << 40
_SHEET_PX, _SHEET_PIXELS = 65_500, 1 << 26
"""A JPEG's longest side, and pixels of 0.8 GB in float32."""
_OF_GENERATORS = ("gan_", "cycle_", "identity_")
"""First letters of the generators' losses."""
Side = Literal["g", "d"]
"""The generators, or the discriminators."""


class GANTraining:
    """Networks, the generators' averages and both sides' optimizers: what changes in every training.

    Args:
        generators, discriminators: by name, in the order of `trained`.
        optimizers: that of the generators, and that of the discriminators.
        averaged: keep an average of each generator.
        config: what a generator's file says of it besides parameters: a checkpoint says it, too.
    """

    aliases: ClassVar[Mapping[str, str]] = {}
    """Networks, by other names that files have for them."""

    def __init__(
        self,
        generators: Mapping[str, nn.Module],
        discriminators: Mapping[str, nn.Module],
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        *,
        averaged: bool,
        precision: Precision,
        config: Mapping[str, str],
    ) -> None:
        self.dtype = parameter_dtype(precision)
        """The type of parameters and images."""
        self.generators, self.discriminators = dict(generators), dict(discriminators)
        self.optimizer_g, self.optimizer_d = optimizers
        self.averages: dict[str, nn.Module] = {}
        if averaged:
            self.averages = {
                name: copy.deepcopy(network).requires_grad_(False) for name, network in generators.items()
            }
        self._scales: dict[Side, LossScale] = {}
        if precision == "float16":
            self._scales = {"g": LossScale(), "d": LossScale()}
        self.share = Share()
        self._file_config = dict(config)
        self.steps = 0
        """Steps that are done."""
        self._trained = self._networks()

    def _networks(self) -> dict[str, nn.Module]:
        return {**self.generators, **self.discriminators}

    @property
    def trained(self) -> tuple[nn.Module, ...]:
        """Generators and discriminators, called so that their gradients will be those of whole batches."""
        return tuple(self._trained.values())

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Those whose learning rates a schedule sets, the generators' first."""
        return self.optimizer_g, self.optimizer_d

    @staticmethod
    def plateau_loss(losses: Mapping[str, float]) -> float:
        """What is to fall, else the policy `plateau` lowers the learning rates: the generators' losses."""
        return sum(loss for name, loss in losses.items() if name.startswith(_OF_GENERATORS))

    @property
    def best(self) -> dict[str, nn.Module]:
        """The generators to use: their averages, if there are any."""
        return self.averages or self.generators

    def distribute(self, share: Share, options: DDPOptions = DDPOptions()) -> None:  # noqa: B008  frozen
        """Train, from now on, together with the other processes of torch's default group, which were made with
        the same options and seed: `train_step` takes this process's part of each batch, and its losses are
        those of the part. All parameters stay equal to those of a single process that takes whole batches, but
        for rounding; with dropout, whose draws differ, only in distribution.
        """
        self.share = share
        self._trained = {
            name: distributed(network, share, options) for name, network in self._networks().items()
        }

    def start_from(self, files: Mapping[str, bytes], networks: Sides, *, strict: bool) -> list[str]:
        """Begin with weights from files, before the first step.

        Args:
            files: by name, as `read_states` takes them.
            networks: which networks begin with them.
            strict: each of these is in the files, and fits. Else layers are taken whose names and shapes fit.

        Returns:
            If not strict, what was taken and what was not, a line for each network.

        Raises:
            WeightsError: a file is not readable, or does not fit.
        """
        states = self.fitted(read_states(files, list(self._networks()), self.aliases), files, strict=strict)
        sides = {"generator": self.generators, "discriminator": self.discriminators, "both": self._networks()}
        notes = start_networks(sides[networks], states, strict=strict)
        for name, average in self.averages.items():
            average.load_state_dict(self.generators[name].state_dict())
        return notes

    def fitted(self, states: States, files: Mapping[str, bytes], *, strict: bool) -> States:  # noqa: ARG002
        """What `start_from` makes of state dicts that it read from files, by network: by default, nothing
        else."""
        return states

    def average(self, decay: float, every: int = 1) -> None:
        """Have the generators' averages follow them, after an optimizer's step.

        Args:
            decay: of an average over many steps. While few are done the average is over a tenth of them, and
                does not hold on to the first parameters, which are random.
            every: steps from one in which the generators are trained to the next.
        """
        decay = warmed_decay(decay, (self.steps + 1) // every)
        for name, average in self.averages.items():
            follow(average, self.generators[name], decay)

    def backward(self, side: Side, loss: Tensor) -> None:
        """Add up the gradients of a loss, which is of this process's part of the batch, for `descend`."""
        factor = self._scales[side].factor if self._scales else 1.0
        (self.share.weight * factor * loss).backward()  # type: ignore[no-untyped-call]

    def descend(self, side: Side, max_norm: float = 0.0) -> bool:
        """A step of a side's optimizer.

        Args:
            max_norm: what the gradients of all its parameters together are clipped to; 0: they are not.

        Returns:
            Whether it was done: with float16 it is left out if a gradient is not finite.
        """
        optimizer = self.optimizer_g if side == "g" else self.optimizer_d
        return descend(optimizer, max_norm, self._scales.get(side))

    def skipped(self, like: Tensor, *, g: bool, d: bool) -> dict[str, Tensor]:
        """Losses, beside those of a step, that say whether it was left out: 1, or 0. Without float16, none.

        Args:
            g, d: whether that of the generators was, and of the discriminators.
        """
        if not self._scales:
            return {}
        return {"skipped_G": like.new_full((), float(g)), "skipped_D": like.new_full((), float(d))}

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on to the bit; of tensors and plain values."""
        return {
            "steps": self.steps,
            "config": self._file_config,
            "networks": {name: network.state_dict() for name, network in self._networks().items()},
            "averages": {name: network.state_dict() for name, network in self.averages.items()},
            "optimizers": {"g": self.optimizer_g.state_dict(), "d": self.optimizer_d.state_dict()},
            "scales": {side: scale.state_dict() for side, scale in self._scales.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for kind, networks in (("networks", self._networks()), ("averages", self.averages)):
            for name, network in networks.items():
                network.load_state_dict(state[kind][name])
        self.optimizer_g.load_state_dict(state["optimizers"]["g"])
        self.optimizer_d.load_state_dict(state["optimizers"]["d"])
        for side, scale in self._scales.items():
            if side in state.get("scales", {}):  # not if the precision was another one
                scale.load_state_dict(state["scales"][side])
        # Trainings of CycleGAN from before there was a count go on as they began: with averages over many.
        self.steps = state.get("steps", _MANY)


@contextmanager
def frozen(networks: Iterable[nn.Module]) -> Iterator[None]:
    """A context in which the parameters of `networks` get no gradient."""
    networks = list(networks)
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


@contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Within it, they are in evaluation mode."""
    before = [(network, network.training) for network in networks]
    for network, _ in before:
        network.eval()
    try:
        yield
    finally:
        for network, mode in before:
            network.train(mode)


def cell_side(side: int, rows: int, columns: int) -> int:
    """The side of images in so many rows and columns of one picture: `side`, unless that picture would be too
    large to be held, or to be a JPEG."""
    most = min(_SHEET_PX // max(rows, columns), math.isqrt(_SHEET_PIXELS // (rows * columns)))
    return max(1, min(side, most))


def side_by_side(images: Sequence[Tensor], side: int) -> Tensor:
    """Images (1, 3, h, w) as one picture (3, side, len(images) * side), on the CPU."""
    return torch.cat([resize_image(image[0].cpu().float(), (side, side)) for image in images], dim=2)


def warmed_decay(decay: float, steps: int) -> float:
    """That of an average over many steps; while few are done, of one over a tenth of them."""
    return min(decay, 1 - 1 / max(1.0, steps / 10))


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the network."""
    for parameter, new in zip(average.parameters(), network.parameters(), strict=True):
        parameter.lerp_(new, 1 - decay)
    for buffer, there in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(there)
