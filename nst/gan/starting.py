"""Weights that networks begin a training with, instead of random ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from nst.errors import WeightsError
from nst.features import read_state_dict
from nst.gan.layers import load_published
from nst.gan.spectral import SPECTRAL_STATE, settle

__all__ = ["Sides", "States", "read_states", "start_networks"]

Sides = Literal["generator", "discriminator", "both"]
States = dict[str, dict[str, Tensor]]


def read_states(
    files: Mapping[str, bytes], names: Sequence[str], aliases: Mapping[str, str] | None = None
) -> States:
    """State dicts of networks, by their names.

    Args:
        files: by name: a checkpoint of a training, what one ended with, or the state dict of one network, which
            the file's name says as in the public implementation of CycleGAN, `latest_net_G_A.pth`, else it is
            the first of `names`.
        names: the networks that there are.
        aliases: networks, by other names that files may have for them.

    Raises:
        WeightsError: a file is not readable.
    """
    states: States = {}
    known = {**{name: name for name in names}, **(aliases or {})}
    for file, data in files.items():
        said = re.search(r"_net_(\w+)\.\w+$", file)
        alone = said[1] if said and said[1] in known else names[0]
        for key, tensor in read_state_dict(data).items():
            network, _, rest = key.removeprefix("module.").partition(".")
            if network in known:
                states.setdefault(known[network], {})[rest] = tensor
            else:
                states.setdefault(known[alone], {})[key.removeprefix("module.")] = tensor
    return states


def start_networks(networks: Mapping[str, nn.Module], states: States, *, strict: bool) -> list[str]:
    """Load state dicts into the networks of their names.

    Args:
        strict: every network has a state dict that fits it. Else layers are taken whose names and shapes fit.

    Returns:
        If not strict, what was taken of each network, and the names of the layers that were not.

    Raises:
        WeightsError: they do not fit; if not strict: nothing does.
    """
    if strict:
        for name, network in networks.items():
            if name not in states:
                raise WeightsError(f"there is no {name} in it, and strict = false is not said")
            try:
                load_published(network, states[name])
            except WeightsError as error:
                raise WeightsError(f"{name}: {error}") from error
        return []
    found = {name: _take_layers(network, states.get(name, {})) for name, network in networks.items()}
    if not any(taken for taken, _, _ in found.values()):
        raise WeightsError(f"no layer of it fits one of {', '.join(networks)}")
    return [_note(name, *layers) for name, layers in found.items()]


def _take_layers(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Load the layers that fit; the names of these, of the network's others, and of the state's others."""
    wanted = network.state_dict()
    layers: dict[str, list[str]] = {}
    for key in wanted:
        if key.endswith(SPECTRAL_STATE) and key not in state:
            continue
        layers.setdefault(key.rpartition(".")[0], []).append(key)
    fits = {
        layer: all(key in state and state[key].shape == wanted[key].shape for key in keys)
        for layer, keys in layers.items()
    }
    taken = [layer for layer, does in fits.items() if does]
    new = {key: state[key] for layer in taken for key in layers[layer]}
    network.load_state_dict({**wanted, **new})
    settle(network, new)
    others = dict.fromkeys(key.rpartition(".")[0] for key in state)
    return (
        taken,
        [layer for layer in fits if layer not in taken],
        [layer for layer in others if layer not in taken],
    )


def _note(name: str, taken: list[str], left: list[str], others: list[str]) -> str:
    parts = [f"{name}: {len(taken)} of {len(taken) + len(left)} layers taken"]
    parts += [f"begun at random: {', '.join(left)}"] if left else []
    parts += [f"not used: {', '.join(others)}"] if others else []
    return "; ".join(parts)
