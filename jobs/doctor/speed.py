"""How long a photograph takes on a device: timed, a few seconds each."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch

from jobs.doctor.facts import Quality, Speed
from jobs.doctor.self_check import STYLE, assets, photograph
from jobs.driver.estimate import measure_cost
from nst.deepdream.method import DeepDream
from nst.features import build_features
from nst.feed_forward.method import FeedForward
from nst.images.codec import decode_image, encode_image
from nst.style_transfer.method import StyleTransfer
from nst.stylizer import Outcome, Stylized

__all__ = ["MEASURED", "best_bytes_per_pixel"]

_BEST = StyleTransfer(style=STYLE)
_DREAM = DeepDream(network="embedded")
_MEGAPIXEL = 864, 1152
_USUAL = 384, 512
"""Height and width of a photograph as `max_side_px` is by default."""


def _draft(device: torch.device) -> Speed:
    stylizer = FeedForward(style=STYLE).build(assets(), device)
    photo, generator = photograph(*_MEGAPIXEL), torch.Generator()
    warm = photograph(*_USUAL) if device.type == "cpu" else photo
    stylizer([warm], [generator])
    took = _timed(lambda: stylizer([photo], [generator])[0])
    return _speed("draft", _MEGAPIXEL, took)


def _by_steps(quality: Quality, method: StyleTransfer | DeepDream, device: torch.device) -> Speed:
    """Some steps on a CPU, where the rest is taken to be alike; on a GPU, where small pictures take as long as
    larger ones, a whole photograph."""
    height, width = _USUAL
    if device.type == "cpu":
        cost = measure_cost(method, assets(), [(width, height)], threads=1)
        return _speed(quality, _USUAL, cost.seconds, cost.memory_bytes)
    stylizer = method.build(assets(), device)
    photo, generator = photograph(*_USUAL), torch.Generator().manual_seed(0)
    for _ in itertools.islice(stylizer.iterate(photo, generator), 3):
        pass
    torch.cuda.reset_peak_memory_stats(device)
    took = _timed(lambda: stylizer([photo], [generator])[0])
    return _speed(quality, _USUAL, took, torch.cuda.max_memory_allocated(device))


def best_bytes_per_pixel(device: torch.device, speeds: Sequence[Speed]) -> float:
    """Memory of `best` for each pixel: measured on a GPU, counted otherwise."""
    for speed in speeds:
        if device.type != "cpu" and speed.quality == "best" and speed.memory_bytes is not None:
            return speed.memory_bytes / (speed.width * speed.height)
    layers = [*(_BEST.content_layers or ()), *(_BEST.style_layers or ())]
    geometry = build_features("embedded", layers).geometry
    assert geometry is not None
    pixels = math.prod(_USUAL)
    return geometry.bytes_per_pixel + _BEST.kept_bytes(pixels, device) / pixels


def _timed(work: Callable[[], Outcome]) -> float:
    """Seconds that a picture takes to be made, and to be on the CPU. Raises ImageError: it cannot be made."""
    began = time.perf_counter()
    outcome = work()
    if not isinstance(outcome, Stylized):
        raise outcome
    return time.perf_counter() - began


def _speed(quality: Quality, size: tuple[int, int], seconds: float, memory_bytes: int | None = None) -> Speed:
    photo = photograph(*size)
    began = time.perf_counter()
    decode_image(encode_image(photo))
    return Speed(
        quality=quality,
        width=size[1],
        height=size[0],
        seconds=seconds,
        file_seconds=time.perf_counter() - began,
        memory_bytes=memory_bytes,
    )


MEASURED: Mapping[Quality, Callable[[torch.device], Speed]] = MappingProxyType(
    {
        "draft": _draft,
        "best": lambda device: _by_steps("best", _BEST, device),
        "dream": lambda device: _by_steps("dream", _DREAM, device),
    }
)
