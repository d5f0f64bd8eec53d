"""Files of generators as others save them: read without being told what they are."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from nst.cyclegan.method import CycleGAN, GeneratorConfig
from nst.cyclegan.recognize import recognized_options
from nst.errors import WeightsError
from nst.features import read_state_dict
from nst.features.weights import plain_names
from nst.stylizer import Stylized
from tests.nst.test_cyclegan import CPU, small
from tests.nst.test_style_transfer import pictures


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


RESNETS = [
    {"generator": generator, "norm": norm, "padding": padding, "dropout": dropout, "upsample": upsample}
    for generator, norm, padding, dropout, upsample in product(
        ("resnet_9blocks", "resnet_6blocks"),
        ("instance", "batch", "none"),
        ("reflect", "zero"),
        (False, True),
        ("transposed", "blur"),
    )
]
UNETS = [
    {"generator": generator, "norm": norm}
    for generator, norm in product(("unet_256", "unet_128"), ("instance", "batch", "none"))
]


@pytest.mark.parametrize(
    "options", [*RESNETS, *UNETS], ids=lambda options: "-".join(map(str, options.values()))
)
def test_parameters_tell_what_generator_they_are_of(options: dict[str, Any]) -> None:
    config = GeneratorConfig(channels=3, **options)
    with torch.device("meta"):
        state = config.build().state_dict()
    assert GeneratorConfig(**recognized_options(state)) == config  # type: ignore[arg-type]


def test_old_files_with_statistics_of_instance_norms_are_of_instance_norms() -> None:
    with torch.device("meta"):
        state = GeneratorConfig(generator="resnet_6blocks", channels=2).build().state_dict()
    state |= {"model.2.running_mean": torch.zeros(2), "model.2.running_var": torch.ones(2)}
    assert recognized_options(state)["norm"] == "instance"


def test_of_other_networks_nothing_is_told() -> None:
    for network in (nn.Conv2d(3, 3, 1), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), nn.Identity()):
        assert recognized_options({f"model.{name}": each for name, each in network.state_dict().items()}) == {}


@pytest.mark.parametrize("options", [{}, {"norm": "batch", "padding": "zero", "dropout": True}], ids=str)
def test_a_file_is_read_without_options(options: dict[str, Any]) -> None:
    network, _ = small(channels=3, **options)
    (image,) = pictures((24, 32))
    expected = (network.eval()(2 * image[None] - 1).detach() + 1) / 2
    for data in (saved(network.state_dict()), safetensors.torch.save(network.state_dict())):
        (outcome,) = CycleGAN(weights="w").build({"w": data}, CPU)([image], [torch.Generator()])
        assert isinstance(outcome, Stylized)
        torch.testing.assert_close(outcome.image[None], expected)


def test_options_go_before_what_parameters_show() -> None:
    """`replicate` is what they cannot show."""
    network, _ = small(padding="replicate")
    (image,) = pictures((24, 32))
    data = saved(network.state_dict())
    (outcome,) = CycleGAN(weights="w", padding="replicate").build({"w": data}, CPU)(
        [image], [torch.Generator()]
    )
    assert isinstance(outcome, Stylized)
    torch.testing.assert_close(outcome.image[None], (network.eval()(2 * image[None] - 1).detach() + 1) / 2)
    with pytest.raises(WeightsError, match=r"model\.1\.weight is \(4, .*it was read as .*channels = 5"):
        CycleGAN(weights="w", channels=5).build({"w": data}, CPU)


def test_a_generator_that_is_not_known_is_said() -> None:
    state = small()[0].state_dict()
    shorter = {name: each for name, each in state.items() if ".15." not in name}
    with pytest.raises(
        WeightsError, match=r"w is of another generator: generator = 'resnet_5blocks'.*resnet_9blocks"
    ):
        CycleGAN(weights="w").build({"w": saved(shorter)}, CPU)


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "data-parallel": lambda state: {f"module.{name}": each for name, each in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": each for name, each in state.items()},
    "both": lambda state: {f"module._orig_mod.{name}": each for name, each in state.items()},
    "a part compiled": lambda state: {
        name.replace("model.", "model._orig_mod."): e for name, e in state.items()
    },
    "checkpoint": lambda state: {"epoch": 3, "state_dict": state, "arch": "resnet"},
    "checkpoint, data-parallel": lambda state: {
        "state_dict": {f"module.{name}": e for name, e in state.items()}
    },
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_wraps_networks_is_left_out(name: str) -> None:
    state = small()[0].state_dict()
    wrapped = WRAPPED[name](dict(state))
    found = read_state_dict(saved(wrapped))
    assert list(found) == list(state)
    assert all(torch.equal(found[key], each) for key, each in state.items())
    assert CycleGAN(weights="w").build({"w": saved(wrapped)}, CPU)
    if "state_dict" not in wrapped:
        assert read_state_dict(safetensors.torch.save(wrapped)).keys() == state.keys()


def test_a_module_that_is_called_so_keeps_its_name() -> None:
    names = {"module.weight": torch.zeros(1), "bias": torch.zeros(1)}
    assert plain_names(names) == names
    assert plain_names({}) == {}


REFUSED: dict[str, tuple[Any, str]] = {
    "a module": (nn.Sequential(nn.Conv2d(3, 3, 1)), "torch.nn.modules.container.Sequential"),
    "a module in a checkpoint": ({"netG": nn.Conv2d(3, 3, 1)}, "torch.nn.modules.conv.Conv2d"),
    "options": ({"opt": argparse.Namespace(lr=1.0), "state_dict": {}}, "argparse.Namespace"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pickled_objects_are_refused_in_a_sentence(name: str) -> None:
    value, told = REFUSED[name]
    with pytest.raises(WeightsError) as caught:
        CycleGAN(weights="w").build({"w": saved(value)}, CPU)
    text = str(caught.value)
    assert text == (
        f"a pickle with more in it than tensors ({told}), such as a whole module, which may run any code "
        f"when it is read; save the state dict instead: torch.save(network.state_dict(), path)"
    )


@pytest.mark.parametrize("generator", ["resnet_6blocks", "unet_128"])
def test_gray_images_are_told_too(generator: str) -> None:
    for ends in ((1, 3), (3, 1), (1, 1)):
        config = GeneratorConfig(
            generator=generator, channels=2, input_channels=ends[0], output_channels=ends[1]
        )
        with torch.device("meta"):
            state = config.build().state_dict()
        assert GeneratorConfig(**recognized_options(state)) == config  # type: ignore[arg-type]
    state["model.1.weight"] = torch.zeros(2, 4, 7, 7)
    if generator == "resnet_6blocks":
        with pytest.raises(WeightsError, match=r"another generator: input_channels = 4: .*Choices: 1, 3"):
            CycleGAN(weights="w").build({"w": saved({"model.1.weight": state["model.1.weight"]})}, CPU)
