"""A training of one kind in one file: one network, one optimizer, one collection. It learns the mean color."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from jobs.training.recipes import Recipe
from nst.gan.parallel import DDPOptions, Share, distributed
from nst.gan.starting import Sides, read_states, start_networks
from nst.stylizer import AssetRef

__all__ = ["Toy", "ToyOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyOptions:
    """The network and its optimizer."""

    learning_rate: float = 0.1
    """The optimizer's learning rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Toy(Recipe):
    """A color like that of photographs."""

    photos: str
    """A folder of photographs."""
    model: ToyOptions = field(default_factory=ToyOptions)
    """The network and its optimizer."""

    @classmethod
    def model_options(cls) -> type[ToyOptions]:
        return ToyOptions

    def build(self, *, seed: int, device: torch.device) -> Painter:
        return Painter(self.model, seed, device)

    def asset(self, url: str, sha256: str | None = None) -> AssetRef:
        return AssetRef(option="color", url=url, kind="weights", sha256=sha256)


class Painter:
    """Adds a color to gray."""

    dtype = torch.float32

    def __init__(self, options: ToyOptions, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.network: nn.Module = nn.Conv2d(3, 3, 1).to(device)
        self.optimizers = (torch.optim.SGD(self.network.parameters(), options.learning_rate, momentum=0.9),)
        self.share, self._trained = Share(), self.network

    def start_from(self, files: Mapping[str, bytes], networks: Sides, *, strict: bool) -> list[str]:  # noqa: ARG002
        return start_networks({"network": self.network}, read_states(files, ["network"]), strict=strict)

    def distribute(self, share: Share, options: DDPOptions) -> None:
        self.share, self._trained = share, distributed(self.network, share, options)

    def step(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        (photos,) = images
        loss = (self._trained(torch.zeros_like(photos)) - photos).square().mean()
        (optimizer,) = self.optimizers
        optimizer.zero_grad()
        (self.share.weight * loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return {"distance": loss.detach()}

    def plateau_loss(self, losses: Mapping[str, float]) -> float:
        return losses["distance"]

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": {"network": self.network.state_dict()},
            "optimizer": self.optimizers[0].state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["networks"]["network"])
        self.optimizers[0].load_state_dict(state["optimizer"])

    def file_bytes(self) -> bytes:
        return safetensors.torch.save(dict(self.network.state_dict()))

    @torch.no_grad()
    def samples(self, photos: Mapping[str, Sequence[Tensor]], side: int) -> Tensor:
        gray = torch.zeros(1, 3, side, side)
        return torch.cat([self.network(gray)[0] for _ in photos["photos"]], dim=2)
