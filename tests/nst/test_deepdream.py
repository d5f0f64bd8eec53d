"""DeepDream equals the published procedure, and each photograph of a batch its solo run."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor

from jobs.demo import sample_photographs
from nst.deepdream.method import DeepDream, DeepDreamStylizer
from nst.deepdream.objective import DreamObjective, best_matches
from nst.deepdream.stylizer import _enlarged
from nst.errors import Diverged, ImageTooSmall, OptionError
from nst.features import FeatureNetwork, build_features, read_state_dict
from nst.features.folding import fold_batch_norms
from nst.features.tiles import least_pixels, tile_side
from nst.features.weights import published_bytes
from nst.images.codec import decode_image, resize_image
from nst.stylizer import Stylized
from reference.deepdream import deepdream, jitter_shifts
from tests.nst.test_style_transfer import image_of, pictures


def build(**options: object) -> DeepDreamStylizer:
    """With the guide's picture as `picture`, if there is a guide."""
    plain = {"network": "vgg16", "weights": "seeded", "layers": {"relu2_1": 1.0}, "octaves": 2, "steps": 3}
    picture = options.pop("picture", None)
    method = DeepDream(**{**plain, **options})  # type: ignore[arg-type]
    weights = [asset.url for asset in method.assets() if asset.kind == "weights"]
    state = read_state_dict(published_bytes(weights[0])) if weights else None
    guide = picture if method.guide is not None else None
    return method.build_from(state, torch.device("cpu"), guide=guide)  # type: ignore[arg-type]


def double(stylizer: DeepDreamStylizer, layers: dict[str, float]) -> DeepDreamStylizer:
    """In float64, so that only the procedure can differ."""
    network = stylizer.objective.network.double()
    stylizer.objective = DreamObjective(network, layers)
    return stylizer


def matching(features: Tensor, guide: Tensor) -> Tensor:
    """sum_i max_j <x_i, y_j> of (1, C, h, w) each, written out."""
    return (features[0].flatten(1).T @ guide[0].flatten(1)).max(dim=1).values.sum()


OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2_1": lambda x: x.square().sum() / 2,
    "relu1_2": lambda x: x.square().sum() / 2,
    "conv2_2:17": lambda x: x[:, 17].sum(),
}


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param({"relu2_1": 1.0}, marks=pytest.mark.slow),
        {"relu1_2": 0.3, "relu2_1": 2.0},
        pytest.param({"conv2_2:17": 1.0}, marks=pytest.mark.slow),
        {"relu2_1": 1e-4, "conv2_2:17": 1.0},
    ],
    ids=str,
)
def test_equals_the_published_procedure(layers: dict[str, float]) -> None:
    """Two octaves of five steps, with the same stream of jitter."""
    stylizer = double(build(layers=layers, steps=5, octave_scale=1.4), layers)
    (photo,) = pictures((60, 72), dtype=torch.float64)

    def energy(images: Tensor) -> Tensor:
        features = stylizer.objective.network(images)
        terms = [weight * OBJECTIVES[name](features[name.split(":")[0]]) for name, weight in layers.items()]
        return sum(terms)  # type: ignore[return-value]

    assert_published(stylizer, photo, energy)


def test_a_guided_dream_is_the_direct_formula() -> None:
    """The guide has another size; its best matches are the seed of the gradient."""
    photo, guide = pictures((60, 72), (45, 38), dtype=torch.float64)
    layers = {"relu2_1": 1.0, "relu2_2": 0.5}
    stylizer = build(layers=layers, guide="guide", steps=5, octave_scale=1.4, picture=guide.float())
    network = stylizer.objective.network.double()
    stylizer.objective = DreamObjective(network, layers, guide=guide)
    seen = network(guide[None])

    def energy(images: Tensor) -> Tensor:
        features = network(images)
        return sum(weight * matching(features[name], seen[name]) for name, weight in layers.items())  # type: ignore[return-value]

    assert_published(stylizer, photo, energy)


