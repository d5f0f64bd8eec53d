"""What one evaluation of loss and gradient costs: ours against a plain transcription of the tutorial's way.

The transcription runs the whole network and one backward pass per loss. Both presets with the same parameters,
one photograph, CPU time of one thread. Then the default preset, with its Wasserstein loss over the same with
Gram matrices.

VGG16 or VGG19 from the state dict `--weights` (or the file that NST_PRETRAINED names, where it is there), else
VGG19 with random parameters.

    python -m benchmarks.style_transfer_step [--weights FILE] [--side 256] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.weights import add_weights, plain_vgg, weights_name
from nst.features import build_features
from nst.style_transfer.objective import StyleObjective
from nst.style_transfer.options import ObjectiveOptions
from nst.style_transfer.presets import PRESETS
from reference.style_transfer import backward_by_loss, gatys_losses, published_state, tutorial_losses

Step = Callable[[], tuple[float, Tensor]]


def pictures(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photograph, style, and a point between, (3, side, side): smooth and colorful."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 9, 9, generator=generator)
    photo, style = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1)
    return photo, style, (0.8 * photo + 0.2 * style)


def losses_of(preset: str) -> dict[str, Any]:
    """The options of a preset that make up its loss."""
    others = ("pooling", "coarse_scales", "coarse_steps", "steps", "border_px")
    return {name: value for name, value in PRESETS[preset].items() if name not in others}


def ours(
    preset: str, name: str, cnn: nn.Sequential, photo: Tensor, style: Tensor, point: Tensor, **others: Any
) -> Step:
    options = losses_of(preset) | others
    layers = [*options["content_layers"], *options["style_layers"]]
    network = build_features(name, layers, state=published_state(cnn), pooling=PRESETS[preset]["pooling"])
    objective = StyleObjective(network, style, ObjectiveOptions(**options))
    targets = objective.targets(photo)

    def step() -> tuple[float, Tensor]:
        (evaluation,) = objective.evaluate([point], [targets])
        return evaluation.losses["loss"], evaluation.grad

    return step


def transcription(preset: str, cnn: nn.Sequential, photo: Tensor, style: Tensor, point: Tensor) -> Step:
    if preset == "tutorial":
        losses = tutorial_losses(cnn, photo[None], style[None], weight=1000.0)
    else:
        losses = gatys_losses(cnn, photo[None], style[None], alpha=1.0, beta=1e3)

    def step() -> tuple[float, Tensor]:
        loss, grad = backward_by_loss(losses, point[None])
        return loss, grad[0]

    return step


def cpu_seconds(step: Step) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_weights(parser)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name, cnn = plain_vgg(arguments.weights)
    photo, style, point = pictures(arguments.side)
    print(f"{name}, {arguments.weights or 'random parameters'}")
    ratios: dict[str, float] = {}
    worst = 0.0
    print(
        f"{'preset':10} {'ours s':>8} {'plain s':>8} {'ratio':>6} {'spread':>13} "
        f"{'loss diff':>10} {'grad diff':>10}"
    )
    for preset in ("tutorial", "gatys"):
        steps = [
            ours(preset, name, cnn, photo, style, point),
            transcription(preset, cnn, photo, style, point),
        ]
        (loss, grad), (plain_loss, plain_grad) = (step() for step in steps)  # also the warm-up
        loss_difference = abs(loss - plain_loss) / abs(plain_loss)
        grad_difference = float((grad - plain_grad).norm() / plain_grad.norm())
        worst = max(worst, loss_difference)
        pairs = [tuple(cpu_seconds(step) for step in steps) for _ in range(arguments.rounds)]
        each = sorted(plain / mine for mine, plain in pairs)
        ratios[preset] = statistics.median(each)
        mine, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{preset:10} {mine:8.3f} {plain:8.3f} {ratios[preset]:6.2f} {each[0]:6.2f}-{each[-1]:5.2f} "
            f"{loss_difference:10.1e} {grad_difference:10.1e}"
        )
    both = [
        ours("pretrained", name, cnn, photo, style, point, style_loss=loss) for loss in ("gram", "wasserstein")
    ]
    for step in both:
        step()
    pairs = [tuple(cpu_seconds(step) for step in both) for _ in range(arguments.rounds)]
    each = sorted(wasserstein / gram for gram, wasserstein in pairs)
    gram, wasserstein = (statistics.median(column) for column in zip(*pairs, strict=True))
    cost = statistics.median(each)
    print(
        f"\nthe default preset, {arguments.side} px: {wasserstein:.3f} s with the Wasserstein loss, {gram:.3f} "
        f"s with Gram matrices, ratio {cost:.2f} ({each[0]:.2f}-{each[-1]:.2f})"
    )
    print(
        json.dumps(
            {
                "weights": weights_name(arguments.weights),
                "cost_ratio_wasserstein_to_gram": round(cost, 3),
                "cost_ratio_tutorial": round(ratios["tutorial"], 3),
                "cost_ratio_gatys": round(ratios["gatys"], 3),
                "max_loss_difference": worst,
            }
        )
    )


if __name__ == "__main__":
    main()
