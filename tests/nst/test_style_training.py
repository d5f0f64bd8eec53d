"""The painter, fine-tuned for some styles: what a step learns from, in two processes, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nst.errors import OptionError, WeightsError
from nst.features import FeatureNetwork, build_features
from nst.feed_forward.adaptation import PainterAdaptation
from nst.feed_forward.coloring import Moments
from nst.feed_forward.files import painter_file, read_learned, read_names, read_painter
from nst.feed_forward.grain import CHANNELS
from nst.feed_forward.method import FeedForward
from nst.feed_forward.networks import MARGIN_PX, Painter, PainterConfig
from nst.feed_forward.options import StyleTrainingOptions
from nst.feed_forward.style_training import StyleTraining, _pieces, pictures_of
from nst.gan.parallel import Share
from nst.images.codec import encode_image
from nst.stylizer import Stylized
from tests.nst.test_feed_forward import random_picture
from tests.two import check_painters_as_one, in_two_processes, widen

SMALL: dict[str, Any] = {
    "style": ("/wave.png", "/reeds.png"),
    "half": 6,
    "quarter": 8,
    "eighth": 10,
    "side": 16,
    "pieces": 2,
    "reference_side": 24,
    "teacher": "embedded",
    "teacher_weights": "seeded",
    "content_layer": "relu2_1",
    "style_layers": ("relu1_1", "relu2_1"),
    "painter": None,
}
PICTURES = {
    f"/{name}.png": encode_image(random_picture(48, 64, seed), format="png")
    for seed, name in ((1, "wave"), (2, "reeds"))
}


@cache
def _teacher(layers: tuple[str, ...]) -> FeatureNetwork:
    return build_features("embedded", layers)


def training(**changes: Any) -> StyleTraining:
    options = StyleTrainingOptions(**{**SMALL, **changes})
    found = StyleTraining(options, seed=1)
    found.learn_from(_teacher(options.layers), pictures_of(options, PICTURES))
    return found


def photographs(seed: int, count: int = 2) -> Tensor:
    return torch.stack([2 * random_picture(40, 40, 10 * seed + number) - 1 for number in range(count)])


def stylizer(data: bytes, **options: Any) -> Any:
    method = FeedForward(**{"weights": "/w", "precision": "float32", **options})
    return method.build({**PICTURES, "/w": data}, torch.device("cpu"))


def painted(data: bytes, photo: Tensor, style: str | None = None, **options: Any) -> Tensor:
    (found,) = stylizer(data, **options)([photo], [torch.Generator()], [style])
    assert isinstance(found, Stylized), found
    return found.image


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns(precision: str) -> None:
    """In bfloat16 as well."""
    own = training(learning_rate=3e-3, precision=precision)
    losses = [float(own.step([photographs(number % 4)])["style"]) for number in range(40)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_gram_matrices_are_float32_in_bfloat16_as_well(looked_at: Callable[[str], list[Tensor]]) -> None:
    seen = looked_at("nst.feed_forward.style_training")
    training(precision="bfloat16").step([photographs(0)])
    assert {each.dtype for each in seen} == {torch.float32}


def test_the_embedded_network_teaches_unless_others_weights_are_given() -> None:
    for given, teacher in (
        ({}, "embedded"),
        ({"teacher_weights": "embedded"}, "embedded"),
        ({"teacher_weights": "/vgg16.pth"}, "vgg16"),
        ({"teacher": "vgg19"}, "vgg19"),
    ):
        assert StyleTrainingOptions(style="/s.png", **given).teacher == teacher  # type: ignore[arg-type]
        method = FeedForward(style="/s.png", adapt_steps=1, **given)  # type: ignore[arg-type]
        assert method._training_options("cpu").teacher == teacher


def test_all_of_it_moves() -> None:
    own = training(style="/wave.png", learning_rate=3e-3)
    before = {name: value.clone() for name, value in own.networks.state_dict().items()}
    own.step([photographs(0)])
    assert all(not torch.equal(value, before[name]) for name, value in own.networks.state_dict().items())


def test_it_begins_as_the_network_it_begins_with() -> None:
    """What it would end with then paints as that does: its styles have the moments of their pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        painter = Painter(PainterConfig(half=6, quarter=8, eighth=10))
    own, data, photo = training(), painter_file(painter), random_picture(64, 80)
    own.begin_with(data, "it")
    for name in ("wave", "reeds"):
        expected = stylizer(data, style=f"/{name}.png")([photo], [torch.Generator()])[0].image
        inside = slice(None), slice(8, -8), slice(8, -8)  # of a learned style, borders are painted from further
        found = painted(own.file_bytes(), photo, name)
        torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=2e-3)


