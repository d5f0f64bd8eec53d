"""What one evaluation of loss and gradient costs: ours against a plain transcription of the tutorial's way.

The transcription runs the whole network and one backward pass per loss. Both presets, VGG19 with the same
random parameters, one photograph, CPU time of one thread.

    python -m benchmarks.style_transfer_step [--side 256] [--rounds 7]
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
from torch import Tensor

from benchmarks.transcriptions import backward_by_loss, gatys_losses, state_of, tutorial_losses, vgg19
from nst.features import build_features
from nst.style_objective import StyleObjective
from nst.style_transfer import PRESETS

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


def ours(preset: str, photo: Tensor, style: Tensor, point: Tensor) -> Step:
    options = losses_of(preset)
    layers = [*options["content_layers"], *options["style_layers"]]
    network = build_features("vgg19", layers, state=state_of(vgg19()), pooling=PRESETS[preset]["pooling"])
    objective = StyleObjective(network, style, **options)
    targets = objective.targets(photo)

    def step() -> tuple[float, Tensor]:
        (evaluation,) = objective.evaluate([point], [targets])
        return evaluation.losses["loss"], evaluation.grad

    return step


def transcription(preset: str, photo: Tensor, style: Tensor, point: Tensor) -> Step:
    if preset == "tutorial":
        losses = tutorial_losses(vgg19(), photo[None], style[None], weight=1000.0)
    else:
        losses = gatys_losses(vgg19(), photo[None], style[None], alpha=1.0, beta=1e3)

    def step() -> tuple[float, Tensor]:
        loss, grad = backward_by_loss(losses, point[None])
        return loss, grad[0]

    return step


def cpu_seconds(step: Step) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    photo, style, point = pictures(arguments.side)
    ratios: dict[str, float] = {}
    worst = 0.0
    print(
        f"{'preset':10} {'ours s':>8} {'plain s':>8} {'ratio':>6} {'spread':>13} "
        f"{'loss diff':>10} {'grad diff':>10}"
    )
    for preset in ("tutorial", "gatys"):
        steps = [make(preset, photo, style, point) for make in (ours, transcription)]
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
    print(
        json.dumps(
            {
                "cost_ratio_tutorial": round(ratios["tutorial"], 3),
                "cost_ratio_gatys": round(ratios["gatys"], 3),
                "max_loss_difference": worst,
            }
        )
    )


if __name__ == "__main__":
    main()
