"""Modulated and equalized layers against their formulas, and against the faults such layers are known for.

Each of these faults is written out below, and the check that our layers pass is shown to find it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.export import Dim, export

from nst.errors import OptionError
from nst.ops import Blur, EqualizedConv2d, EqualizedLinear, ModulatedConv2d, PixelNorm
from nst.ops.equalized import draw_parameters
from nst.ops.modulated import Form

FORMS = get_args(Form)
RESAMPLES: dict[str, dict[str, bool]] = {"same": {}, "up": {"up": True}}
MODES = list(itertools.product(RESAMPLES, (1, 3, 5), ("reflect", "zero")))


def layer(
    mode: tuple[str, int, str], form: Form = "scaled", inputs: int = 3, outputs: int = 4
) -> ModulatedConv2d:
    """Of latents of length 5, in float64, with a bias that is not zero."""
    resample, kernel, padding = mode
    made = ModulatedConv2d(inputs, outputs, 5, kernel, form=form, padding=padding, **RESAMPLES[resample])  # type: ignore[arg-type]
    draw_parameters(made, torch.Generator().manual_seed(4))
    with torch.no_grad():
        made.bias.copy_(torch.arange(outputs))
    return made.double()


def given(count: int = 2, channels: int = 3, side: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, channels, side, side + 2, generator=generator, dtype=torch.float64)
    return x, torch.randn(count, 5, generator=generator, dtype=torch.float64)


# Formulas


def by_hand(own: ModulatedConv2d, x: Tensor, latents: Tensor) -> Tensor:
    """One image after the other."""
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    found = []
    for image, latent in zip(x, latents, strict=True):
        s = 1 + own.affine.weight @ latent / 5**0.5 + own.affine.bias
        outputs, inputs, k, _ = own.weight.shape
        weight = own.weight / (inputs * k * k) ** 0.5 * s[:, None, None]
        if k > 1:
            weight = torch.stack([each / (each.square().sum() + 1e-8).sqrt() for each in weight])

        def blurred(y: Tensor) -> Tensor:
            kernel = torch.outer(line, line).expand(len(y), 1, 3, 3)
            return F.conv2d(F.pad(y[None], (1, 1, 1, 1), mode="reflect"), kernel, groups=len(y))[0]

        y = image
        if own.up:
            y = y.repeat_interleave(2, 1).repeat_interleave(2, 2)
        rim = (k // 2,) * 4
        y = (
            F.pad(y[None], rim, mode="reflect" if own.padding == "reflect" else "constant")
            if k > 1
            else y[None]
        )
        y = F.conv2d(y, weight)[0]
        if own.up:
            y = blurred(y)
        assert len(y) == outputs
        found.append(y + own.bias[:, None, None])
    return torch.stack(found)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_both_forms_are_the_formula(mode: tuple[str, int, str]) -> None:
    x, latents = given()
    grouped, scaled = (layer(mode, form) for form in FORMS)
    one, other = grouped(x, latents), scaled(x, latents)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    torch.testing.assert_close(one, by_hand(grouped, x, latents), rtol=0, atol=1e-12)
    grads = [
        torch.autograd.grad(out.pow(2).sum(), list(own.parameters()))
        for own, out in ((grouped, one), (scaled, other))
    ]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_one_latent_is_every_images(mode: tuple[str, int, str], form: Form) -> None:
    x, latents = given(3)
    own = layer(mode, form)
    expected = own(x, latents[:1].expand(3, -1))
    torch.testing.assert_close(own(x, latents[:1]), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "form", [FORMS[0], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[1:])]
)
@pytest.mark.parametrize("resample", RESAMPLES)
def test_modulated_convolutions_are_twice_differentiable(form: Form, resample: str) -> None:
    for kernel, padding in ((3, "reflect"), (3, "zero"), (1, "zero")):
        own = layer((resample, kernel, padding), form, 2, 1)
        x, latents = given(2, 2, 2)
        x, latents = x[..., :2].clone().requires_grad_(), latents.requires_grad_()

        def call(x: Tensor, latents: Tensor, weight: Tensor, own: nn.Module = own) -> Tensor:
            out: Tensor = torch.func.functional_call(own, {"weight": weight}, (x, latents))
            return out

        weight = next(each for name, each in own.named_parameters() if name == "weight")
        values = (x, latents, weight.detach().clone().requires_grad_())
        assert gradcheck(call, values)
        assert gradgradcheck(call, values)


@pytest.mark.parametrize(
    ("own", "shape"),
    [
        (PixelNorm(), (2, 3, 2, 2)),
        (PixelNorm(), (3, 4)),
        (EqualizedLinear(3, 2), (2, 3)),
        (EqualizedConv2d(2, 3), (2, 2, 3, 3)),
        (EqualizedConv2d(2, 1, 4, stride=2, padding="zero"), (1, 2, 4, 4)),
        (nn.Sequential(Blur(), EqualizedConv2d(2, 1, 3, stride=2)), (1, 2, 4, 4)),
    ],
    ids=str,
)
def test_other_layers_are_twice_differentiable(own: nn.Module, shape: tuple[int, ...]) -> None:
    own = copy.deepcopy(own).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert gradcheck(own, x)
    assert gradgradcheck(own, x)


def test_equalized_layers_are_their_formulas() -> None:
    linear = EqualizedLinear(50, 2000).requires_grad_(False)
    x = torch.randn(64, 50)
    assert not linear.bias.any()
    assert abs(float(linear(x).std()) - 1) < 0.05
    linear.bias += 0.7
    expected = x @ (linear.weight / 50**0.5).T + 0.7
    torch.testing.assert_close(linear(x), expected, rtol=1e-4, atol=1e-4)
    conv = EqualizedConv2d(30, 200).requires_grad_(False)
    x = torch.randn(2, 30, 12, 12)
    weight = conv.weight / (30 * 9) ** 0.5
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, conv.bias)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)
    assert abs(float(conv(x).std()) - 1) < 0.1
    assert EqualizedConv2d(1, 1, 3, stride=2)(torch.zeros(1, 1, 7, 6)).shape == (1, 1, 4, 3)
    assert EqualizedConv2d(1, 1, 4, stride=2)(torch.zeros(1, 1, 8, 6)).shape == (1, 1, 4, 3)
    normed = PixelNorm()(torch.randn(3, 7, 2, 2))
    torch.testing.assert_close(normed.square().mean(1), torch.ones(3, 2, 2))


def test_demodulation_keeps_the_variance_whatever_the_latent() -> None:
    own = ModulatedConv2d(64, 64, 5).requires_grad_(False)
    x = torch.randn(4, 64, 16, 16)
    out = own(x, 3 * torch.randn(4, 5))
    assert (out.std((1, 2, 3)) - 1).abs().max() < 0.1


def test_parameters_are_drawn_from_the_given_stream() -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        own = nn.Sequential(ModulatedConv2d(2, 3, 4), EqualizedLinear(4, 4), EqualizedConv2d(3, 3))
        draw_parameters(own, torch.Generator().manual_seed(seed))
        return own.state_dict()

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [name for name in first if name.endswith("weight")]
    assert len(weights) == 4
    assert not any(torch.equal(first[name], other[name]) for name in weights)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ModulatedConv2d(1, 1, 1, form="joined"), "form = 'joined'.*grouped, scaled"),  # type: ignore[arg-type]
        (lambda: ModulatedConv2d(1, 1, 1, padding="mirror"), "padding = 'mirror'.*reflect, zero"),  # type: ignore[arg-type]
        (lambda: ModulatedConv2d(1, 1, 1, 4), "kernel = 4: must be odd"),
        (lambda: ModulatedConv2d(0, 1, 1), "inputs = 0"),
        (lambda: EqualizedConv2d(1, 1, padding="same"), "padding = 'same'.*reflect, zero"),  # type: ignore[arg-type]
        (lambda: EqualizedConv2d(1, 1, stride=0), "stride = 0"),
        (lambda: EqualizedLinear(1, 0), "outputs = 0"),
    ],
)
def test_bad_options_name_option_value_and_choices(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make()


# Uses


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("given_in", [torch.float32, torch.bfloat16])
def test_bfloat16_forward_and_backward(form: Form, resample: str, kernel: int, given_in: torch.dtype) -> None:
    """Under autocast, of float32 or of what a layer before it made of that."""
    own = layer((resample, kernel, "reflect"), form).float()
    x, latents = (each.float() for each in given())
    expected = own(x, latents)
    x = x.to(given_in).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = own(x, latents.to(given_in))
        found.float().square().sum().backward()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    assert x.grad is not None
    assert x.grad.dtype == given_in
    for parameter in own.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
    whole = copy.deepcopy(own).bfloat16()
    out = whole(x.detach().bfloat16(), latents.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("own", [PixelNorm(), EqualizedLinear(3, 4), EqualizedConv2d(3, 4)], ids=str)
def test_other_layers_run_in_bfloat16(own: nn.Module) -> None:
    own = copy.deepcopy(own)
    x = torch.randn(2, 3) if isinstance(own, EqualizedLinear) else torch.randn(2, 3, 4, 4)
    for dtype in (torch.float32, torch.bfloat16):
        leaf = x.to(dtype, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = own(leaf)
            out.float().square().sum().backward()
        torch.testing.assert_close(out.float(), own(x), rtol=0.05, atol=0.05)
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("form", FORMS)
def test_exported_once_runs_batches_of_1_to_64(form: Form, resample: str) -> None:
    batch = Dim("batch", min=1, max=64)
    own = layer((resample, 3, "reflect"), form)
    for one_latent in (False, True):
        x, latents = given(3)
        latents = latents[:1] if one_latent else latents
        shapes = ({0: batch}, None if one_latent else {0: batch})
        program = export(own, (x, latents), dynamic_shapes=shapes).module()
        for count in (1, 2, 5, 64):
            x, latents = given(count)
            latents = latents[:1] if one_latent else latents
            torch.testing.assert_close(program(x, latents), own(x, latents), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("resample", RESAMPLES)
def test_a_layer_that_was_used_can_be_copied(form: Form, resample: str) -> None:
    own = layer((resample, 3, "reflect"), form)
    x, latents = given()
    out = own(x, latents)
    out.sum().backward()
    twin = copy.deepcopy(own)
    assert torch.equal(twin(x, latents), out)
    with torch.no_grad():
        own.weight.zero_()
    assert torch.equal(twin(x, latents), out)


# Known faults: each check, and a layer that has the fault


class Faulty(nn.Module):
    """A modulated convolution as it is often written, with one fault."""

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int, fault: str, *, up: bool = False) -> None:
        super().__init__()
        self.fault, self.up = fault, up
        self.affine = nn.Linear(5, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        blurred = inputs if fault == "blur of the inputs" else outputs
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(line, line).expand(blurred, 1, 3, 3).clone()
        if fault == "float32 kernel":  # an attribute that nothing casts
            self._kernel = kernel
        else:
            self.register_buffer("kernel", kernel, persistent=fault == "buffers that are saved")

    def blurred(self, x: Tensor) -> Tensor:
        kernel = self._kernel if self.fault == "float32 kernel" else self.kernel.to(x.dtype)
        with torch.autocast("cpu", enabled=False):
            if self.fault == "zeros around the blur":
                return F.conv2d(x, kernel, padding=1, groups=len(kernel))
            return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=len(kernel))

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        s = 1 + self.affine(latents)
        weight = self.weight * s[:, None, :, None, None]
        weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        count = len(latents) if self.fault == "as many latents as images" else len(x)
        if self.fault != "as many latents as images":
            weight = weight.expand(count, -1, -1, -1, -1)
        if self.up:
            x = F.interpolate(x, scale_factor=2.0)
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        joined = x.view(1, -1, *x.shape[2:]) if self.fault == "view" else x.reshape(1, -1, *x.shape[2:])
        if self.fault == "as many latents as images":
            # The rest of the images is silently taken for more channels, or dropped.
            joined = joined[:, : count * self.weight.shape[1]]
        out = F.conv2d(joined, weight.flatten(0, 1).to(x.dtype), groups=count)
        out = out.reshape(count, -1, *out.shape[2:])
        if self.up:
            out = self.blurred(out)
        return out


Maker = Callable[..., nn.Module]
"""Inputs, outputs, up to a layer of latents of length 5."""


def check_channels_may_differ(make: Maker) -> None:
    for resample in RESAMPLES.values():
        for inputs, outputs in ((3, 4), (4, 3), (1, 5)):
            out = make(inputs, outputs, **resample)(torch.randn(2, inputs, 8, 8), torch.randn(2, 5))
            assert out.shape[:2] == (2, outputs)


def check_channels_last(make: Maker) -> None:
    for resample in RESAMPLES.values():
        own = make(3, 4, **resample)
        x, latents = torch.randn(2, 3, 8, 8), torch.randn(2, 5)
        plain = own(x, latents)
        own = own.to(memory_format=torch.channels_last)
        leaf = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        found = own(leaf, latents)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
        found.square().sum().backward()
        assert leaf.grad is not None


def check_latents_are_counted(make: Maker) -> None:
    own = make(3, 4)
    for images, latents in ((4, 2), (2, 3), (1, 2), (6, 4)):
        with pytest.raises(
            ValueError, match=rf"latents are \({latents}, 5\): expected \({images}, 5\) or \(1, 5\)"
        ):
            own(torch.randn(images, 3, 8, 8), torch.randn(latents, 5))
    for shape in ((5,), (2, 4), (2, 5, 1)):
        with pytest.raises(ValueError, match="latents are"):
            own(torch.randn(2, 3, 8, 8), torch.randn(shape))


def check_only_parameters_are_saved(make: Maker) -> None:
    for resample in RESAMPLES.values():
        own = make(3, 4, **resample)
        assert set(own.state_dict()) == {name for name, _ in own.named_parameters()}


def check_bfloat16(make: Maker) -> None:
    for resample in RESAMPLES.values():
        own = make(3, 4, **resample)
        with torch.autocast("cpu", torch.bfloat16):
            out = own(torch.randn(2, 3, 8, 8).bfloat16(), torch.randn(2, 5))
        assert out.dtype == torch.bfloat16


def check_a_constant_stays_one(make: Maker) -> None:
    """Up to the border."""
    for resample in RESAMPLES.values():
        own = make(3, 4, **resample)
        out = own(torch.full((2, 3, 8, 8), 0.7), torch.randn(2, 5))
        torch.testing.assert_close(out, out[..., 3:4, 3:4].expand_as(out), rtol=0, atol=1e-5)


FAULTS: dict[str, tuple[Callable[[Maker], None], type[BaseException], str]] = {
    "blur of the inputs": (check_channels_may_differ, RuntimeError, "expected input.* to have"),
    "view": (check_channels_last, RuntimeError, "view size is not compatible"),
    "as many latents as images": (check_latents_are_counted, BaseException, "DID NOT RAISE"),
    "buffers that are saved": (check_only_parameters_are_saved, AssertionError, "kernel"),
    "float32 kernel": (check_bfloat16, RuntimeError, "same dtype|type"),
    "zeros around the blur": (check_a_constant_stays_one, AssertionError, "not close"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_finds_the_fault(fault: str) -> None:
    check, error, said = FAULTS[fault]

    def faulty(inputs: int, outputs: int, **resample: bool) -> nn.Module:
        return Faulty(inputs, outputs, fault, **resample)

    with pytest.raises(error, match=said):
        check(faulty)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", FORMS)
def test_ours_has_not_the_fault(fault: str, form: Form) -> None:
    def ours(inputs: int, outputs: int, **resample: Any) -> nn.Module:
        return ModulatedConv2d(inputs, outputs, 5, form=form, **resample)

    FAULTS[fault][0](ours)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "as many latents as images"])
def test_the_faulty_layer_passes_without_its_fault(fault: str) -> None:
    """So that a check fails by the fault, and not by how the layer is written. (Latents it never counts.)"""
    FAULTS[fault][0](lambda inputs, outputs, **more: Faulty(inputs, outputs, "none", **more))
