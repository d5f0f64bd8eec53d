"""One photograph at a time, with progress as data: for notebooks and scripts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from nst.deepdream.method import DeepDream
from nst.errors import OptionError
from nst.features import read_weights, weights_asset
from nst.features.weights import is_published, named_weights, published_bytes
from nst.style_transfer.method import StyleTransfer

__all__ = ["Step", "dream", "stylize"]


@dataclass(frozen=True, slots=True)
class Step:
    """Where a picture stands."""

    evaluations: int
    losses: Mapping[str, float]
    """Losses by name; for a dream, `objective`, which rises."""
    image: Tensor
    """The best picture so far, float32 (3, h, w), RGB in [0, 1], at the size of the current scale or octave."""


def stylize(
    photo: Tensor,
    style: Tensor,
    *,
    state: Mapping[str, Tensor] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    **options: Any,
) -> Iterator[Step]:
    """Paint `photo` in the style of `style`, both (3, H, W), RGB in [0, 1]; yields one `Step` per evaluation.

    Args:
        state: the feature network's parameters, VGG19's unless `network`, `preset` or `weights` says otherwise;
            None takes those that the option `weights` names, `embedded`, `imagenet`, `imagenet_features` or
            `seeded`.
        options: the options of `StyleTransfer` but `style`, e.g. `steps`, `preset`, `style_layers`.

    Raises:
        OptionError: there is no such option, or it or a picture has a value that it cannot take.
        WeightsError: the weights are not to be had or do not fit.
        ImageTooSmall, Diverged: the photograph cannot be stylized.
    """
    _check_picture("photo", photo)
    _check_picture("style", style)
    _check_options(StyleTransfer, options)
    if state is not None and not {"network", "preset", "weights"} & set(options):
        options["network"] = "vgg19"
    method = StyleTransfer(style="style", **options)
    parameters, convention = _parameters(method, state)
    stylizer = method.build_from([style], parameters, torch.device(device), convention=convention)
    for canvas in stylizer.iterate(photo, torch.Generator().manual_seed(seed)):
        image = stylizer.finish(canvas.image.to("cpu", torch.float32), photo)
        yield Step(canvas.evaluations, canvas.losses, image)


def dream(
    photo: Tensor,
    *,
    state: Mapping[str, Tensor] | None = None,
    guide: Tensor | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    **options: Any,
) -> Iterator[Step]:
    """Dream on `photo` (3, H, W), RGB in [0, 1]; yields one `Step` per step, at the size of its octave.

    Args:
        guide: (3, h, w), RGB in [0, 1]: what the layers see in it is what appears.
        options: the options of `DeepDream` but `guide`.

    Other arguments and errors are those of `stylize`.
    """
    _check_picture("photo", photo)
    if guide is not None:
        _check_picture("guide", guide)
    _check_options(DeepDream, options)
    method = DeepDream(guide=None if guide is None else "guide", **options)
    parameters, convention = _parameters(method, state)
    stylizer = method.build_from(parameters, torch.device(device), convention=convention, guide=guide)
    for current in stylizer.iterate(photo, torch.Generator().manual_seed(seed)):
        yield Step(current.steps, {"objective": current.objective}, current.image.to("cpu", torch.float32))


def _check_picture(name: str, picture: Tensor) -> None:
    """Raises OptionError: it is no (3, H, W) in [0, 1]."""
    reason = "must be a tensor (3, H, W), RGB in [0, 1], as nst.decode_image gives it"
    if not isinstance(picture, Tensor):
        raise OptionError(name, type(picture).__name__, reason=reason)
    shown = f"{picture.dtype}, {tuple(picture.shape)}"
    if picture.ndim != 3 or picture.shape[0] != 3 or not picture.numel() or not picture.is_floating_point():
        raise OptionError(name, shown, reason=reason)
    least, most = (float(each) for each in picture.detach().aminmax())
    if not (least >= 0 and most <= 1):
        raise OptionError(name, f"{shown}, from {least:g} to {most:g}", reason=reason)


def _check_options(method: type[StyleTransfer | DeepDream], options: Mapping[str, Any]) -> None:
    """Raises OptionError: the method has no such option, or it is no number where it has to be one, or it is
    of a picture's file, which there is none of."""
    names, hints = [item.name for item in fields(method)], get_type_hints(method)
    for name, value in options.items():
        if name not in names:
            raise OptionError(name, value, choices=names, reason="unknown option")
        if name.endswith("_sha256") and name != "weights_sha256" and value is not None:
            raise OptionError(name, value, reason="pictures are given as tensors, which have no file")
        kinds = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        for kind, like, said in ((int, Integral, "a whole number"), (float, Real, "a number")):
            fits = isinstance(value, like) and not isinstance(value, bool)
            if kind in kinds and not (fits or (value is None and type(None) in kinds)):
                raise OptionError(name, value, reason=f"must be {said}")


def _parameters(
    method: StyleTransfer | DeepDream, state: Mapping[str, Tensor] | None
) -> tuple[Mapping[str, Tensor] | None, str | None]:
    """And their convention, as far as it is known."""
    wanted = method.weights_sha256
    if state is not None:
        if wanted is not None:
            raise OptionError("weights_sha256", wanted, reason="parameters given as `state` have no file")
        return state, None
    assert method.weights is not None
    assert method.network is not None
    asset = weights_asset(method.network, method.weights, method.weights_sha256)
    if asset is not None and not is_published(asset.url):
        raise OptionError(
            "weights",
            method.weights,
            choices=(*named_weights(method.network), "seeded"),
            reason="a file is given as `state`",
        )
    assets = {} if asset is None else {asset.url: published_bytes(asset.url)}
    for data in assets.values():
        found = hashlib.sha256(data).hexdigest()
        if wanted is not None and found != wanted.lower():
            reason = f"the SHA-256 of {method.weights!r} is {found}"
            raise OptionError("weights_sha256", wanted, reason=reason)
    return read_weights(method.network, asset, method.weights_convention, assets)
