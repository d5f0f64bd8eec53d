"""Earlier fakes for the discriminators (Shrivastava et al. 2017), with a state that can be saved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nst import check

__all__ = ["ImagePool"]


class ImagePool:
    """Keeps up to `size` images. Of those given, each is either handed back, or, half of the time once the
    pool is full, kept in the place of an earlier one, which is handed back instead.

    Args:
        size: 0: images are handed back as they are.
        seed: of its choices.
    """

    def __init__(self, size: int = 50, *, seed: int = 0) -> None:
        check.at_least("pool_size", size, 0)
        self.size = size
        self._images: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(seed)

    def query(self, images: Tensor) -> Tensor:
        """(N, C, H, W), detached, to as many."""
        images = images.detach()
        if self.size == 0:
            return images
        handed = []
        for image in images:
            if len(self._images) < self.size:
                self._images.append(image.clone())
                handed.append(image)
            elif float(torch.rand((), generator=self._generator)) < 0.5:
                place = int(torch.randint(self.size, (), generator=self._generator))
                handed.append(self._images[place].to(image))
                self._images[place] = image.clone()
            else:
                handed.append(image)
        return torch.stack(handed)

    def state_dict(self) -> dict[str, Any]:
        """Images and the state of its choices."""
        return {"images": list(self._images), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._images = list(state["images"])
        self._generator.set_state(state["generator"])
