"""Spectral normalization (Miyato et al. 2018), with parameters of the same names as without."""

from __future__ import annotations

from collections.abc import Container

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SPECTRAL_STATE", "SpectralConv2d", "settle"]

SPECTRAL_STATE = "weight_u"
"""Name of the vector, within a layer's state dict, that published files and layers without the norm lack."""
_SETTLING = 15


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight, as a matrix (outputs, inputs * height * width), is divided by its largest
    singular value.

    That value is estimated by power iteration from a vector that is kept: one iteration in each pass while
    training (Miyato et al. 2018, algorithm 1), none when evaluating.
    """

    weight_u: Tensor

    def __init__(
        self, inputs: int, outputs: int, side: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, side, stride=stride, padding=padding, bias=bias)
        self.register_buffer(SPECTRAL_STATE, F.normalize(torch.ones(outputs), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            matrix = self.weight.flatten(1)
            with torch.no_grad():
                v = F.normalize(matrix.mT @ self.weight_u, dim=0)
                u = self.weight_u.clone()
                if self.training:
                    u = F.normalize(matrix @ v, dim=0)
                    self.weight_u.copy_(u)
            weight = self.weight / torch.dot(u, matrix @ v)
        out: Tensor = self._conv_forward(x, weight, self.bias)
        return out

    @torch.no_grad()
    def draw(self, generator: torch.Generator | None) -> None:
        """Begin with another vector, settled."""
        self.weight_u.copy_(F.normalize(torch.randn(len(self.weight_u), generator=generator), dim=0))
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Iterate, so that the estimate is of weights that are new."""
        matrix = self.weight.flatten(1)
        for _ in range(_SETTLING):
            v = F.normalize(matrix.mT @ self.weight_u, dim=0)
            self.weight_u.copy_(F.normalize(matrix @ v, dim=0))


def settle(network: nn.Module, known: Container[str]) -> None:
    """Have the layers settle whose vectors did not come with their weights.

    Args:
        known: names of what was loaded.
    """
    for name, module in network.named_modules():
        if isinstance(module, SpectralConv2d) and f"{name}.{SPECTRAL_STATE}" not in known:
            module.settle()
