"""How the embedded network learns to see what VGG16 sees.

Every ReLU's activations are to tell VGG16's through a linear map (FitNets: Romero et al. 2015; for style
transfer: Wang et al. 2020, "Collaborative Distillation"). Of photographs that is not enough: what a style loss
makes of them with such a network soon lies where it is blind. So it is taught on pictures on their way through
style transfer and DeepDream, which it or the teacher has painted so far (DAgger: Ross et al. 2011), and besides
the activations, Gram matrices and the gradient by the pixels are to be the teacher's.

The maps are thrown away afterwards but for what they say of distances: a map P of a layer is left as the matrix
(P^T P)^(1/2), the network's readout (see `nst.features.vgg`). Inner products of what is read out are those of
what the map tells of VGG16, so that losses through both have one scale.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.features.embedded.beginning import pruned
from nst.features.embedded.easel import Easel, Work
from nst.features.embedded.wanted import Seen, Wanted, grams_of
from nst.features.layers import layer_names
from nst.features.networks import FeatureNetwork, build_features
from nst.features.vgg import Pooling, read_out
from nst.losses import gram_matrix, squared_distance
from nst.ops.muon import Muon

__all__ = ["POOLING", "RELUS", "Distillation", "DistillationTask", "Progress"]

RELUS = tuple(name for name in layer_names("embedded") if name.startswith("relu"))
_TEACHER_POOLING: Pooling = "max"
POOLING: Pooling = "average"
"""What the embedded network pools with, while VGG16 takes maxima: gradients are smoother."""

_STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
_CONTENT_LAYER = "relu4_2"
_DREAM_LAYERS = ("relu3_3", "relu4_2", "relu4_3", "relu5_1", "relu5_2")
_ADAM = 0.9, 0.99  # decays, for what is no filter
_SCALES = (1, 2, 4)  # at which gradients are compared: pixels of the mean
_MOST_GRADIENT = 1.0  # norm of the gradients of all parameters together
_MANY = 1024  # activations of a channel, of which every fourth is compared
_TINY = 1e-8

_Some = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationTask:
    """What to teach on and for how long."""

    seed: int = 0
    patches: int = 3072
    patch_px: int = 160
    steps: int = 6000
    batch_size: int = 6
    """Pictures that are painted on in one step."""
    side: int = 112
    """Side of these, in pixels."""
    in_work: int = 192
    """Pictures in work."""
    learning_rate: float = 1.2e-3
    """Peak of it; it falls to 0 in a line."""
    warmup: int = 100
    gram_weight: float = 0.3
    """Weight of the relative error of Gram matrices, beside that of activations."""
    gradient_weight: float = 1.0
    """Weight of 1 - the cosine of gradients by the pixels, likewise."""
    beginning: int = 96
    """Patches that the beginning is fitted to."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A training after a step, means over the last fifty."""

    step: int
    errors: tuple[float, ...]
    """Squared error of the activations over the teacher's square, by layer of `RELUS`."""
    gram_error: float
    """The same of Gram matrices, mean over layers."""
    cosine: float
    """Cosine of the gradients by the pixels."""


