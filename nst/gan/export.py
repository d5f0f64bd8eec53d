"""Trained generators as files that other programs run: torch.export's .pt2, and ONNX."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nst.errors import NstError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = [
    "ONNX_PACKAGES",
    "Exportable",
    "export_onnx",
    "export_torch",
    "largest_difference",
    "missing_packages",
]

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What writing and checking ONNX needs besides torch: the extra `onnx`."""
_MOST_DIFFERENCE = 1e-3
"""Most that a pixel of a file's pictures may be off, in [-1, 1]; rounding makes a hundredth of that."""


@dataclass(frozen=True, slots=True)
class Exportable:
    """A generator as others run it."""

    network: nn.Module
    """(N, C, H, W) in [-1, 1] to pictures of the same size and range, on the CPU in float32."""
    multiple: int
    """What H and W are multiples of."""
    least: int
    """The least H and W."""
    channels: int = 3
    """Channels of the images, 1 (gray) or 3."""


def missing_packages() -> list[str]:
    """Those of `ONNX_PACKAGES` that are not installed."""
    return [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]


def export_torch(generator: Exportable) -> tuple[bytes, float]:
    """A .pt2 for any number of images of any size, which `torch.export.load` reads, and by how much at most its
    pictures differ from the generator's.

    Raises:
        NstError: they differ by more than rounding does.
    """
    file = io.BytesIO()
    torch.export.save(_program(generator), file)
    data = file.getvalue()
    run = torch.export.load(io.BytesIO(data)).module()
    return data, largest_difference(generator, run)


def export_onnx(generator: Exportable) -> tuple[bytes, float]:
    """An ONNX model for any number of images of any size, from `images` to `pictures`, and by how much at most
    these differ from the generator's, as ONNX Runtime computes them.

    Raises:
        ImportError: one of `ONNX_PACKAGES` is not installed.
        NstError: they differ by more than rounding does.
    """
    import onnxruntime

    program: Any = torch.onnx.export(
        _program(generator), input_names=["images"], output_names=["pictures"], dynamo=True, verbose=False
    )
    data: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["pictures"], {"images": images.numpy()})[0])

    return data, largest_difference(generator, run)


def largest_difference(generator: Exportable, run: Callable[[Tensor], Tensor]) -> float:
    """The largest difference of what `run` and the generator make of random images of several sizes: of pixels
    in [-1, 1].

    Raises:
        NstError: it is more than rounding.
    """
    draws, worst = torch.Generator().manual_seed(0), 0.0
    step, least = generator.multiple, generator.least
    for size in ((1, least, least + step), (3, least + 2 * step, least)):
        count, height, width = size
        images = 2 * torch.rand(count, generator.channels, height, width, generator=draws) - 1
        with torch.no_grad():
            found, expected = run(images), generator.network(images)
        if found.shape != expected.shape:
            raise NstError(f"the exported file makes {tuple(found.shape)} of images of {tuple(images.shape)}")
        difference = float((found - expected).abs().max())
        if not difference <= _MOST_DIFFERENCE:  # nor if it is no number
            raise NstError(
                f"the exported file's pictures differ from the generator's by {difference:g}, in [-1, 1]"
            )
        worst = max(worst, difference)
    return worst


def _program(generator: Exportable) -> ExportedProgram:
    from torch.export import Dim, export
    from torch.fx.experimental import _config as sizes

    step, fewest = generator.multiple, generator.least // generator.multiple
    rows, columns = (step * Dim(name, min=fewest) for name in ("rows", "columns"))
    example = torch.zeros(2, generator.channels, generator.least + step, generator.least + 2 * step)
    # Else sizes are taken to be 2 at least, also of activations: a U-Net's are 1 x 1 for the smallest images.
    with torch.no_grad(), sizes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return export(generator.network, (example,), dynamic_shapes=({0: Dim("count"), 2: rows, 3: columns},))
