"""Which generator a state dict is of, by its names and shapes: files of the public implementation do not say
it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["recognized_options"]

_BLOCK = re.compile(r"model\.(\d+)\.conv_block\.(\d+)\.weight")
# The places of the two convolutions within a block: padding is a layer of its own, and so is dropout.
_CONVOLUTIONS: Mapping[tuple[int, ...], Mapping[str, str | int | bool]] = {
    (1, 5): {"padding": "reflect", "dropout": False},
    (1, 6): {"padding": "reflect", "dropout": True},
    (0, 3): {"padding": "zero", "dropout": False},
    (0, 4): {"padding": "zero", "dropout": True},
}


def recognized_options(state: Mapping[str, Tensor]) -> dict[str, str | int | bool]:
    """Options of `GeneratorConfig` that the parameters tell; none if they are not of a generator.

    They do not tell `reflect` padding, which is assumed, from `replicate`, nor a U-Net's dropout, which does
    nothing when it is applied.
    """
    first = state.get("model.1.weight")
    if first is not None and first.shape[2:] == (7, 7):
        return _resnet(state, first)
    first = state.get("model.model.0.weight")
    if first is not None and first.shape[2:] == (4, 4):
        return _unet(state)
    return {}


def _resnet(state: Mapping[str, Tensor], first: Tensor) -> dict[str, str | int | bool]:
    found = [match for name, each in state.items() if each.ndim == 4 and (match := _BLOCK.fullmatch(name))]
    blocks = sorted({int(match[1]) for match in found})
    options = _common(state, "model.1", "model.2")
    if not blocks:
        return options
    options["generator"] = f"resnet_{len(blocks)}blocks"
    places = tuple(sorted(int(match[2]) for match in found if int(match[1]) == blocks[0]))
    options |= _CONVOLUTIONS.get(places, {})
    up = state.get(f"model.{blocks[-1] + 1}.weight")
    if up is not None and up.shape[:2] == (2 * len(first), 4 * len(first)):
        options["upsample"] = "blur"
    last = state.get(f"model.{blocks[-1] + 8}.weight")
    return options if last is None else {**options, "output_channels": len(last)}


def _unet(state: Mapping[str, Tensor]) -> dict[str, str | int | bool]:
    levels = sum(each.ndim == 4 for each in state.values()) // 2
    options = _common(state, "model.model.0", "model.model.1.model.2")
    last = state.get("model.model.3.weight")
    given = {} if last is None or last.ndim != 4 else {"output_channels": last.shape[1]}
    return {"generator": f"unet_{1 << levels}", **options, **given}


def _common(state: Mapping[str, Tensor], first: str, norm: str) -> dict[str, str | int | bool]:
    weight = state[f"{first}.weight"]
    return {"channels": len(weight), "input_channels": weight.shape[1], "norm": _norm(state, first, norm)}


def _norm(state: Mapping[str, Tensor], convolution: str, norm: str) -> str:
    """Instance norms have no parameters, and the convolutions before them have a bias."""
    if f"{norm}.weight" in state:
        return "batch"
    return "instance" if f"{convolution}.bias" in state else "none"