def silent(height: int, width: int, top: int, left: int, stride_px: int, like: Tensor) -> Tensor:  # noqa: ARG001
    """No grain: that of pieces is another one."""
    return torch.zeros(1, CHANNELS, height, width).to(like)


def test_pieces_are_painted_as_within_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses see what the method would paint there: nothing of a border."""
    own, photo = training(style="/wave.png", side=32, reference_side=576), random_picture(200, 240)
    seen: list[Tensor] = []
    look = own._seen

    def looking(some: Tensor) -> dict[str, Tensor]:
        seen.append(some.detach())
        return look(some)

    monkeypatch.setattr(own, "_seen", looking)
    monkeypatch.setattr("nst.feed_forward.networks.grain", silent)
    data = own.file_bytes()
    own.learn([(photo, photo)])
    pieces, found = seen
    whole = painted(data, photo)
    for piece, there in zip(pieces, found, strict=True):
        at = next(
            (top, left)
            for top in range(0, 200, 8)
            for left in range(0, 240, 8)
            if torch.equal(photo[:, top : top + 32, left : left + 32], piece)
        )
        expected = whole[:, at[0] : at[0] + 32, at[1] : at[1] + 32]
        assert float((there.clamp(0, 1) - expected).abs().mean()) < 0.01
        assert float((expected - piece).abs().mean()) > 0.05


def test_what_comes_of_it_has_its_styles() -> None:
    own = training(learning_rate=3e-3)
    for number in range(3):
        own.step([photographs(number)])
    data, photo = own.file_bytes(), random_picture(64, 80)
    assert [each.name for each in read_names(data)] == ["wave", "reeds"]
    wave, reeds = (painted(data, photo, name) for name in ("wave", "reeds"))
    assert float((wave - reeds).abs().mean()) > 1e-3
    # By the picture's file, whatever it is called; another one's moments are those that the network sees.
    again = stylizer(data, style="/wave.png")([photo], [torch.Generator()])[0].image
    assert torch.equal(again, wave)
    moved = {"/moved.png": PICTURES["/wave.png"], "/w": data}
    method = FeedForward(weights="/w", style="/moved.png", precision="float32")
    assert torch.equal(method.build(moved, torch.device("cpu"))([photo], [torch.Generator()])[0].image, wave)  # type: ignore[union-attr]
    half = painted(data, photo, "wave", strength=0.5)
    torch.testing.assert_close(half, (photo + wave) / 2, rtol=0, atol=1e-5)


def test_colors_that_are_kept_change_the_picture_and_not_what_was_learned() -> None:
    own = training(style="/wave.png")
    with pytest.raises(OptionError, match=r"preserve_color = 'match'.*name it with the option style"):
        stylizer(own.file_bytes(), preserve_color="match")
    photo = random_picture(40, 40)
    kept = painted(own.file_bytes(), photo, preserve_color="original")
    assert float((kept - painted(own.file_bytes(), photo)).abs().mean()) > 1e-3


@pytest.mark.parametrize("strict", [True, False])
def test_learned_styles_are_begun_with_by_their_pictures(strict: bool) -> None:
    """In whatever order they stand; a style that the file does not know begins as any does."""
    first = training(learning_rate=3e-3)
    first.step([photographs(0)])
    data = first.file_bytes()

    def begun(*styles: str) -> list[Tensor]:
        own = training(style=styles)
        own.start_from({"it.safetensors": data}, "generator", strict=strict)
        return [each()[0].mean for each in own.networks["styles"]]  # type: ignore[union-attr]

    wave, reeds = begun("/wave.png", "/reeds.png")
    other, same = begun("/reeds.png", "/wave.png"), begun("/wave.png")
    assert torch.equal(other[0], reeds)
    assert torch.equal(other[1], wave)
    assert torch.equal(same[0], wave)
    assert not torch.equal(wave, reeds)
    alone = training(style="/wave.png", learning_rate=3e-3)
    alone.step([photographs(0)])
    own = training(style="/reeds.png")
    own.start_from({"it.safetensors": alone.file_bytes()}, "generator", strict=strict)
    expected = training(style="/reeds.png")
    expected.begin_with(alone.file_bytes(), "it")
    for found, there in zip(own.networks["styles"][0](), expected.networks["styles"][0](), strict=True):  # type: ignore[index]
        torch.testing.assert_close(found.mean, there.mean, rtol=0, atol=1e-4)


def test_networks_without_styles_need_one() -> None:
    data = painter_file(Painter(PainterConfig(half=6, quarter=8, eighth=10)))
    with pytest.raises(OptionError, match=r"style = None: is required.*'/w' was trained for no style"):
        stylizer(data)


def test_damaged_styles() -> None:
    import json

    import safetensors.torch

    data = training().file_bytes()
    tensors = safetensors.torch.load(data)
    shape = {"half": 6, "quarter": 8, "eighth": 10}
    config = {"nst.painter": json.dumps({**shape, "styles": [{}]})}
    with pytest.raises(WeightsError, match="styles in a painter's file are not readable"):
        read_names(safetensors.torch.save(tensors, metadata=config))
    config = {"nst.painter": json.dumps({**shape, "styles": [{"name": "a", "sha256": "b"}] * 3})}
    more = safetensors.torch.save(tensors, metadata=config)
    with pytest.raises(WeightsError, match="lacks"):
        read_learned(more, "it", read_painter(more, "it"))


def test_what_it_begins_with_must_fit() -> None:
    other = painter_file(Painter(PainterConfig(half=4, quarter=8, eighth=10)))
    with pytest.raises(WeightsError, match="has other channels"):
        training().begin_with(other, "it")
    with pytest.raises(WeightsError, match="no discriminator"):
        training().start_from({}, "discriminator", strict=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"style": ()}, "at least one picture"),
        ({"side": 20}, "side = 20: must be a multiple of 8"),
        ({"pieces": 0}, "pieces = 0"),
        ({"teacher": "resnet50"}, "teacher = 'resnet50'.*embedded, vgg16, vgg19"),
        ({"style_weight": -1.0}, "style_weight"),
        ({"reference_side": 3}, "reference_side = 3"),
    ],
    ids=str,
)
def test_bad_options_name_option_and_value(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        StyleTrainingOptions(**{**SMALL, **changes})


def test_an_adaptation_goes_on_to_the_bit() -> None:
    """From its state, with the rate that the step has."""

    def begun() -> PainterAdaptation:
        own = training()
        return PainterAdaptation(own, own.options, 6, None)

    whole, half, rest = begun(), begun(), begun()
    photos = [whole.prepared(random_picture(50, 30, seed)) for seed in range(3)]
    for step in range(6):
        whole.step([photos[step % 3]])
        (half if step < 3 else rest).step([photos[step % 3]])
        if step == 2:
            rest.restore(half.state_bytes())
    assert rest.steps == 6
    assert rest.file_bytes() == whole.file_bytes()


def test_moments_are_not_rounded() -> None:
    """In bfloat16, covariances would have negative eigenvalues, and their roots no gradient to speak of."""
    moments = Moments(torch.rand(2, 5, 1), torch.rand(2, 5, 5))
    shares = torch.tensor([[0.3, 0.7]])
    own = training(style="/wave.png").networks["styles"][0]  # type: ignore[index]
    with torch.autocast("cpu", torch.bfloat16):
        mixed, learned = moments.mixed(shares), own()
    torch.testing.assert_close(mixed.covariance, moments.mixed(shares).covariance, rtol=0, atol=1e-6)
    for found, expected in zip(learned, own(), strict=True):
        assert torch.equal(found.covariance, expected.covariance)


def test_what_a_step_looks_at_does_not_depend_on_zeros_at_the_border() -> None:
    """What surrounds a piece is all that it depends on: whatever is beyond, it is painted so."""
    own, photo = training(side=32), random_picture(64, 64)
    painter = own.networks["painter"]
    (piece, *_) = _pieces(photo, own.options, [0.0] * 6)
    with torch.no_grad():
        moments = painter(photo[None]).own
        found = painter(piece[None], moments, moments).picture
        wider = torch.nn.functional.pad(piece, (8,) * 4, value=0.7)[None]
        further = painter(wider, moments, moments, at=(-8, -8)).picture[..., 8:-8, 8:-8]
    inside = (..., *[slice(MARGIN_PX, -MARGIN_PX)] * 2)
    assert found[inside].shape[-2:] == (32, 32)
    torch.testing.assert_close(found[inside], further[inside], rtol=0, atol=1e-5)
    assert float((found - further).abs().max()) > 1e-3


def test_what_is_painted_in_a_learned_style_does_not_depend_on_zeros_at_the_border() -> None:
    """As in the training, or there would be a frame of what the network does there, which nobody has seen."""
    photo = random_picture(40, 56)
    method = FeedForward(weights="/own", stroke_side_px=None, precision="float32")
    stylizer = method.build({"/own": training(style="/wave.png").file_bytes()}, torch.device("cpu"))
    seen: list[Tensor] = []
    folded = stylizer._painter.folded

    def folding(*moments: Any) -> Callable[..., Tensor]:
        paint = folded(*moments)

        def painting(whole: Tensor, at: tuple[int, int] = (0, 0)) -> Tensor:
            wider = torch.nn.functional.pad(whole, (8,) * 4, value=0.7)
            seen.append(paint(wider, (at[0] - 8, at[1] - 8))[..., 8:-8, 8:-8])
            return paint(whole, at)

        return painting

    stylizer._painter.folded = folding
    (found,) = stylizer([photo], [torch.Generator()])
    ((further,),) = seen
    top, left = ((each - own) // 2 for each, own in zip(further.shape[1:], (40, 56), strict=True))
    expected = further[:, top : top + 40, left : left + 56]
    torch.testing.assert_close(found.image, expected, rtol=0, atol=1e-5)


def test_moments_of_one_and_repeated() -> None:
    many = Moments(torch.rand(3, 2, 1), torch.rand(3, 2, 2))
    assert torch.equal(many.of_one(1).covariance, many.covariance[1:2])
    assert torch.equal(many.repeated(2).mean[:, 0, 0], many.mean[:, 0, 0].repeat_interleave(2))


def trained(share: Share) -> dict[str, Any]:
    """In float64."""
    own = training()
    widen(own)
    own._wanted = {layer: each.double() for layer, each in own._wanted.items()}
    own.distribute(share)
    losses = []
    for seed in range(3):
        found = own.step([share.take(photographs(seed, 3).double())])
        losses.append(share.mean(torch.stack(list(found.values()))))
    return {"losses": torch.stack(losses), "state": own.state_dict()["networks"]}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(trained(Share(3, rank, 2)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_train_as_one(tmp_path: Path) -> None:
    """Of three photographs, one process has two: losses and parameters to 1e-12."""
    in_two_processes(one_of_two, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = trained(Share(3))
    check_painters_as_one(alone, first, second)
