"""Where a network's parameters come from: this package, torchvision's published file, a file of the user's, or
a seed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nst.errors import OptionError, WeightsError
from nst.features.conventions import CONVENTIONS, check_convention, has_conventions, recognized_convention
from nst.stylizer import AssetRef, Assets

__all__ = [
    "PUBLISHED",
    "SHIPPED_SHA256",
    "default_weights",
    "is_place",
    "is_published",
    "named_weights",
    "plain_names",
    "published_bytes",
    "published_file",
    "read_metadata",
    "read_state_dict",
    "read_weights",
    "weights_asset",
    "weights_notes",
]

# The ImageNet classifiers as torchvision publishes them (a test compares; importing torchvision for four names
# would double the start of every worker). A file's name ends with the head of its SHA-256.
_SITE = "https://download.pytorch.org/models/"
PUBLISHED = {
    "vgg16": _SITE + "vgg16-397923af.pth",
    "vgg16_features": _SITE + "vgg16_features-amdegroot-88682ab5.pth",
    "vgg19": _SITE + "vgg19-dcbb9e9d.pth",
    "resnet50": _SITE + "resnet50-11ad3fa6.pth",
    "googlenet": _SITE + "googlenet-1378be20.pth",
}

# How the files came to be: README.md beside each.
_SHIPPED = {
    "nst:embedded": ("nst.features", "embedded/embedded.safetensors"),
    "nst:painter": ("nst.feed_forward", "painter/painter.safetensors"),
}
SHIPPED_SHA256 = {
    "nst:embedded": "4cc89f7ceee7d3697fdb2084e25094fbd130203d2fad1b0d2535023d0989ad8e",
    "nst:painter": "c2e28fec0493cd0d10f70a6470effa93f7f25e1d5a9be04c06cbd42c0a185fab",
}

# Files in other conventions than torchvision's, by the head of their SHA-256, with which their names end, too:
# jcjohnson's VGG19 and VGG16 (neural-style-pt saves them anew, with other digests), and the one above.
_KNOWN = {"d01eb7cb": "caffe", "00b39a1b": "caffe", "88682ab5": "caffe_rgb"}

_TORCHVISION, _EMBEDDED = "torchvision:", "nst:embedded"
_ZIP = b"PK"
_NAMES = ("embedded", "imagenet", "imagenet_features")


def default_weights(network: str) -> str:
    """What the option `weights` stands for when it is left out."""
    return named_weights(network)[0]


def named_weights(network: str) -> tuple[str, ...]:
    """The published weights of a network, by the values of the option `weights`; the default first."""
    if network == "embedded":
        return ("embedded",)
    return ("imagenet", "imagenet_features") if network == "vgg16" else ("imagenet",)


def is_place(weights: str) -> bool:
    """Whether a value of the option `weights` is a path or URL, and not the name of weights that are known."""
    return weights not in ("seeded", *_NAMES)


def weights_asset(
    network: str, weights: str, sha256: str | None, convention: str | None = None
) -> AssetRef | None:
    """What has to be read for the option `weights`: nothing for `seeded`.

    Raises:
        OptionError: the network has no such weights, or they cannot have that digest or convention.
    """
    check_convention(network, convention)
    if weights == "seeded":
        for option, value in (("weights_sha256", sha256), ("weights_convention", convention)):
            if value is not None:
                raise OptionError(option, value, reason="seeded weights are not read from a file")
        return None
    if weights in _NAMES:
        named = named_weights(network)
        if weights not in named:
            choices = (*named, "seeded", "the path or URL of a state dict")
            raise OptionError("weights", weights, choices=choices, reason=f"there are none of {network}")
        published = network + weights.removeprefix("imagenet")
        weights = _EMBEDDED if weights == "embedded" else _TORCHVISION + published
    return AssetRef(option="weights", url=weights, kind="weights", sha256=sha256)


def read_weights(
    network: str, weights: AssetRef | None, convention: str | None, assets: Assets
) -> tuple[dict[str, Tensor] | None, str | None]:
    """The state dict that `weights_asset` asked for, and its convention.

    Args:
        convention: the option `weights_convention`; None: known of published files, recognized of others, by
            digest or first layer (see `recognized_convention`).

    Returns:
        None for seeded weights; and for the convention of networks that have but one.

    Raises:
        WeightsError: as of `read_state_dict`.
    """
    if weights is None:
        return None, None
    data = assets[weights.url]
    state = read_state_dict(data)
    if convention is None and has_conventions(network):
        if is_published(weights.url):
            convention = "caffe_rgb" if weights.url.endswith("_features") else "torchvision"
        else:
            convention = recognized_convention(network, state)
            if convention == "torchvision":  # else the first layer was plain, and hashing can take seconds
                convention = _KNOWN.get(hashlib.sha256(data).hexdigest()[:8], convention)
    return state, convention


def weights_notes(network: str, weights: AssetRef | None, convention: str | None, assets: Assets) -> list[str]:
    """What the user should know of weights that `read_weights` reads: that a file was recognized as one in
    another convention than torchvision's."""
    if convention is not None or weights is None or is_published(weights.url) or not has_conventions(network):
        return []
    _, found = read_weights(network, weights, None, assets)
    if found is None or found == "torchvision":
        return []
    return [f"weights {weights.url}: recognized as {CONVENTIONS[found].said}"]


