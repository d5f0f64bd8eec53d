"""CycleGAN (Zhu et al. 2017): two generators between two collections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from jobs.training.recipes.recipe import Recipe, Trainer, Translation
from nst.errors import ImageTooSmall

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nst.cyclegan.method import Direction
    from nst.cyclegan.training import CycleGANOptions
    from nst.stylizer import AssetRef

__all__ = ["CycleGANRecipe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleGANRecipe(Recipe):
    """Two generators, from a to b and back."""

    a: str
    """Photographs: a folder, a glob, a bucket prefix, or a manifest."""
    b: str
    """Photographs of what those of `a` are to become, or to be made from."""
    model: CycleGANOptions
    """Networks, losses and optimizers."""

    @classmethod
    def model_options(cls) -> type[CycleGANOptions]:
        from nst.cyclegan.training import CycleGANOptions

        return CycleGANOptions

    def refusal(self, height: int, width: int) -> str | None:
        from nst.cyclegan.networks import check_image_size

        try:
            check_image_size(
                self.model.generator,
                self.model.discriminator,
                height,
                width,
                norm=self.model.norm,
                padding=self.model.padding,
                layers=self.model.discriminator_layers,
            )
        except ImageTooSmall as error:
            return str(error)
        return None

    @property
    def multiple(self) -> int:
        from nst.cyclegan.networks import size_multiple

        return size_multiple(self.model.generator)

    @staticmethod
    def stream_of(collection: str) -> str:
        return collection.upper()

    def build(self, *, seed: int, device: torch.device) -> Trainer:
        from nst.cyclegan.training import CycleGANTraining

        return CycleGANTraining(self.model, seed=seed, device=device)

    def asset(self, url: str, sha256: str | None = None) -> AssetRef:
        from nst.stylizer import AssetRef

        return AssetRef(option="weights", url=url, kind="weights", sha256=sha256)

    def translations(
        self,
        data: bytes,
        most: int,  # noqa: ARG002  always both
        device: torch.device,
    ) -> Iterator[Translation]:
        from nst.cyclegan.method import CycleGAN

        sides: tuple[tuple[Direction, str, str, int], ...] = (
            ("A2B", "a", "b", self.model.output_channels),
            ("B2A", "b", "a", self.model.input_channels),
        )
        for direction, source, target, channels in sides:
            one = CycleGAN(weights="", direction=direction).build({"": data}, device)
            yield Translation(direction, source, target, one.translate, partial(_seen, channels=channels))

    @staticmethod
    def samples_caption(collections: Sequence[str]) -> str:  # noqa: ARG004
        return "a, A to B, and back; b, B to A, and back"


def _seen(images: Tensor, channels: int) -> Tensor:
    """Photographs (N, 3, H, W) as networks with so many channels see them, in the same form."""
    from nst.gan.translate import with_channels

    return with_channels(with_channels(images, channels), 3)
