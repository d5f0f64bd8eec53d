"""Whether a device computes what the CPU computes in float64, on small pictures and without a download."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jobs.doctor.facts import Check, attempt
from nst.cyclegan.method import CycleGAN, GeneratorConfig, generator_file
from nst.deepdream.method import DeepDream
from nst.features import build_features, read_state_dict
from nst.features.weights import published_bytes
from nst.feed_forward.method import SHIPPED, FeedForward
from nst.feed_forward.stylizer import FeedForwardStylizer
from nst.images.codec import decode_image, resize_image
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from nst.styles import PREFIX, style_bytes
from nst.stylizer import Stylized, mean_change, select
from nst.synthetic import fractal

if TYPE_CHECKING:
    from nst.optim.descent import Evaluation
    from nst.stylizer import Stylizer

__all__ = ["STYLE", "assets", "photograph", "self_check", "short_check"]

STYLE = PREFIX + "swirls"
_SIZE = 96, 128
"""Height and width of the photograph."""
_TRIED = StyleTransfer(style=STYLE, steps=40, coarse_scales=(), precision="float32")
_LEAST_CHANGE = 0.002
"""Mean change of a pixel from which a picture is another than the photograph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Precision:
    """What a device may be off by, some ten times what a sound one was seen to be."""

    name: str
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    """Whether convolutions may round their factors to TF32, as GPUs do where it is not forbidden."""
    losses: float
    """Error of each loss, relative to the loss."""
    gradient: float
    """Length of the gradient's error, relative to the gradient's."""
    levels: float
    """Mean difference of two pictures' pixels, in gray levels."""


_FLOAT32 = _Precision(name="float32", losses=1e-4, gradient=1e-3, levels=0.05)
_TF32 = _Precision(name="TF32", tf32=True, losses=5e-3, gradient=5e-2, levels=0.5)
_BFLOAT16 = _Precision(name="bfloat16", dtype=torch.bfloat16, losses=3e-2, gradient=0.15, levels=2.0)


def self_check(device: torch.device) -> Iterator[Check]:
    """Check a device: what is off, and what cannot be computed, is a failed check."""
    precisions = [_FLOAT32, _BFLOAT16] if device.type == "cpu" else [_FLOAT32, _TF32, _BFLOAT16]
    for precision in precisions:
        yield attempt(f"losses and gradient, {precision.name}", partial(_check_objective, device, precision))
    for name, method in (
        (
            "style_transfer",
            StyleTransfer(style=STYLE, steps=4, coarse_scales=(), precision="float32", curve=True),
        ),
        ("deepdream", DeepDream(network="embedded", octaves=2, steps=2, curve=True)),
    ):
        yield attempt(name, partial(_check_steps, method.build, device))
    for precision in precisions:
        yield attempt(f"feed_forward, {precision.name}", partial(_check_painter, device, precision))
    yield attempt("cyclegan, float32", partial(_check_generator, device))
    if device.type == "cuda":
        yield attempt("CUDA graphs", partial(_try, "cuda_graphs", device))
        yield attempt("convolutions with their ReLUs", partial(_try, "fused_relu", device))


def short_check(device: torch.device) -> Check:
    """The first of them, about a second."""
    return attempt("losses and gradient, float32", partial(_check_objective, device, _FLOAT32))


@cache
def photograph(height: int, width: int) -> Tensor:
    """A picture (3, H, W) in [0, 1], the same everywhere."""
    levels = torch.from_numpy(fractal((height, width), seed=7))
    return levels.permute(2, 0, 1).to(torch.float32).div(255).contiguous()


@cache
def assets() -> Mapping[str, bytes]:
    """Networks and style, which all come along."""
    found = {name: published_bytes(name) for name in ("nst:embedded", SHIPPED)}
    return {**found, STYLE: style_bytes(STYLE)}


