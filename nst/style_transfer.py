"""Neural style transfer by optimization of the pixels (Gatys, Ecker, Bethge 2016)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nst import check
from nst.errors import ImageError, ImageTooSmall, OptionError
from nst.features import (
    NETWORKS,
    build_features,
    check_layers,
    default_weights,
    read_state_dict,
    weights_asset,
)
from nst.features.layers import VGG_BLOCKS
from nst.features.networks import Pooling, check_pooling
from nst.images import decode_image, resize_image
from nst.lbfgs import LBFGS, Adam, Optimizer
from nst.losses import GramNormalization, LossScale
from nst.optimize import Descent, Evaluation, minimize
from nst.style_objective import StyleObjective, Targets
from nst.stylizer import AssetRef, Assets, Outcome, Stylized

__all__ = ["PRESETS", "Canvas", "StyleTransfer", "StyleTransferStylizer"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Gatys et al. 2016, section 2: alpha / beta = 1e-3, w_l = 1/5, average pooling.
        "gatys": MappingProxyType(
            {
                "content_layers": {"relu4_2": 1.0},
                "style_layers": {f"relu{block}_1": 0.2 for block in range(1, 6)},
                "content_weight": 1.0,
                "style_weight": 1e3,
                "gram_normalization": "hw",
                "loss_scale": "paper",
                "pooling": "average",
                "coarse_scales": (),
                "steps": 300,
            }
        ),
        # The well-known PyTorch tutorial. It counts convolutions: its conv_1 ... conv_5 are these layers, and
        # its content layer conv_4 is conv2_2. Its weights multiply the losses.
        "tutorial": MappingProxyType(
            {
                "content_layers": {"conv2_2": 1.0},
                "style_layers": dict.fromkeys(("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"), 1.0),
                "content_weight": 1.0,
                "style_weight": 1e6,
                "gram_normalization": "chw",
                "loss_scale": "mean",
                "pooling": "max",
                "coarse_scales": (),
                "steps": 300,
            }
        ),
        # The embedded network, found by looking and by style distance at equal content distance: edges and
        # colors first, structure by the deeper layers; content where nothing of the photograph is lost yet.
        "embedded": MappingProxyType(
            {
                "content_layers": {"relu1_1": 1.0},
                "style_layers": {
                    "relu1_1": 1.0,
                    "relu1_2": 0.2,
                    "relu2_2": 0.05,
                    "relu3_2": 0.02,
                    "relu4_2": 0.01,
                },
                "content_weight": 1.0,
                "style_weight": 300.0,
                "gram_normalization": "hw",
                "loss_scale": "relative",
                "pooling": "average",
                "coarse_scales": (0.25, 0.5),
                "steps": 60,
            }
        ),
        # Random features: shallow layers, relative losses, and coarse to fine, found by looking.
        "seeded": MappingProxyType(
            {
                "content_layers": {"relu2_2": 1.0},
                "style_layers": {f"relu{block}_1": 1 / 3 for block in range(1, 4)},
                "content_weight": 4.0,
                "style_weight": 1e3,
                "gram_normalization": "hw",
                "loss_scale": "relative",
                "pooling": "average",
                "coarse_scales": (0.25, 0.5),
                "steps": 40,
            }
        ),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleTransfer:
    """Match the photograph's content and the style picture's Gram matrices in a feature network.

    Options left at None take the preset's value; once made, a description has none left but `learning_rate`
    and the digests.
    """

    style: str
    """Path or URL of the style picture."""
    style_sha256: str | None = None
    """Digest that the style picture must have."""
    network: str = "vgg19"
    """Feature network: vgg19, vgg16, resnet50, googlenet, or embedded, which comes with this package."""
    weights: str | None = None
    """`embedded`, `imagenet`, `seeded`, or the path or URL of a state dict (.safetensors, .pth). None: those
    that come with the embedded network, `imagenet` for the others."""
    weights_sha256: str | None = None
    """Digest that the weights file must have."""
    preset: str | None = None
    """Where options left out come from: `gatys` (the paper), `tutorial`, `embedded`, for the network of that
    name, or `seeded`, for random weights. None: what suits network and weights, for the VGGs `gatys`."""
    content_layers: dict[str, float] | None = None
    """Layer to its weight within the content loss."""
    style_layers: dict[str, float] | None = None
    """Layer to its weight within the style loss."""
    content_weight: float | None = None
    """Weight of the content loss."""
    style_weight: float | None = None
    """Weight of the style loss."""
    tv_weight: float = 0.0
    """Weight of the picture's total variation; more is smoother."""
    gram_normalization: GramNormalization | None = None
    """Divide Gram matrices by `hw` or `chw`."""
    loss_scale: LossScale | None = None
    """`mean`: mean squares; `paper`: the sums and factors of the paper's equations 1 and 4; `relative`: mean
    squares over the target's own."""
    pooling: Pooling | None = None
    """What the VGGs pool with: `max` or `average`."""
    style_scale: float = 1.0
    """Long side of the style picture relative to the photograph's; above 1 for larger strokes."""
    init: Literal["photo", "noise"] = "photo"
    """Where the optimization starts: from the `photo` or from uniform `noise`."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """`lbfgs`, with a history per photograph, or `adam`."""
    learning_rate: float | None = None
    """None: 1 for L-BFGS, 0.02 (of the range [0, 1]) for Adam."""
    history_size: int = 100
    """Curvature pairs that L-BFGS keeps; each costs two photographs of float32."""
    coarse_scales: tuple[float, ...] | None = None
    """Smaller sizes of the photograph to go through first, e.g. [0.25, 0.5]; each starts from the last."""
    coarse_steps: int = 100
    """Evaluations of loss and gradient at each of `coarse_scales`."""
    steps: int | None = None
    """Evaluations of loss and gradient at the photograph's own size."""

    def __post_init__(self) -> None:
        check.one_of("network", self.network, NETWORKS)
        if self.weights is None:
            object.__setattr__(self, "weights", default_weights(self.network))
        if self.preset is None:
            seeded, embedded = self.weights == "seeded", self.network == "embedded"
            preset = "seeded" if seeded else "embedded" if embedded else "gatys"
            object.__setattr__(self, "preset", preset)
        assert self.preset is not None
        check.one_of("preset", self.preset, PRESETS)
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                if name == "pooling" and self.network not in VGG_BLOCKS:
                    value = "max"  # the other networks' own
                object.__setattr__(self, name, dict(value) if isinstance(value, Mapping) else value)
        for option in ("content_layers", "style_layers"):
            check.layer_weights(option, getattr(self, option))
            check_layers(option, self.network, getattr(self, option))
        check.one_of("gram_normalization", self.gram_normalization, get_args(GramNormalization))
        check.one_of("loss_scale", self.loss_scale, get_args(LossScale))
        assert self.pooling is not None
        check_pooling(self.network, self.pooling)
        check.one_of("init", self.init, ("photo", "noise"))
        check.one_of("optimizer", self.optimizer, ("lbfgs", "adam"))
        for option in ("content_weight", "style_weight", "tv_weight"):
            check.at_least(option, getattr(self, option), 0)
        assert self.steps is not None
        check.at_least("steps", self.steps, 1)
        check.at_least("coarse_steps", self.coarse_steps, 1)
        assert self.coarse_scales is not None
        for scale in self.coarse_scales:
            if not 0 < scale < 1:
                raise OptionError("coarse_scales", list(self.coarse_scales), reason="each is between 0 and 1")
        check.at_least("history_size", self.history_size, 1)
        check.above_zero("style_scale", self.style_scale)
        if self.learning_rate is not None:
            check.above_zero("learning_rate", self.learning_rate)
        self._weights()

    def _weights(self) -> AssetRef | None:
        assert self.weights is not None
        return weights_asset(self.network, self.weights, self.weights_sha256)

    def assets(self) -> list[AssetRef]:
        found = [AssetRef(option="style", url=self.style, kind="image", sha256=self.style_sha256)]
        weights = self._weights()
        return found if weights is None else [*found, weights]

    def notes(self) -> list[str]:
        if self.weights != "seeded":
            return []
        return [f"{self.network} is seeded, not pretrained: its features are random"]

    def build(self, assets: Assets, device: torch.device) -> StyleTransferStylizer:
        weights = self._weights()
        state = None if weights is None else read_state_dict(assets[weights.url])
        return self.build_from(decode_image(assets[self.style]), state, device)

    def build_from(
        self, style: Tensor, state: Mapping[str, Tensor] | None, device: torch.device
    ) -> StyleTransferStylizer:
        """As `build`, from a style picture (3, H, W) and a state dict (None: seeded)."""
        assert self.content_layers is not None
        assert self.style_layers is not None
        assert self.content_weight is not None
        assert self.style_weight is not None
        assert self.gram_normalization is not None
        assert self.loss_scale is not None
        assert self.pooling is not None
        layers = [*self.content_layers, *self.style_layers]
        network = build_features(self.network, layers, state=state, pooling=self.pooling).to(device)
        objective = StyleObjective(
            network,
            style,
            content_layers=self.content_layers,
            style_layers=self.style_layers,
            content_weight=self.content_weight,
            style_weight=self.style_weight,
            tv_weight=self.tv_weight,
            gram_normalization=self.gram_normalization,
            loss_scale=self.loss_scale,
            style_scale=self.style_scale,
        )
        return StyleTransferStylizer(self, objective)


