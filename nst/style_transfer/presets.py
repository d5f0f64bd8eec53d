"""Where options of style transfer that are left out come from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nst import check
from nst.errors import OptionError
from nst.features import layer_names
from nst.features.layers import VGG_BLOCKS

__all__ = ["LAYER_OPTIONS", "PRESETS", "left_out", "suitable"]

LAYER_OPTIONS = ("content_layers", "style_layers")

# Pretrained networks. Both losses are of the power of squared activations and relative to the target's
# own, so that the picture does not depend on how a file scales its layers.
_PRETRAINED: Mapping[str, Any] = MappingProxyType(
    {
        "content_layers": {"relu4_2": 1.0},
        "style_layers": {"relu1_1": 0.4, "relu2_1": 0.3, "relu3_1": 0.2, "relu4_1": 0.1},
        "content_weight": 1.0,
        "style_weight": 20.0,
        "style_loss": "wasserstein",
        "gram_normalization": "hw",
        "loss_scale": "relative",
        "border_px": 16,
        "pooling": "average",
        "coarse_scales": (0.5,),
        "coarse_steps": 40,
        "steps": 50,
    }
)

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "pretrained": _PRETRAINED,
        # Gatys et al. 2016, section 2: alpha / beta = 1e-3, w_l = 1/5, average pooling.
        "gatys": MappingProxyType(
            {
                "content_layers": {"relu4_2": 1.0},
                "style_layers": {f"relu{block}_1": 0.2 for block in range(1, 6)},
                "content_weight": 1.0,
                "style_weight": 1e3,
                "style_loss": "gram",
                "gram_normalization": "hw",
                "loss_scale": "paper",
                "border_px": 0,
                "pooling": "average",
                "coarse_scales": (),
                "coarse_steps": 100,
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
                "style_loss": "gram",
                "gram_normalization": "chw",
                "loss_scale": "mean",
                "border_px": 0,
                "pooling": "max",
                "coarse_scales": (),
                "coarse_steps": 100,
                "steps": 300,
            }
        ),
        # The embedded network sees what VGG16 sees, at a quarter of the cost.
        "embedded": _PRETRAINED,
        # Random features: shallow layers, relative losses, and coarse to fine, found by looking.
        "seeded": MappingProxyType(
            {
                "content_layers": {"relu2_2": 1.0},
                "style_layers": {f"relu{block}_1": 1 / 3 for block in range(1, 4)},
                "content_weight": 4.0,
                "style_weight": 1e3,
                "style_loss": "gram",
                "gram_normalization": "hw",
                "loss_scale": "relative",
                "border_px": 16,
                "pooling": "average",
                "coarse_scales": (0.25, 0.5),
                "coarse_steps": 100,
                "steps": 40,
            }
        ),
    }
)


def suitable(weights: str | None, network: str) -> str:
    """The preset for these weights of a network, if none is asked for."""
    return "seeded" if weights == "seeded" else "embedded" if network == "embedded" else "pretrained"


def left_out(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the preset says of the options that were left out.

    Args:
        given: all options, `preset` and `network` among them; those that were left out are None.

    Raises:
        OptionError: there is no such preset, or it does not suit the network.
    """
    preset, network = given["preset"], given["network"]
    check.one_of("preset", preset, PRESETS)
    usual, found = PRESETS[preset], dict[str, Any]()
    for name, value in usual.items():
        if given[name] is not None:
            continue
        if name in LAYER_OPTIONS:
            _check_layers(preset, name, network)
        if name == "pooling" and network not in VGG_BLOCKS:
            value = "max"  # the other networks' own
        scales = usual["coarse_scales"] if given["coarse_scales"] is None else given["coarse_scales"]
        if name == "coarse_steps" and given["steps"] is not None and scales:
            value = max(1, round(value * given["steps"] / usual["steps"]))
        found[name] = dict(value) if isinstance(value, Mapping) else value
    return found


def _check_layers(preset: str, option: str, network: str) -> None:
    """Raise `OptionError` for a preset whose layers, which nobody named, `network` does not have.

    Args:
        option: one of LAYER_OPTIONS.
    """
    there = set(layer_names(network))
    if there >= set(PRESETS[preset][option]):
        return
    fitting = [
        name for name, values in PRESETS.items() if all(there >= set(values[it]) for it in LAYER_OPTIONS)
    ]
    advice = "leave it out" if fitting else "say content_layers and style_layers"
    reason = f"{network} does not have its {option}; {advice}"
    raise OptionError("preset", preset, choices=fitting or None, reason=reason)
