"""DeepDream (Mordvintsev, Olah, Tyka 2015): amplify what a network sees in a photograph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nst import check
from nst.batching import by_shape
from nst.errors import Diverged, ImageError
from nst.features import (
    NETWORKS,
    FeatureNetwork,
    build_features,
    check_layers,
    default_weights,
    read_state_dict,
    weights_asset,
)
from nst.features.networks import Pooling, check_pooling
from nst.images import resize_image
from nst.stylizer import AssetRef, Assets, Outcome, Stylized

__all__ = ["DeepDream", "DeepDreamStylizer", "Dream"]

# Octaves with a side below this are left out: the networks see nothing in them.
_MIN_OCTAVE_PX = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepDream:
    """Gradient ascent on the energy of a layer's activations, from small octaves to large."""

    network: str = "resnet50"
    """Feature network: vgg19, vgg16, resnet50, googlenet, or embedded, which comes with this package."""
    weights: str | None = None
    """`embedded`, `imagenet`, `seeded`, or the path or URL of a state dict (.safetensors, .pth). None: those
    that come with the embedded network, `imagenet` for the others."""
    weights_sha256: str | None = None
    """Digest that the weights file must have."""
    layers: dict[str, float] | None = None
    """Layer to its weight; None: a middle layer of the network."""
    pooling: Pooling = "max"
    """What the VGGs pool with: `max` or `average`."""
    octaves: int = 4
    """Sizes the photograph is dreamed at, the largest being its own."""
    octave_scale: float = 1.4
    """Ratio of one octave's size to the next."""
    steps: int = 10
    """Steps of gradient ascent per octave."""
    step_size: float = 1.5 / 255
    """Mean change of a pixel per step, of the range [0, 1]."""
    jitter_px: int = 32
    """The image is rolled by up to this many pixels before each step, and back after."""
    gradient_blur_px: float = 0.0
    """Standard deviation of a Gaussian that smooths the gradient; 0: none."""

    def __post_init__(self) -> None:
        check.one_of("network", self.network, NETWORKS)
        if self.weights is None:
            object.__setattr__(self, "weights", default_weights(self.network))
        if self.layers is None:
            object.__setattr__(self, "layers", {_DEFAULT_LAYER[self.network]: 1.0})
        assert self.layers is not None
        check.layer_weights("layers", self.layers)
        check_layers("layers", self.network, self.layers)
        check_pooling(self.network, self.pooling)
        check.at_least("octaves", self.octaves, 1)
        check.at_least("steps", self.steps, 1)
        check.at_least("jitter_px", self.jitter_px, 0)
        check.at_least("gradient_blur_px", self.gradient_blur_px, 0)
        check.above_zero("step_size", self.step_size)
        check.above_zero("octave_scale - 1", self.octave_scale - 1)
        self._weights()

    def _weights(self) -> AssetRef | None:
        assert self.weights is not None
        return weights_asset(self.network, self.weights, self.weights_sha256)

    def assets(self) -> list[AssetRef]:
        weights = self._weights()
        return [] if weights is None else [weights]

    def notes(self) -> list[str]:
        if self.weights != "seeded":
            return []
        return [f"{self.network} is seeded, not pretrained: it dreams of patterns, not of things"]

    def build(self, assets: Assets, device: torch.device) -> DeepDreamStylizer:
        weights = self._weights()
        state = None if weights is None else read_state_dict(assets[weights.url])
        return self.build_from(state, device)

    def build_from(self, state: Mapping[str, Tensor] | None, device: torch.device) -> DeepDreamStylizer:
        """As `build`, from a state dict (None: seeded)."""
        assert self.layers is not None
        network = build_features(self.network, self.layers, state=state, pooling=self.pooling)
        return DeepDreamStylizer(self, network.to(device))


_DEFAULT_LAYER = {
    "embedded": "relu2_2",
    "vgg16": "relu4_3",
    "vgg19": "relu4_4",
    "resnet50": "layer3",
    "googlenet": "inception4c",
}


@dataclass(slots=True)
class Dream:
    """One photograph while it is dreamed."""

    bases: list[Tensor]
    """The photograph's octaves, small to large, each (3, h, w)."""
    image: Tensor
    """The current octave with all that was dreamed so far, (3, h, w) in [0, 1]."""
    generator: torch.Generator
    octave: int = 0
    """Index of the current octave in `bases`."""
    steps: int = 0
    """Steps taken, over all octaves."""
    energy: float = 0.0
    """The objective before the last step: sum over layers of weight * |F|^2 / 2."""
    error: ImageError | None = None


