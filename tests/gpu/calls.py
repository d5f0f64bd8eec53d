"""Small calls of every method, and small steps of every training, that run on any device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor

from nst.cyclegan.method import CycleGAN, GeneratorConfig, generator_file
from nst.cyclegan.training import CycleGANOptions, CycleGANTraining
from nst.deepdream.method import DeepDream
from nst.features import build_features
from nst.features.weights import published_bytes
from nst.feed_forward.files import painter_file
from nst.feed_forward.method import FeedForward
from nst.feed_forward.networks import Painter, PainterConfig
from nst.feed_forward.options import PainterOptions, StyleTrainingOptions
from nst.feed_forward.published import TransformationNetwork
from nst.feed_forward.style_training import StyleTraining, pictures_of
from nst.feed_forward.training import PainterTraining
from nst.images.codec import encode_image, levels_of
from nst.modulated.method import Modulated, ModulatedConfig, modulated_file
from nst.modulated.training import ManyStylesOptions, ManyStylesTraining
from nst.style_transfer.method import StyleTransfer
from nst.stylizer import Assets, Method, Outcome, Stylizer

__all__ = ["CALLS", "STEPS", "Call", "photo"]


def photo(seed: int, height: int = 32, width: int = 40) -> Tensor:
    """A smooth picture (3, height, width)."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=random)
    fine = torch.rand(3, height, width, generator=random)
    large = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return (0.8 * large + 0.2 * fine).clamp(0, 1)


@cache
def _picture(name: str) -> bytes:
    return encode_image(photo(sum(map(ord, name)), 34, 38), format="png")


@cache
def _generator(**options: Any) -> bytes:
    config = GeneratorConfig(**{"generator": "resnet_6blocks", "channels": 4, **options})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return generator_file({"A2B": config.build()}, config)


@cache
def _modulated(form: Any = "scaled") -> bytes:
    config = ModulatedConfig(styles=("photo", "ink"), channels=4, blocks=1, latent=8, form=form)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return modulated_file(config.build(), config)


@cache
def _painter() -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return painter_file(Painter(PainterConfig(half=6, quarter=8, eighth=10)))


@cache
def _published() -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return safetensors.torch.save(TransformationNetwork().state_dict())


_WEIGHTS: Mapping[str, Callable[[], bytes]] = {
    "/resnet": _generator,
    "/unet": lambda: _generator(generator="unet_128"),
    "/gray": lambda: _generator(input_channels=1, upsample="blur"),
    "/scaled": _modulated,
    "/grouped": lambda: _modulated("grouped"),
    "/painter": _painter,
    "/published": _published,
}


@dataclass(frozen=True)
class Call:
    """A call of a method's stylizer."""

    method: Any
    photos: tuple[tuple[int, int], ...] = ((32, 40),)
    """Heights and widths."""
    styles: tuple[str | None, ...] | None = None
    levels: bool = False
    """Whether photographs are uint8."""

    def assets(self) -> Assets:
        found = {}
        for ref in cast(Method, self.method).assets():
            if ref.kind == "image":
                found[ref.url] = _picture(ref.url)
            else:
                found[ref.url] = _WEIGHTS[ref.url]() if ref.url in _WEIGHTS else published_bytes(ref.url)
        return found

    def build(self, device: torch.device) -> Stylizer:
        return cast(Method, self.method).build(self.assets(), device)

    def images(self) -> list[Tensor]:
        photos = [photo(seed, *size) for seed, size in enumerate(self.photos)]
        return [levels_of(each) for each in photos] if self.levels else photos

    def run(self, stylizer: Stylizer) -> list[Outcome]:
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(self.photos))]
        styles: dict[str, Any] = {} if self.styles is None else {"styles": self.styles}
        return stylizer(self.images(), generators, **styles)


THREE = ((32, 40), (36, 33), (32, 40))
SHALLOW: dict[str, Any] = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5}}


