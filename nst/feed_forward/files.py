"""Files of painters, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from nst.errors import OptionError, WeightsError
from nst.features import read_state_dict
from nst.features.weights import plain_names, read_metadata
from nst.feed_forward.coloring import Moments
from nst.feed_forward.learned import LearnedStyle, StyleName
from nst.feed_forward.networks import Painter, PainterConfig
from nst.gan.layers import load_published
from nst.gan.starting import read_states

__all__ = [
    "Learned",
    "is_painter",
    "names_in",
    "painter_config",
    "painter_file",
    "published_state",
    "read_learned",
    "read_names",
    "read_painter",
]

_CONFIG = "nst.painter"
_NETWORKS = ("painter", "sight", "styles")

Learned = list[tuple[StyleName, list[Moments]]]
"""Styles that a painter was trained for, and their moments at each place."""


def painter_file(
    painter: Painter, names: Sequence[StyleName] = (), styles: Sequence[LearnedStyle] = ()
) -> bytes:
    """The bytes of a .safetensors with it, in float16, its shape, and the styles that it was trained for, in
    float32. Equal input, equal bytes."""
    tensors = {
        f"painter.{name}": tensor.detach().to("cpu").half().contiguous()
        for name, tensor in painter.state_dict().items()
    }
    tensors |= {
        f"styles.{name}": tensor.detach().to("cpu").float().contiguous()
        for name, tensor in nn.ModuleList(styles).state_dict().items()
    }
    return safetensors.torch.save(tensors, metadata=painter_config(painter, names))


def painter_config(painter: Painter, names: Sequence[StyleName] = ()) -> dict[str, str]:
    """The shape of a painter, and its styles, as its file says them."""
    styles = {"styles": [each.table() for each in names]} if names else {}
    # One entry: safetensors writes several in any order.
    return {_CONFIG: json.dumps({**asdict(painter.config), **styles}, sort_keys=True)}


def read_painter(data: bytes, name: str) -> Painter:
    """The network of a file that `painter_file` wrote, or of a checkpoint, in the precision of the file.

    Raises:
        WeightsError: it is none.
    """
    text = read_metadata(data).get(_CONFIG)
    if text is None:
        raise WeightsError(
            f"{name} is no painter: it does not say its shape. `nst train` makes one with model.kind = "
            '"feed_forward"; the method kind = "cyclegan" or "modulated" takes other generators'
        )
    try:
        values = json.loads(text)
        known: dict[str, Any] = {item.name: int(values[item.name]) for item in fields(PainterConfig)}
        painter = Painter(PainterConfig(**known))
    except (ValueError, TypeError, KeyError, OptionError) as error:
        raise WeightsError(f"the shape in {name} is not one of a painter: {error}") from error
    state = _states(data, name).get("painter", {})
    load_published(painter, {key: value.half().float() for key, value in state.items()})
    return painter


def read_names(data: bytes) -> list[StyleName]:
    """The styles that the painter in a file was trained for; none, if it was for any.

    Raises:
        WeightsError: what the file says of them is damaged.
    """
    return names_in(read_metadata(data))


def names_in(config: Mapping[str, str]) -> list[StyleName]:
    """The same, of what `painter_config` gave."""
    try:
        said = json.loads(config.get(_CONFIG, "{}")).get("styles", [])
        return [StyleName(each["name"], each["sha256"]) for each in said]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"the styles in a painter's file are not readable: {error}") from error


def read_learned(data: bytes, name: str, painter: Painter) -> Learned:
    """The styles that the painter in a file was trained for.

    Raises:
        WeightsError: one is missing, or damaged.
    """
    state, found = _states(data, name).get("styles", {}), []
    for number, each in enumerate(read_names(data)):
        style = LearnedStyle(painter.config.colored).requires_grad_(False)
        prefix = f"{number}."
        load_published(style, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        found.append((each, style()))
    return found


def is_painter(data: bytes) -> bool:
    """Whether a file is what the method `feed_forward` takes. Raises WeightsError: it is not readable."""
    return _CONFIG in read_metadata(data) or published_state(data) is not None


def published_state(data: bytes) -> Mapping[str, Tensor] | None:
    """The parameters of a network of one style as PyTorch's examples publish them; None: it is another file.

    Raises:
        WeightsError: it is not readable.
    """
    if _CONFIG in read_metadata(data):
        return None
    state = plain_names(read_state_dict(data))
    return state if {"deconv3.conv2d.weight", "res1.conv1.conv2d.weight"} <= state.keys() else None


def _states(data: bytes, name: str) -> Mapping[str, Mapping[str, Tensor]]:
    return read_states({name: data}, _NETWORKS)