@contextmanager
def _convolutions(tf32: bool) -> Iterator[None]:
    """How convolutions of float32 are computed on GPUs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _check_objective(device: torch.device, precision: _Precision) -> tuple[bool, str]:
    reference = _reference()
    with _convolutions(precision.tf32):
        found = _evaluated(device, torch.float32, precision.dtype)
    each = [abs(found.losses[name] - loss) / abs(loss) for name, loss in reference.losses.items() if loss]
    losses = float(torch.tensor(each).max())  # which is NaN if one is
    gradient = float((found.grad.to(reference.grad) - reference.grad).norm() / reference.grad.norm())
    return losses <= precision.losses and gradient <= precision.gradient, (
        f"losses off by {losses:.1e} ({precision.losses:g} allowed), "
        f"gradient by {gradient:.1e} ({precision.gradient:g})"
    )


@cache
def _reference() -> Evaluation:
    return _evaluated(torch.device("cpu"), torch.float64, None)


def _evaluated(device: torch.device, dtype: torch.dtype, activations: torch.dtype | None) -> Evaluation:
    """The losses of style transfer, and their gradient, at a picture between the photograph and its mirror
    image."""
    method = StyleTransfer(style=STYLE)
    assert method.content_layers is not None
    assert method.style_layers is not None
    network = build_features(
        "embedded",
        [*method.content_layers, *method.style_layers],
        state=read_state_dict(assets()["nst:embedded"]),
        pooling=method.pooling,
        unit_activations=True,
    ).to(device, dtype)
    style = resize_image(decode_image(assets()[STYLE]), _SIZE).to(device, dtype)
    objective = StyleObjective(
        network, style, select(ObjectiveOptions, method, share_passes=False, max_pass_pixels=None)
    )
    photo = photograph(*_SIZE).to(device, dtype)
    (found,) = objective.evaluate([photo.lerp(photo.flip(2), 0.2)], [objective.targets(photo)], activations)
    return found


def _check_steps(build: Callable[..., Stylizer], device: torch.device) -> tuple[bool, str]:
    """A method that goes step by step: the loss falls, or the dream's objective rises."""
    found = _stylized(build(assets(), device))
    name = "loss" if "loss" in found.curve else "objective"
    values = found.curve[name]
    there = values[-1] < values[0] if name == "loss" else values[-1] > values[0]
    change = mean_change(found.image, photograph(*_SIZE))
    return there and _is_other(found.image, change), (
        f"{name} from {values[0]:.4g} to {values[-1]:.4g} in {len(values)} steps, "
        f"pixels changed by {change:.3f}"
    )


def _try(option: str, device: torch.device) -> tuple[bool, str]:
    """Whether an option of style transfer is worth it here. A GPU is as sound without."""
    seconds, pictures = [], []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", RuntimeWarning)
        for value in (False, True):
            changed: dict[str, Any] = {option: value}
            stylizer = replace(_TRIED, **changed).build(assets(), device)
            _stylized(stylizer)  # libraries begin
            began = time.perf_counter()
            found = _stylized(stylizer)
            seconds.append((time.perf_counter() - began) / found.stats["evaluations"])
            pictures.append(found.image)
    off = 255 * mean_change(*pictures)
    if said or off > _TF32.levels:
        reason = said[0].message if said else f"off by {off:.2g} levels"
        return True, f"leave method.{option} = false: {reason}"
    without, with_it = (1000 * each for each in seconds)
    advice = f"set method.{option} = true for small photographs" if with_it < without else "no gain"
    return True, f"{with_it:.2g} ms a step, {without:.2g} without; {advice}"


def _check_painter(device: torch.device, precision: _Precision) -> tuple[bool, str]:
    with _convolutions(precision.tf32):
        found = _painted(device, precision.dtype)
    return _compared(found, _painted(torch.device("cpu"), torch.float64), precision)


def _painted(device: torch.device, dtype: torch.dtype) -> Tensor:
    method = FeedForward(style=STYLE, precision="bfloat16" if dtype == torch.bfloat16 else "float32")
    stylizer = method.build(assets(), device)
    assert isinstance(stylizer, FeedForwardStylizer)
    return _stylized(stylizer.in_float64() if dtype == torch.float64 else stylizer).image


def _check_generator(device: torch.device) -> tuple[bool, str]:
    with _convolutions(tf32=False):
        found = _translated(device, torch.float32)
    return _compared(found, _translated(torch.device("cpu"), torch.float64), _FLOAT32)


def _translated(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The photograph through a small generator with random parameters."""
    config = GeneratorConfig(generator="resnet_6blocks", channels=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        file = generator_file({"A2B": config.build()}, config)
    stylizer = CycleGAN(weights="generator").build({"generator": file}, device)
    stylizer.network.to(dtype)
    return stylizer.translate(photograph(*_SIZE)[None].to(device, dtype))[0].to("cpu", torch.float32)


def _stylized(stylizer: Stylizer) -> Stylized:
    (outcome,) = stylizer([photograph(*_SIZE)], [torch.Generator().manual_seed(0)])
    if not isinstance(outcome, Stylized):
        raise outcome
    return outcome


def _compared(found: Tensor, reference: Tensor, precision: _Precision) -> tuple[bool, str]:
    """A picture beside what it should be."""
    off = 255 * mean_change(found, reference)
    change = mean_change(found, photograph(*_SIZE))
    return off <= precision.levels and _is_other(found, change), (
        f"off by {off:.2g} gray levels ({precision.levels:g} allowed), pixels changed by {change:.3f}"
    )


def _is_other(picture: Tensor, change: float) -> bool:
    return bool(picture.isfinite().all()) and change >= _LEAST_CHANGE
