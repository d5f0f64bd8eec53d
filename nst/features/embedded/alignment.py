"""How the embedded network's style loss learns to pull pictures the right way.

Pictures are painted with the network's own style loss, and the gradient of that loss is turned towards the
gradient of the style distance as random networks see it (sliced Wasserstein: Heitz et al. 2021). What is in
work was painted by the network as it was so far (as in DAgger: Ross et al. 2011), so that it meets just those
pictures that it cannot yet tell from the style.

Only the random channels learn that `lower_thresholds` put beside the trained ones. The others see nothing of
them, and go on telling textures apart as they did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from nst.features.embedded.exemplar import PATCH_PX, PHOTO_SHARE, some_normalized
from nst.features.embedded.thresholds import SHARED
from nst.features.layers import layer_names
from nst.features.networks import FeatureNetwork, build_features
from nst.losses import gram_matrix, style_loss

__all__ = ["STYLE_LAYERS", "Alignment", "AlignmentProgress", "AlignmentTask", "style_distance"]

STYLE_LAYERS: Mapping[str, float] = {
    "relu1_1": 1.0,
    "relu1_2": 0.2,
    "relu2_2": 0.05,
    "relu3_2": 0.02,
    "relu4_2": 0.01,
}
"""What is trained for: the style layers of the preset `embedded`, and their weights."""

# Random networks that see the style distance, in turn: shape, where, and seed of the first. If all are of one
# shape, what is learned suits networks of other shapes less.
_JUDGES = (
    ("embedded", tuple(STYLE_LAYERS), 1000),
    ("vgg16", ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), 2000),
)
_SCALES = (1, 2, 4)  # at which gradients are compared: pixels of the mean
_MOMENTS = 0.9, 0.99  # of both optimizers
_LAYERS = layer_names("embedded")


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentTask:
    """What to train on and for how long."""

    seed: int = 0
    channels: int = 16
    """That learn, the last ones of each layer in `SHARED`."""
    steps: int = 900
    pictures: int = 192
    """Pictures in work."""
    batch_size: int = 8
    """Pictures that are painted on in one step."""
    min_age: int = 20
    max_age: int = 80
    """Steps on a picture after which it is replaced by a new one."""
    crop_px: int = 64
    painting_rate: float = 0.03
    """Learning rate of the Adam that paints pixels, of the range [0, 1]."""
    networks: int = 16
    """Random ones that see the style distance, of the embedded network's shape and of VGG16's in turn."""
    axes: int = 16
    """Projections for the style distance, drawn anew every time."""
    learning_rate: float = 3e-3
    """Learning rate of Adam, at the peak, relative to the root mean square of each parameter at the start."""
    warmup: int = 50


@dataclass(frozen=True, slots=True)
class AlignmentProgress:
    """A training after a step, means over the last fifty."""

    step: int
    alignment: float
    """Cosine of the two gradients, in [-1, 1]."""
    distance: float
    """Distance of the pictures in work to their styles, as random networks see it; summed over layers."""


def style_distance(
    network: FeatureNetwork, images: Tensor, styles: Tensor, axes: int, random: torch.Generator
) -> Tensor:
    """Sliced Wasserstein distance of each image to its style, both (N, 3, H, W), relative to the style's
    spread, summed over the layers of `network`: (N,). Gradients flow to the images alone."""
    with torch.no_grad():
        wanted = network(styles)
    total = images.new_zeros(len(images))
    for layer, features in network(images).items():
        directions = F.normalize(torch.randn(axes, features.shape[1], generator=random), dim=1).to(images)
        first, second = (
            (directions @ each.flatten(2)).sort(dim=2).values for each in (features, wanted[layer])
        )
        # The root has no slope at zero.
        distance = ((first - second).square().mean((1, 2)) + 1e-6).sqrt()
        total = total + distance / second.flatten(1).std(1)
    return total


class Alignment:
    """Equal task, state, patches, threads and machine: equal parameters to the bit.

    Args:
        patches: uint8 (N, 3, 128, 128), see `render_patches`; the first of them photographs.
        state: of the embedded network, with `task.channels` random ones (`lower_thresholds`).
    """

    def __init__(
        self, patches: Tensor, state: Mapping[str, Tensor], task: AlignmentTask, device: torch.device
    ) -> None:
        self.task, self.device, self._patches = task, device, patches
        self._random = torch.Generator().manual_seed(task.seed)
        self._state = {name: value.float().to(device) for name, value in state.items()}
        self._network = build_features("embedded", STYLE_LAYERS, state=self._state, pooling="average").to(
            device
        )
        self._judges: dict[int, FeatureNetwork] = {}
        self._easel = _Easel(patches, task, self._random, device)
        self._learned = {
            name: value[-task.channels :].clone()
            for name, value in self._state.items()
            if _LAYERS[int(name.split(".")[1])] in SHARED
        }

    def run(self) -> Iterator[AlignmentProgress]:
        """Train; yields after every fiftieth step and the last."""
        task = self.task
        groups = [
            {"params": [each.requires_grad_()], "size": max(float(each.detach().square().mean().sqrt()), 1e-3)}
            for each in self._learned.values()
        ]
        optimizer = torch.optim.Adam(groups, betas=_MOMENTS)
        seen: list[tuple[float, float]] = []
        for step in range(1, task.steps + 1):
            fall = 1 - max(0, step - task.warmup) / max(1, task.steps - task.warmup + 1)
            for group in optimizer.param_groups:
                group["lr"] = task.learning_rate * min(1, step / task.warmup) * fall * group["size"]
            alignment, distance = self._paint(self._judge(step % task.networks))
            optimizer.zero_grad()
            (1 - alignment).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen.append((float(alignment.detach()), distance))
            if step % 50 == 0 or step == task.steps:
                means = torch.tensor(seen[-50:]).mean(0).tolist()
                yield AlignmentProgress(step, *means)

    def _judge(self, index: int) -> FeatureNetwork:
        """One of the random networks, made when it is first asked for."""
        if index not in self._judges:
            shape, layers, first = _JUDGES[index % len(_JUDGES)]
            network = build_features(shape, layers, seed=first + index, pooling="average")
            self._judges[index] = network.to(self.device)
        return self._judges[index]

    def _paint(self, judge: FeatureNetwork) -> tuple[Tensor, float]:
        """A step on some pictures. Cosine of the style loss's gradient and the style distance's, and that
        distance."""
        chosen = torch.randperm(self.task.pictures, generator=self._random)[: self.task.batch_size]
        images, styles = (each[chosen] for each in (self._easel.images, self._easel.styles))
        images.requires_grad_()
        state = {f"body.{name}": value for name, value in self._joined().items()}
        seen, wanted = (functional_call(self._network, state, each) for each in (images, styles))
        loss = torch.zeros((), device=self.device)
        for layer, weight in STYLE_LAYERS.items():
            grams = gram_matrix(seen[layer]), gram_matrix(wanted[layer])
            loss = loss + weight * style_loss(*grams, scale="relative").sum()
        (ours,) = torch.autograd.grad(loss, images, create_graph=True)
        distance = style_distance(judge, images, styles, self.task.axes, self._random)
        (theirs,) = torch.autograd.grad(distance.sum(), images)
        alike = [
            F.cosine_similarity(
                F.avg_pool2d(ours, scale).flatten(1), F.avg_pool2d(theirs, scale).flatten(1)
            ).mean()
            for scale in _SCALES
        ]
        self._easel.step(chosen, ours.detach())
        return torch.stack(alike).mean(), float(distance.detach().mean())

    def _joined(self) -> dict[str, Tensor]:
        """The whole network's parameters, with what is learned in place."""
        return {
            name: torch.cat([value[: -self.task.channels], self._learned[name]])
            if name in self._learned
            else value
            for name, value in self._state.items()
        }

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """The network, float16, every layer after ReLU scaled to unit mean square over the patches."""
        state = self._joined()
        x, before = some_normalized(self._patches, 256).to(self.device), 1.0
        for index, name in enumerate(_LAYERS):
            if name.startswith("pool"):
                x = F.avg_pool2d(x, 2)
            if not name.startswith("conv"):
                continue
            weight, bias = state[f"features.{index}.weight"] * before, state[f"features.{index}.bias"]
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            before = float(x.square().mean().sqrt())
            x = x / before
            state[f"features.{index}.weight"] = (weight / before).half().cpu().contiguous()
            state[f"features.{index}.bias"] = (bias / before).half().cpu()
        return state