class Distillation:
    """Equal task, teacher, patches, threads and machine: equal parameters to the bit, on CPUs.

    Args:
        patches: uint8 (N, 3, P, P).
        teacher: VGG16's state dict. It is seen with a mean activation of 1 at each layer, whatever its own is.
        convention: what VGG16 wants as input; None: recognized.
        half: activations and their gradients in bfloat16.
    """

    def __init__(
        self,
        patches: Tensor,
        teacher: Mapping[str, Tensor],
        task: DistillationTask,
        *,
        convention: str | None = None,
        device: torch.device | None = None,
        half: bool = False,
    ) -> None:
        self.task, self.device, self._half = task, device or torch.device("cpu"), half
        self.steps, self._spent_s = 0, 0.0
        plain, seen = (
            build_features(
                "vgg16",
                RELUS,
                state=teacher,
                convention=convention,
                pooling=_TEACHER_POOLING,
                unit_activations=unit,
            ).to(self.device)
            for unit in (False, True)
        )
        self._units = _units(plain, seen)
        random = torch.Generator().manual_seed(task.seed)
        patches = patches.to(self.device)
        chosen = torch.linspace(0, len(patches) - 1, min(task.beginning, len(patches))).long()
        images = patches[chosen.to(self.device)].float() / 255
        begun, maps = pruned(
            seen.body.state_dict(),
            (images - seen.mean) / seen.std,
            teacher_pooling=_TEACHER_POOLING,
            pooling=POOLING,
        )
        eyes = {f"readouts.{layer}": torch.eye(each.shape[1]) for layer, each in maps.items()}
        self.network = build_features("embedded", RELUS, state={**begun, **eyes}, pooling=POOLING)
        self.network.to(self.device)
        self.maps = nn.ParameterDict(maps).to(self.device)
        self._teacher = seen.in_precision(torch.bfloat16) if half else seen
        self._parameters = [
            each.requires_grad_()
            for name, each in (*self.network.named_parameters(), *self.maps.named_parameters())
            if "readouts" not in name
        ]
        self._random = random
        self._easel = Easel(
            patches,
            count=task.in_work,
            side=task.side,
            dream_layers=len(_DREAM_LAYERS),
            random=random,
        )
        self._optimizer = Muon(self._parameters, task.learning_rate, _ADAM)
        self._wanted = Wanted(self._teacher, task.in_work, keep=self.device.type == "cpu")

    def run(self, minutes: float | None = None) -> Iterator[Progress]:
        """Train; yields after every fiftieth step and the last.

        Args:
            minutes: end after so many, if there are steps left. The learning rate falls with what is nearer.
        """
        task, seen, began = self.task, list[Tensor](), time.monotonic() - self._spent_s
        while (done := self._done(minutes)) < 1:
            self.steps += 1
            seen.append(self.step(min(1.0, self.steps / max(1, task.warmup)) * (1 - done)))
            self._spent_s = time.monotonic() - began
            if self.steps % 50 == 0 or self._done(minutes) >= 1:
                *errors, gram, cosine = torch.stack(seen).mean(0).tolist()
                seen.clear()
                yield Progress(self.steps, tuple(errors), gram, cosine)

    def _done(self, minutes: float | None) -> float:
        """Which share of the training."""
        return max(self.steps / self.task.steps, self._spent_s / (60 * minutes) if minutes else 0.0)

    def snapshot(self) -> dict[str, Any]:
        """All that `restore` takes to go on, to the bit: between a yield of `run` and the next step."""
        return {
            "steps": self.steps,
            "spent_s": self._spent_s,
            "parameters": [each.detach() for each in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "easel": self._easel.state_dict(),
            "random": self._random.get_state(),
        }

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a snapshot of a training of the same task, teacher and patches."""
        self.steps, self._spent_s = snapshot["steps"], snapshot["spent_s"]
        for each, value in zip(self._parameters, snapshot["parameters"], strict=True):
            each.copy_(value)
        self._optimizer.load_state_dict(snapshot["optimizer"])
        self._easel.load_state_dict(snapshot["easel"])
        self._random.set_state(snapshot["random"])

    def step(self, rate: float = 1.0) -> Tensor:
        """One step, at a share of the learning rate. What `Progress` has, as a vector."""
        work = self._easel.some(self.task.batch_size)
        weights = torch.randn(len(_STYLE_LAYERS), generator=self._random).exp().to(self.device)
        errors, gram_error, cosine, gradients = self._compared(work, weights)
        loss = errors.mean() + self.task.gram_weight * gram_error + self.task.gradient_weight * (1 - cosine)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if nn.utils.clip_grad_norm_(self._parameters, _MOST_GRADIENT).isfinite():
            for group in self._optimizer.param_groups:
                group["lr"] = rate * self.task.learning_rate
            self._optimizer.step()
        self._easel.step(work, gradients)
        return torch.stack([*errors.detach(), gram_error.detach(), cosine.detach()])

    def told(self, images: Tensor) -> dict[str, Tensor]:
        """What the network tells of VGG16's activations of (N, 3, H, W), by layer."""
        return self._told(images)[1]

    def _told(
        self, images: Tensor, some: _Some = lambda each: each
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The network's own activations, and what it tells by them, or by some of them."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            own: dict[str, Tensor] = self.network(images)
            return own, {layer: read_out(some(each), self.maps[layer]) for layer, each in own.items()}

    def _gram(self, layer: str, own: Tensor, told: Tensor) -> Tensor:
        """Of what is told: of large layers, whose channels are few, it is less to compute from their own."""
        matrix = self.maps[layer]
        if own[0, 0].numel() < len(matrix):
            return gram_matrix(told)
        gram: Tensor = matrix @ gram_matrix(own) @ matrix.mT
        return gram

    def _quarter(self) -> _Some:
        """Every other row and column of layers whose activations are many: to learn to tell them, that is
        enough."""
        top, left = torch.randint(2, (2,), generator=self._random).tolist()
        return lambda each: each[:, :, top::2, left::2] if each[0, 0].numel() > _MANY else each

    def _compared(self, work: Work, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Errors by layer, of Gram matrices, the cosine of gradients, and gradients to paint with."""
        count = len(work.images)
        images = work.images.requires_grad_()
        seen_wanted, grams_wanted = self._wanted.of(work)
        seen = self._teacher(images)
        grams = grams_of(seen, RELUS)
        (theirs,) = torch.autograd.grad(_aim(seen, grams, seen_wanted, grams_wanted, work, weights), images)
        some = self._quarter()
        own_wanted, told_wanted = self._told(torch.cat([work.styles, work.photos]), some)
        own, told = self._told(images, some)
        told_grams_wanted, told_grams = (
            {layer: self._gram(layer, each[layer][:count], tells[layer][:count]) for layer in RELUS}
            for each, tells in ((own_wanted, told_wanted), (own, told))
        )
        aim = _aim(told, told_grams, told_wanted, told_grams_wanted, work, weights)
        (ours,) = torch.autograd.grad(aim, images, create_graph=True)
        errors = [
            (
                _apart(told[layer], some(seen[layer].detach()))
                + _apart(told_wanted[layer], some(seen_wanted[layer]))
            )
            / 2
            for layer in RELUS
        ]
        gram_errors = [
            _relative(found[layer], wanted[layer].detach())
            for layer in RELUS
            for found, wanted in ((told_grams, grams), (told_grams_wanted, grams_wanted))
        ]
        alike = [
            F.cosine_similarity(
                F.avg_pool2d(ours, scale).flatten(1), F.avg_pool2d(theirs, scale).flatten(1)
            ).mean()
            for scale in _SCALES
        ]
        taught = work.taught.view(count, 1, 1, 1)
        painting = torch.where(taught, theirs, ours.detach())
        return torch.stack(errors), torch.cat(gram_errors).mean(), torch.stack(alike).mean(), painting

    def state_dict(self) -> dict[str, Tensor]:
        """The network with its readouts, float16. Activations get the scale of those of the teacher's file, to
        the next power of two, so that losses of any kind are about what they would be with that."""
        state, before = dict(self.network.body.state_dict()), 1.0
        for index, name in enumerate(layer_names("embedded")):
            if name.startswith("conv"):
                unit = self._units[name]
                state[f"features.{index}.weight"] = state[f"features.{index}.weight"] * (unit / before)
                state[f"features.{index}.bias"] = state[f"features.{index}.bias"] * unit
                before = unit
        for layer, each in self.maps.items():
            wide = each.detach().double()
            values, vectors = torch.linalg.eigh(wide.mT @ wide)
            state[f"readouts.{layer}"] = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
        return {name: each.detach().half().cpu().contiguous() for name, each in state.items()}


def _units(plain: FeatureNetwork, unit: FeatureNetwork) -> dict[str, float]:
    """How many times as large activations of the first network are as those of the second, by convolution, to
    the next power of two."""
    found = {}
    for index, name in enumerate(layer_names("embedded")):
        if name.startswith("conv"):
            sizes = [float(each.body.get_parameter(f"features.{index}.bias").norm()) for each in (plain, unit)]
            found[name] = 2.0 ** round(math.log2(sizes[0] / sizes[1]))
    return found


def _aim(seen: Seen, grams: Seen, wanted: Seen, wanted_grams: Seen, work: Work, weights: Tensor) -> Tensor:
    """What painting makes smaller, summed over the pictures: relative style losses, and for content; or the
    logarithm of what is amplified, with the other sign.

    Args:
        wanted: activations of the styles, and then of the photographs.
        wanted_grams: Gram matrices of the styles.
        weights: of the style layers.
    """
    count = len(work.images)
    total = sum(
        (
            weight * _relative(grams[layer], wanted_grams[layer])
            for layer, weight in zip(_STYLE_LAYERS, weights, strict=True)
        ),
        start=weights.new_zeros(count),
    )
    total = work.style_weight * total + work.content_weight * _relative(
        seen[_CONTENT_LAYER].float(), wanted[_CONTENT_LAYER][count:].float()
    )
    for number, layer in enumerate(_DREAM_LAYERS):
        here = (work.dream == number).nonzero()[:, 0]
        if len(here) == 0:
            continue
        here = here.to(total.device)
        strength = seen[layer][here].float().square().mean((2, 3))
        channel = work.channel[here]
        one = strength.gather(1, channel.clamp_min(0)[:, None] % strength.shape[1])[:, 0]
        amplified = torch.where(channel < 0, strength.mean(1), one)
        total = total.index_add(0, here, -(amplified + _TINY).log())
    return total.sum()


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of each to what is wanted, relative to that: (N,)."""
    return squared_distance(found, wanted) / (wanted.square().flatten(1).sum(1) + _TINY)


def _apart(found: Tensor, wanted: Tensor) -> Tensor:
    """The same of all together: (). Summed as they lie in memory, which is channels-last: flat they would be
    copied."""
    wanted = wanted.float()
    return (found.float() - wanted).square().sum() / (wanted.square().sum() + _TINY)
