"""The networks: images in, activations by layer name out, cut at the deepest layer in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.errors import ImageTooSmall, OptionError, WeightsError
from nst.features.layers import VGG_BLOCKS, VGG_CHANNELS, check_layers, layer_names
from nst.features.seeded import seed_parameters

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "FeatureNetwork", "Pooling", "build_features", "check_pooling"]

Pooling = Literal["max", "average"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as torchvision's weights want it


class FeatureNetwork(nn.Module):
    """Images (N, 3, H, W), RGB in [0, 1], to a dict of activations (N, C_l, H_l, W_l) by layer name.

    Parameters are frozen, the network is in evaluation mode, and nothing deeper than the deepest of `layers`
    exists. Normalization is inside.

    Raises (on call):
        ImageTooSmall: the image vanishes before the deepest layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str,
        layers: tuple[str, ...],
        body: nn.Module,
        *,
        pretrained: bool,
        min_side_px: int = 1,
    ) -> None:
        super().__init__()
        self.network, self.layers, self.pretrained = network, layers, pretrained
        self.min_side_px = min_side_px
        self.body = body
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def check_size(self, image: Tensor) -> None:
        """Raise `ImageTooSmall` if (..., H, W) would vanish before the deepest layer."""
        height, width = image.shape[-2:]
        if min(height, width) < self.min_side_px:
            raise ImageTooSmall(
                f"{width} x {height} pixels: {self.layers[-1]} of {self.network} needs {self.min_side_px} "
                f"on the short side"
            )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.check_size(images)
        normalized = (images - self.mean) / self.std
        features: dict[str, Tensor] = self.body(normalized)
        return {layer: features[_node(layer)] for layer in self.layers}


def build_features(
    network: str,
    layers: Iterable[str],
    *,
    state: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    pooling: Pooling = "max",
) -> FeatureNetwork:
    """Build `network` up to the deepest of `layers`.

    Args:
        state: a torchvision state dict of the network (keys of layers that are cut off are ignored);
            None draws seeded random parameters instead, scaled so that activations keep unit variance.
        seed: of the random parameters.
        pooling: what the VGGs pool with. Gatys et al. 2016 found average pooling more pleasing.

    Raises:
        OptionError: unknown network, layer, or pooling.
        WeightsError: `state` lacks a parameter or has one of another shape.
    """
    wanted = tuple(sorted(set(layers), key=lambda layer: _position(network, layer)))
    if not wanted:
        raise OptionError("layers", [], reason="at least one layer is needed")
    check_pooling(network, pooling)
    if network in VGG_BLOCKS:
        body: nn.Module = _VGG(network, wanted, pooling)
    else:
        body = _cut(_BUILDERS[network](), wanted)
    if state is None:
        seed_parameters(body, seed)
    else:
        _load(body, network, state)
    pools = 0
    if network in VGG_BLOCKS:  # each pooling halves and drops an odd pixel; the other networks pad theirs
        names = layer_names(network)
        pools = sum(name.startswith("pool") for name in names[: names.index(wanted[-1]) + 1])
    return FeatureNetwork(network, wanted, body, pretrained=state is not None, min_side_px=2**pools)


def check_pooling(network: str, pooling: str) -> None:
    """Raise `OptionError` if `network` cannot pool like that."""
    if pooling not in get_args(Pooling):
        raise OptionError("pooling", pooling, choices=get_args(Pooling))
    if pooling != "max" and network not in VGG_BLOCKS:
        raise OptionError("pooling", pooling, choices=("max",), reason=f"{network} has no pooling to swap")


def _position(network: str, layer: str) -> int:
    check_layers("layers", network, [layer])
    return layer_names(network).index(layer)


class _VGG(nn.Module):
    """The convolutional part of a VGG, with torchvision's parameter names (`features.0.weight`, ...)."""

    def __init__(self, network: str, wanted: tuple[str, ...], pooling: Pooling) -> None:
        super().__init__()
        names = layer_names(network)
        self.names = names[: names.index(wanted[-1]) + 1]
        self.wanted, self.pooling = wanted, pooling
        self.features = (
            nn.ModuleDict()
        )  # keyed by torchvision's running index, which counts ReLUs and pools too
        channels = 3
        for index, name in enumerate(self.names):
            if name.startswith("conv"):
                width = VGG_CHANNELS[network][int(name[4]) - 1]
                self.features[str(index)] = nn.Conv2d(channels, width, 3, padding=1)
                channels = width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for index, name in enumerate(self.names):
            if name.startswith("conv"):
                x = self.features[str(index)](x)
            elif name.startswith("relu"):
                x = F.relu(x)  # not in place: the convolution's output may be a layer in use
            else:
                x = F.max_pool2d(x, 2) if self.pooling == "max" else F.avg_pool2d(x, 2)
            if name in self.wanted:
                found[name] = x
        return found


# torchvision takes longer to import than torch itself, and the VGGs do without: it is imported where needed.


def _cut(model: nn.Module, wanted: tuple[str, ...]) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor

    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    nodes = {_node(name): _node(name) for name in wanted}
    cut: nn.Module = create_feature_extractor(model.eval(), nodes)
    return cut


def _node(layer: str) -> str:
    """A stage of a ResNet is its last block; asked for both names, torchvision would give another node."""
    return _LAST_BLOCK.get(layer, layer)


_LAST_BLOCK = {"layer1": "layer1.2", "layer2": "layer2.3", "layer3": "layer3.5", "layer4": "layer4.2"}


def _resnet50() -> nn.Module:
    from torchvision.models.resnet import Bottleneck, resnet50

    model: nn.Module = resnet50(weights=None)
    for block in model.modules():
        if isinstance(block, Bottleneck):
            # Variances add where a residual branch joins; only seeded networks keep this.
            nn.init.constant_(block.bn3.weight, 0.5)
    return model


def _googlenet() -> nn.Module:
    from torchvision.models.googlenet import googlenet

    # transform_input: the published weights were trained on [-1, 1]; torchvision converts inside the model.
    model: nn.Module = googlenet(weights=None, aux_logits=False, init_weights=False, transform_input=True)
    return model


_BUILDERS: dict[str, Callable[[], nn.Module]] = {"resnet50": _resnet50, "googlenet": _googlenet}


def _load(body: nn.Module, network: str, state: Mapping[str, Tensor]) -> None:
    own = body.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(
            f"the state dict is not one of {network}: it lacks {missing[0]} "
            f"(and {len(missing) - 1} more of {len(own)})"
        )
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            raise WeightsError(
                f"the state dict is not one of {network}: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
    body.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})