class _Easel:
    """Pictures in work, each with a style and with Adam's moments."""

    def __init__(
        self, patches: Tensor, task: AlignmentTask, random: torch.Generator, device: torch.device
    ) -> None:
        self._patches, self._task, self._random = patches, task, random
        shape = task.pictures, 3, task.crop_px, task.crop_px
        self.images, self.styles = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        self._first, self._second = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        self._age, self._ends = torch.zeros(task.pictures), torch.zeros(task.pictures)
        for place in range(task.pictures):
            self._begin(place)
        self._ends = torch.randint(1, task.max_age, (task.pictures,), generator=random).float()

    def step(self, chosen: Tensor, grads: Tensor) -> None:
        """Adam on normalized gradients, within [0, 1]; finished pictures are replaced."""
        grads = grads / grads.flatten(1).square().mean(1).sqrt().clamp_min(1e-12).view(-1, 1, 1, 1)
        self._age[chosen] += 1
        age = self._age[chosen].view(-1, 1, 1, 1).to(grads)
        slow, slower = _MOMENTS
        self._first[chosen] = first = slow * self._first[chosen] + (1 - slow) * grads
        self._second[chosen] = second = slower * self._second[chosen] + (1 - slower) * grads.square()
        way = first / (1 - slow**age) / ((second / (1 - slower**age)).sqrt() + 1e-8)
        self.images[chosen] = (self.images[chosen] - self._task.painting_rate * way).clamp(0, 1)
        for place in chosen.tolist():
            if self._age[place] >= self._ends[place]:
                self._begin(place)

    def _begin(self, place: int) -> None:
        photographs = max(1, round(PHOTO_SHARE * len(self._patches)))
        among = photographs if self._draw(10) < 7 else len(self._patches)
        self.images[place] = self._crop(self._draw(among))
        self.styles[place] = self._crop(self._draw(len(self._patches)))
        self._first[place] = self._second[place] = 0
        self._age[place] = 0
        self._ends[place] = self._task.min_age + self._draw(self._task.max_age - self._task.min_age)

    def _crop(self, patch: int) -> Tensor:
        """A random square of a patch, flipped and turned, its channels mixed: (3, crop_px, crop_px)."""
        side = self._task.crop_px + self._draw(PATCH_PX - self._task.crop_px + 1)
        top, left = self._draw(PATCH_PX - side + 1), self._draw(PATCH_PX - side + 1)
        square = self._patches[patch, :, top : top + side, left : left + side].float() / 255
        size = self._task.crop_px, self._task.crop_px
        square = F.interpolate(square[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        square = square.flip(2) if self._draw(2) else square
        square = square.mT if self._draw(2) else square
        mixing = 0.4 * torch.rand(1, generator=self._random) * torch.randn(3, 3, generator=self._random)
        mixing = torch.eye(3) + mixing
        mixing = mixing / mixing.sum(1, keepdim=True).clamp_min(0.3)
        return torch.einsum("ij,jhw->ihw", mixing, square).clamp(0, 1)

    def _draw(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self._random))
