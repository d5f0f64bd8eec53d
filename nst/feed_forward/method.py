"""Any style in one pass, by a trained network, as a method of the batch runner."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from nst import check
from nst.errors import OptionError
from nst.feed_forward.adaptation import PainterAdaptation
from nst.feed_forward.files import Learned, published_state, read_learned, read_names, read_painter
from nst.feed_forward.options import StyleTrainingOptions
from nst.feed_forward.pictures import LEAST_STYLE_PX, style_picture
from nst.feed_forward.published import PublishedStylizer, TransformationNetwork
from nst.feed_forward.size import FeedForwardPlan
from nst.feed_forward.style_training import StyleTraining, pictures_of
from nst.feed_forward.stylizer import FeedForwardStylizer, Look, Source
from nst.feed_forward.teacher import teacher_file, teacher_of
from nst.gan.export import Exportable
from nst.images.codec import decode_image
from nst.ops.precision import Precision, resolved
from nst.style_transfer.color import luminance
from nst.style_transfer.options import PreserveColor
from nst.style_transfer.pictures import check_styles, names_of, picture_names, style_assets, styles_of
from nst.stylizer import LATER, AssetRef, Assets, select

__all__ = ["SHIPPED", "FeedForward"]

SHIPPED = "nst:painter"
"""The network that comes with this package."""

_CHANGES = ("match", "luminance")
"""Ways to keep colors that change the style pictures."""
_MOST_LEARNED = 100
"""Styles that a network learns at most: each has some MB of memory, and its share of the steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedForward:
    """Paint photographs in the style of any picture, in one pass through a trained network."""

    style: str | tuple[str, ...] | None = None
    """Path or URL of the style picture, or a list of several; in a job also of a folder of them. A photograph
    that has a `style` in the manifest, a picture's name without its folder and suffix, gets that one; others
    get all of them, blended. None: the styles that the network was trained for."""
    style_sha256: str | tuple[str, ...] | None = None
    """Digest that the style picture must have; of several, a list."""
    style_blend: tuple[float, ...] | None = None
    """Weight of each of several style pictures, relative to the others; None: all alike."""
    style_masks: tuple[str, ...] | None = None
    """Pictures that say where each style picture is painted: where they are white. Each is stretched to the
    photograph."""
    style_side_px: int = 512
    """Long side of the style pictures as the network sees them, in pixels; more for larger strokes. Smaller
    pictures are seen as they are."""
    strength: float = 1.0
    """Strength of the style, from 0, the photograph, to 1."""
    preserve_color: PreserveColor = "none"
    """How the photograph's colors are kept. `luminance` paints its luminance only, `match` first gives the
    style pictures its colors' mean and covariance, `original` paints in color and takes the photograph's chroma
    at the end; `none` keeps none."""
    stroke_side_px: int | None = 1536
    """Long side in pixels at which larger photographs are painted, so that strokes have a size relative to the
    photograph, whose fine detail is added to the picture at full size. None: all are painted at their own
    size."""
    reference: str | None = None
    """Picture from which all photographs take what the network normalizes by, so that frames of one scene do
    not flicker: the first frame. None: each is its own."""
    weights: str = "embedded"
    """Path or URL of the network: what a training of this kind ended with, a snapshot, or a checkpoint; a
    network of one style as PyTorch's examples publish them (fast_neural_style); or `embedded`, the one that
    comes with nst."""
    weights_sha256: str | None = None
    """Digest that the weights file must have."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision in which photographs are painted: `float32`, or `bfloat16`, which is twice as fast where the
    hardware has it, and slower elsewhere. `auto`: `bfloat16` on each machine that has it; pictures of machines
    with and without it differ by about one gray level."""
    pass_memory_mb: int | None = 250
    """Memory in MB for activations of one pass. Larger photographs are painted in tiles, with the same result.
    None: half of a GPU's memory, or of the machine's what a worker's threads are of its cores, and 2 GB at
    least."""

    adapt_steps: int = field(default=0, metadata=LATER)
    """Steps for which the network first learns the styles on the job's own photographs, once, before any is
    painted: some hundred, a second or two of a CPU core each with bfloat16, three without. 0: it paints
    as it is."""
    adapt_photos: int = field(default=64, metadata=LATER)
    """Photographs that it learns on: of all, those whose names have the least digests."""
    adapt_style_weight: float = field(default=15.0, metadata=LATER)
    """Weight of the style's loss, relative to the content's, while it learns: the strength of the style."""
    teacher: str | None = field(default=None, metadata=LATER)
    """Feature network that it learns from, if it does: embedded, which comes with nst, vgg16, or vgg19. None:
    embedded, or vgg16 if `teacher_weights` are others."""
    teacher_weights: str | None = field(default=None, metadata=LATER)
    """Weights of the teacher: the path or URL of a state dict, `imagenet`, or `embedded`. None: those that the
    network is published with."""
    teacher_weights_sha256: str | None = field(default=None, metadata=LATER)
    """Digest that the file of the teacher's weights must have."""
    teacher_weights_convention: str | None = field(default=None, metadata=LATER)
    """What the weights of a teacher that is a VGG want as input, as that of the other methods."""

    def __post_init__(self) -> None:
        check_styles(self)
        self._check_adaptation()
        if not 0 <= self.strength <= 1:
            raise OptionError("strength", self.strength, reason="is from 0 to 1")
        check.one_of("preserve_color", self.preserve_color, get_args(PreserveColor))
        check.one_of("precision", self.precision, ("auto", *get_args(Precision)))
        check.at_least("style_side_px", self.style_side_px, LEAST_STYLE_PX)
        for option in ("stroke_side_px", "pass_memory_mb"):
            if getattr(self, option) is not None:
                check.at_least(option, getattr(self, option), 1)

    def _check_adaptation(self) -> None:
        check.at_least("adapt_steps", self.adapt_steps, 0)
        check.at_least("adapt_photos", self.adapt_photos, 1)
        check.at_least("adapt_style_weight", self.adapt_style_weight, 0)
        if not self.adapt_steps:
            return
        if self.style is None:
            raise OptionError("style", None, reason="is what adapt_steps learns: a picture is required")
        count = len(styles_of(self))
        if count > _MOST_LEARNED:
            reason = f"learns {_MOST_LEARNED} styles at most, and there are {count}"
            raise OptionError("adapt_steps", self.adapt_steps, reason=reason)
        if self.preserve_color in _CHANGES:
            reason = "changes the style's picture for each photograph, and adapt_steps learns it as it is"
            raise OptionError("preserve_color", self.preserve_color, reason=reason)
        self._training_options("cpu")  # which checks the teacher

    def _named(self) -> list[tuple[str, str]]:
        """Style pictures by what messages call them."""
        if self.style is None:
            return []
        return list(zip(names_of("style", self.style), styles_of(self), strict=True))

    @property
    def _weights(self) -> AssetRef:
        url = SHIPPED if self.weights == "embedded" else self.weights
        return AssetRef(option="weights", url=url, kind="weights", sha256=self.weights_sha256)

    def assets(self) -> list[AssetRef]:
        found = style_assets(self)
        if self.reference is not None:
            found.append(AssetRef(option="reference", url=self.reference, kind="image"))
        if self.adapt_steps:
            teacher = teacher_file(self._training_options("cpu"))
            found += [] if teacher is None else [teacher]
        return [*found, self._weights]

    def notes(self, assets: Assets) -> list[str]:  # noqa: ARG002
        if not self.adapt_steps:
            return []
        photos = f"{self.adapt_photos} of the photographs at most"
        return [f"before all, the network learns the style in {self.adapt_steps} steps, on {photos}"]

    def style_names(self, assets: Assets) -> list[str]:
        if self.style is not None:
            return picture_names(self)
        data = assets[self._weights.url]
        return [] if published_state(data) is not None else [each.name for each in read_names(data)]

    def check_style(self, assets: Assets) -> None:
        for option, url in self._named():
            self._picture(option, assets[url])
        data = assets[self._weights.url]
        if self.style is None:
            self._check_own_styles(data)
        elif published_state(data) is not None:
            reason = f"weights = {self.weights!r} has one style, and takes no other; leave it out"
            raise OptionError("style", self.style, reason=reason)

    def _check_own_styles(self, data: bytes) -> None:
        """Check what goes without style pictures."""
        if published_state(data) is not None:
            if self.preserve_color == "match":
                raise OptionError("preserve_color", "match", reason="needs a style picture")
            return
        if not read_names(data):
            read_painter(data, self.weights)  # which says so if it is none
            reason = f"is required: weights = {self.weights!r} was trained for no style of its own"
            raise OptionError("style", None, reason=reason)
        if self.preserve_color in _CHANGES:
            reason = "changes the style's picture: name it with the option style"
            raise OptionError("preserve_color", self.preserve_color, reason=reason)

    def build(self, assets: Assets, device: torch.device) -> FeedForwardStylizer | PublishedStylizer:
        """Raises OptionError: a style picture is too small."""
        self.check_style(assets)
        data = assets[self._weights.url]
        plan = select(FeedForwardPlan, self)
        state = published_state(data)
        if state is not None:
            network = TransformationNetwork()
            network.load(state)
            if self.precision == "auto":
                plan = replace(plan, precision="float32")
            return PublishedStylizer(plan, network.to(device))
        plan = replace(plan, precision=resolved(self.precision, device))
        painter = read_painter(data, self.weights)
        named = self._sources(assets, read_learned(data, self.weights, painter))
        looks, default = self._looks(named)
        if self.style_masks is not None:
            masks = [luminance(decode_image(assets[url]))[:1].to(device) for url in self.style_masks]
            shares = default.weights
            parts: list[tuple[Look, Tensor | None]] = [
                (Look([source], [1.0]), share * mask)
                for source, mask, share in zip(default.sources, masks, shares, strict=True)
            ]
        else:
            parts = [(default, None)]
        reference = None if self.reference is None else decode_image(assets[self.reference])
        return FeedForwardStylizer(plan, painter.to(device), looks, parts, reference=reference)

    def _training_options(self, device: str) -> StyleTrainingOptions:
        assert self.style is not None
        return StyleTrainingOptions(
            style=self.style,
            style_side_px=self.style_side_px,
            teacher=self.teacher,
            teacher_weights=self.teacher_weights,
            teacher_weights_sha256=self.teacher_weights_sha256,
            teacher_weights_convention=self.teacher_weights_convention,
            style_weight=self.adapt_style_weight,
            precision=resolved(self.precision, torch.device(device)),
        )

    def adaptation(self, assets: Assets, device: torch.device, seed: int) -> PainterAdaptation:
        """Raises OptionError, WeightsError: as of `build`, or the teacher's weights do not fit."""
        options = self._training_options(device.type)
        painter = read_painter(assets[self._weights.url], self.weights)
        options = replace(options, **asdict(painter.config))
        training = StyleTraining(options, seed=seed, device=device)
        training.learn_from(teacher_of(options, assets), pictures_of(options, assets))
        training.begin_with(assets[self._weights.url], self.weights)
        return PainterAdaptation(training, options, self.adapt_steps, self.stroke_side_px)

    def adapted(self, url: str, sha256: str) -> FeedForward:
        return replace(self, weights=url, weights_sha256=sha256, adapt_steps=0)

    def exportable(self, assets: Assets, style: str | None = None) -> Exportable:
        """The network in one style: that of this name, of `style_names`, or else what the options say, blended
        if there are several. A photograph's moments are its own, and not those of a smaller view, so pictures
        of large ones differ a little.

        Raises:
            OptionError: the styles have masks, or change with the photograph; or what a file cannot have is
                asked for.
            UnknownStyle: none has the name, or several have it.
        """
        if self.style_masks is not None:
            raise OptionError("style_masks", self.style_masks, reason="an exported network paints one style")
        if self.preserve_color != "none":
            raise OptionError("preserve_color", self.preserve_color, choices=("none",))
        if self.reference is not None:
            reason = "an exported network takes the moments of each image"
            raise OptionError("reference", self.reference, reason=reason)
        if self.adapt_steps:
            reason = "is for jobs; what one has learned is in its folder, below adapted/, and can be exported"
            raise OptionError("adapt_steps", self.adapt_steps, reason=reason)
        stylizer = self.build(assets, torch.device("cpu"))
        return Exportable(*stylizer.exportable(style))

    def _sources(self, assets: Assets, learned: Learned) -> list[tuple[str, Source]]:
        """What each style is described by, by its name: the moments that the network was trained to give it, or
        else its picture."""
        if self.style is None:
            return [(each.name, moments) for each, moments in learned]
        found: list[tuple[str, Source]] = []
        known = {each.sha256: moments for each, moments in learned}
        for (option, url), name in zip(self._named(), picture_names(self), strict=True):
            digest = hashlib.sha256(assets[url]).hexdigest() if known else ""
            source: Source = partial(self._picture, option, assets[url])
            if digest in known and self.preserve_color not in _CHANGES:
                source = known[digest]
            found.append((name, source))
        return found

    def _looks(self, named: Sequence[tuple[str, Source]]) -> tuple[dict[str, Look], Look]:
        """Each style by its name, and all of them, blended."""
        names, sources = [name for name, _ in named], [source for _, source in named]
        blend = self.style_blend or (1.0,) * len(named)
        looks = {name: Look([source], [1.0]) for name, source in named if names.count(name) == 1}
        return looks, Look(sources, [weight / sum(blend) for weight in blend])

    def _picture(self, option: str, data: bytes) -> Tensor:
        return style_picture(option, dict(self._named())[option], data, self.style_side_px)