def is_published(url: str) -> bool:
    """Whether an asset's bytes come from `published_bytes`."""
    return url in _SHIPPED or url.startswith(_TORCHVISION)


def published_file(published: str) -> Path:
    """Where torchvision's download cache has the file of one of `PUBLISHED`, or would have it."""
    return Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[published].rsplit("/", 1)[1]


def published_bytes(url: str) -> bytes:
    """The file behind an asset that `is_published`: of this package, or of torchvision through its own download
    cache.

    Raises:
        WeightsError: the file is neither in the cache nor to be downloaded, or its digest is wrong. Names
            the file, where it is looked for, and the alternatives.
    """
    if url in _SHIPPED:
        return _shipped_bytes(url)
    published = url.removeprefix(_TORCHVISION)
    if not url.startswith(_TORCHVISION) or published not in PUBLISHED:
        raise ValueError(f"not a published network: {url!r}")
    source = PUBLISHED[published]
    network, _, kind = published.partition("_")
    weights = f"imagenet_{kind}" if kind else "imagenet"
    path = published_file(published)
    folder, name = path.parent, path.name
    if not path.exists():
        try:
            _download(source, path)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f'weights = "{weights}": {name} is not in {folder} and could not be downloaded from {source} '
                f"({error}). Put the file there (TORCH_HOME moves the folder), or give the path or URL of a "
                f'state dict of {network} (weights = "/path/file.pth"), or take network = "embedded", which '
                f'comes with this package; or weights = "seeded" for a random network that needs no file'
            ) from error
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(_digest_head(name)):
        raise WeightsError(f"{path} is damaged: its SHA-256 is {digest}; delete the file to fetch it again")
    return data


def _shipped_bytes(url: str) -> bytes:
    package, name = _SHIPPED[url]
    file = resources.files(package) / name
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHIPPED_SHA256[url]:
        raise WeightsError(f"{file} is damaged: its SHA-256 is {digest}, expected {SHIPPED_SHA256[url]}")
    return data


def read_state_dict(data: bytes) -> dict[str, Tensor]:
    """Read a state dict from the bytes of a .safetensors or a .pth file, what such a file has under the name
    `state_dict`, or a training's checkpoint: its networks as NETWORK.NAME, generators as the training would end
    with them. Nothing is ever unpickled but tensors and plain values.

    What was put before names by wrappers of the network is left out: see `plain_names`.

    Raises:
        WeightsError: neither format, damaged, or not a mapping from names to tensors.
    """
    state = _of_checkpoint(_loaded(data))
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError("expected a state dict: a mapping from names to tensors")
    return plain_names({str(name): tensor for name, tensor in state.items()})


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what wrappers put into its names: `module.` before all of them, of data-parallel
    training, and `_orig_mod.` anywhere, of `torch.compile`."""
    found = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    while found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    return found


def _why_not_unpickled(text: str) -> str:
    """What is to be said of a pickle that torch did not want to read, in a sentence."""
    found = re.search(r"GLOBAL ([\w.]+)", text)
    if found is None:
        return (
            f"not a readable state dict (.safetensors or .pth): {text.splitlines()[0] if text else 'damaged'}"
        )
    return (
        f"a pickle with more in it than tensors ({found[1]}), such as a whole module, which may run any code "
        f"when it is read; save the state dict instead: torch.save(network.state_dict(), path)"
    )


def _loaded(data: bytes) -> Any:
    """What a .safetensors or a .pth file holds. Raises WeightsError: neither format, or damaged."""
    try:
        if _is_safetensors(data):
            return safetensors.torch.load(data)
        if data[:2] == _ZIP or data[:1] == b"\x80":  # a zip archive, or the pickle of torch before 1.6
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(_why_not_unpickled(str(error))) from error
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"not a readable state dict (.safetensors or .pth): {error}") from error
    raise WeightsError("not a readable state dict (.safetensors or .pth)")


def _is_checkpoint(state: Any) -> bool:
    training = state.get("training") if isinstance(state, dict) else None
    networks = training.get("networks") if isinstance(training, dict) else None
    return isinstance(networks, dict) and all(isinstance(each, dict) for each in networks.values())


def _of_checkpoint(state: Any) -> Any:
    """A state dict of all networks of a checkpoint, with averages in the place of what they are averages of."""
    if not _is_checkpoint(state):
        return state
    networks = {**state["training"]["networks"], **state["training"].get("averages", {})}
    return {f"{name}.{key}": tensor for name, each in networks.items() for key, tensor in each.items()}


def read_metadata(data: bytes) -> dict[str, str]:
    """What else the header of a .safetensors, or a training's checkpoint, that `read_state_dict` can read says;
    of other files nothing."""
    if not _is_safetensors(data):
        state: Any = _loaded(data) if data[:2] == _ZIP else None
        config: dict[str, str] = state["training"].get("config", {}) if _is_checkpoint(state) else {}
        return config
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _is_safetensors(data: bytes) -> bool:
    """It begins with the length of a JSON object, and that: any first bytes are possible, a pickle's too."""
    return data[8:9] == b"{"


def _download(source: str, path: Path) -> None:
    """Fetch into the cache, which is left as it was if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder) / path.name
        torch.hub.download_url_to_file(
            source, str(fetched), hash_prefix=_digest_head(path.name), progress=False
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        shutil.move(fetched, beside)
        os.replace(beside, path)


def _digest_head(name: str) -> str:
    return name.removesuffix(".pth").rsplit("-", 1)[1]
