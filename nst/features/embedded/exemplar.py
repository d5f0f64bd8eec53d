"""How the embedded network is trained: to tell patches apart, however they are turned, scaled and recolored.

Each patch is a class of its own and every sample of it is distorted at random (Dosovitskiy et al. 2014,
"Discriminative Unsupervised Feature Learning with Exemplar CNNs"); a few pictures are enough for early layers
(Asano et al. 2020). Heads at three depths, so that every block learns to discriminate (deep supervision:
Lee et al. 2015), not only the last. The first layer's filters stay as seeded, derivatives in many
directions and colors: trained to ignore color, they lose some of what a style is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from nst.features.conventions import CONVENTIONS
from nst.features.layers import VGG_BLOCKS, VGG_CHANNELS, layer_names
from nst.features.seeded import image_filters
from nst.synthetic import TEXTURES, brush_strokes

__all__ = [
    "PATCH_PX",
    "PHOTO_SHARE",
    "QUIET",
    "ExemplarTask",
    "ExemplarTraining",
    "Progress",
    "render_patches",
    "some_normalized",
]

PATCH_PX = 128
PHOTO_SHARE = 7 / 16  # of the patches, the first ones
_HEADS = {2: 0.25, 3: 0.5, 4: 1.0}  # block to the weight of its loss
_STROKE_PATCHES = 16  # of one painting
QUIET = 0.05  # of a layer's mean: channels below are not scaled up to the others


@dataclass(frozen=True, kw_only=True, slots=True)
class ExemplarTask:
    """What to train on and for how long."""

    seed: int = 0
    patches: int = 2048
    """Classes: 7/16 from photographs, 2/16 from painted strokes, 7/16 from rendered textures."""
    steps: int = 1800
    batch_size: int = 128
    crop_px: int = 64
    learning_rate: float = 0.1
    """Learning rate at the peak of one cycle (Smith 2018), for stochastic gradient descent with momentum
    0.9."""
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """A training after a step, means over the last hundred."""

    step: int
    loss: float
    accuracy: float
    """Accuracy of the deepest head, top 1, in [0, 1]."""


def render_patches(photographs: Sequence[npt.NDArray[np.uint8]], task: ExemplarTask) -> Tensor:
    """The patches to tell apart: uint8 (patches, 3, 128, 128), some from `photographs` (H, W, 3)."""
    random = np.random.default_rng(task.seed)
    from_photos, from_strokes = int(task.patches * PHOTO_SHARE), task.patches * 2 // 16
    found = []
    for index in range(from_photos):
        found.append(_crop(photographs[index % len(photographs)], random, 80, 320))
    for index in range(math.ceil(from_strokes / _STROKE_PATCHES)):
        painting = brush_strokes((420, 420), seed=1000 + index)
        found += [_crop(painting, random, 80, 256) for _ in range(_STROKE_PATCHES)]
    found = found[: from_photos + from_strokes]
    families = tuple(TEXTURES.values())
    for index in range(task.patches - len(found)):
        found.append(families[index % len(families)]((PATCH_PX, PATCH_PX), 1000 + index))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def _crop(picture: npt.NDArray[np.uint8], random: np.random.Generator, low: int, high: int) -> np.ndarray:
    """A random square of `low` to `high` pixels, resized to a patch."""
    height, width = picture.shape[:2]
    side = int(random.integers(low, min(high, height, width) + 1))
    top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
    square = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(square.resize((PATCH_PX, PATCH_PX), Image.Resampling.LANCZOS))


class ExemplarTraining:
    """Equal task, patches, threads and machine: equal parameters to the bit.

    Args:
        patches: uint8 (classes, 3, 128, 128), see `render_patches`.
    """

    def __init__(self, patches: Tensor, task: ExemplarTask, device: torch.device) -> None:
        self.task, self.device = task, device
        self._patches = patches.to(device)
        self._random = torch.Generator().manual_seed(task.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            self._model = _Classifier(len(patches), torch.Generator().manual_seed(task.seed))
        self._model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self) -> Iterator[Progress]:
        """Train; yields after every hundredth step and the last."""
        task = self.task
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        decayed = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": task.weight_decay}
        plain = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
        optimizer = torch.optim.SGD([decayed, plain], lr=task.learning_rate, momentum=0.9, nesterov=True)
        warmup = max(1, round(0.15 * task.steps))
        losses, hits, order = [], [], torch.empty(0, dtype=torch.long)
        self._model.train()
        for step in range(1, task.steps + 1):
            if len(order) < task.batch_size:
                order = torch.cat([order, torch.randperm(len(self._patches), generator=self._random)])
            classes, order = order[: task.batch_size], order[task.batch_size :]
            part = step / warmup if step <= warmup else 1 - (step - warmup) / (task.steps - warmup + 1)
            for group in optimizer.param_groups:
                group["lr"] = task.learning_rate * part
            labels = classes.to(self.device)
            images = distort(self._patches[labels], task.crop_px, self._random)
            with torch.autocast(self.device.type, torch.bfloat16):
                logits = self._model(normalize(images).to(memory_format=torch.channels_last))
            loss = sum(
                (
                    weight * F.cross_entropy(each.float(), labels, label_smoothing=task.label_smoothing)
                    for each, weight in zip(logits, _HEADS.values(), strict=True)
                ),
                start=torch.zeros((), device=self.device),
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            hits.append(float((logits[-1].argmax(1) == labels).float().mean()))
            if step % 100 == 0 or step == task.steps:
                yield Progress(step, float(np.mean(losses[-100:])), float(np.mean(hits[-100:])))

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """The network alone, float16: batch norm folded into the convolutions, every channel after ReLU scaled
        to unit mean square over the patches. That changes nothing but units: ReLU(a x) = a ReLU(x) for a > 0,
        and the next convolution makes up for it. Gram matrices then weigh all channels alike."""
        self._model.eval()
        x = some_normalized(self._patches, 256)
        state: dict[str, Tensor] = {}
        unit = x.new_ones(3)  # of each channel of the layer before
        for index, name in enumerate(layer_names("embedded")):
            if name.startswith("pool"):
                x = F.avg_pool2d(x, 2)
            if not name.startswith("conv"):
                continue
            convolution, norm = self._model.layer(name)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = convolution.weight * gain.view(-1, 1, 1, 1) * unit.view(1, -1, 1, 1)
            bias = norm.bias - norm.running_mean * gain
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            unit = x.square().mean((0, 2, 3)).sqrt()
            unit = unit.clamp_min(QUIET * unit.mean())
            x = x / unit.view(1, -1, 1, 1)
            state[f"features.{index}.weight"] = (weight / unit.view(-1, 1, 1, 1)).half().cpu().contiguous()
            state[f"features.{index}.bias"] = (bias / unit).half().cpu()
        return state


class _Classifier(nn.Module):
    """The embedded network with batch norm, and a linear head on the means of three blocks."""

    def __init__(self, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        channels = 3
        self.blocks = nn.ModuleList()
        for count, width in zip(VGG_BLOCKS["embedded"], VGG_CHANNELS["embedded"], strict=True):
            block = nn.ModuleList()
            for _ in range(count):
                convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                block.append(nn.ModuleList([convolution, nn.BatchNorm2d(width)]))
                channels = width
            self.blocks.append(block)
        first, _ = self.layer("conv1_1")
        with torch.no_grad():
            first.weight.copy_(image_filters(first.out_channels, 3, generator))
        first.weight.requires_grad_(False)
        self.heads = nn.ModuleList(nn.Linear(VGG_CHANNELS["embedded"][block - 1], classes) for block in _HEADS)

    def layer(self, name: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """The convolution called conv{block}_{index}, and its norm."""
        block, index = map(int, name.removeprefix("conv").split("_"))
        convolution, norm = self.blocks[block - 1][index - 1]  # type: ignore[index]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return convolution, norm

    def forward(self, x: Tensor) -> list[Tensor]:
        means = []
        for number, block in enumerate(self.blocks, start=1):
            for convolution, norm in block:  # type: ignore[attr-defined]
                x = F.relu(norm(convolution(x)))
            if number in _HEADS:
                means.append(x.mean((2, 3)))
            x = F.avg_pool2d(x, 2)
        return [head(mean) for head, mean in zip(self.heads, means, strict=True)]


def normalize(images: Tensor) -> Tensor:
    """RGB in [0, 1], (N, 3, H, W), to what the network sees."""
    inputs = CONVENTIONS["torchvision"]
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (inputs.mean, inputs.std))
    return (images - mean) / std


def some_normalized(patches: Tensor, count: int) -> Tensor:
    """Choose at most `count` of the patches, uint8 (N, 3, P, P), evenly chosen, as the network sees them."""
    chosen = torch.linspace(0, len(patches) - 1, min(count, len(patches))).long()
    return normalize(patches[chosen.to(patches.device)].float() / 255)


def distort(patches: Tensor, crop_px: int, random: torch.Generator) -> Tensor:
    """uint8 (N, 3, P, P) to float32 (N, 3, crop_px, crop_px) in [0, 1]: turned, sheared, flipped, cropped,
    channels mixed, contrast and brightness changed, some gray, some grainy."""
    count, device = len(patches), patches.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=random)

    angle, shear, flip = uniform(-1.0, 1.0), uniform(-0.25, 0.25), uniform(0, 1).sub(0.5).sign()
    scale = torch.exp(uniform(math.log(0.35), math.log(0.9)))
    stretch = torch.exp(uniform(-0.2, 0.2))
    c, s = torch.cos(angle), torch.sin(angle)
    shift = uniform(-1, 1, 2) * (1 - scale)[:, None]
    theta = torch.stack(
        [
            torch.stack([flip * scale * stretch * c, scale * (shear * c - s), shift[:, 0]], 1),
            torch.stack([flip * scale * stretch * s, scale * (shear * s + c), shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta.to(device), [count, 3, crop_px, crop_px], align_corners=False)
    images = F.grid_sample(
        patches.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    mix = torch.eye(3) + uniform(0, 0.5, 1, 1) * torch.randn(count, 3, 3, generator=random)
    mix = mix / mix.sum(2, keepdim=True).clamp_min(0.3)
    gray = (uniform(0, 1) < 0.2).view(-1, 1, 1)
    mix = torch.where(gray, torch.tensor([0.3, 0.59, 0.11]).expand(3, 3), mix).to(device)
    images = torch.einsum("nij,njhw->nihw", mix, images)
    contrast, brightness = uniform(0.5, 1.4, 1, 1, 1).to(device), uniform(-0.2, 0.2, 1, 1, 1).to(device)
    images = (images - 0.5) * contrast + 0.5 + brightness
    grain = uniform(-0.05, 0.08, 1, 1, 1).clamp_min(0)
    images = images + (grain * torch.randn(images.shape, generator=random)).to(device)
    return images.clamp(0, 1)
