"""Random small jobs of style transfer: whatever is asked for, a usable picture or a typed error comes back."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from nst.errors import ImageTooSmall, OptionError
from nst.features import build_features, read_state_dict
from nst.features.weights import published_bytes
from nst.images.codec import resize_image
from nst.style_transfer.method import StyleTransfer, StyleTransferStylizer
from nst.stylizer import Stylized

pytestmark = pytest.mark.usefixtures("narrow_vggs")

JOBS, QUICK = 1000, 30
LAYERS = (
    "conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1", "relu2_2", "pool2", "relu3_1",
)  # fmt: skip
KINDS = ("flat", "black", "white", "noise", "gradient", "smooth", "checkers")


@cache
def state(network: str) -> Mapping[str, Tensor]:
    if network == "embedded":
        return read_state_dict(published_bytes("nst:embedded"))
    return build_features(network, [LAYERS[-1]]).body.state_dict()


@dataclass(frozen=True)
class Job:
    options: dict[str, Any]
    photos: list[Tensor]
    styles: list[Tensor]
    masks: list[Tensor] | None
    init: Tensor | None
    share_passes: bool
    """As on GPUs, which no option does on a CPU."""

    def build(self) -> StyleTransferStylizer:
        method = StyleTransfer(**self.options)
        it = method.build_from(
            self.styles, state(method.network), torch.device("cpu"), masks=self.masks, init=self.init
        )
        it.objective.options = dataclasses.replace(it.objective.options, share_passes=self.share_passes)
        return it


class Draw:
    """Everything comes from one number."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def side(self, longest: int) -> int:
        """Small ones as often as large ones."""
        return round(math.exp(self.random.uniform(0, math.log(longest))))

    def size(self) -> tuple[int, int]:
        if self.chance(0.01):
            return self.random.randint(100, 300), self.random.randint(100, 300)
        if self.chance(0.15):  # a strip
            thick, long = self.side(12), self.random.randint(60, 300)
            return (thick, long) if self.chance(0.5) else (long, thick)
        if self.chance(0.15):
            return self.side(60), self.side(60)
        return self.random.randint(8, 48), self.random.randint(8, 48)

    def picture(self, size: tuple[int, int] | None = None) -> Tensor:
        height, width = size or self.size()
        kind = self.random.choice(KINDS)
        low, high = torch.rand(2, 3, 1, 1, generator=self.torch)
        if kind == "noise":
            return torch.rand(3, height, width, generator=self.torch)
        if kind == "smooth":
            coarse = torch.rand(3, 4, 5, generator=self.torch)
            return resize_image(coarse, (height, width)).contiguous()
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
        if kind == "gradient":
            share = (rows / max(1, height - 1) + columns / max(1, width - 1)) / 2
        elif kind == "checkers":
            share = ((rows // 3 + columns // 3) % 2).float()
        else:
            level = {"black": 0.0, "white": 1.0}.get(kind)
            flat = low if level is None else torch.full((3, 1, 1), level)
            return flat.expand(3, height, width).contiguous()
        mixed: Tensor = low + (high - low) * share
        return mixed

    def mask(self) -> Tensor:
        size = (self.side(40), self.side(40))
        kind = self.random.choice(("white", "black", "half", "noise"))
        if kind == "noise":
            return torch.rand(1, *size, generator=self.torch)
        mask = torch.full((1, *size), float(kind == "white"))
        if kind == "half":
            mask[..., : size[1] // 2] = 1
        return mask

    def layers(self, most: int) -> dict[str, float]:
        reach = 6 if self.chance(0.6) else len(LAYERS)
        names = self.random.sample(LAYERS[:reach], self.random.randint(1, most))
        return {name: self.random.choice((0.01, 1.0, 5.0)) for name in names}

    def job(self) -> Job:
        pick, chance = self.random.choice, self.chance
        count = 1 if chance(0.6) else self.random.randint(2, 3)
        options: dict[str, Any] = {
            "style": "style" if count == 1 and chance(0.5) else ("style",) * count,
            "network": "embedded" if chance(0.75) else "vgg16",
            "preset": pick(("pretrained", "gatys", "tutorial", "embedded", "seeded")),
            "steps": self.random.randint(1, 5),
            "coarse_scales": pick(((), (), (0.5,), (0.1, 0.6))),
            "coarse_steps": self.random.randint(1, 3),
            "curve": True,
        }
        if options["network"] == "vgg16":
            options["weights"] = "seeded"
        if options["preset"] not in ("embedded", "pretrained") or options["network"] == "vgg16" or chance(0.8):
            options |= {"content_layers": self.layers(2), "style_layers": self.layers(3)}
        masked = chance(0.3)
        others: dict[str, Any] = {
            "style_blend": tuple(self.random.uniform(0.1, 9) for _ in range(count)),
            "content_weight": pick((0.01, 1.0, 1e3)),
            "style_weight": pick((0.0, 1.0, 1e3, 1e6, 1e10)),
            "tv_weight": pick((0.1, 10.0)),
            "style_loss": pick(("gram", "wasserstein")),
            "gram_normalization": pick(("hw", "chw")),
            "loss_scale": pick(("mean", "paper", "relative")),
            "normalize_gradients": True,
            "pooling": pick(("max", "average", "l2")),
            "style_scale": pick((0.3, 0.7, 1.5, 2.5)),
            "border_px": pick((0, 3, 16, 100)),
            "average_iterates": pick((0.5, 0.99)),
            "rescale_pooling": True,
            "preserve_color": pick(("luminance", "match", "original")),
            "optimizer": "adam",
            "learning_rate": pick((0.1, 1.0, 3.0)),
            "history_size": pick((1, 2, 5)),
            "stop_tolerance": pick((0.01, 0.5)),
            "refine_steps": pick((0, 1, 3)),
            "pass_memory_mb": pick((4, 16)),
            "frame_every": pick((1, 3)),
            "deterministic": False,
        }
        options |= {name: value for name, value in others.items() if chance(0.3)}
        if chance(0.12):  # slow on CPUs without AMX
            options["precision"] = "bfloat16"
        if masked:
            options["style_masks"] = ("mask",) * count
        options["init"] = pick(("photo", "photo", "noise", "gray", "picture"))
        if options["init"] == "picture":
            options["init_picture"] = "init"
        photos = [self.picture() for _ in range(1 if chance(0.5) else self.random.randint(2, 4))]
        if len(photos) > 1 and chance(0.3):
            photos.append(self.picture((photos[0].shape[1], photos[0].shape[2])))
        return Job(
            options=options,
            photos=photos,
            styles=[self.picture() for _ in range(count)],
            masks=[self.mask() for _ in range(count)] if masked else None,
            init=self.picture() if options["init"] == "picture" else None,
            share_passes=chance(0.5),
        )


def contrast(picture: Tensor) -> float:
    """The largest difference between two pixels in a channel."""
    return float((picture.amax((1, 2)) - picture.amin((1, 2))).max())


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed >= QUICK else []) for seed in range(JOBS)]
)
def test_a_usable_picture_or_a_typed_error(seed: int) -> None:
    job = Draw(seed).job()
    try:
        it = job.build()
    except OptionError as error:
        if error.option in (
            "pass_memory_mb",
            "content_layers",
            "style_layers",
            "gram_normalization",
            "rescale_pooling",
        ):
            return  # what was drawn does not go together
        raise
    kept = [photo.clone() for photo in job.photos]
    outcomes = it(job.photos, [torch.Generator().manual_seed(n) for n in range(len(job.photos))])
    for photo, before, outcome in zip(job.photos, kept, outcomes, strict=True):
        assert torch.equal(photo, before), "photographs are not modified"
        if isinstance(outcome, ImageTooSmall):
            too_small = min(photo.shape[1:]) < it.objective.network.min_side_px
            assert too_small or "style picture" in str(outcome)
            continue
        # `Diverged` would be typed too; but nothing here is difficult enough for it.
        assert isinstance(outcome, Stylized), outcome
        check_picture(job, photo, outcome)


def check_picture(job: Job, photo: Tensor, outcome: Stylized) -> None:
    picture, curve = outcome.image, outcome.curve
    assert picture.shape == photo.shape
    assert picture.dtype == torch.float32
    assert bool(picture.isfinite().all())
    assert 0 <= float(picture.min()) <= float(picture.max()) <= 1
    flat_start = (
        job.init is not None and contrast(resize_image(job.init, (photo.shape[1], photo.shape[2]))) < 0.1
    )
    flat_start |= job.options["init"] == "gray"
    if contrast(photo) > 0.1 and not flat_start:
        assert contrast(picture) > 0.02, "blank"
    assert all(math.isfinite(value) for value in outcome.stats.values())
    assert {len(values) for values in curve.values()} == {int(outcome.stats["evaluations"])}
    own_size = [loss for loss, scale in zip(curve["loss"], curve["scale"], strict=True) if scale == 1.0]
    if "average_iterates" in job.options:
        assert outcome.stats["loss"] == own_size[-1]
    elif "bfloat16" not in job.options.values():
        assert outcome.stats["loss"] == min(own_size)
    assert outcome.stats["loss"] in own_size
    for frame in outcome.frames:
        assert bool(frame.image.isfinite().all())
