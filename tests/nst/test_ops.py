"""The custom autograd functions against their written definitions, twice differentiated."""

from __future__ import annotations

import copy
from functools import partial
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from nst.errors import OptionError
from nst.features import build_features
from nst.ops import Blur, ReLUBackward, blur, relu, relu_backward

KINDS = get_args(ReLUBackward)


def let_back(x: Tensor, grad: Tensor, kind: ReLUBackward) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(relu(x, kind), x, grad)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_relu_is_the_usual_one_forward(kind: ReLUBackward) -> None:
    x = torch.linspace(-3, 3, 5)
    assert relu(x, kind).tolist() == [0, 0, 0, 1.5, 3]
    assert torch.equal(relu(torch.randn(2, 3, 4), kind).signbit(), torch.zeros(2, 3, 4, dtype=torch.bool))


def test_standard_relus_gradient_is_torchs_also_at_zero() -> None:
    x = torch.cat([torch.zeros(3), torch.tensor([-0.0, float("nan")]), torch.randn(20)])
    grad = torch.randn(25)
    other = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.relu(other), other, grad)
    assert torch.equal(let_back(x, grad, "standard"), expected)
    assert let_back(torch.zeros(1), torch.ones(1), "standard").item() == 0


def test_guided_deconv_and_redirected_are_their_written_definitions() -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(6, 3, 4, 5), torch.randn(6, 3, 4, 5)
    x[1] = -x[1].abs()  # dead: nothing of it is above zero
    x[2], grad[2] = x[2], torch.where(x[2] > 0, torch.zeros_like(grad[2]), grad[2])  # alive, but no gradient
    x[3, 0, 0, 0] = 0
    zero = torch.zeros_like(grad)
    assert torch.equal(let_back(x, grad, "guided"), torch.where((x > 0) & (grad > 0), grad, zero))
    assert torch.equal(let_back(x, grad, "deconv"), torch.where(grad > 0, grad, zero))
    expected = torch.where(x > 0, grad, zero)
    for dead in (1, 2):
        expected[dead] = torch.where((x[dead] < 0) & (grad[dead] > 0), zero[dead], grad[dead])
    assert torch.equal(let_back(x, grad, "redirected"), expected)
    assert expected[1].any()


def test_a_live_sample_does_not_switch_redirection_off_for_a_dead_one() -> None:
    dead, alive, grad = -torch.ones(1, 4), torch.ones(1, 4), -torch.ones(1, 4)
    together = let_back(torch.cat([dead, alive]), torch.cat([grad, grad]), "redirected")
    assert torch.equal(together[:1], let_back(dead, grad, "redirected"))
    assert torch.equal(together[:1], grad)
    assert not let_back(dead, -grad, "redirected").any()  # which would push it lower


@pytest.mark.parametrize("kind", ["standard", "redirected"])
def test_relus_with_a_true_gradient_pass_gradcheck(kind: ReLUBackward) -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).requires_grad_()
    x.data[0, 0, 0] = 1.0
    assert gradcheck(partial(relu, backward=kind), x)
    assert gradgradcheck(partial(relu, backward=kind), x)


def network() -> nn.Module:
    return build_features("vgg16", ["relu1_1", "relu2_1"])


@pytest.mark.parametrize("kind", KINDS)
def test_relus_of_a_network_are_swapped_for_the_way_back_only(kind: ReLUBackward) -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(inplace=True))
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    with relu_backward(body, kind):
        out = body(x)
    (found,) = torch.autograd.grad(out, x, torch.ones_like(out))
    hand = relu(F.conv2d(relu(body[0](x), kind), body[2].weight, body[2].bias), kind)
    (expected,) = torch.autograd.grad(hand, x, torch.ones_like(out))
    assert torch.equal(out, body(x))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "build",
    [
        network,
        lambda: build_features("resnet50", ["layer1.0"]),
        lambda: build_features("googlenet", ["conv3"]),  # which calls a function
    ],
)
def test_a_network_is_the_same_after_an_exception(build: partial[nn.Module]) -> None:
    net = build()
    state, modules = copy.deepcopy(net.state_dict()), list(net.modules())
    x = torch.rand(1, 3, 40, 40, requires_grad=True)

    def answer() -> tuple[Tensor, Tensor]:
        out = torch.cat([each.flatten() for each in net(x).values()])
        return out, torch.autograd.grad(out.sum(), x)[0]

    before = answer()

    def fail() -> None:
        with relu_backward(net, "deconv"):
            assert torch.equal(answer()[0], before[0])
            assert not torch.equal(answer()[1], before[1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(own is known for own, known in zip(net.modules(), modules, strict=True))
    assert all("forward" not in module.__dict__ for module in modules)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(now, then) for now, then in zip(answer(), before, strict=True))


def test_only_redirected_relus_wake_a_dead_channel() -> None:
    """The objective is a channel that no position of the picture excites."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3), nn.ReLU())
    with torch.no_grad():
        body[2].bias.fill_(-100.0)
    x = torch.rand(1, 3, 9, 9, requires_grad=True)
    grads = {}
    for kind in KINDS:
        with relu_backward(body, kind):
            (grads[kind],) = torch.autograd.grad(-body(x).mean(), x)
    assert {kind for kind in KINDS if grads[kind].any()} == {"redirected"}


def test_an_unknown_relu_is_named() -> None:
    with pytest.raises(OptionError, match="redirected"):
        relu(torch.zeros(1), "leaky")  # type: ignore[arg-type]


def test_blur_is_the_binomial_and_keeps_a_constant_up_to_the_border() -> None:
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    line = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(line, line).expand(3, 1, 3, 3)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    torch.testing.assert_close(blur(x), expected, rtol=0, atol=1e-15)
    for shape in [(1, 2, 6, 5), (1, 1, 1, 1), (2, 1, 1, 8)]:
        torch.testing.assert_close(blur(torch.full(shape, 0.7)), torch.full(shape, 0.7), rtol=0, atol=1e-6)


def test_blur_is_twice_differentiable() -> None:
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(blur, x)
    assert gradgradcheck(blur, x)
    (grad,) = torch.autograd.grad(blur(x).pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert second.abs().max() > 0


def test_blur_keeps_at_most_nine_numbers_for_the_way_back() -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):  # type: ignore[func-returns-value]
        blur(torch.randn(1, 4, 32, 32, requires_grad=True))
    assert sum(each.numel() for each in kept) <= 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blur_runs_under_autocast_and_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = torch.rand(1, 2, 8, 8).to(dtype).requires_grad_()
    module = Blur()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(F.conv2d(x, torch.ones(2, 2, 1, 1)))
        out.float().square().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()
    assert blur(x).dtype == dtype
    assert not module.state_dict()
