"""The networks: images in, activations by layer name out, cut at the deepest layer in use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.errors import ImageTooSmall, OptionError, WeightsError
from nst.features.conventions import CONVENTIONS, Convention, check_convention, recognized_convention
from nst.features.folding import fold_batch_norms
from nst.features.layers import LOGITS, VGG_BLOCKS, check_layers, layer_names
from nst.features.seeded import seed_parameters
from nst.features.vgg import AS_MAXIMUM, VGG, Pooling, scale_to_unit_activations

__all__ = [
    "FeatureNetwork",
    "Geometry",
    "Pooling",
    "build_features",
    "check_pooling",
    "own_pooling",
]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the layers of a network lie over the pixels."""

    strides: Mapping[str, int]
    """Pixels from one position of a layer to the next."""
    margin_px: int
    """Pixels around a box that can change an activation over it, rounded up to the largest stride."""
    bytes_per_pixel: float
    """Bytes per pixel of one evaluation of activations and gradients in float32, about: what is kept for the
    way back, and three times the largest activation."""


class FeatureNetwork(nn.Module):
    """Images (N, 3, H, W), RGB in [0, 1], to a dict of activations (N, C_l, H_l, W_l) by layer name.

    Parameters are frozen, the network is in evaluation mode, and nothing deeper than the deepest of `layers`
    exists. Normalization is inside. Activations are channels-last in memory: on CPUs with AVX-512 the
    convolutions are 1.1 to 1.6 times faster so.

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
        convention: Convention = CONVENTIONS["torchvision"],
    ) -> None:
        super().__init__()
        self.network, self.layers, self.pretrained = network, layers, pretrained
        self.min_side_px = min_side_px
        self.body = body.to(memory_format=torch.channels_last)
        self._nodes = {layer: layer if isinstance(body, VGG) else _node(layer) for layer in layers}
        self.register_buffer("mean", torch.tensor(convention.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(convention.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def check_size(self, image: Tensor) -> None:
        """Raise `ImageTooSmall` if (..., H, W) would vanish before the deepest layer."""
        height, width = image.shape[-2:]
        if min(height, width) < self.min_side_px:
            raise ImageTooSmall(
                f"{width} x {height} pixels: {self.layers[-1]} of {self.network} needs {self.min_side_px} "
                f"on the short side"
            )

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Tensor]:
        """
        Args:
            sizes: (height, width) of each photograph, if they share a canvas that is larger; what is right of
                and below a photograph is not looked at. Activations are those of the photograph alone, and
                zero beyond. For networks with `shares_canvas`.
        """
        if sizes is None:
            self.check_size(images)
        normalized = (images - self.mean) / self.std
        normalized = normalized.to(self.dtype, memory_format=torch.channels_last)
        if sizes is None:
            features: dict[str, Tensor] = self.body(normalized)
        else:
            features = self.body(normalized, sizes)
        return {layer: features[self._nodes[layer]] for layer in self.layers}

    @property
    def dtype(self) -> torch.dtype:
        """The type of the activations."""
        return next(self.body.parameters()).dtype

    def in_precision(self, dtype: torch.dtype) -> FeatureNetwork:
        """Copy the network, with parameters and activations in `dtype`; normalization stays as it is."""
        other = copy.deepcopy(self)
        other.body.to(dtype)
        return other

    @cached_property
    def geometry(self) -> Geometry | None:
        """None: it has none, as its logits see all of the pixels."""
        return None if LOGITS in self.layers else _geometry(self.network, self.layers, self.body)

    @property
    def shares_canvas(self) -> bool:
        """Whether it takes `sizes`."""
        return isinstance(self.body, VGG) and LOGITS not in self.layers


def build_features(
    network: str,
    layers: Iterable[str],
    *,
    state: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    pooling: Pooling | None = None,
    rescale_pooling: bool = False,
    convention: str | None = None,
    unit_activations: bool = False,
    fused_relu: bool = False,
) -> FeatureNetwork:
    """Build `network` up to the deepest of `layers`, which may be `LOGITS` too.

    Args:
        state: a torchvision state dict of the network (keys of layers that are cut off are ignored);
            None draws seeded random parameters instead, scaled so that activations keep unit variance.
        seed: that of the random parameters.
        pooling: what the VGGs pool with: `max`, `average`, which Gatys et al. 2016 found more pleasing, or
            `l2`, the root of the mean square. None: what the network was trained with, see `own_pooling`.
        rescale_pooling: multiply what `average` and `l2` give by the factors in `AS_MAXIMUM`.
        convention: what the `state` of a VGG wants as input, one of `CONVENTIONS`; None: recognized by its
            first layer (see `recognized_convention`).
        unit_activations: scale the layers of a VGG with a `state` so that the mean activation behind each is
            one (as the network of Gatys et al. 2016 was, there by channel). It then has the same parameters, to
            the bit if they have enough digits, however the file scales its layers.
        fused_relu: compute a VGG's convolutions with their ReLUs on NVIDIA's GPUs, in one kernel each; for
            gradients by images only.

    Raises:
        OptionError: unknown network, layer, pooling, or convention.
        WeightsError: `state` lacks a parameter or has one of another shape.
    """
    wanted = tuple(sorted(set(layers), key=lambda layer: _position(network, layer)))
    if not wanted:
        raise OptionError("layers", [], reason="at least one layer is needed")
    pooling = own_pooling(network) if pooling is None else pooling
    check_pooling(network, pooling)
    check_convention(network, convention)
    if network in VGG_BLOCKS:
        factor = AS_MAXIMUM[pooling] if rescale_pooling else 1.0
        body: nn.Module = VGG(network, wanted, pooling, factor, fused_relu=fused_relu)
    else:
        body = _cut(_BUILDERS[network](), wanted)
    if state is None:
        seed_parameters(body, seed)
        inputs = CONVENTIONS["torchvision"]
    else:
        _load(body.double() if unit_activations else body, network, state)
        inputs = CONVENTIONS[convention or recognized_convention(network, state)]
    if inputs.bgr:
        _take_rgb(body)
    if unit_activations and state is not None and isinstance(body, VGG):
        scale_to_unit_activations(body, inputs)
    fold_batch_norms(body)
    body.float()
    return FeatureNetwork(
        network,
        wanted,
        body,
        pretrained=state is not None,
        min_side_px=_min_side_px(network, wanted[-1]),
        convention=inputs,
    )


@torch.no_grad()
def _take_rgb(body: nn.Module) -> None:
    """Turn a VGG that takes BGR into one that takes RGB, exactly."""
    first = body.get_parameter("features.0.weight")
    first.copy_(first.flip(1))


def _min_side_px(network: str, deepest: str) -> int:
    """ResNet pads so that something is left of everything."""
    names = _names(network)[: _names(network).index(deepest) + 1]
    if network in VGG_BLOCKS:  # each pooling halves and drops an odd pixel
        return 1 << sum(name.startswith("pool") for name in names)
    if network == "googlenet":  # a pooling of three wants two
        return (2 << sum(name in ("maxpool1", "maxpool2", "maxpool3") for name in names)) - 1
    return 1


def own_pooling(network: str) -> Pooling:
    """What a network pools with if it is not asked for something else: the embedded one was taught with
    averages, the VGGs were trained with maxima."""
    return "average" if network == "embedded" else "max"


def check_pooling(network: str, pooling: str) -> None:
    """Raise `OptionError` if `network` cannot pool like that."""
    if pooling not in get_args(Pooling):
        raise OptionError("pooling", pooling, choices=get_args(Pooling))
    if pooling != "max" and network not in VGG_BLOCKS:
        raise OptionError("pooling", pooling, choices=("max",), reason=f"{network} has no pooling to swap")


def _position(network: str, layer: str) -> int:
    check_layers("layers", network, [layer], logits=True)
    return _names(network).index(layer)


def _names(network: str) -> tuple[str, ...]:
    return (*layer_names(network), LOGITS)


def _geometry(network: str, layers: tuple[str, ...], body: nn.Module) -> Geometry:
    """Every layer reaches some positions of the one before it further than the box of pixels that is looked
    at, and then may take strides."""
    strides, stride, margin = {}, 1, 0
    for name in layer_names(network)[: layer_names(network).index(layers[-1]) + 1]:
        reach, step = _reach_and_stride(network, name)
        margin += reach * stride
        stride *= step
        strides[name] = stride
    kept = body.bytes_per_pixel if isinstance(body, VGG) else _bytes_per_pixel(body)
    return Geometry(strides, -(-margin // stride) * stride, kept)


def _reach_and_stride(network: str, name: str) -> tuple[int, int]:
    if network in VGG_BLOCKS:
        return (1, 1) if name.startswith("conv") else (0, 2) if name.startswith("pool") else (0, 1)
    return _REACH_AND_STRIDE[network].get(name, (1, 1))


@torch.no_grad()
def _bytes_per_pixel(body: nn.Module, side: int = 64) -> float:
    """What a small picture leaves for the way back, and three times its largest activation."""
    kept: list[int] = []

    def look(module: nn.Module, _: object, output: Tensor) -> None:
        # A ReLU in place leaves nothing; a maximum keeps 8 bytes of index for each of its own.
        if not getattr(module, "inplace", False):
            kept.append(output.numel() * (12 if isinstance(module, nn.MaxPool2d) else 4))

    leaves = [module for module in body.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look) for module in leaves]
    parameter = next(body.parameters())
    try:
        body(parameter.new_zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return (sum(kept) + 3 * max(kept)) / side**2


# torchvision takes longer to import than torch itself, and the VGGs do without: it is imported where needed.


def _cut(model: nn.Module, wanted: tuple[str, ...]) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor

    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    nodes = {_node(name): _node(name) for name in wanted}
    cut: Any = create_feature_extractor(model.eval(), nodes)
    # GoogLeNet calls a function; as modules, what they let back through can be swapped (`nst.ops`).
    cut.relu_of_functions = nn.ReLU()
    for node in cut.graph.nodes:
        if node.op == "call_function" and node.target is F.relu:
            node.op, node.target, node.args, node.kwargs = "call_module", "relu_of_functions", node.args[:1], {}
    cut.recompile()
    return cut  # type: ignore[no-any-return]


def _node(layer: str) -> str:
    """A stage of a ResNet is its last block; asked for both names, torchvision would give another node."""
    return _LAST_BLOCK.get(layer, layer)


_LAST_BLOCK = {"layer1": "layer1.2", "layer2": "layer2.3", "layer3": "layer3.5", "layer4": "layer4.2"}
_LAST_BLOCK[LOGITS] = "fc"
_REACH_AND_STRIDE = {
    "resnet50": {"conv1": (3, 2), "bn1": (0, 1), "relu": (0, 1), "maxpool": (1, 2)}
    | {f"layer{stage}.0": (1, 2) for stage in (2, 3, 4)}
    | dict.fromkeys(_LAST_BLOCK, (0, 1)),  # a stage is its last block
    "googlenet": {"conv1": (3, 2), "conv2": (0, 1), "maxpool4": (0, 2)}
    | {f"maxpool{number}": (1, 2) for number in (1, 2, 3)},
}


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
    expected = body.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(
            f"the state dict is not one of {network}: it lacks {missing[0]} "
            f"(and {len(missing) - 1} more of {len(expected)})"
        )
    for name, tensor in expected.items():
        if name in state and state[name].shape != tensor.shape:
            raise WeightsError(
                f"the state dict is not one of {network}: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
    body.load_state_dict({name: state.get(name, tensor) for name, tensor in expected.items()})
