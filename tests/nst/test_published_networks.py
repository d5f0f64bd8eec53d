"""Networks of one style as PyTorch's examples publish them, by formulas written anew here."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nst.errors import OptionError, UnknownStyle, WeightsError
from nst.feed_forward.method import FeedForward
from nst.images.codec import encode_image
from nst.stylizer import Stylized
from tests.nst.test_feed_forward import random_picture

NORMS = ["in1", "in2", "in3", "in4", "in5", *(f"res{n}.in{m}" for n in range(1, 6) for m in (1, 2))]
CONVOLUTIONS = {
    "conv1": (32, 3, 9),
    "conv2": (64, 32, 3),
    "conv3": (128, 64, 3),
    "deconv1": (64, 128, 3),
    "deconv2": (32, 64, 3),
    "deconv3": (3, 32, 9),
    **{f"res{n}.conv{m}": (128, 128, 3) for n in range(1, 6) for m in (1, 2)},
}
CHANNELS = {"in1": 32, "in2": 64, "in3": 128, "in4": 64, "in5": 32}


def made(*, stale: bool = False, wrapped: str = "") -> dict[str, Tensor]:
    """A state dict in the published layout.

    Args:
        stale: with the running statistics that old files have, and that count for nothing.
    """
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, (after, before, side) in CONVOLUTIONS.items():
        scale = 1 / (before * side * side) ** 0.5
        state[f"{name}.conv2d.weight"] = scale * torch.randn(after, before, side, side, generator=random)
        state[f"{name}.conv2d.bias"] = scale * torch.randn(after, generator=random)
    state["deconv3.conv2d.weight"] *= 60
    state["deconv3.conv2d.bias"] += 120
    for name in NORMS:
        channels = CHANNELS.get(name, 128)
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(channels, generator=random)
        state[f"{name}.bias"] = 0.2 * torch.randn(channels, generator=random)
        if stale:
            state[f"{name}.running_mean"] = torch.full([channels], 7.0)
            state[f"{name}.running_var"] = torch.full([channels], 9.0)
    return {wrapped + name: value for name, value in state.items()}


def by_the_formulas(photo: Tensor, state: dict[str, Tensor]) -> Tensor:
    """(3, H, W) in [0, 1] to the same, H and W multiples of 4."""

    def convolved(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = state[f"{name}.conv2d.weight"], state[f"{name}.conv2d.bias"]
        border = weight.shape[2] // 2
        return F.conv2d(F.pad(x, (border,) * 4, mode="reflect"), weight, bias, stride)

    def normed(name: str, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        variance = (x - mean).square().mean((2, 3), keepdim=True)
        scale, shift = (state[f"{name}.{what}"].view(1, -1, 1, 1) for what in ("weight", "bias"))
        return scale * (x - mean) / (variance + 1e-5).sqrt() + shift

    x = 255 * photo[None]
    for number, stride in ((1, 1), (2, 2), (3, 2)):
        x = normed(f"in{number}", convolved(f"conv{number}", x, stride)).relu()
    for number in range(1, 6):
        name = f"res{number}"
        inner = normed(f"{name}.in1", convolved(f"{name}.conv1", x)).relu()
        x = x + normed(f"{name}.in2", convolved(f"{name}.conv2", inner))
    for number in (1, 2):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = normed(f"in{number + 3}", convolved(f"deconv{number}", x)).relu()
    return (convolved("deconv3", x)[0] / 255).clamp(0, 1)


def saved(state: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def painted(state: dict[str, Tensor], photo: Tensor, **options: Any) -> Tensor:
    stylizer = FeedForward(weights="/w.pth", **options).build({"/w.pth": saved(state)}, torch.device("cpu"))
    (found,) = stylizer([photo], [torch.Generator()])
    assert isinstance(found, Stylized), found
    return found.image


@pytest.mark.parametrize("more", [{}, {"stale": True}, {"wrapped": "module."}], ids=str)
@pytest.mark.parametrize("size", [(64, 80), (8, 8), (40, 132)], ids=str)
def test_they_paint_by_their_formulas(more: dict[str, Any], size: tuple[int, int]) -> None:
    photo = random_picture(*size)
    expected = by_the_formulas(photo, made())
    assert float((expected - photo).abs().mean()) > 0.05
    assert float(expected.std()) > 0.05
    torch.testing.assert_close(painted(made(**more), photo), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(61, 79), (3, 5), (1, 30)], ids=str)
def test_photographs_of_any_size(size: tuple[int, int]) -> None:
    """As if they went on mirrored."""
    photo, (height, width) = random_picture(*size), size
    beyond = [max(8, side + -side % 4) - side for side in size]
    larger = photo.movedim(0, 2).numpy()
    padded = np.pad(larger, ((0, beyond[0]), (0, beyond[1]), (0, 0)), mode="reflect")
    expected = by_the_formulas(torch.from_numpy(padded).movedim(2, 0), made())[:, :height, :width]
    torch.testing.assert_close(painted(made(), photo), expected, rtol=0, atol=1e-5)


def test_strength_and_colors() -> None:
    photo = random_picture(40, 40)
    assert torch.equal(painted(made(), photo, strength=0.0), photo)
    half = painted(made(), photo, strength=0.5)
    torch.testing.assert_close(half, (photo + painted(made(), photo)) / 2, rtol=0, atol=1e-6)
    kept = painted(made(), photo, preserve_color="original")
    assert float((kept - painted(made(), photo)).abs().mean()) > 0.01


def test_large_ones_are_painted_smaller_and_keep_their_detail() -> None:
    photo = random_picture(90, 120)
    found = painted(made(), photo, stroke_side_px=60)
    assert found.shape == photo.shape
    assert float((found - painted(made(), photo)).abs().mean()) > 0.01


def test_their_one_style_is_theirs() -> None:
    data = saved(made())
    picture = encode_image(random_picture(40, 40), format="png")
    with pytest.raises(OptionError, match=r"style = '/s.png'.*has one style"):
        FeedForward(weights="/w", style="/s.png").check_style({"/w": data, "/s.png": picture})
    with pytest.raises(OptionError, match=r"preserve_color = 'match'.*needs a style picture"):
        FeedForward(weights="/w", preserve_color="match").check_style({"/w": data})
    stylizer = FeedForward(weights="/w").build({"/w": data}, torch.device("cpu"))
    found = stylizer([random_picture(20, 20)], [torch.Generator()], ["wave"])
    assert isinstance(found[0], UnknownStyle)


def test_damaged_ones() -> None:
    state = made()
    del state["res3.in1.weight"]
    with pytest.raises(WeightsError, match=r"lacks res3\.in1\.weight"):
        painted(state, random_picture(20, 20))
    state = made()
    state["conv2.conv2d.weight"] = torch.zeros(64, 32, 5, 5)
    with pytest.raises(WeightsError, match=r"conv2\.conv2d\.weight is \(64, 32, 5, 5\)"):
        painted(state, random_picture(20, 20))
