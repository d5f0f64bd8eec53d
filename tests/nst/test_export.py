"""Generators as files for other programs: torch.export, ONNX, tracing."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nst.cyclegan.method import CycleGAN, generator_file
from nst.errors import NstError, OptionError
from nst.feed_forward.files import painter_file
from nst.feed_forward.learned import LearnedStyle, StyleName
from nst.feed_forward.method import FeedForward
from nst.gan.export import (
    Exportable,
    export_onnx,
    export_torch,
    largest_difference,
    missing_packages,
)
from nst.images.codec import encode_image
from nst.methods import METHODS
from nst.modulated.method import Modulated
from nst.stylizer import ExportableMethod, Stylized
from tests.nst.test_cyclegan import small
from tests.nst.test_feed_forward import STYLES, random_picture
from tests.nst.test_feed_forward import made as made_painter
from tests.nst.test_modulated_method import made
from tests.nst.test_published_networks import made as published
from tests.nst.test_published_networks import saved


def cyclegan(direction: str = "A2B", **options: Any) -> Exportable:
    networks = [small(**options) for _ in range(2)]
    for parameter in networks[1][0].parameters():
        parameter.data.mul_(0.9)
    data = generator_file({"A2B": networks[0][0], "B2A": networks[1][0]}, networks[0][1])
    return CycleGAN(weights="w", direction=direction).exportable({"w": data})  # type: ignore[arg-type]


def modulated(style: Any = "pastel") -> Exportable:
    return Modulated(generator="g", style=style).exportable({"g": made()[1]})


def painter() -> Exportable:
    """In two styles, blended."""
    assets = {f"/{name}.png": encode_image(each, format="png") for name, each in STYLES.items()}
    return FeedForward(style=tuple(assets), weights="w").exportable(
        {**assets, "w": painter_file(made_painter())}
    )


WIDE = {"channels": 32}
"""Blocks wide enough for Winograd's convolutions."""
MADE: dict[str, Callable[[], Exportable]] = {
    "resnet": lambda: cyclegan("B2A", **WIDE),
    "blur": lambda: cyclegan(upsample="blur", norm="batch", padding="zero"),
    "unet": lambda: cyclegan(generator="unet_128", channels=1),
    "many styles": modulated,
    "painter": painter,
    "published": lambda: FeedForward(weights="w").exportable({"w": saved(published())}),
}


def quick(*names: str) -> pytest.MarkDecorator:
    """All of them, but these alone where tests are to be quick."""
    marks = {name: [] if name in names else [pytest.mark.slow] for name in MADE}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in MADE])


def images(count: int, height: int, width: int) -> Tensor:
    return 2 * torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5)) - 1


@quick("unet")
def test_a_file_of_torch_export_takes_any_number_and_size(name: str) -> None:
    generator = MADE[name]()
    data, difference = export_torch(generator)
    assert difference < 1e-5
    run = torch.export.load(io.BytesIO(data)).module()
    step, least = generator.multiple, generator.least
    for size in ((1, least, least), (1, least, least + step), (5, least + 3 * step, least)):
        x = images(*size)
        torch.testing.assert_close(run(x), generator.network(x), rtol=0, atol=5e-5)