@dataclass(slots=True)
class Canvas:
    """One photograph while it is painted."""

    photo: Tensor
    """(3, H, W) in [0, 1]."""
    image: Tensor
    """The best picture so far, (3, h, w) in [0, 1], at the size of the current scale."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Of `image`, at the current scale."""
    evaluations: int = 0
    """Over all scales."""
    earlier: int = 0
    """Those of the scales before."""
    error: ImageError | None = None

    def take(self, descent: Descent) -> None:
        self.image, self.losses, self.error = descent.best, descent.losses, descent.error
        self.evaluations = self.earlier + descent.evaluations


class StyleTransferStylizer:
    """The loaded network and style, ready for photographs."""

    def __init__(self, method: StyleTransfer, objective: StyleObjective) -> None:
        self.method, self.objective = method, objective

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        canvases = [self._canvas(image, generator) for image, generator in zip(images, generators, strict=True)]
        for _ in self._paint(canvases):
            pass
        return [canvas.error or self._stylized(canvas) for canvas in canvases]

    def iterate(self, image: Tensor, generator: torch.Generator) -> Iterator[Canvas]:
        """Stylize one photograph and look on: its state after every evaluation, coarse scales first.

        Raises:
            ImageTooSmall: the image vanishes before the deepest layer.
            Diverged: after the last step, if there is no usable picture.
        """
        canvas = self._canvas(image, generator)
        for _ in self._paint([canvas]):
            yield canvas
        if canvas.error is not None:
            raise canvas.error

    def _canvas(self, image: Tensor, generator: torch.Generator) -> Canvas:
        photo = image.to(self.objective.network.mean, copy=True)
        noise = self.method.init == "noise"
        return Canvas(photo, torch.rand(image.shape, generator=generator).to(photo) if noise else photo)

    def _paint(self, canvases: Sequence[Canvas]) -> Iterator[None]:
        """Coarse to fine (Gatys et al. 2017), in lockstep: every scale starts from the last one's picture."""
        assert self.method.coarse_scales is not None
        assert self.method.steps is not None
        stages = [(scale, self.method.coarse_steps) for scale in sorted(self.method.coarse_scales)]
        for scale, steps in [*stages, (1.0, self.method.steps)]:
            working: list[Canvas] = []
            starts: list[Tensor] = []
            targets: list[Targets] = []
            for canvas in canvases:
                if canvas.error is not None:
                    continue
                height, width = canvas.photo.shape[-2:]
                size = max(1, round(height * scale)), max(1, round(width * scale))
                try:
                    targets.append(self.objective.targets(resize_image(canvas.photo, size)))
                except ImageTooSmall as error:
                    if scale == 1.0:
                        canvas.error = error
                    continue  # a coarse scale that the network cannot see is left out
                working.append(canvas)
                starts.append(resize_image(canvas.image, size).clamp(0, 1))
            for descents in self._minimize(starts, targets, steps):
                for canvas, descent in zip(working, descents, strict=True):
                    canvas.take(descent)
                yield
            for canvas in working:
                canvas.earlier = canvas.evaluations

    def _minimize(self, starts: list[Tensor], targets: list[Targets], steps: int) -> Iterator[list[Descent]]:
        def objective(which: Sequence[int], points: Sequence[Tensor]) -> list[Evaluation]:
            return self.objective.evaluate(points, [targets[index] for index in which])

        return minimize(objective, starts, [self._optimizer() for _ in starts], evaluations=steps)

    def _optimizer(self) -> Optimizer:
        rate = self.method.learning_rate
        if self.method.optimizer == "adam":
            return Adam(learning_rate=0.02 if rate is None else rate)
        return LBFGS(
            history_size=self.method.history_size,
            learning_rate=1.0 if rate is None else rate,
            first_step=0.01,  # of the range [0, 1]: far above rounding, far below what the eye minds
            bounds=(0.0, 1.0),
        )

    def _stylized(self, canvas: Canvas) -> Stylized:
        stats = {
            **canvas.losses,
            "evaluations": float(canvas.evaluations),
            "pretrained": float(self.objective.network.pretrained),
        }
        return Stylized(image=canvas.image.to("cpu", torch.float32), stats=stats)