def _style(**options: Any) -> StyleTransfer:
    """Four steps at one size, of Gram matrices."""
    usual = {"style": "/s", "network": "embedded", "style_loss": "gram", "coarse_scales": (), "steps": 4}
    return StyleTransfer(**{"precision": "float32", **usual, **options})


def _preset(name: str, **options: Any) -> Call:
    few: dict[str, Any] = {"steps": 3, "coarse_steps": 2, "precision": "float32"}
    return Call(StyleTransfer(style="/s", network="embedded", preset=name, **few, **options))


def _tiles(**options: Any) -> Call:
    return Call(_style(**{**SHALLOW, "pass_memory_mb": 2, "steps": 2, **options}), ((48, 64),))


def _dream(**options: Any) -> DeepDream:
    return DeepDream(**{"network": "embedded", "steps": 2, "octaves": 2, "layers": {"relu3_1": 1.0}, **options})


def _fast(**options: Any) -> FeedForward:
    usual: dict[str, Any] = {"weights": "/painter", "precision": "float32"}
    if options.get("weights") != "/published":
        usual["style"] = "/s"
    return FeedForward(**{**usual, **options})


_TWO: dict[str, Any] = {"style": ("/a", "/b"), "style_masks": ("/m", "/n")}
_STYLE = {
    **{f"preset {name}": _preset(name) for name in ("embedded", "pretrained", "gatys", "tutorial")},
    "preset seeded": _preset("seeded", weights="seeded"),
    "gram": Call(_style(), THREE),
    "adam": Call(_style(optimizer="adam"), THREE),
    "averaged": Call(_style(optimizer="adam", average_iterates=0.5)),
    "bfloat16": Call(_style(precision="bfloat16", refine_steps=2, steps=6)),
    "normalized": Call(_style(normalize_gradients=True, tv_weight=1.0, loss_scale="paper")),
    "coarse": Call(_style(coarse_scales=(0.25, 0.5), coarse_steps=3, stop_tolerance=0.5, border_px=8)),
    "luminance": Call(_style(preserve_color="luminance")),
    "match": Call(_style(preserve_color="match")),
    "original": Call(_style(preserve_color="original", tv_weight=1.0)),
    "noise": Call(_style(init="noise", curve=True, frame_every=2)),
    "gray": Call(_style(init="gray", pooling="l2", rescale_pooling=True)),
    "picture": Call(_style(init="picture", init_picture="/p", style_side_px=24)),
    "feed_forward": Call(_style(init="feed_forward", init_weights="/painter")),
    "blend": Call(
        _style(style=("/a", "/b"), style_blend=(1.0, 3.0), gram_normalization="chw", style_scale=1.5)
    ),
    "masks": Call(_style(**_TWO)),
    "wasserstein masks": Call(_style(**_TWO, style_loss="wasserstein", loss_scale="mean")),
    "graphs": Call(_style(cuda_graphs=True, coarse_scales=(0.5,), coarse_steps=4, tv_weight=1.0, steps=6)),
    "graphs bfloat16": Call(_style(cuda_graphs=True, precision="bfloat16", refine_steps=5, steps=10)),
    "graphs wasserstein": Call(_style(cuda_graphs=True, style_loss="wasserstein", loss_scale="mean", **_TWO)),
    "fused": Call(_style(fused_relu=True)),
    "fused bfloat16": Call(
        _style(fused_relu=True, cuda_graphs=True, precision="bfloat16", refine_steps=2, steps=6)
    ),
    "uphill": Call(_style(learning_rate=30.0, steps=8)),
    "short history": Call(_style(history_size=2, steps=8)),
    "tiles": _tiles(),
    "tiles normalized": _tiles(normalize_gradients=True, tv_weight=1.0),
    "tiles masks": _tiles(**_TWO, loss_scale="relative"),
    "tiles wasserstein": _tiles(style_loss="wasserstein", loss_scale="paper", precision="bfloat16"),
}
_DREAMS = {
    "plain": Call(_dream(deterministic=False), ((64, 70), (64, 70))),
    "guided": Call(_dream(relu_backward="guided"), ((40, 44),)),
    "deconv": Call(_dream(relu_backward="deconv", octaves=1), ((40, 44),)),
    "redirected": Call(_dream(relu_backward="redirected", redirected_steps=1, layers={"relu3_1:3": 1.0})),
    "channels": Call(
        _dream(network="vgg16", weights="seeded", layers={"relu1_2": 1.0, "relu1_1:3": 2.0}, octaves=1)
    ),
    "guide": Call(_dream(guide="/g", guide_side_px=30)),
    "zoom": Call(_dream(zoom_frames=2, steps=1, octaves=1, curve=True)),
    "blur": Call(_dream(gradient_blur_px=1.0, border_px=4, jitter_px=3, octaves=1)),
    "graphs": Call(_dream(cuda_graphs=True, steps=5, relu_backward="redirected", redirected_steps=2)),
    "graphs guide": Call(_dream(cuda_graphs=True, steps=4, guide="/g", gradient_blur_px=1.0, octaves=1)),
    "tiles": Call(_dream(pass_memory_mb=2, layers={"relu2_1": 1.0}, octaves=1), ((60, 70),)),
}
_GENERATORS = {
    "cyclegan resnet": Call(CycleGAN(weights="/resnet", deterministic=False), THREE),
    "cyclegan unet": Call(CycleGAN(weights="/unet"), ((128, 128), (100, 120))),
    "cyclegan gray": Call(CycleGAN(weights="/gray")),
    "cyclegan bands": Call(CycleGAN(weights="/resnet", pass_memory_mb=1), ((40, 200),)),
    "cyclegan bfloat16": Call(CycleGAN(weights="/resnet", precision="bfloat16"), levels=True),
    "modulated bfloat16": Call(Modulated(generator="/scaled", style="ink", precision="bfloat16"), levels=True),
    "modulated": Call(Modulated(generator="/scaled", style="ink"), THREE, (None, "photo", None)),
    "modulated blend": Call(Modulated(generator="/grouped", style={"photo": 0.3, "ink": 0.7}), THREE),
    "modulated shared": Call(Modulated(generator="/scaled", style="ink", deterministic=False), THREE),
    "modulated bands": Call(Modulated(generator="/scaled", style="ink", pass_memory_mb=1), ((40, 200),)),
}
_FAST = {
    "fast": Call(_fast(), THREE[:2]),
    "fast shipped": Call(_fast(weights="embedded")),
    "fast bfloat16": Call(_fast(precision="bfloat16")),
    "fast blend": Call(_fast(style=("/a", "/b"), style_blend=(1.0, 2.0)), THREE[:2], (None, "b")),
    "fast masks": Call(_fast(**_TWO)),
    "fast weak": Call(_fast(strength=0.1)),
    "fast half": Call(_fast(strength=0.6)),
    **{f"fast {name}": Call(_fast(preserve_color=name)) for name in ("luminance", "match", "original")},
    "fast sequence": Call(_fast(reference="/r"), ((32, 40), (32, 40))),
    "fast larger": Call(_fast(stroke_side_px=24, preserve_color="original"), ((40, 300),)),
    "fast levels": Call(_fast(stroke_side_px=24, preserve_color="original"), ((40, 300),), levels=True),
    "fast tiles": Call(_fast(pass_memory_mb=5), ((40, 300),)),
    "fast published": Call(_fast(weights="/published"), ((33, 40),)),
    "fast published half": Call(_fast(weights="/published", strength=0.5, precision="bfloat16")),
}
CALLS: Mapping[str, Mapping[str, Call]] = {
    "style": _STYLE,
    "dream": _DREAMS,
    "generators": _GENERATORS,
    "fast": _FAST,
}
"""Calls by name, by kind of method."""

