"""Feature networks by the names of their layers."""

from nst.features.layers import LOGITS, NETWORKS, check_layers, layer_names
from nst.features.networks import FeatureNetwork, build_features
from nst.features.weights import (
    default_weights,
    read_state_dict,
    read_weights,
    weights_asset,
    weights_notes,
)

__all__ = [
    "LOGITS",
    "NETWORKS",
    "FeatureNetwork",
    "build_features",
    "check_layers",
    "default_weights",
    "layer_names",
    "read_state_dict",
    "read_weights",
    "weights_asset",
    "weights_notes",
]