def assert_published(stylizer: DeepDreamStylizer, photo: Tensor, energy: Callable[[Tensor], Tensor]) -> None:
    shifts = jitter_shifts(3, 10)
    expected = deepdream(energy, photo[None], shifts, octaves=2, octave_scale=1.4, steps=5, step_size=1.5 / 255)
    (outcome,) = stylizer([photo], [torch.Generator().manual_seed(3)])
    torch.testing.assert_close(image_of(outcome).double(), expected[0], rtol=0, atol=1e-6)
    assert float((expected[0] - photo).abs().mean()) > 0.01


@pytest.mark.parametrize("chunk_bytes", [1, 8 * 37, 10**9])
def test_best_matches_in_chunks_are_those_of_all_products(chunk_bytes: int) -> None:
    features, guide = torch.randn(6, 101, dtype=torch.float64), torch.randn(6, 37, dtype=torch.float64)
    assert torch.equal(best_matches(features, guide, chunk_bytes), (features.T @ guide).argmax(1))


@pytest.mark.parametrize("count", [*(pytest.param(count, marks=pytest.mark.slow) for count in (1, 3)), 8])
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"guide": "guide"}, marks=pytest.mark.slow),
        {"zoom_frames": 1, "relu_backward": "redirected", "redirected_steps": 4},
    ],
    ids=str,
)
def test_a_batch_of_mixed_sizes_equals_solo_runs_to_the_byte(count: int, options: dict[str, object]) -> None:
    stylizer = build(octaves=3, picture=pictures((33, 47))[0], **options)
    # With three, one and two octaves.
    sizes = [(40, 48), (90, 66), (40, 48), (34, 35), (64, 64), (40, 48), (48, 40), (77, 34)]
    images = pictures(*sizes[:count])
    generators = [torch.Generator().manual_seed(n) for n in range(count)]
    for number, together in enumerate(stylizer(images, generators)):
        (alone,) = stylizer([images[number]], [torch.Generator().manual_seed(number)])
        assert torch.equal(image_of(together), image_of(alone))
        assert isinstance(together, Stylized)
        assert isinstance(alone, Stylized)
        assert together.stats == alone.stats
        frames = zip(together.frames, alone.frames, strict=True)
        assert all(torch.equal(ours.image, theirs.image) for ours, theirs in frames)