# Trainings

Step = Callable[[], dict[str, Any]]
"""A training's next step; gives its losses."""


def _images(device: torch.device, count: int, side: int, collections: int = 2) -> list[Tensor]:
    of_each = (range(count * place, count * place + count) for place in range(collections))
    batches = [torch.stack([2 * photo(seed, side, side) - 1 for seed in seeds]) for seeds in of_each]
    return [each.to(device) for each in batches]


def _cyclegan(device: torch.device, **options: Any) -> Step:
    small = {
        "generator": "resnet_6blocks",
        "generator_channels": 4,
        "discriminator_channels": 4,
        "ema_decay": 0.9,
    }
    training = CycleGANTraining(CycleGANOptions(**{**small, **options}), device=device)
    images = _images(device, 1, 32)
    return lambda: training.step(images)


def _many_styles(device: torch.device, **options: Any) -> Step:
    small = {"generator_channels": 4, "blocks": 1, "latent": 8, "discriminator_channels": 4}
    training = ManyStylesTraining(
        ManyStylesOptions(styles=("photo", "ink"), **{**small, **options}), device=device
    )
    images = _images(device, 2, 32)
    return lambda: training.step(images)


_PAINTER: dict[str, Any] = {
    "half": 6,
    "quarter": 8,
    "eighth": 10,
    "side": 16,
    "teacher": "embedded",
    "teacher_weights": "seeded",
    "content_layer": "relu2_1",
    "style_layers": ("relu1_1", "relu2_1"),
}


