"""Spectral norm of discriminators."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from nst.cyclegan.networks import build_discriminator
from nst.cyclegan.training import CycleGANOptions, CycleGANTraining
from nst.errors import WeightsError
from nst.gan.layers import initialize, load_published
from nst.gan.spectral import SpectralConv2d
from nst.gan.starting import start_networks


def made(kind: str = "n_layers", *, spectral: bool = True, seed: int = 0) -> nn.Module:
    network = build_discriminator(kind, norm="none", channels=4, layers=1, spectral_norm=spectral)
    initialize(network, generator=torch.Generator().manual_seed(seed))
    return network


def convolutions(network: nn.Module) -> list[SpectralConv2d]:
    return [module for module in network.modules() if isinstance(module, SpectralConv2d)]


def exact_norm(layer: nn.Conv2d) -> Tensor:
    """The largest singular value of its weight."""
    return torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)


def estimated_norm(layer: SpectralConv2d) -> Tensor:
    return (layer.weight.detach().flatten(1).mT @ layer.weight_u).norm()


@pytest.mark.parametrize("kind", ["n_layers", "pixel"])
def test_every_weight_has_the_norm_one(kind: str) -> None:
    network = made(kind)
    count = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert len(convolutions(network)) == count > 2
    for layer in convolutions(network):
        for _ in range(100):
            layer.settle()
        x = torch.randn(1, layer.in_channels, 6, 6, generator=torch.Generator().manual_seed(0))
        assert layer.padding == ((0, 0) if kind == "pixel" else (1, 1))
        expected = nn.functional.conv2d(
            x, layer.weight / exact_norm(layer), layer.bias, layer.stride, layer.padding
        )
        torch.testing.assert_close(layer.eval()(x), expected, rtol=1e-3, atol=1e-4)


def test_it_begins_near_it_and_each_pass_of_training_comes_nearer() -> None:
    layer = convolutions(made())[1]
    exact = float(exact_norm(layer))
    assert float(estimated_norm(layer)) == pytest.approx(exact, rel=0.05)
    layer.weight_u.copy_(torch.nn.functional.normalize(torch.ones(layer.out_channels), dim=0))
    image = torch.zeros(1, layer.in_channels, 4, 4)
    begun = float(estimated_norm(layer))
    assert begun < 0.95 * exact
    layer.eval()(image)
    assert float(estimated_norm(layer)) == begun
    layer.train()
    found = [begun]
    for _ in range(100):
        layer(image)
        found.append(float(estimated_norm(layer)))
    assert all(after > before - 1e-6 for before, after in pairwise(found))
    assert found[1] > begun
    assert found[-1] == pytest.approx(exact, rel=1e-3)


def test_its_gradient_is_that_of_the_normalized_weight() -> None:
    """And two passes may come before both their gradients, as in a step."""
    layer = SpectralConv2d(2, 3, 1).double()
    for _ in range(200):
        layer.settle()
    x, y = (torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(n)).double() for n in (0, 1))
    (layer(x).square().sum() + layer(y).square().sum()).backward()
    weight = layer.weight.detach().clone().requires_grad_()
    normal = weight / torch.linalg.matrix_norm(weight.flatten(1), 2)
    sum(nn.functional.conv2d(each, normal, layer.bias).square().sum() for each in (x, y)).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-6, atol=1e-9)


def test_names_are_those_without_it_and_published_files_load() -> None:
    plain, network = made(spectral=False, seed=5), made()
    own = network.state_dict().keys()
    assert {name for name in own if not name.endswith("weight_u")} == plain.state_dict().keys()
    load_published(network, plain.state_dict())
    for layer, given in zip(
        convolutions(network), (each for each in plain.modules() if isinstance(each, nn.Conv2d)), strict=True
    ):
        assert torch.equal(layer.weight, given.weight)
        torch.testing.assert_close(estimated_norm(layer), exact_norm(given), rtol=0.05, atol=0)
    load_published(plain, network.state_dict())
    lacking = dict(list(plain.state_dict().items())[1:])
    with pytest.raises(WeightsError, match="lacks"):
        load_published(network, lacking)


def test_vectors_that_were_saved_are_taken_as_they_are() -> None:
    one, two = made(seed=1), made(seed=2)
    one.train()(torch.zeros(1, 3, 16, 16))
    state = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    for strict in (True, False):
        start_networks({"D": two}, {"D": state}, strict=strict)
        assert all(torch.equal(tensor, state[name]) for name, tensor in two.state_dict().items())


def test_layers_of_a_published_file_are_taken() -> None:
    plain, network = made(spectral=False, seed=5), made()
    (note,) = start_networks({"D": network}, {"D": plain.state_dict()}, strict=False)
    assert note == "D: 3 of 3 layers taken"
    for name, tensor in plain.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_it_is_an_option_of_the_training() -> None:
    small = {"generator_channels": 1, "discriminator_channels": 2, "discriminator": "pixel", "norm": "none"}
    training = CycleGANTraining(CycleGANOptions(**small, spectral_norm=True))  # type: ignore[arg-type]
    assert [len(convolutions(each)) for each in training.discriminators.values()] == [3, 3]
    assert not any(convolutions(each) for each in training.generators.values())
    plain = CycleGANTraining(CycleGANOptions(**small))  # type: ignore[arg-type]
    assert not any(convolutions(each) for each in plain.discriminators.values())
