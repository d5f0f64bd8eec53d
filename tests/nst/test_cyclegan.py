"""CycleGAN's networks have the public implementation's layout and are its formulas; losses are theirs by
hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, get_args

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.cyclegan.method import CycleGAN, GeneratorConfig, generator_file
from nst.cyclegan.networks import (
    Padding,
    build_discriminator,
    build_generator,
    size_multiple,
)
from nst.errors import OptionError, WeightsError
from nst.gan.image_pool import ImagePool
from nst.gan.layers import Init, Norm, initialize, load_published
from nst.gan.losses import (
    GANMode,
    check_penalty,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    mixed,
)
from nst.stylizer import Stylized
from tests.nst.test_style_transfer import pictures

State = dict[str, Tensor]
Shapes = list[tuple[str, tuple[int, ...]]]
CPU = torch.device("cpu")

COUNTS = {
    "resnet_9blocks": (11_378_179, 11_383_427),
    "resnet_6blocks": (7_837_699, 7_841_411),
    "unet_256": (54_409_603, 54_413_955),
    "unet_128": (41_825_667, 41_828_995),
    "basic": (2_764_737, 2_765_633),
    "n_layers": (11_154_369, 11_156_289),
    "pixel": (8_705, 8_832),
}


def build(name: str, norm: Norm, channels: int = 64) -> nn.Module:
    if name in ("basic", "n_layers", "pixel"):
        return build_discriminator(name, norm=norm, channels=channels, layers=5)
    return build_generator(name, norm=norm, channels=channels)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_public_implementations(name: str) -> None:
    with torch.device("meta"):
        found = [sum(p.numel() for p in build(name, norm).parameters()) for norm in ("instance", "batch")]  # type: ignore[arg-type]
    assert tuple(found) == COUNTS[name]


# The public layout, written down from its source: which index of which Sequential holds what.


def batch_norm(at: str, width: int) -> Shapes:
    own = [(f"{at}.{name}", (width,)) for name in ("weight", "bias", "running_mean", "running_var")]
    return [*own, (f"{at}.num_batches_tracked", ())]


def layout(name: str, norm: Norm, ngf: int) -> Shapes:
    biased = norm == "instance"

    def conv(at: str, *shape: int, bias: bool = biased, out: int | None = None) -> Shapes:
        return [(f"{at}.weight", shape)] + ([(f"{at}.bias", (out or shape[0],))] if bias else [])

    def normed(at: str, width: int) -> Shapes:
        return batch_norm(at, width) if norm == "batch" else []

    found: Shapes = []
    if name.startswith("resnet"):
        blocks = int(name[7])
        found += conv("model.1", ngf, 3, 7, 7) + normed("model.2", ngf)
        found += conv("model.4", 2 * ngf, ngf, 3, 3) + normed("model.5", 2 * ngf)
        found += conv("model.7", 4 * ngf, 2 * ngf, 3, 3) + normed("model.8", 4 * ngf)
        for block in range(10, 10 + blocks):
            for first in (1, 5):  # after the padding; each followed by its norm
                found += conv(f"model.{block}.conv_block.{first}", 4 * ngf, 4 * ngf, 3, 3)
                found += normed(f"model.{block}.conv_block.{first + 1}", 4 * ngf)
        at = 10 + blocks
        found += conv(f"model.{at}", 4 * ngf, 2 * ngf, 3, 3, out=2 * ngf) + normed(f"model.{at + 1}", 2 * ngf)
        found += conv(f"model.{at + 3}", 2 * ngf, ngf, 3, 3, out=ngf) + normed(f"model.{at + 4}", ngf)
        return found + conv(f"model.{at + 7}", 3, ngf, 7, 7, bias=True)
    if name.startswith("unet"):
        downs = {"unet_256": 8, "unet_128": 7}[name]
        widths = [ngf * min(2**level, 8) for level in range(downs)]

        def level(at: str, depth: int) -> Shapes:
            outer, inner = widths[depth - 1], widths[depth]
            own = conv(f"{at}.model.1", inner, outer, 4, 4)
            if depth == downs - 1:
                return (
                    own + conv(f"{at}.model.3", inner, outer, 4, 4, out=outer) + normed(f"{at}.model.4", outer)
                )
            own += normed(f"{at}.model.2", inner) + level(f"{at}.model.3", depth + 1)
            return (
                own + conv(f"{at}.model.5", 2 * inner, outer, 4, 4, out=outer) + normed(f"{at}.model.6", outer)
            )

        found = conv("model.model.0", ngf, 3, 4, 4) + level("model.model.1", 1)
        return found + conv("model.model.3", 2 * ngf, 3, 4, 4, bias=True, out=3)
    if name == "pixel":
        found = conv("net.0", ngf, 3, 1, 1, bias=True) + conv("net.2", 2 * ngf, ngf, 1, 1)
        return found + normed("net.3", 2 * ngf) + conv("net.5", 1, 2 * ngf, 1, 1)
    layers = 3 if name == "basic" else 5
    found = conv("model.0", ngf, 3, 4, 4, bias=True)
    widths = [ngf * min(2**layer, 8) for layer in range(layers + 1)]
    for layer in range(1, layers + 1):
        found += conv(f"model.{3 * layer - 1}", widths[layer], widths[layer - 1], 4, 4)
        found += normed(f"model.{3 * layer}", widths[layer])
    return found + conv(f"model.{3 * layers + 2}", 1, widths[-1], 4, 4, bias=True)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("name", COUNTS)
def test_keys_order_and_shapes_are_the_public_layout(name: str, norm: Norm) -> None:
    found = [(key, tuple(tensor.shape)) for key, tensor in build(name, norm, 4).state_dict().items()]
    assert found == layout(name, norm, 4)


# Formulas


def normalized(x: Tensor, state: State, at: str) -> Tensor:
    """Batch norm as it is used, if it has parameters there; else instance norm."""
    if f"{at}.weight" not in state:
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
        return (x - mean) / (var + 1e-5).sqrt()
    weight, bias, mean, var = (
        state[f"{at}.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def resnet(x: Tensor, state: State, blocks: int, padding: Padding) -> Tensor:
    def conv(x: Tensor, at: str, **options: int) -> Tensor:
        return F.conv2d(x, state[f"{at}.weight"], state.get(f"{at}.bias"), **options)

    def up(x: Tensor, at: str) -> Tensor:
        bias = state.get(f"{at}.bias")
        return F.conv_transpose2d(x, state[f"{at}.weight"], bias, stride=2, padding=1, output_padding=1)

    def padded(x: Tensor) -> Tensor:
        return F.pad(x, (1, 1, 1, 1), mode="constant" if padding == "zero" else padding)

    gap = 1 if padding == "zero" else 0  # no module pads
    x = F.relu(normalized(conv(F.pad(x, (3, 3, 3, 3), mode="reflect"), "model.1"), state, "model.2"))
    x = F.relu(normalized(conv(x, "model.4", stride=2, padding=1), state, "model.5"))
    x = F.relu(normalized(conv(x, "model.7", stride=2, padding=1), state, "model.8"))
    for block in range(10, 10 + blocks):
        first, second = f"model.{block}.conv_block.{1 - gap}", f"model.{block}.conv_block.{5 - 2 * gap}"
        after = [f"model.{block}.conv_block.{index - offset}" for index, offset in ((2, gap), (6, 2 * gap))]
        inner = F.relu(normalized(conv(padded(x), first), state, after[0]))
        x = x + normalized(conv(padded(inner), second), state, after[1])
    at = 10 + blocks
    x = F.relu(normalized(up(x, f"model.{at}"), state, f"model.{at + 1}"))
    x = F.relu(normalized(up(x, f"model.{at + 3}"), state, f"model.{at + 4}"))
    return torch.tanh(conv(F.pad(x, (3, 3, 3, 3), mode="reflect"), f"model.{at + 7}"))


def unet(x: Tensor, state: State, downs: int) -> Tensor:
    def down(x: Tensor, at: str) -> Tensor:
        return F.conv2d(x, state[f"{at}.weight"], state.get(f"{at}.bias"), stride=2, padding=1)

    def up(x: Tensor, at: str) -> Tensor:
        return F.conv_transpose2d(x, state[f"{at}.weight"], state.get(f"{at}.bias"), stride=2, padding=1)

    def level(x: Tensor, at: str, depth: int) -> Tensor:
        x = F.leaky_relu(x, 0.2)
        inner = down(x, f"{at}.model.1")
        if depth == downs - 1:
            return torch.cat([x, normalized(up(F.relu(inner), f"{at}.model.3"), state, f"{at}.model.4")], 1)
        inner = level(normalized(inner, state, f"{at}.model.2"), f"{at}.model.3", depth + 1)
        return torch.cat([x, normalized(up(F.relu(inner), f"{at}.model.5"), state, f"{at}.model.6")], 1)

    inner = level(down(x, "model.model.0"), "model.model.1", 1)
    return torch.tanh(up(F.relu(inner), "model.model.3"))


def randomized(network: nn.Module) -> nn.Module:
    """In float64, batch norms too with values of their own."""
    torch.manual_seed(0)
    for name, tensor in network.double().eval().state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.3)
    return network


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("padding", get_args(Padding))
def test_the_resnet_is_its_formula(norm: Norm, padding: Padding) -> None:
    network = randomized(build_generator("resnet_6blocks", norm=norm, channels=3, padding=padding))
    x = torch.randn(2, 3, 16, 20, dtype=torch.float64)
    torch.testing.assert_close(network(x), resnet(x, network.state_dict(), 6, padding), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_unet_is_its_formula(norm: Norm) -> None:
    network = randomized(build_generator("unet_128", norm=norm, channels=2))
    x = torch.randn(1, 3, 128, 256, dtype=torch.float64)
    torch.testing.assert_close(network(x), unet(x, network.state_dict(), 7), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("name", "layers"), [("basic", 3), ("n_layers", 5)])
def test_the_patch_discriminator_is_its_formula(name: str, layers: int, norm: Norm) -> None:
    network = randomized(build(name, norm, 2))
    state: State = network.state_dict()
    image = torch.randn(2, 3, 128, 140, dtype=torch.float64)
    x = F.leaky_relu(F.conv2d(image, state["model.0.weight"], state["model.0.bias"], stride=2, padding=1), 0.2)
    for layer in range(1, layers + 1):
        at = f"model.{3 * layer - 1}"
        stride = 2 if layer < layers else 1
        x = F.conv2d(x, state[f"{at}.weight"], state.get(f"{at}.bias"), stride=stride, padding=1)
        x = F.leaky_relu(normalized(x, state, f"model.{3 * layer}"), 0.2)
    last = f"model.{3 * layers + 2}"
    expected = F.conv2d(x, state[f"{last}.weight"], state[f"{last}.bias"], padding=1)
    torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-12)


def test_the_basic_discriminator_sees_70_pixels() -> None:
    network = build_discriminator("basic", norm="none", channels=2).double()
    x = torch.zeros(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    logits = network(x)
    (grad,) = torch.autograd.grad(logits[0, 0, 9, 9], x)
    seen = grad.abs().sum((0, 1)).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


# Loading


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", COUNTS)
def test_published_files_load_strictly(name: str, prefix: str) -> None:
    """With the prefix of data-parallel training, and with the statistics that instance norms once had."""
    network, other = build(name, "instance", 2), build(name, "instance", 2)
    state = {prefix + key: tensor for key, tensor in other.state_dict().items()}
    for key, module in other.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            old = {"running_mean": torch.zeros(2), "running_var": torch.ones(2)}
            state |= {f"{prefix}{key}.{statistic}": tensor for statistic, tensor in old.items()}
            state[f"{prefix}{key}.num_batches_tracked"] = torch.tensor(7)
    load_published(network, state)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_files_that_do_not_fit_say_where() -> None:
    network = build_generator("resnet_6blocks", channels=2)
    state = network.state_dict()
    for change, said in (
        ({"model.1.bias": None}, "lacks model.1.bias"),
        ({"model.99.bias": torch.zeros(2)}, "has an unknown model.99.bias"),
        ({"model.1.bias": torch.zeros(3)}, r"model.1.bias is \(3,\), expected \(2,\)"),
    ):
        changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
        with pytest.raises(WeightsError, match=said):
            load_published(network, changed)
    batched = build_generator("resnet_6blocks", norm="batch", channels=2)
    kept = {name: tensor for name, tensor in batched.state_dict().items() if "running_mean" not in name}
    with pytest.raises(WeightsError, match="running_mean"):  # a batch norm's own are no leftovers
        load_published(batched, kept)


@pytest.mark.parametrize("init", get_args(Init))
def test_parameters_are_initialized_by_name(init: Init) -> None:
    network = build_generator("resnet_6blocks", norm="batch", channels=16)
    initialize(network, init, generator=torch.Generator().manual_seed(0))
    weight = network.get_parameter("model.10.conv_block.1.weight").detach()
    fan = weight[0].numel()
    expected = {
        "normal": 0.02,
        "xavier": 0.02 * (2 / (fan + weight[:, 0].numel())) ** 0.5,
        "kaiming": (2 / fan) ** 0.5,
        "orthogonal": 0.02 / fan**0.5,
    }[init]
    assert float(weight.std()) == pytest.approx(expected, rel=0.05)
    assert float(network.get_parameter("model.2.weight").detach().mean()) == pytest.approx(1, abs=0.05)
    assert not network.get_parameter("model.23.bias").any()
    again = build_generator("resnet_6blocks", norm="batch", channels=16)
    initialize(again, init, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.get_parameter("model.10.conv_block.1.weight"), weight)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: build_generator("resnet_12blocks"), "resnet_9blocks, resnet_6blocks, unet_256, unet_128"),
        (lambda: build_generator("unet_256", norm="layer"), "instance, batch, none"),  # type: ignore[arg-type]
        (lambda: build_generator("resnet_6blocks", padding="wrap"), "reflect, replicate, zero"),  # type: ignore[arg-type]
        (lambda: build_discriminator("patch"), "basic, n_layers, pixel"),
        (lambda: initialize(nn.Identity(), "zeros"), "normal, xavier, kaiming, orthogonal"),  # type: ignore[arg-type]
        (lambda: generator_loss("wgan", torch.zeros(1)), "lsgan, vanilla, wgangp, hinge"),  # type: ignore[arg-type]
        (lambda: gradient_penalty(torch.sum, torch.zeros(1, 1), "r2"), "wgangp, r1, zero_centered"),  # type: ignore[arg-type]
    ],
)
def test_unknown_names_list_the_choices(make: Callable[[], object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make()


# Losses


@pytest.mark.parametrize("mode", get_args(GANMode))
def test_gan_losses_by_hand(mode: GANMode) -> None:
    real, fake = torch.tensor([[0.5, -2.0]]).double(), torch.tensor([[-0.3, 3.0]]).double()
    bce = F.binary_cross_entropy_with_logits
    one, zero = torch.ones_like(real), torch.zeros_like(real)
    for_generator, for_discriminator = {
        "lsgan": (F.mse_loss(fake, one), (F.mse_loss(real, one) + F.mse_loss(fake, zero)) / 2),
        "vanilla": (bce(fake, one), (bce(real, one) + bce(fake, zero)) / 2),
        "wgangp": (-fake.mean(), fake.mean() - real.mean()),
        "hinge": (-fake.mean(), torch.tensor((0.5 + 3) / 2 + (0.7 + 4) / 2).double()),
    }[mode]
    torch.testing.assert_close(generator_loss(mode, fake), for_generator)
    torch.testing.assert_close(discriminator_loss(mode, real, fake), for_discriminator)


def test_penalties_are_the_analytic_values_of_a_linear_critic() -> None:
    weight = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def critic(x: Tensor) -> Tensor:
        return (x * weight).flatten(1).sum(1, keepdim=True) + bias

    real, fake = torch.randn(2, 6, 3, 5, 4, dtype=torch.float64)
    squared = weight.detach().square().sum()
    for kind, expected in (
        ("wgangp", (squared.sqrt() - 1) ** 2),
        ("r1", squared),
        ("zero_centered", squared),
    ):
        penalty = gradient_penalty(critic, mixed(real, fake, torch.rand(6, 1, 1, 1)), kind)  # type: ignore[arg-type]
        torch.testing.assert_close(penalty.detach(), expected, rtol=1e-10, atol=1e-10)
        by_weight, by_bias = torch.autograd.grad(penalty, [weight, bias])
        slope = 2 * weight if kind != "wgangp" else 2 * (1 - 1 / squared.sqrt()) * weight
        torch.testing.assert_close(by_weight, slope.detach(), rtol=1e-10, atol=1e-10)
        assert by_bias.item() == 0, "found, though it has no part in it"


def test_a_penalty_is_of_each_image_alone() -> None:
    network = randomized(build_discriminator("basic", channels=2))
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    alone = torch.stack([gradient_penalty(network, image[None], "wgangp") for image in images])
    torch.testing.assert_close(gradient_penalty(network, images, "wgangp"), alone.mean())
    for norm, refused in (("batch", True), ("instance", False)):
        check_penalty("none", norm)  # type: ignore[arg-type]
        if refused:
            with pytest.raises(OptionError, match=r"penalty = 'r1'.*batch norm"):
                check_penalty("r1", norm)  # type: ignore[arg-type]
        else:
            check_penalty("r1", norm)  # type: ignore[arg-type]


def test_mixed_images_lie_between() -> None:
    real, fake = torch.zeros(50, 1, 2, 2), torch.ones(50, 1, 2, 2)
    places = torch.linspace(0, 1, 50).view(50, 1, 1, 1)
    torch.testing.assert_close(mixed(real, fake, places), places.expand(50, 1, 2, 2))


# Image pool


def test_a_pool_hands_back_earlier_images_half_of_the_time() -> None:
    pool = ImagePool(20, seed=1)
    first = torch.arange(20.0).view(20, 1, 1, 1)
    assert torch.equal(pool.query(first), first)
    handed = pool.query(torch.arange(20.0, 1020.0).view(-1, 1, 1, 1)).flatten()
    earlier = int((handed != torch.arange(20.0, 1020.0)).sum())
    assert 430 < earlier < 570
    assert handed.unique().numel() == 1000, "each image is handed back once"
    assert torch.equal(ImagePool(0).query(first), first)


def test_a_pool_goes_on_where_it_was() -> None:
    pool, images = ImagePool(4, seed=3), torch.randn(30, 1, 2, 2, requires_grad=True)
    pool.query(images[:10])
    saved = io.BytesIO()
    torch.save(pool.state_dict(), saved)
    saved.seek(0)
    other = ImagePool(4, seed=9)
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(pool.query(images[10:]), other.query(images[10:]))
    assert not pool.query(images).requires_grad


# The method


def small(**options: Any) -> tuple[nn.Module, GeneratorConfig]:
    config = GeneratorConfig(**{"generator": "resnet_6blocks", "channels": 4, **options})
    network = config.build()
    initialize(network, "xavier", gain=1.0, generator=torch.Generator().manual_seed(0))
    return network, config


@pytest.mark.parametrize("generator", ["resnet_6blocks", "unet_128"])
def test_photographs_of_any_size_are_mirrored_to_what_the_generator_needs(generator: str) -> None:
    network, config = small(generator=generator, channels=2)
    stylizer = CycleGAN(weights="w").build({"w": generator_file({"A2B": network}, config)}, CPU)
    images = pictures((37, 50), (1, 1), (3, 130), (40, 52))
    outcomes = stylizer(images, [torch.Generator()] * 4)
    step = size_multiple(generator)
    for image, outcome in zip(images, outcomes, strict=True):
        assert isinstance(outcome, Stylized)
        assert outcome.image.shape == image.shape
        assert 0 <= float(outcome.image.min()) <= float(outcome.image.max()) <= 1
        height, width = image.shape[1:]
        if min(height, width) > step:
            more = (0, -width % step, 0, -height % step)
            padded = F.pad(image[None], more, mode="reflect")
            expected = (network.eval()(2 * padded - 1)[0, :, :height, :width] + 1) / 2
            torch.testing.assert_close(outcome.image, expected.detach(), rtol=0, atol=1e-6)


def test_a_file_says_what_it_is_and_has_both_directions() -> None:
    there, config = small(norm="batch", padding="zero")
    back = config.build()
    data = generator_file({"B2A": back, "A2B": there}, config)
    assert data == generator_file({"A2B": there, "B2A": back}, config)
    (image,) = pictures((24, 32))
    for direction, network in (("A2B", there), ("B2A", back)):
        stylizer = CycleGAN(weights="w", direction=direction).build({"w": data}, CPU)  # type: ignore[arg-type]
        (outcome,) = stylizer([image], [torch.Generator()])
        assert isinstance(outcome, Stylized)
        torch.testing.assert_close(outcome.image[None], (network.eval()(2 * image[None] - 1).detach() + 1) / 2)
    one = generator_file({"A2B": there}, config)
    with pytest.raises(WeightsError, match="no generator for direction = 'B2A'"):
        CycleGAN(weights="w", direction="B2A").build({"w": one}, CPU)


def test_files_of_the_public_implementation_are_read() -> None:
    network, _ = small(generator="resnet_9blocks", channels=3)
    saved = io.BytesIO()
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, saved)
    plain = safetensors.torch.save(network.state_dict())
    (image,) = pictures((24, 32))
    for data in (saved.getvalue(), plain):
        (outcome,) = CycleGAN(weights="w", channels=3).build({"w": data}, CPU)([image], [torch.Generator()])
        assert isinstance(outcome, Stylized)
        torch.testing.assert_close(outcome.image[None], (network.eval()(2 * image[None] - 1).detach() + 1) / 2)
    with pytest.raises(WeightsError, match=r"model\.1\.weight is"):
        CycleGAN(weights="w", channels=64).build({"w": plain}, CPU)


def test_what_a_newer_version_says_is_not_taken_for_an_error() -> None:
    network, config = small()
    data = generator_file({"A2B": network}, config)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    said = json.loads(header["__metadata__"]["nst.cyclegan"])
    header["__metadata__"]["nst.cyclegan"] = json.dumps({**said, "invented_later": 1})
    text = json.dumps(header).encode()
    CycleGAN(weights="w").build({"w": len(text).to_bytes(8, "little") + text + data[8 + length :]}, CPU)


@pytest.mark.parametrize(
    "said",
    [
        "not json",
        "[1]",
        '{"channels": "2"}',
        '{"channels": 2.5}',
        '{"channels": 0}',
        '{"generator": "resnet_99"}',
    ],
)
def test_a_file_with_a_damaged_configuration_is_a_typed_error(said: str) -> None:
    network, _ = small()
    data = safetensors.torch.save(network.state_dict(), metadata={"nst.cyclegan": said})
    with pytest.raises(WeightsError, match="the configuration in the file"):
        CycleGAN(weights="w").build({"w": data}, CPU)


def test_generators_trained_with_dropout_are_read() -> None:
    """Their blocks have other names, which tell. What does not fit says how it was read."""
    network, _ = small(dropout=True)
    data = safetensors.torch.save(network.state_dict())
    plain = {"weights": "w", "generator": "resnet_6blocks", "channels": 4}
    with pytest.raises(WeightsError, match=r"conv_block.*it was read as .*dropout = False"):
        CycleGAN(**plain, dropout=False).build({"w": data}, CPU)
    (image,) = pictures((16, 16))
    (outcome,) = CycleGAN(**plain).build({"w": data}, CPU)([image], [torch.Generator()])
    assert isinstance(outcome, Stylized)
    torch.testing.assert_close(outcome.image[None], (network.eval()(2 * image[None] - 1).detach() + 1) / 2)


def test_a_batch_of_mixed_sizes_equals_solo_runs() -> None:
    network, config = small()
    stylizer = CycleGAN(weights="w").build({"w": generator_file({"A2B": network}, config)}, CPU)
    images = pictures((24, 32), (40, 20), (24, 32))
    for image, together in zip(images, stylizer(images, [torch.Generator()] * 3), strict=True):
        (alone,) = stylizer([image], [torch.Generator()])
        assert isinstance(alone, Stylized)
        assert isinstance(together, Stylized)
        assert torch.equal(alone.image, together.image)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"direction": "AtoB"}, "A2B, B2A"),
        ({"generator": "resnet"}, "resnet_9blocks"),
        ({"norm": "layer"}, "instance, batch, none"),
        ({"channels": 0}, "channels = 0"),
        ({"padding": "wrap"}, "reflect, replicate, zero"),
    ],
    ids=str,
)
def test_bad_options_name_option_and_value(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        CycleGAN(weights="w", **options)


@pytest.mark.parametrize("name", ["resnet_6blocks", "unet_128"])
def test_gradients_do_not_depend_on_the_memory_format(name: str) -> None:
    """Of a single image torch's instance norm gives wrong ones in channels_last."""
    size = 128 if name == "unet_128" else 16
    image = torch.rand(1, 3, size, size, dtype=torch.float64)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network = randomized(build_generator(name, channels=2)).to(memory_format=memory_format)
        network(image.contiguous(memory_format=memory_format))[0, 0].sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