class DeepDreamStylizer:
    """The loaded network, ready for photographs."""

    def __init__(self, method: DeepDream, network: FeatureNetwork) -> None:
        self.method, self.network = method, network

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        dreams = [self._start(image, generator) for image, generator in zip(images, generators, strict=True)]
        for _ in self._dream(dreams):
            pass
        return [dream.error or self._stylized(dream) for dream in dreams]

    def iterate(self, image: Tensor, generator: torch.Generator) -> Iterator[Dream]:
        """Dream one photograph and look on: its state after every step.

        Raises:
            ImageTooSmall: the image vanishes before the deepest layer.
            Diverged: the network's activations are not finite.
        """
        dream = self._start(image, generator)
        for _ in self._dream([dream]):
            yield dream
        if dream.error is not None:
            raise dream.error

    def _start(self, image: Tensor, generator: torch.Generator) -> Dream:
        photo = image.to(self.network.mean, copy=True)
        bases = [photo]
        for _ in range(self.method.octaves - 1):
            height, width = bases[0].shape[-2:]
            size = round(height / self.method.octave_scale), round(width / self.method.octave_scale)
            if min(size) < max(_MIN_OCTAVE_PX, self.network.min_side_px):
                break
            bases.insert(0, resize_image(bases[0], size))
        dream = Dream(bases=bases, image=bases[0], generator=generator)
        try:
            self.network.check_size(photo)
        except ImageError as error:
            dream.error = error
        return dream

    def _dream(self, dreams: Sequence[Dream]) -> Iterator[None]:
        """Small octaves first, in lockstep; a photograph with fewer octaves joins at its smallest."""
        for remaining in reversed(range(self.method.octaves)):
            current = [dream for dream in dreams if len(dream.bases) > remaining and dream.error is None]
            if not current:
                continue
            for dream in current:
                dream.octave = len(dream.bases) - 1 - remaining
                if dream.octave > 0:
                    # Only the detail goes up: what was dreamed, not the blur of what was enlarged.
                    below, base = dream.bases[dream.octave - 1], dream.bases[dream.octave]
                    detail = resize_image(dream.image - below, (base.shape[-2], base.shape[-1]))
                    dream.image = (base + detail).clamp(0, 1)
            for _ in range(self.method.steps):
                self._step([dream for dream in current if dream.error is None])
                yield

    def _step(self, dreams: Sequence[Dream]) -> None:
        """One normalized step of gradient ascent for each, every photograph with its own jitter and mean."""
        shifts = [self._jitter(dream.generator) for dream in dreams]
        rolled = [dream.image.roll(shift, dims=(-2, -1)) for dream, shift in zip(dreams, shifts, strict=True)]
        for group in by_shape(rolled):
            energies, grads = self._energy(torch.stack([rolled[index] for index in group]))
            for index, energy, grad in zip(group, energies.tolist(), grads, strict=True):
                dream, (down, right) = dreams[index], shifts[index]
                grad = self._smoothed(grad)
                scale = grad.abs().mean()
                if not bool(torch.isfinite(scale)):
                    dream.error = Diverged(f"the gradient is not finite at step {dream.steps + 1}")
                    continue
                # A gradient of all zeros (nothing excites the layer) leaves the image as it is.
                change = grad * (self.method.step_size / scale.clamp_min(torch.finfo(grad.dtype).tiny))
                dream.image = (rolled[index] + change).clamp(0, 1).roll((-down, -right), dims=(-2, -1))
                dream.steps += 1
                dream.energy = energy

    def _energy(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """sum_l w_l |F_l|^2 / 2 of each image (N,), and its gradient: the seed is the activation itself."""
        assert self.method.layers is not None
        pixels = pixels.requires_grad_()
        features = self.network(pixels)
        energies = pixels.new_zeros(len(pixels))
        for layer, weight in self.method.layers.items():
            energies = energies + weight / 2 * features[layer].square().flatten(1).sum(1)
        (grads,) = torch.autograd.grad(energies.sum(), pixels)
        return energies.detach(), grads

    def _smoothed(self, grad: Tensor) -> Tensor:
        """(3, H, W) blurred, mirrored at the border."""
        sigma = self.method.gradient_blur_px
        reach = math.ceil(3 * sigma)
        if sigma == 0 or min(grad.shape[-2:]) <= reach:
            return grad
        axis = torch.arange(-reach, reach + 1, device=grad.device, dtype=grad.dtype)
        kernel = torch.softmax(-axis.square() / (2 * sigma**2), dim=0)
        padded = F.pad(grad[:, None], (reach,) * 4, mode="reflect")
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]

    def _jitter(self, generator: torch.Generator) -> tuple[int, int]:
        most = self.method.jitter_px
        down, right = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
        return down, right

    def _stylized(self, dream: Dream) -> Stylized:
        stats = {
            "energy": dream.energy,
            "steps": float(dream.steps),
            "pretrained": float(self.network.pretrained),
        }
        return Stylized(image=dream.image.to("cpu", torch.float32), stats=stats)