def _style_training(device: torch.device, **options: Any) -> Step:
    given = StyleTrainingOptions(
        style=("/a", "/b"), pieces=2, reference_side=24, painter=None, **{**_PAINTER, **options}
    )
    training = StyleTraining(given, seed=1, device=device)
    assets = {name: _picture(name) for name in ("/a", "/b")}
    training.learn_from(build_features("embedded", given.layers), pictures_of(given, assets))
    images = _images(device, 2, 40, 1)
    return lambda: training.step(images)


def _painter_training(device: torch.device, **options: Any) -> Step:
    given = PainterOptions(warmup_steps=1, **{**_PAINTER, **options})
    training = PainterTraining(given, seed=1, device=device)
    training.learn_from(build_features("embedded", given.layers))
    images = _images(device, 4, 40, 3)
    return lambda: training.step(images)


def _adaptation(device: torch.device, **options: Any) -> Step:
    method = _fast(adapt_steps=3, **options)
    adaptation = method.adaptation(Call(method).assets(), device, 0)
    photos: Sequence[Any] = [adaptation.prepared(levels_of(photo(1, 40, 48)))]
    return lambda: adaptation.step(photos)


STEPS: Mapping[str, Callable[[torch.device], Step]] = {
    "cyclegan": _cyclegan,
    "cyclegan bfloat16": lambda device: _cyclegan(device, precision="bfloat16"),
    "cyclegan float16": lambda device: _cyclegan(device, precision="float16", max_gradient_norm=1.0),
    "cyclegan wgangp": lambda device: _cyclegan(device, gan_mode="wgangp", critic_steps=2, spectral_norm=True),
    "cyclegan blur": lambda device: _cyclegan(device, upsample="blur", penalty="r1"),
    "cyclegan batch": lambda device: _cyclegan(device, norm="batch", gan_mode="hinge", lambda_identity=0.0),
    "many styles": _many_styles,
    "many styles bfloat16": lambda device: _many_styles(device, precision="bfloat16", lambda_identity=0.5),
    "style training": _style_training,
    "style training bfloat16": lambda device: _style_training(device, precision="bfloat16"),
    "painter training": _painter_training,
    "painter training bfloat16": lambda device: _painter_training(device, precision="bfloat16"),
    "adaptation": _adaptation,
}
"""Trainings by name: given a device, what does their next step."""
