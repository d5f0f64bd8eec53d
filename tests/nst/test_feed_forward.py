"""The painter: folded as in training, in tiles as whole, of any size, for any style."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nst.errors import DecodeError, Diverged, OptionError, UnknownStyle, WeightsError
from nst.feed_forward import stylizer as module
from nst.feed_forward.coloring import Moments, coloring
from nst.feed_forward.files import painter_file, read_painter
from nst.feed_forward.grain import grain
from nst.feed_forward.method import FeedForward
from nst.feed_forward.networks import MARGIN_PX, Painter, PainterConfig
from nst.feed_forward.pictures import style_picture
from nst.feed_forward.size import FeedForwardPlan, reference_px
from nst.feed_forward.stylizer import FeedForwardStylizer, Look
from nst.images.codec import encode_image, resize_image
from nst.stylizer import Stylized

SMALL = PainterConfig(half=4, quarter=6, eighth=8)


def random_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth, with structure."""
    random = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, max(2, height // 6), max(2, width // 6), generator=random)
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic")[0].clamp(0, 1)


def made(seed: int = 0) -> Painter:
    """A network whose fine detail matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        painter = Painter(SMALL)
        torch.nn.init.normal_(painter.fine.weight, std=0.2)
    return painter


STYLES = {"wave": random_picture(60, 80, 1), "reeds": random_picture(48, 48, 2)}


MASK = (random_picture(20, 20, 5)[:1] > 0.5).float()


def build(more: Mapping[str, bytes] | None = None, **options: Any) -> FeedForwardStylizer:
    assets = {f"/{name}.png": encode_image(each, format="png") for name, each in STYLES.items()}
    assets["/p.safetensors"] = painter_file(made())
    assets["/mask.png"] = encode_image(MASK.expand(3, -1, -1), format="png")
    assets["/rest.png"] = encode_image(1 - MASK.expand(3, -1, -1), format="png")
    given = {"style": "/wave.png", "weights": "/p.safetensors", "precision": "float32", **options}
    return FeedForward(**given).build({**assets, **(more or {})}, torch.device("cpu"))


def painted(stylizer: FeedForwardStylizer, photo: Tensor, style: str | None = None) -> Tensor:
    (found,) = stylizer([photo], [torch.Generator()], [style])
    assert isinstance(found, Stylized), found
    return found.image


def test_folded_it_paints_what_it_was_trained_to_paint() -> None:
    painter, photo = made(), random_picture(64, 88)[None]
    with torch.no_grad():
        first, second = (painter(random_picture(64, 72, seed)[None]).own for seed in (3, 4))
        expected, own, _ = painter(photo, first)
        found = painter.folded(first, own)(photo)
        other = painter(photo, second).picture
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-5)
    assert float((expected - other).abs().mean()) > 0.01


def test_the_grain_is_that_of_the_place() -> None:
    """As likely black as white, without a pattern, and of no other part of a picture."""
    noise = grain(240, 200, 0, 0, 2, torch.zeros(1))
    assert torch.equal(grain(20, 30, 7, 9, 2, noise), noise[..., 7:27, 9:39])
    assert set(noise.unique().tolist()) == {-1, 1}
    others = [noise.roll(1, 1), noise.roll(1, 2), noise.roll(1, 3), noise.roll((2, 2), (2, 3))]
    for other in (torch.ones(1), *others, grain(240, 200, 0, 0, 4, noise)):
        assert float((noise * other).mean((2, 3)).abs().max()) < 0.02
    spectrum = torch.fft.fft2(noise[0]).abs() / noise[0, 0].numel() ** 0.5
    assert float(spectrum.max()) < 4.5, "no frequency stands out"


def test_in_its_own_style_a_picture_is_painted_as_it_is() -> None:
    painter, photo = made(), random_picture(64, 88)[None]
    with torch.no_grad():
        plain = painter(photo)
        torch.testing.assert_close(painter(photo, plain.own).picture, plain.picture, rtol=0, atol=1e-4)


def test_activations_get_the_moments_of_the_style() -> None:
    """At each place, but for the noise that is added to both."""
    painter = made()
    with torch.no_grad():
        wanted = painter(random_picture(160, 160, 3)[None]).own
        own, activations = painter(0.4 + 0.2 * random_picture(160, 160, 4)[None], wanted)[1:]
    for before, x, want in zip(own, activations, wanted, strict=True):
        matrix, shift = coloring(before, want)
        found = Moments.of((matrix @ x.flatten(2) + shift).view_as(x))
        torch.testing.assert_close(found.mean, want.mean, rtol=0, atol=1e-4)
        apart, at_first = (
            float((each.covariance - want.covariance).norm() / want.covariance.norm())
            for each in (found, before)
        )
        assert apart < min(0.05, 0.4 * at_first)


def test_the_gradient_of_coloring() -> None:
    """Also where eigenvalues are equal."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 4, 9, generator=random, dtype=torch.float64).requires_grad_() for _ in range(2))
    same = torch.eye(4, dtype=torch.float64).expand(2, 4, 4).clone().requires_grad_()

    def of(x: Tensor, y: Tensor, equal: Tensor) -> tuple[Tensor, ...]:
        one, other = (Moments(each.mean(2, keepdim=True), each @ each.mT) for each in (x, y))
        flat = Moments(one.mean, equal @ equal.mT)
        return (*coloring(one, other), *coloring(flat, one), *coloring(other, flat))

    assert torch.autograd.gradcheck(of, (x, y, same))


def test_mixed_moments_are_those_of_the_mixture() -> None:
    random = torch.Generator().manual_seed(0)
    first, second = torch.rand(1, 3, 4, 6, generator=random), torch.rand(1, 3, 12, 6, generator=random) + 1
    whole = Moments.of(torch.cat([first, second], 2))
    found = Moments.cat([Moments.of(first), Moments.of(second)]).mixed(torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(found.mean, whole.mean)
    torch.testing.assert_close(found.covariance, whole.covariance)


def test_the_margin_is_as_wide_as_it_looks() -> None:
    """Pixels that far away change nothing, and those a little nearer do."""
    painter = made()
    photo = random_picture(256, 256)[None]
    with torch.no_grad():
        own = painter(photo).own
        folded = painter.folded(own, own)
        before = folded(photo)
        reach = 0
        for column in (*range(20, 60), *range(188, 228)):
            other = photo.clone()
            other[..., column] = 1 - other[..., column]
            if bool((folded(other)[..., 120:128] != before[..., 120:128]).any()):
                reach = max(reach, 120 - column, column - 127)
    margin = MARGIN_PX
    assert margin - 8 <= reach <= margin


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize(("keep", "precision"), [("none", "bfloat16"), ("original", "float32")])
def test_all_of_it_is_where_the_photograph_is(keep: Any, precision: Any) -> None:
    """On a GPU that is none: operations on tensors of two devices are errors."""
    with FakeTensorMode():
        with torch.device("cuda"):
            painter = Painter(SMALL)
        photo, style, mask = torch.rand(3, 100, 140), torch.rand(3, 50, 60), torch.rand(1, 9, 9)
        look = Look([lambda: style, lambda: style], [0.5, 0.5])
        plan = FeedForwardPlan(
            strength=0.5, preserve_color=keep, stroke_side_px=90, precision=precision, pass_memory_mb=1
        )
        stylizer = FeedForwardStylizer(plan, painter, {}, [], reference=photo)
        for wanted in ([(look, None)], [(look, mask.to("cuda")), (look, mask)]):
            for image in (photo, (255 * photo).to(torch.uint8)):
                painted, numbers = stylizer.paint(image, wanted)
                assert (painted.device.type, painted.shape) == ("cuda", photo.shape)
                assert (painted.dtype, numbers.device.type) == (image.dtype, "cuda")


@pytest.mark.parametrize("size", [(97, 131), (40, 300), (1, 50), (3, 3), (160, 161), (500, 130)], ids=str)
@pytest.mark.parametrize("tile", [1, 5, 10])
def test_in_tiles_as_whole(size: tuple[int, int], tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = random_picture(*size)
    whole = painted(build(pass_memory_mb=None), photo)
    monkeypatch.setattr(module, "_PIXEL_BYTES", 100)
    tiled = painted(build(pass_memory_mb=tile), photo)
    assert whole.shape == photo.shape
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_strength_is_from_the_photograph_to_the_style() -> None:
    photo = random_picture(64, 80)
    assert torch.equal(painted(build(strength=0.0), photo), photo)
    changes = [
        float((painted(build(strength=strength), photo) - photo).abs().mean()) for strength in (0.02, 0.1, 0.2)
    ]
    assert changes[0] < changes[1] < changes[2]
    assert changes[0] == pytest.approx(changes[2] / 10, rel=0.01)


@pytest.mark.parametrize("rows", [1000, 17])
def test_large_photographs_keep_their_detail_and_strokes_their_size(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows are worked on at a time."""
    monkeypatch.setattr("nst.stylizer._BAND_PIXELS", 400 * rows)
    photo = random_picture(300, 400)
    photo = (photo + 0.1 * torch.rand(photo.shape, generator=torch.Generator().manual_seed(4))).clamp(0, 1)
    found = painted(build(stroke_side_px=100), photo)
    small = resize_image(photo, (75, 100))
    strokes = resize_image(painted(build(), small), (300, 400))
    detail = (photo - resize_image(small, (300, 400))) * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close(found, (strokes + detail.sum(0)).clamp(0, 1), rtol=0, atol=1e-5)
    assert float(detail.sum(0).abs().mean()) > 0.01


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strength": 0.1},
        {"strength": 0.0},
        {"stroke_side_px": 60},
        {"stroke_side_px": 60, "preserve_color": "original"},
        {"stroke_side_px": 60, "preserve_color": "luminance"},
        {"preserve_color": "match"},
        {"style": ("/wave.png", "/reeds.png"), "style_masks": ("/mask.png", "/rest.png")},
        {"pass_memory_mb": 5, "precision": "bfloat16"},
    ],
    ids=str,
)
def test_of_levels_it_makes_levels(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that its picture is rounded to in a file, and says the same of it. They are not changed."""
    monkeypatch.setattr("nst.stylizer._BAND_PIXELS", 17 * 131)
    stylizer, levels = build(**options), (255 * random_picture(97, 131)).to(torch.uint8)
    before = levels.clone()
    (whole,) = stylizer([levels / 255], [torch.Generator()])
    (found,) = stylizer([levels], [torch.Generator()])
    assert isinstance(whole, Stylized)
    assert isinstance(found, Stylized)
    assert (found.image.dtype, whole.image.dtype) == (torch.uint8, torch.float32)
    assert torch.equal(found.image, (255 * whole.image).round().to(torch.uint8))
    assert encode_image(found.image, format="png") == encode_image(whole.image, format="png")
    assert found.stats == whole.stats
    assert torch.equal(levels, before)
    assert found.image.data_ptr() != levels.data_ptr(), "the photograph's memory is not its picture's"


def test_what_is_not_finite_is_an_error_of_levels_too() -> None:
    stylizer = build()
    stylizer._painter.coarse.bias.data[0] = torch.nan
    for photo in (random_picture(40, 48), torch.zeros(3, 40, 48, dtype=torch.uint8)):
        (found,) = stylizer([photo], [torch.Generator()])
        assert isinstance(found, Diverged)


def test_in_bfloat16_it_paints_about_the_same() -> None:
    photo = random_picture(64, 80)
    found, expected = painted(build(precision="bfloat16"), photo), painted(build(), photo)
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).abs().mean()) < 0.01


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_machine_decides_on_the_precision(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, has = random_picture(64, 80), precision == "bfloat16"
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": has, "avx2": True})
    expected = painted(build(precision=precision), photo)
    assert torch.equal(painted(build(precision="auto"), photo), expected)


def test_tiles_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a gray level from the whole."""
    photo = random_picture(300, 200)
    whole = painted(build(precision="bfloat16", pass_memory_mb=None), photo)
    monkeypatch.setattr(module, "_PIXEL_BYTES", 100)
    tiled = painted(build(precision="bfloat16", pass_memory_mb=3), photo)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1 / 255)


def test_frames_share_a_reference() -> None:
    """Where one frame is as the other, it is painted as the other; without, what changes elsewhere counts."""
    first = (random_picture(120, 240) * 255).round() / 255
    second = first.clone()
    second[:, :, 200:] = 1 - second[:, :, 200:]
    sharing = build(reference="/frame.png", more={"/frame.png": encode_image(first, format="png")})
    one, other = (painted(sharing, each)[..., :120] for each in (first, second))
    assert torch.equal(one, painted(build(), first)[..., :120])
    torch.testing.assert_close(other, one, rtol=0, atol=1e-5)
    assert float((painted(build(), second)[..., :120] - one).abs().mean()) > 1e-3


def test_what_frames_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network for a reference and a style; that for another strength is another."""
    frames = [random_picture(120, 160, seed) for seed in (0, 7)]
    shared = {"reference": "/frame.png", "more": {"/frame.png": encode_image(frames[0], format="png")}}
    weaker = painted(build(**shared, strength=0.5), frames[1])
    expected = painted(build(**shared), frames[1])
    sharing = build(**shared)
    painted(sharing, frames[0])
    assert torch.equal(painted(sharing.at_strength(0.5), frames[1]), weaker)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("the reference is looked at again")

    monkeypatch.setattr(Painter, "forward", again)
    assert torch.equal(painted(sharing, frames[1]), expected)


@pytest.mark.parametrize("keep", ["match", "luminance"])
def test_a_style_whose_colors_change_is_decoded_once(keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [random_picture(64, 80, seed) for seed in (0, 7)]
    expected = painted(build(preserve_color=keep), photos[1])
    stylizer, decoded = build(preserve_color=keep), list[str]()

    def counted(option: str, *rest: Any) -> Tensor:
        decoded.append(option)
        return style_picture(option, *rest)

    monkeypatch.setattr("nst.feed_forward.method.style_picture", counted)
    painted(stylizer, photos[0])
    assert torch.equal(painted(stylizer, photos[1]), expected)
    assert decoded == ["style"]


def test_a_photograph_may_ask_for_one_of_the_styles() -> None:
    photo = random_picture(64, 80)
    both = build(style=("/wave.png", "/reeds.png"))
    alone = {name: painted(build(style=f"/{name}.png"), photo) for name in STYLES}
    for name, expected in alone.items():
        assert torch.equal(painted(both, photo, name), expected)
    blended = painted(both, photo)
    assert all(float((blended - each).abs().mean()) > 1e-3 for each in alone.values())
    mostly = painted(build(style=("/wave.png", "/reeds.png"), style_blend=(1.0, 1e-6)), photo)
    torch.testing.assert_close(mostly, alone["wave"], rtol=0, atol=1e-3)
    unknown, known = both([photo, photo], [torch.Generator()] * 2, ["none", "wave"])
    assert isinstance(unknown, UnknownStyle)
    assert "none" in str(unknown)
    assert isinstance(known, Stylized)


def test_masks_say_where_each_style_is() -> None:
    photo = random_picture(80, 80)
    styles = ("/wave.png", "/reeds.png")
    found = painted(build(style=styles, style_masks=("/mask.png", "/rest.png")), photo)
    first, second = (painted(build(style=style), photo) for style in styles)
    mask = torch.nn.functional.interpolate(MASK[None], size=(80, 80), mode="bilinear")[0]
    for share, expected in ((mask, first), (1 - mask, second)):
        there = (share > 0.999).expand_as(photo)
        assert bool(there.any())
        torch.testing.assert_close(found[there], expected[there], rtol=0, atol=0.01)


@pytest.mark.parametrize("keep", ["luminance", "match", "original"])
def test_colors_are_kept(keep: str) -> None:
    photo = random_picture(64, 80)
    found, plain = painted(build(preserve_color=keep), photo), painted(build(), photo)
    assert float((found - plain).abs().mean()) > 1e-3
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_its_file_has_all_of_it() -> None:
    painter = made()
    again = read_painter(painter_file(painter), "it")
    assert again.config == SMALL
    for name, value in painter.state_dict().items():
        assert torch.equal(value.half().float(), again.state_dict()[name]), name
    with pytest.raises(WeightsError, match="is no painter"):
        read_painter(safetensors_of({"a": torch.zeros(1)}), "it")


def safetensors_of(state: dict[str, Tensor]) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(state)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"style": ()}, r"style = \[?\(?.*at least one picture"),
        ({"strength": 1.5}, r"strength = 1\.5"),
        ({"preserve_color": "some"}, "preserve_color = 'some'.*none, luminance, match, original"),
        ({"style_side_px": 4}, "style_side_px = 4"),
        ({"stroke_side_px": 0}, "stroke_side_px = 0"),
        ({"pass_memory_mb": 0}, "pass_memory_mb = 0"),
        ({"precision": "float16"}, "precision = 'float16'.*auto, float32, bfloat16"),
        ({"style_blend": (1.0, 2.0)}, "style_blend.*one entry for each of 1"),
        ({"style_blend": (0.0,)}, r"style_blend\[0\] = 0"),
        ({"style_masks": ("a", "b")}, "style_masks.*one entry for each of 1"),
    ],
    ids=str,
)
def test_bad_options_name_option_and_value(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        FeedForward(**{"style": "/s.png", "weights": "/p", **options})


def test_style_pictures_that_are_none() -> None:
    method = FeedForward(style="/s.png", weights="/p")
    with pytest.raises(DecodeError):
        method.check_style({"/s.png": b"no picture"})
    dot = encode_image(torch.zeros(3, 1, 1), format="png")
    with pytest.raises(OptionError, match=r"style = '/s.png'.*1 x 1 pixels.*8 at least"):
        method.check_style({"/s.png": dot})


def test_an_all_black_style_makes_a_picture() -> None:
    assets = {"/s.png": encode_image(torch.zeros(3, 64, 64), format="png"), "/p": painter_file(made())}
    stylizer = FeedForward(style="/s.png", weights="/p").build(assets, torch.device("cpu"))
    assert bool(painted(stylizer, random_picture(40, 40)).isfinite().all())


@pytest.mark.parametrize(("long", "view"), [(100, 384), (1024, 384), (1152, 432), (1536, 576), (3000, 576)])
def test_views_are_three_eighths_of_photographs_within_bounds(long: int, view: int) -> None:
    assert reference_px(torch.empty(3, 8, 1).expand(3, 8, long)) == view
    assert reference_px(torch.empty(3, 1, 8).expand(3, long, 8)) == view