@pytest.mark.parametrize(
    ("file", "jitter_px", "options"),
    [
        ("chelsea.png", 0, {}),
        pytest.param("coffee.png", 32, {"guide": "guide"}, marks=pytest.mark.slow),
        pytest.param("rocket.jpg", 32, {"layers": {"relu3_1:5": 1.0}}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_objective_rises_on_photographs(file: str, jitter_px: int, options: dict[str, object]) -> None:
    """At least nine steps of ten. With jitter, before and after are compared where the step was taken: another
    place has another value, as the network's strides fall otherwise."""
    photo = decode_image((sample_photographs() / file).read_bytes(), max_side_px=120)
    picture = decode_image((sample_photographs() / "astronaut.png").read_bytes(), max_side_px=96)
    plain: dict[str, object] = {"network": "embedded", "weights": "embedded", "layers": {"relu3_1": 1.0}}
    plain |= {"steps": 10, "picture": picture, "jitter_px": jitter_px}
    stylizer = build(**{**plain, **options})
    stream = torch.Generator().manual_seed(0)
    steps, bases, before = [], [], (-1, photo)
    for step in stylizer.iterate(photo, torch.Generator().manual_seed(0)):
        shift = torch.randint(-jitter_px, jitter_px + 1, (2,), generator=stream).tolist()
        if before[0] == step.octave:
            pair = torch.stack([before[1], step.image]).roll(shift, dims=(-2, -1))
            steps.append([stylizer.objective.evaluate(each[None])[0].item() for each in pair])
            assert steps[-1][0] == pytest.approx(step.objective, rel=1e-5)
            # Channels are rarely silent, so that a layer is not at zero for a picture of one color either.
            flat = photo.mean((1, 2), keepdim=True).expand_as(step.image)
            base = stylizer.objective.evaluate(flat[None])[0].item()
            bases.append(base if "layers" not in options else 0.0)
        before = step.octave, step.image
    assert len(steps) == 2 * 9
    assert sum(after > before for before, after in steps) >= 0.9 * len(steps)
    for first, last in ((0, 8), (9, 17)):
        assert steps[last][1] - bases[last] > 1.2 * (steps[first][0] - bases[first]) > 0


def test_steps_and_octaves_are_told() -> None:
    (photo,) = pictures((64, 80))
    seen = [
        (dream.octave, dream.steps, tuple(dream.image.shape[-2:]))
        for dream in build(octaves=2, steps=2, octave_scale=2.0).iterate(
            photo, torch.Generator().manual_seed(0)
        )
    ]
    assert seen == [(0, 1, (32, 40)), (0, 2, (32, 40)), (1, 3, (64, 80)), (1, 4, (64, 80))]


def test_small_octaves_are_left_out_and_too_small_photos_fail_alone() -> None:
    stylizer = build(octaves=4, layers={"relu3_1": 1.0})
    tiny, small, fine = stylizer(
        [torch.rand(3, 3, 50), *pictures((36, 36), (64, 64))],
        [torch.Generator().manual_seed(n) for n in range(3)],
    )
    assert isinstance(tiny, ImageTooSmall)
    assert isinstance(small, Stylized)
    assert small.stats["steps"] == 3
    assert isinstance(fine, Stylized)
    assert fine.stats["steps"] == 9


def test_a_layer_that_nothing_excites_leaves_the_photo_as_it_is() -> None:
    stylizer = build(octaves=1)
    for parameter in stylizer.objective.network.parameters():
        parameter.zero_()
    (photo,) = pictures((40, 40))
    (outcome,) = stylizer([photo], [torch.Generator()])
    assert torch.equal(image_of(outcome), photo)


def test_activations_that_are_not_finite_are_a_typed_failure() -> None:
    stylizer = build(octaves=1)
    next(stylizer.objective.network.parameters()).fill_(float("inf"))
    (outcome,) = stylizer(pictures((40, 40)), [torch.Generator()])
    assert isinstance(outcome, Diverged)


def test_gradient_blur_is_a_gaussian() -> None:
    """Equal to torchvision's, and a constant stays constant up to the border."""
    stylizer = build(gradient_blur_px=1.3)
    grad = torch.randn(3, 20, 31)
    expected = torchvision.transforms.functional.gaussian_blur(grad, [9, 9], [1.3, 1.3])
    torch.testing.assert_close(stylizer._smoothed(grad), expected)
    torch.testing.assert_close(stylizer._smoothed(torch.ones(3, 20, 31)), torch.ones(3, 20, 31))
    assert build()._smoothed(grad) is grad
    small = build(gradient_blur_px=50.0)._smoothed(torch.randn(3, 6, 9))
    assert float(small.std(dim=(1, 2)).max()) < 0.4, "as wide as there is something to mirror"


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        pytest.param("vgg16", "relu3_1", marks=pytest.mark.slow),
        ("resnet50", "layer2"),
        pytest.param("resnet50", "layer3.1", marks=pytest.mark.slow),
        ("googlenet", "inception4b"),
    ],
)
@pytest.mark.parametrize("guided", [False, True])
def test_tiles_give_the_objective_and_gradient_of_the_whole(network: str, layer: str, guided: bool) -> None:
    features = build_features(network, [layer]).double()
    side = tile_side(features, 10**9)
    assert side > 0
    (guide,) = pictures((70, 50), dtype=torch.float64)
    layers: dict[str, float] = {layer: 1.0} if guided else {layer: 1.0, f"{layer}:3": 2.0}
    picture = guide if guided else None
    (photo,) = pictures((3 * least_side(features) + 37, 2 * least_side(features) + 5), dtype=torch.float64)
    tiled = DreamObjective(features, layers, guide=picture, max_pass_pixels=least_pixels(features))
    (value,), (grad,) = tiled.evaluate(photo[None])
    (expected,), (direction,) = DreamObjective(features, layers, guide=picture).evaluate(photo[None])
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    assert float((grad - direction).norm() / direction.norm()) < 1e-10


def least_side(network: FeatureNetwork) -> int:
    """Of the smallest tile."""
    return tile_side(network, least_pixels(network))


@pytest.mark.parametrize(
    "network", ["googlenet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "vgg16"))]
)
def test_a_class_is_torchvisions_own(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits and gradient of the whole published model with the same parameters. Batch norms are folded in
    float64, too: folded parameters are rounded to float32 else, which is 1e-7 of a logit."""
    monkeypatch.setattr("nst.features.networks.fold_batch_norms", lambda _: None)
    extra = {"googlenet": {"aux_logits": False, "init_weights": False, "transform_input": True}}
    torch.manual_seed(0)
    model = getattr(torchvision.models, network)(weights=None, **extra.get(network, {})).eval()
    features = build_features(network, ["logits"], state=model.state_dict())
    model, features = model.double(), features.double()
    fold_batch_norms(features.body)
    (photo,) = pictures((64, 75), dtype=torch.float64)
    x = photo[None].clone().requires_grad_()
    mean, std = features.mean, features.std
    logit = model((x - mean) / std)[0, 123]
    (direction,) = torch.autograd.grad(logit, x)
    (value,), grad = DreamObjective(features, {"logits:123": 1.0}).evaluate(photo[None])
    torch.testing.assert_close(value, logit.detach(), rtol=1e-9, atol=1e-12)
    assert float((grad - direction).norm() / direction.norm()) < 1e-6


def test_a_zoom_is_a_sequence_of_frames() -> None:
    """The first is the picture itself; each further one is the one before, enlarged and dreamed on."""
    (photo,) = pictures((64, 80))
    (outcome,) = build(zoom_frames=2, zoom=1.25, jitter_px=0)([photo], [torch.Generator()])
    assert isinstance(outcome, Stylized)
    assert [frame.number for frame in outcome.frames] == [0, 1, 2]
    assert torch.equal(outcome.frames[0].image, outcome.image)
    assert [frame.aligned for frame in outcome.frames] == [True, False, False]
    (plain,) = build(jitter_px=0)([photo], [torch.Generator()])
    assert isinstance(plain, Stylized)
    assert torch.equal(plain.image, outcome.image)
    assert plain.stats == outcome.stats, "of the picture, not of the zoom's end"
    for before, after in itertools.pairwise(frame.image for frame in outcome.frames):
        middle = resize_image(before[:, 6:58, 8:72], (64, 80))
        (expected,) = build(jitter_px=0)([_enlarged(before, 1.25)], [torch.Generator()])
        assert torch.equal(image_of(expected), after)
        assert float((_enlarged(before, 1.25) - middle).abs().mean()) < 0.02


@pytest.mark.parametrize("factor", [1.0005, 1.005, 1.05])
def test_a_zoom_makes_no_frame(factor: float) -> None:
    """Frame after frame it would grow."""
    gray = torch.full((3, 40, 64), 0.5)
    for _ in range(10):
        gray = _enlarged(gray, factor)
    assert float((gray - 0.5).abs().max()) < 1e-4


def test_only_redirected_relus_wake_a_channel_that_nothing_excites() -> None:
    (photo,) = pictures((40, 40))
    for kind, wakes in (("standard", False), ("guided", False), ("redirected", True)):
        stylizer = build(octaves=1, layers={"relu2_1:7": 1.0}, relu_backward=kind)
        stylizer.objective.network.get_parameter("body.features.5.bias")[7] = -100.0
        (outcome,) = stylizer([photo], [torch.Generator()])
        assert torch.equal(image_of(outcome), photo) != wakes, kind
        assert float(outcome.stats["objective"]) == 0  # type: ignore[union-attr]


def test_a_redirected_gradient_is_that_of_an_ascent() -> None:
    """After the first steps the channel is on, and ReLUs are the usual ones again."""
    (photo,) = pictures((40, 40))
    options = {
        "octaves": 1,
        "layers": {"relu2_1:7": 1.0},
        "steps": 40,
        "jitter_px": 0,
        "relu_backward": "redirected",
    }
    stylizer = build(**options, redirected_steps=40)
    bias = stylizer.objective.network.get_parameter("body.features.5.bias")
    activation = build_features("vgg16", ["conv2_1"])(photo[None])["conv2_1"][0, 7]
    bias[7] -= 1.05 * float(activation.max())  # just off
    objectives = [step.objective for step in stylizer.iterate(photo, torch.Generator())]
    assert objectives[0] == 0
    assert objectives[-1] > 0


def test_the_objective_of_every_step_is_kept_if_asked_for() -> None:
    (photo,) = pictures((64, 80))
    (outcome,) = build(octave_scale=2.0, curve=True)([photo], [torch.Generator().manual_seed(0)])
    assert isinstance(outcome, Stylized)
    assert list(outcome.curve["scale"]) == [0.5] * 3 + [1.0] * 3
    assert len(outcome.curve["objective"]) == 6
    assert outcome.curve["objective"][-1] == outcome.stats["objective"]
    (plain,) = build()([photo], [torch.Generator().manual_seed(0)])
    assert isinstance(plain, Stylized)
    assert not plain.curve


_PEAK = """
import resource, sys, torch
from nst.deepdream.method import DeepDream
torch.set_num_threads(1)
photo = torch.rand(3, 1024, 1024, generator=torch.Generator().manual_seed(0))
guide = torch.rand(3, 1024, 1024, generator=torch.Generator().manual_seed(1))
layers, guided = {sys.argv[1]: 1.0}, sys.argv[2] == "guided"
options = {"guide": "guide"} if guided else {}
options["pass_memory_mb"] = 100_000
method = DeepDream(network="vgg16", weights="seeded", layers=layers, octaves=1, steps=1, **options)
stylizer = method.build_from(None, torch.device("cpu"), guide=guide if guided else None)
stylizer([photo], [torch.Generator().manual_seed(0)])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_guide_takes_little_memory() -> None:
    """All products of 16,384 positions with 16,384 would take a gigabyte."""
    plain, guided = (
        int(
            subprocess.run(
                [sys.executable, "-c", _PEAK, "relu4_1", how], check=True, capture_output=True
            ).stdout
        )
        for how in ("plain", "guided")
    )
    assert guided <= 1.2 * plain


def test_a_limit_of_memory_is_one_of_the_batch() -> None:
    network = build_features("vgg16", ["relu2_1"]).double()
    images = torch.stack(pictures(*[(20, 25)] * 5, dtype=torch.float64))
    limited = DreamObjective(network, {"relu2_1": 1.0}, max_pass_pixels=1100)
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    values, grads = limited.evaluate(images)
    assert seen == [2, 2, 1]
    expected, directions = DreamObjective(network, {"relu2_1": 1.0}).evaluate(images)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(grads, directions)


def test_a_guide_is_shrunk_to_its_side() -> None:
    (guide,) = pictures((60, 90))
    method = DeepDream(network="vgg16", weights="seeded", layers={"relu1_1": 1.0}, guide="x", guide_side_px=30)
    stylizer = method.build_from(None, torch.device("cpu"), guide=guide)
    assert stylizer.objective._guide["relu1_1"].shape[1] == 20 * 30


def test_default_layers_are_the_networks_own() -> None:
    assert DeepDream().layers == {"layer3": 1.0}
    assert DeepDream(network="googlenet").layers == {"inception4c": 1.0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"network": "inception"}, "googlenet"),
        ({"layers": {"relu9_1": 1.0}}, "vgg16 has no such layer"),
        ({"octaves": 0}, "octaves = 0"),
        ({"octave_scale": 1.0}, "octave_scale"),
        ({"steps": 0}, "steps = 0"),
        ({"step_size": 0.0}, "step_size"),
        ({"jitter_px": -1}, "jitter_px = -1"),
        ({"layers": {"relu2_1:x": 1.0}}, "relu2_1:x.*a channel is a number"),
        ({"layers": {"relu2_1:128": 1.0}}, "relu2_1:128.*channels 0 to 127"),
        ({"layers": {"relu9_1:3": 1.0}}, "vgg16 has no such layer"),
        ({"network": "embedded", "layers": {"logits:3": 1.0}}, "embedded has no such layer"),
        ({"guide": "x", "layers": {"relu2_1:3": 1.0}}, "a guide goes with whole layers"),
        ({"guide": "x"}, "guide = 'x'.*must come with its picture"),
        ({"zoom": 1.0}, "zoom = 1.0"),
        ({"zoom_frames": -1}, "zoom_frames = -1"),
        ({"relu_backward": "leaky"}, "leaky.*redirected"),
        ({"relu_backward": "redirected", "redirected_steps": 0}, "redirected_steps = 0"),
        ({"relu_backward": "redirected", "pass_memory_mb": 500}, "pass_memory_mb = 500.*all of a photograph"),
        ({"relu_backward": "guided", "pass_memory_mb": 500}, "pass_memory_mb = 500.*all of a photograph"),
        ({"guide_sha256": "00"}, "guide_sha256 = '00': there is no guide"),
        ({"guide_side_px": 0}, "guide_side_px = 0"),
        ({"layers": {"logits:3": 1.0}, "pass_memory_mb": 500}, "pass_memory_mb = 500.*all of a photograph"),
        ({"layers": {"relu4_1": 1.0}, "pass_memory_mb": 1}, r"pass_memory_mb = 1: a tile of vgg16 needs \d+"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_options_name_option_and_value(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        build(**options)


@pytest.mark.parametrize("options", [{}, {"guide": "guide"}, {"pass_memory_mb": 40}], ids=str)
def test_dreams_in_bfloat16_go_the_same_way(options: dict[str, object]) -> None:
    photo, guide = (
        resize_image(decode_image((sample_photographs() / name).read_bytes()), size)
        for name, size in (("coffee.png", (80, 96)), ("chelsea.png", (60, 50)))
    )
    plain = {"network": "embedded", "weights": "embedded", "layers": {"relu3_2": 1.0, "relu2_1": 0.1}}
    exact, half = (
        build(**plain, **options, precision=precision, picture=guide) for precision in ("float32", "bfloat16")
    )
    (value,), (grad,) = exact.objective.evaluate(photo[None])
    (about,), (near,) = half.objective.evaluate(photo[None])
    assert near.dtype == torch.float32
    assert abs(float(about / value) - 1) < 0.02
    assert not torch.equal(near, grad)
    assert float(torch.cosine_similarity(near.flatten(), grad.flatten(), dim=0)) > 0.98
    first, second = (image_of(each([photo], [torch.Generator().manual_seed(0)])[0]) for each in (exact, half))
    assert 0.9 < float((second - photo).abs().mean() / (first - photo).abs().mean()) < 1.1
    assert second.dtype == torch.float32


def test_precisions_that_dreams_do_not_have_are_refused() -> None:
    with pytest.raises(OptionError, match=r"precision = 'float16'.*float32, bfloat16"):
        DeepDream(precision="float16")  # type: ignore[arg-type]
