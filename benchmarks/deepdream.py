"""DeepDream's CPU time against plain transcriptions of the published procedure, at equal pictures.

Both dream one photograph at a time. plain, as many notebooks do: torchvision's classifier runs as a whole, a
hook takes the layer, its parameters want gradients too, and `backward` gives them. cut: the network ends with
the layer, and the gradient is the picture's alone. Ours is the library as it comes. All get the same
parameters, photographs, and streams of jitter, and take turns, after a round to warm up; one thread.

VGG16 or VGG19 from the state dict `--weights` (or the file that NST_PRETRAINED names, where it is there), whose
classifier may be missing; else resnet50 with calibrated random parameters.

    python -m benchmarks.deepdream [--weights FILE] [--photos 3] [--side 256] [--steps 5] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.weights import add_weights, plain_vgg, weights_name
from jobs.demo import sample_photographs
from nst.deepdream.method import DeepDream
from nst.features.layers import layer_names
from nst.features.seeded import seed_parameters
from nst.images.codec import decode_image
from nst.stylizer import Outcome, Stylized
from reference.deepdream import deepdream, jitter_shifts
from reference.style_transfer import MEAN, STD

FILES = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")
OCTAVES, OCTAVE_SCALE, STEP_SIZE, JITTER_PX = 4, 1.4, 1.5 / 255, 32
EQUAL_STEPS, EQUAL = 2, 1e-4
Dream = Callable[["Network", Tensor, int, int], Tensor]
"""Of a network, a photograph (3, H, W), a seed and steps per octave."""


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    model: nn.Module
    layer: str
    module: str
    """Of `model`, what gives `layer`."""


def loaded(weights: str | None) -> Network:
    """As torchvision has it."""
    if weights is None:
        return Network("resnet50", classifier(), "layer3", "layer3")
    name, cnn = plain_vgg(weights)
    layer = "relu5_1"
    return Network(name, cnn.requires_grad_(True), layer, str(layer_names(name).index(layer)))


def classifier() -> nn.Module:
    """resnet50 with random parameters as ours are."""
    from torchvision.models.resnet import Bottleneck, resnet50

    model: nn.Module = resnet50(weights=None).eval()
    for block in model.modules():
        if isinstance(block, Bottleneck):
            nn.init.constant_(block.bn3.weight, 0.5)
    seed_parameters(model, 0)
    return model


def plain(network: Network, photo: Tensor, seed: int, steps: int) -> Tensor:
    """The published procedure for (3, H, W)."""
    found: list[Tensor] = []
    model = network.model
    stage = model.get_submodule(network.module)
    hook = stage.register_forward_hook(lambda _module, _inputs, output: found.append(output))

    def layer(images: Tensor) -> Tensor:
        model(images)
        return found.pop()

    def gradient(loss: Tensor, image: Tensor) -> Tensor:
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert image.grad is not None
        return image.grad

    try:
        return procedure(layer, photo, seed, steps, gradient=gradient)
    finally:
        hook.remove()


def cut(network: Network, photo: Tensor, seed: int, steps: int) -> Tensor:
    """The same, of what is needed."""
    layers: list[nn.Module] = []
    for name, layer in network.model.named_children():
        layers.append(layer)
        if name == network.module:
            break
    return procedure(nn.Sequential(*layers), photo, seed, steps)


def procedure(layer: Callable[[Tensor], Tensor], photo: Tensor, seed: int, steps: int, **more: Any) -> Tensor:
    def energy(images: Tensor) -> Tensor:
        return layer((images - MEAN.to(images)) / STD.to(images)).square().sum() / 2

    return deepdream(
        energy,
        photo[None],
        jitter_shifts(seed, OCTAVES * steps, JITTER_PX),
        octaves=OCTAVES,
        octave_scale=OCTAVE_SCALE,
        steps=steps,
        step_size=STEP_SIZE,
        **more,
    )[0]


def image_of(outcome: Outcome) -> Tensor:
    if not isinstance(outcome, Stylized):
        raise outcome
    return outcome.image


def timed(work: Callable[[], Tensor]) -> float:
    """CPU seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_weights(parser)
    parser.add_argument("--photos", type=int, default=3, choices=range(1, len(FILES) + 1))
    parser.add_argument("--side", type=int, default=256, help="long side in pixels")
    parser.add_argument("--steps", type=int, default=5, help="per octave")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = loaded(arguments.weights)
    model, prefix = network.model, "" if network.name == "resnet50" else "features."
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    print(f"{network.name}, {network.layer}, {arguments.weights or 'random parameters'}")

    def ours(photo: Tensor, seed: int, steps: int) -> Callable[[], Tensor]:
        """In the photograph's precision."""
        method = DeepDream(
            network=network.name,
            weights="seeded" if arguments.weights is None else "file",
            layers={network.layer: 1.0},
            octaves=OCTAVES,
            octave_scale=OCTAVE_SCALE,
            steps=steps,
            step_size=STEP_SIZE,
            jitter_px=JITTER_PX,
        )
        stylizer = method.build_from(state, torch.device("cpu"))
        stylizer.objective.network.to(photo.dtype)
        return lambda: image_of(*stylizer([photo], [torch.Generator().manual_seed(seed)]))

    theirs: dict[str, Dream] = {"plain": plain, "cut": cut}
    print(f"{'photo':16}" + "".join(f" {who:>8} {'over ours':>9}" for who in theirs) + f" {'ours':>8}")
    print(f"{'':16} CPU seconds")
    ratios: dict[str, list[float]] = {who: [] for who in theirs}
    differences = []
    for seed, file in enumerate(FILES[: arguments.photos]):
        photo = decode_image((sample_photographs() / file).read_bytes(), max_side_px=arguments.side)
        model.double()
        # Folded, batch norms round otherwise, of which a random network makes differences that are seen.
        with patch("nst.features.networks.fold_batch_norms", lambda _: None):
            mine = ours(photo.double(), seed, EQUAL_STEPS)()
        differences += [
            float((mine - dream(network, photo.double(), seed, EQUAL_STEPS)).abs().max())
            for dream in theirs.values()
        ]
        if max(differences) > EQUAL:
            raise SystemExit(f"{file}: pictures differ by {max(differences):.2g}: --side leaves out an octave")
        model.float()
        dreams: dict[str, Callable[[], Tensor]] = {
            who: partial(dream, network, photo, seed, arguments.steps) for who, dream in theirs.items()
        }
        dreams["ours"] = ours(photo, seed, arguments.steps)
        for number in range(1 + arguments.rounds):
            seconds = {who: timed(work) for who, work in dreams.items()}
            if number == 0:  # memory is mapped, and kernels are made
                continue
            line = f"{Path(file).stem:16}"
            for who, found in ratios.items():
                found.append(seconds[who] / seconds["ours"])
                line += f" {seconds[who]:8.2f} {found[-1]:9.2f}"
            print(f"{line} {seconds['ours']:8.2f}", flush=True)
    print(
        json.dumps(
            {
                "weights": weights_name(arguments.weights),
                "cost_ratio": round(statistics.median(ratios["plain"]), 3),
                "cost_ratio_cut": round(statistics.median(ratios["cut"]), 3),
                "max_pixel_difference": max(differences),
            }
        )
    )


if __name__ == "__main__":
    main()
