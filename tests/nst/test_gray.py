"""Gray photographs in and out of CycleGANs."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nst.cyclegan.method import CycleGAN, GeneratorConfig
from nst.cyclegan.training import CycleGANOptions, CycleGANTraining
from nst.errors import OptionError
from nst.gan.export import export_torch
from nst.gan.translate import with_channels
from nst.stylizer import Stylized
from tests.nst.test_cyclegan import CPU
from tests.nst.test_style_transfer import pictures

GRAY_TO_COLOR = CycleGANOptions(
    generator="resnet_6blocks",
    generator_channels=2,
    discriminator="n_layers",
    discriminator_layers=1,
    discriminator_channels=2,
    lambda_identity=0.0,
    input_channels=1,
)


def made() -> tuple[CycleGANTraining, bytes]:
    training = CycleGANTraining(GRAY_TO_COLOR)
    return training, training.file_bytes()


def translated(data: bytes, direction: str, photo: Tensor) -> Tensor:
    stylizer = CycleGAN(weights="w", direction=direction).build({"w": data}, CPU)  # type: ignore[arg-type]
    (outcome,) = stylizer([photo], [torch.Generator()])
    assert isinstance(outcome, Stylized)
    assert outcome.image.shape == photo.shape
    assert outcome.image.is_contiguous()
    return outcome.image


def test_gray_is_what_pillow_makes_of_colors() -> None:
    levels = torch.randint(0, 256, (9, 7, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = np.asarray(Image.fromarray(levels.numpy()).convert("L"), float)
    found = with_channels(levels.permute(2, 0, 1)[None].double(), 1)
    assert found.shape == (1, 1, 9, 7)
    assert np.abs(found[0, 0].numpy() - expected).max() <= 1
    color = with_channels(found, 3)
    assert color.shape == (1, 3, 9, 7)
    assert with_channels(color, 3) is color
    torch.testing.assert_close(with_channels(color, 1), found)


def test_each_network_sees_the_channels_of_its_side() -> None:
    training, _ = made()
    first = {name: next(network.parameters()).shape[1] for name, network in training._networks().items()}
    assert first == {"G_A": 1, "G_B": 3, "D_A": 3, "D_B": 1}
    color, gray = (2 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(n)) - 1 for n in (1, 2))
    losses = training.step((color, gray))
    again, _ = made()
    gray_only = again.step((with_channels(with_channels(color, 1), 3), gray))
    for name, loss in losses.items():
        torch.testing.assert_close(gray_only[name], loss, rtol=1e-5, atol=0)


def test_a_file_has_both_directions() -> None:
    training, data = made()
    (photo,) = pictures((24, 32))
    gray = with_channels(photo[None], 1)
    for direction, network, given in (("A2B", training.G_A, gray), ("B2A", training.G_B, photo[None])):
        expected = with_channels((network.eval()(2 * given - 1).detach() + 1) / 2, 3)
        torch.testing.assert_close(translated(data, direction, photo)[None], expected)
    assert len(translated(data, "B2A", photo).unique(dim=0)) == 1, "a gray picture"
    assert len(translated(data, "A2B", photo).unique(dim=0)) == 3


@pytest.mark.slow
def test_it_is_exported_with_the_channels_that_it_has() -> None:
    _, data = made()
    for direction, channels in (("A2B", 1), ("B2A", 3)):
        generator = CycleGAN(weights="w", direction=direction).exportable({"w": data})  # type: ignore[arg-type]
        assert generator.channels == channels
        exported, _ = export_torch(generator)
        run = torch.export.load(io.BytesIO(exported)).module()
        assert run(torch.zeros(1, channels, 8, 12)).shape == (1, 4 - channels, 8, 12)


def test_bad_channels_are_refused() -> None:
    for option in ("input_channels", "output_channels"):
        for make in (CycleGANOptions, GeneratorConfig):
            with pytest.raises(OptionError, match=rf"{option} = 2: .*Choices: 1, 3"):
                make(**{option: 2})
    with pytest.raises(OptionError, match=r"lambda_identity = 0.5: must be 0: images of a and of b"):
        CycleGANOptions(input_channels=1)
    CycleGANOptions(input_channels=1, output_channels=1)