@quick("resnet", "painter", "published")
def test_onnx_takes_any_number_and_size(name: str) -> None:
    if missing := missing_packages():
        pytest.skip(f"{', '.join(missing)}: not installed")
    import onnxruntime

    generator = MADE[name]()
    data, difference = export_onnx(generator)
    assert difference < 1e-4
    session = onnxruntime.InferenceSession(data)
    (given,), (made_,) = session.get_inputs(), session.get_outputs()
    assert (given.name, made_.name) == ("images", "pictures")
    x = images(4, generator.least + generator.multiple, generator.least)
    found = session.run(None, {"images": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), generator.network(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_what_is_traced_is_the_generator(name: str) -> None:
    """For any number of images: Winograd's convolutions, the blur, and norms one by one step aside."""
    generator = MADE[name]()
    side = 2 * generator.least
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced: Any = torch.jit.trace(generator.network, images(2, side, side), check_trace=False)
        saved = io.BytesIO()
        torch.jit.save(traced, saved)
        x = images(3, side, side)
        torch.testing.assert_close(traced(x), generator.network(x), rtol=0, atol=1e-5)


def test_every_method_of_one_pass_is_exported() -> None:
    made_of = {kind for kind, cls in METHODS.items() if hasattr(cls, "exportable")}
    assert made_of == {"cyclegan", "feed_forward", "modulated"}
    assert isinstance(CycleGAN(weights="w"), ExportableMethod)
    assert isinstance(Modulated(generator="g", style="x"), ExportableMethod)


def test_directions_and_styles_are_generators_of_their_own() -> None:
    x = images(1, 16, 20)
    for one, other in (
        (cyclegan("A2B"), cyclegan("B2A")),
        (modulated("photo"), modulated({"photo": 1, "pastel": 1})),
    ):
        assert float((one.network(x) - other.network(x)).detach().abs().mean()) > 1e-3


def test_a_file_that_makes_other_pictures_is_an_error() -> None:
    class Other(nn.Module):
        def __init__(self, off: float) -> None:
            super().__init__()
            self.off = off

        def forward(self, x: Tensor) -> Tensor:
            return x + self.off

    generator = Exportable(Other(0.0), 4, 8)
    assert largest_difference(generator, Other(1e-4)) == pytest.approx(1e-4, rel=0.01)
    for run in (Other(0.01), Other(float("nan"))):
        with pytest.raises(NstError, match="differ from the generator's by"):
            largest_difference(generator, run)
    with pytest.raises(NstError, match=r"makes \(1, 3, 8, 11\) of images of \(1, 3, 8, 12\)"):
        largest_difference(generator, lambda x: x[..., 1:])


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("style", [*STYLES, "published"])
def test_an_exported_painter_paints_as_jobs_do(style: str, strength: float) -> None:
    """At its strength and without a frame; to a rounding where a photograph is its own view."""
    assets = {f"/{name}.png": encode_image(each, format="png") for name, each in STYLES.items()}
    own = style == "published"
    assets["w"] = saved(published()) if own else painter_file(made_painter())
    method = FeedForward(
        style=None if own else f"/{style}.png", weights="w", strength=strength, precision="float32"
    )
    photo = random_picture(64, 80)
    (painted,) = method.build(assets, torch.device("cpu"))([photo], [torch.Generator()])
    assert isinstance(painted, Stylized)
    with torch.no_grad():
        (found,) = (method.exportable(assets).network(2 * photo[None] - 1) + 1) / 2
    assert float((found - painted.image).abs().max()) < 1e-3
    assert float((found - photo).abs().mean()) > 0.01


def test_an_exported_network_makes_no_frame_of_a_style_that_it_learned() -> None:
    """Its training saw no borders: as much is mirrored around photographs as a pixel depends on."""
    painter = made_painter()
    learned = LearnedStyle(painter.config.colored)
    for mean in learned.means:
        mean.data.fill_(0.5)
    data = painter_file(painter, [StyleName("waves", "1" * 64)], [learned])
    photo = random_picture(64, 80)
    for strength in (1.0, 0.5):
        method = FeedForward(weights="w", strength=strength, precision="float32")
        (painted,) = method.build({"w": data}, torch.device("cpu"))([photo], [torch.Generator()])
        assert isinstance(painted, Stylized)
        with torch.no_grad():
            (found,) = (method.exportable({"w": data}).network(2 * photo[None] - 1) + 1) / 2
        assert float((found - painted.image).abs().mean()) < 0.03, "moments of a wider border differ"


def test_what_changes_with_the_photograph_cannot_be_exported() -> None:
    with pytest.raises(OptionError, match="preserve_color = 'match'"):
        FeedForward(style="/s", preserve_color="match").exportable({})
    with pytest.raises(OptionError, match="style_masks"):
        FeedForward(style="/s", style_masks=("/m",)).exportable({})


def test_what_an_exported_painter_cannot_have_is_said() -> None:
    """And not left out without a word."""
    with pytest.raises(OptionError, match="reference = '/r': an exported network takes the moments of each"):
        FeedForward(style="/s", reference="/r").exportable({})
    with pytest.raises(OptionError, match="adapt_steps = 10: is for jobs"):
        FeedForward(style="/s", adapt_steps=10).exportable({})
