"""DeepDream's CPU time against a plain transcription of the published procedure, at equal pictures.

The baseline dreams one photograph at a time as the notebooks do: torchvision's classifier runs as a whole, a
hook takes the layer, its parameters want gradients too, and `backward` gives them. Ours is the library as it
comes. Both get the same parameters, photographs, and streams of jitter, and take turns; one thread.

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

import torch
from torch import Tensor, nn

from benchmarks.weights import add_weights, plain_vgg, weights_name
from jobs.demo import sample_photographs
from nst.deepdream.method import DeepDream
from nst.features import build_features
from nst.features.layers import layer_names
from nst.images.codec import decode_image
from nst.stylizer import Outcome, Stylized
from reference.deepdream import deepdream, jitter_shifts
from reference.style_transfer import MEAN, STD

FILES = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")
OCTAVES, OCTAVE_SCALE, STEP_SIZE, JITTER_PX = 4, 1.4, 1.5 / 255, 32
EQUAL_STEPS = 2


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
    """resnet50 with the parameters of ours, up to its last layer."""
    from torchvision.models.resnet import resnet50

    model: nn.Module = resnet50(weights=None)
    seeded = build_features("resnet50", ["logits"]).body.state_dict()
    model.load_state_dict({name: tensor.contiguous() for name, tensor in seeded.items()})
    return model.eval()


def plain(network: Network, photo: Tensor, seed: int, steps: int) -> Tensor:
    """The published procedure for (3, H, W)."""
    found: list[Tensor] = []
    model = network.model
    stage = model.get_submodule(network.module)
    hook = stage.register_forward_hook(lambda _module, _inputs, output: found.append(output))

    def energy(images: Tensor) -> Tensor:
        model((images - MEAN.to(images)) / STD.to(images))
        return found.pop().square().sum() / 2

    def gradient(loss: Tensor, image: Tensor) -> Tensor:
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert image.grad is not None
        return image.grad

    try:
        return deepdream(
            energy,
            photo[None],
            jitter_shifts(seed, OCTAVES * steps, JITTER_PX),
            octaves=OCTAVES,
            octave_scale=OCTAVE_SCALE,
            steps=steps,
            step_size=STEP_SIZE,
            gradient=gradient,
        )[0]
    finally:
        hook.remove()


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

    print(f"{'photo':16} {'plain':>8} {'ours':>8}  {'ratio':>6}  {'max difference':>14}")
    print(f"{'':16} {'CPU seconds':>17}")
    ratios, differences = [], []
    for seed, file in enumerate(FILES[: arguments.photos]):
        photo = decode_image((sample_photographs() / file).read_bytes(), max_side_px=arguments.side)
        model.double()
        theirs = plain(network, photo.double(), seed, EQUAL_STEPS)
        differences.append(float((ours(photo.double(), seed, EQUAL_STEPS)() - theirs).abs().max()))
        model.float()
        mine = ours(photo, seed, arguments.steps)
        for _ in range(arguments.rounds):
            theirs_s = timed(partial(plain, network, photo, seed, arguments.steps))
            mine_s = timed(mine)
            ratios.append(theirs_s / mine_s)
            times = f"{Path(file).stem:16} {theirs_s:8.2f} {mine_s:8.2f}"
            print(f"{times}  {ratios[-1]:6.2f}  {differences[-1]:14.2g}", flush=True)
    print(
        json.dumps(
            {
                "weights": weights_name(arguments.weights),
                "cost_ratio": round(statistics.median(ratios), 3),
                "max_pixel_difference": max(differences),
            }
        )
    )


if __name__ == "__main__":
    main()
